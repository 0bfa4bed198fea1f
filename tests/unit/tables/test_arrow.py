from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from reading import until_error
from slant.errors import InputError, UsageError
from slant.tables.reader import Row, read_rows

FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["negative", "positive"], "_type": "ClassLabel"},
}
TABLE = pa.table({"text": ["a", "b", "c", None], "label": [1, 0, -1, None], "n": [1, 2, 3, 4]})


def write(path: Path, table: pa.Table, *, batch_rows: int = 2, stream: bool = True) -> Path:
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


def rows_of(path: Path, *columns: str) -> list[Row]:
    return list(read_rows(path, name=path.name, columns=columns))


def column(rows: list[Row], name: str) -> list[Any]:
    return [row.values[name] if row.values else row.problem for row in rows]


@pytest.mark.parametrize("stream", [True, False])
def test_rows_of_streams_and_files_hold_only_the_columns_asked_for(
    tmp_path: Path, stream: bool
) -> None:
    rows = rows_of(write(tmp_path / "a.arrow", TABLE, stream=stream), "text", "n")
    assert [row.values for row in rows] == [
        {"text": "a", "n": 1}, {"text": "b", "n": 2}, {"text": "c", "n": 3}, {"text": None, "n": 4}
    ]  # fmt: skip
    assert [row.number for row in rows] == [1, 2, 3, 4]
    assert json.loads(rows[0].raw) == {"text": "a", "n": 1}


def test_classes_come_as_their_names_from_the_schema(tmp_path: Path) -> None:
    info = json.dumps({"info": {"features": FEATURES}})
    table = TABLE.replace_schema_metadata({"huggingface": info})
    rows = rows_of(write(tmp_path / "a.arrow", table), "label")
    assert column(rows, "label") == ["positive", "negative", None, None]


def test_classes_come_as_their_names_from_the_file_beside(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    rows = rows_of(write(tmp_path / "a.arrow", TABLE), "label")
    assert column(rows, "label") == ["positive", "negative", None, None]


def test_a_class_without_a_name_costs_only_its_row(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    rows = rows_of(write(tmp_path / "a.arrow", pa.table({"label": [0, 2, 1]})), "label")
    assert column(rows, "label") == ["negative", "value out of range: column 'label'", "positive"]


@pytest.mark.parametrize("info", ["", "[]", "{", '{"features": 3}', '{"features": {"label": 3}}'])
def test_an_info_that_says_nothing_leaves_numbers(tmp_path: Path, info: str) -> None:
    (tmp_path / "dataset_info.json").write_text(info)
    assert column(rows_of(write(tmp_path / "a.arrow", TABLE), "label"), "label") == [1, 0, -1, None]


def test_large_batches_are_read_in_small_ones(tmp_path: Path) -> None:
    table = pa.table({"text": [str(i) for i in range(5000)]})
    rows = rows_of(write(tmp_path / "a.arrow", table, batch_rows=5000), "text")
    assert column(rows, "text") == [str(i) for i in range(5000)]
    assert [row.number for row in rows] == list(range(1, 5001))


def test_an_absent_column_is_an_error_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'txt' .*did you mean 'text'"):
        rows_of(write(tmp_path / "a.arrow", TABLE), "txt")


@pytest.mark.parametrize("stream", [True, False])
def test_a_file_that_was_cut_anywhere_is_an_error_and_never_a_short_file(
    tmp_path: Path, stream: bool
) -> None:
    whole = write(tmp_path / "whole.arrow", TABLE, stream=stream).read_bytes()
    path = tmp_path / "a.arrow"
    for length in range(1, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.arrow: is not an Arrow file that can be read"):
            rows_of(path, "text")


def test_a_stream_cut_between_two_batches_gives_the_rows_before(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", TABLE)
    path.write_bytes(path.read_bytes()[:-8])  # as a reader of Arrow's would not notice
    rows, error = until_error(read_rows(path, name="a", columns=("text",)))
    assert column(rows, "text") == ["a", "b", "c", None]
    assert isinstance(error, InputError)
    assert "(after row 4): the stream has no end mark" in error.message


def test_text_that_is_not_utf_8_costs_only_its_row(tmp_path: Path) -> None:
    data = pa.array([b"one", b"caf\xe9", b"two"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, data.buffers())
    rows = rows_of(write(tmp_path / "a.arrow", pa.table({"text": text})), "text")
    assert column(rows, "text") == ["one", "not UTF-8: column 'text'", "two"]


def test_offsets_that_lead_out_of_the_data_are_an_error(tmp_path: Path) -> None:
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 900_000, 3)))
    text = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abc")])
    path = write(tmp_path / "a.arrow", pa.table({"text": text}))
    with pytest.raises(InputError, match="is not an Arrow file that can be read"):
        rows_of(path, "text")
