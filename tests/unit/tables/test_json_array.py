from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reading import until_error
from slant.errors import InputError
from slant.tables import json_array
from slant.tables.json_array import read_json
from slant.tables.reader import Row, read_rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)


def rows_of(path: Path, content: bytes, columns: tuple[str, ...] = ("text",)) -> list[Row]:
    path.write_bytes(content)
    return list(read_rows(path, name=path.name, columns=columns))


def texts(rows: list[Row]) -> list[Any]:
    return [row.values["text"] if row.values else None for row in rows]


@settings(deadline=None)
@given(
    objects=st.lists(OBJECTS, min_size=1, max_size=5),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    piece_bytes=st.integers(1, 40),
)
def test_any_array_is_read_as_json_reads_it_however_it_comes_in_pieces(
    objects: list[dict[str, Any]], indent: int | None, ascii_only: bool, piece_bytes: int
) -> None:
    content = json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_PIECE_BYTES", piece_bytes)
        rows = list(read_json(io.BufferedReader(io.BytesIO(content)), "a"))  # type: ignore[arg-type]
    assert [row.values for row in rows] == objects
    assert [row.number for row in rows] == list(range(1, len(objects) + 1))
    assert [json.loads(row.raw) for row in rows] == objects


def test_a_bad_element_costs_only_itself(tmp_path: Path) -> None:
    elements = [
        b'{"text": "one"}',
        b'{"text": "caf\xe9"}',
        b'{"text": nul}',
        b"7",
        b'["text"]',
        b"",
        b'{"text": "\\ud800"}',
        b'{"text": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"text": ' + b"1" * 5000 + b"}",
        b'{"text": "two, \\"]}[{"}',
    ]
    rows = rows_of(tmp_path / "a.json", b"[" + b", ".join(elements) + b"]\n")
    assert texts(rows) == ["one", *[None] * 8, 'two, "]}[{']
    kinds = [row.problem.partition(":")[0] for row in rows if row.problem]
    invalid, no_object = "not valid JSON", "not a JSON object"
    assert kinds == [
        "not UTF-8", invalid, no_object, no_object, invalid, "not Unicode", invalid, invalid
    ]  # fmt: skip


def test_a_file_of_lines_that_is_called_json_is_read_as_lines(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.json", b'\n {"text": "one"}\n{"text": "two"}\n')
    assert texts(rows) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"text": "one"}, {"text": "tw', "ends inside its array \\(after row 1\\)"),
        (b'[{"text": "one"}', "ends inside its array"),
        (b"[", "ends inside its array"),
        (b'[{"text": "one"}] [1]', "goes on after the end of its array"),
        (b'"text"', "is neither a JSON array nor"),
        (b"null", "is neither a JSON array nor"),
        (b"[]", "is empty \\(no rows\\)"),
        (b"  \n", "is empty \\(no rows\\)"),
    ],
)
def test_a_file_that_is_no_array_is_an_error_naming_it(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.json: {message}"):
        rows_of(tmp_path / "a.json", content)


def test_the_rows_before_the_damage_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"text": "one"}, {"text": "two"}, {"te')
    rows, error = until_error(read_rows(tmp_path / "a.json", name="a", columns=()))
    assert texts(rows) == ["one", "two"]
    assert isinstance(error, InputError)


def test_an_element_over_the_limit_is_a_problem_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("opening", "jsonl", "json_array"):
        monkeypatch.setattr(f"slant.tables.{module}.MAX_LINE_BYTES", 100)
    long = b'{"text": "' + b"a" * 500 + b'"}'
    rows = rows_of(tmp_path / "a.json", b'[{"text": "one"},' + long + b',{"text": "two"}]')
    assert texts(rows) == ["one", None, "two"]
    assert rows[1].problem is not None
    assert rows[1].problem.startswith("line too long")
    assert len(rows[1].raw) == 100


def test_a_trailing_comma_is_no_row(tmp_path: Path) -> None:
    assert texts(rows_of(tmp_path / "a.json", b'[{"text": "one"},\n]')) == ["one"]
