from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slant.errors import InputError, UsageError
from slant.tables.reader import Row, count_parquet_rows, file_format, read_rows


def rows_of(path: Path, content: bytes, columns: tuple[str, ...] = ("text",)) -> list[Row]:
    path.write_bytes(content)
    return list(read_rows(path, name=path.name, columns=columns))


def texts(rows: list[Row]) -> list[Any]:
    return [row.values["text"] if row.values else None for row in rows]


def problems(rows: list[Row]) -> list[str]:
    return [row.problem for row in rows if row.problem]


# --- JSONL


def test_jsonl_rows_have_their_line_number_and_bytes_and_blank_lines_are_none(
    tmp_path: Path,
) -> None:
    rows = rows_of(tmp_path / "a.jsonl", b'{"text": "one"}\n\n  \n{"text": "two"}')
    assert [row.number for row in rows] == [1, 4]
    assert texts(rows) == ["one", "two"]
    assert rows[0].raw == b'{"text": "one"}\n'


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"text": "cut', "not valid JSON"),
        (b'{"text": "caf\xe9"}', "not UTF-8"),
        (b'["text"]', "not a JSON object"),
        (b"7", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"text": "\\ud83d"}', "not Unicode"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"text": ' + b"1" * 5000 + b"}", "not valid JSON"),
    ],
    ids=["cut", "latin-1", "array", "number", "null", "half a pair", "deep", "huge number"],
)
def test_a_bad_json_line_is_one_problem_and_its_neighbours_are_read(
    tmp_path: Path, line: bytes, kind: str
) -> None:
    good = b'{"text": "good"}\n'
    rows = rows_of(tmp_path / "a.jsonl", good + line + b"\n" + good)
    assert texts(rows) == ["good", None, "good"]
    assert rows[1].problem is not None
    assert rows[1].problem.partition(":")[0] == kind


def test_a_whole_surrogate_pair_and_a_nul_are_fine_in_json(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.jsonl", b'{"text": "\\ud83d\\ude00"}\n{"text": "a\\u0000b"}\n')
    assert texts(rows) == ["😀", "a\0b"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b'\xef\xbb\xbf{"text": "one"}\n'), ("a.csv", b"\xef\xbb\xbftext\none\n")],
)
def test_a_byte_order_mark_is_no_part_of_the_first_row(
    tmp_path: Path, name: str, content: bytes
) -> None:
    assert texts(rows_of(tmp_path / name, content)) == ["one"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_utf_16_and_utf_32_are_read_by_their_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    content = (mark + 'text,label\nпривет,1\n"😀, 你",2\n').encode(encoding)
    rows = rows_of(tmp_path / "a.csv", content)
    assert texts(rows) == ["привет", "😀, 你"]
    assert rows[0].raw == "привет,1\n".encode()


@pytest.mark.parametrize(
    ("encoding", "bad"),
    [
        ("utf-16-le", b"\x00\xd8"),  # half of a pair
        ("utf-16-be", b"\xdc\x00"),
        ("utf-32-le", b"\x00\x00\x11\x00"),  # beyond Unicode
        ("utf-32-be", b"\x00\x00\xd8\x00"),
    ],
)
def test_a_character_that_utf_16_or_utf_32_lacks_costs_only_its_row(
    tmp_path: Path, encoding: str, bad: bytes
) -> None:
    start, end = "\ufefftext\none\n".encode(encoding), "\ntwo\n".encode(encoding)
    rows = rows_of(tmp_path / "a.csv", start + bad + end)
    assert texts(rows) == ["one", None, "two"]
    assert problems(rows) == ["not UTF-8: field 1"]


def test_utf_16_that_ends_inside_a_character_costs_only_the_last_row(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.csv", "text\none\ntwo".encode("utf-16") + b"x")
    assert texts(rows) == ["one", None]


def test_a_column_may_be_absent_from_single_json_rows(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": "b", "url": 1}\n', ("text", "url")
    )
    assert len(rows) == 2


def test_a_column_absent_from_all_json_rows_is_an_error_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.jsonl: .* 'txet' .*did you mean 'text'") as caught:
        rows_of(tmp_path / "a.jsonl", b'{"text": "a", "lang": "en"}\n', ("txet",))
    assert caught.value.exit_code == 2
    assert "text, lang" in caught.value.hint


def test_a_column_absent_from_1000_json_rows_ends_the_reading_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 5000)
    seen = []
    rows = (seen.append(row.number) for row in read_rows(path, name="a", columns=("text", "url")))
    with pytest.raises(UsageError, match="first 1000 rows"):
        list(rows)
    assert len(seen) == 999


def test_a_dotted_column_reaches_into_objects_unless_a_column_has_that_name(
    tmp_path: Path,
) -> None:
    lines = [
        b'{"user": {"lang": "en", "age": {"years": 3}}}',
        b'{"user.lang": "ru", "user": {"lang": "en"}}',
        b'{"user": 7}',
        b'{"user": {"lang": null}}',
    ]
    rows = rows_of(tmp_path / "a.jsonl", b"\n".join(lines), ("user.lang", "user.age.years"))
    values = [row.values or {} for row in rows]
    assert [value.get("user.lang", "none") for value in values] == ["en", "ru", "none", None]
    assert values[0]["user.age.years"] == 3


def test_a_dotted_column_that_is_absent_is_an_error_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'user\.lnag' .*did you mean 'user\.lang'"):
        rows_of(tmp_path / "a.jsonl", b'{"user": {"lang": "en"}}', ("user.lnag",))


def test_json_lines_without_one_readable_row_are_left_to_the_caller(tmp_path: Path) -> None:
    assert len(problems(rows_of(tmp_path / "a.jsonl", b"{\n{\n"))) == 2


# --- CSV and TSV


def test_csv_fields_hold_newlines_quotes_commas_and_nul(tmp_path: Path) -> None:
    content = b'text,label\n"one\ntwo, ""three""",pos\r\n"a\0b",neg\n\nplain "quoted",neu\n'
    rows = rows_of(tmp_path / "a.csv", content)
    assert texts(rows) == ['one\ntwo, "three"', "a\0b", 'plain "quoted"']
    assert [row.number for row in rows] == [1, 2, 3]
    assert rows[0].raw == b'"one\ntwo, ""three""",pos\r\n'


def test_tsv_is_separated_by_tabs(tmp_path: Path) -> None:
    assert texts(rows_of(tmp_path / "a.TSV", b"label\ttext\npos\tone, two\n")) == ["one, two"]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"one,pos,more", "3 fields where the header has 2"),
        (b"one", "1 fields where the header has 2"),
        (b"caf\xe9,pos", "not UTF-8"),
        (b'"one" two,pos', "not valid CSV"),
        (b'"never closed,pos', "not valid CSV"),
    ],
)
def test_a_bad_csv_line_costs_only_itself(tmp_path: Path, line: bytes, kind: str) -> None:
    content = b"text,label\ngood,pos\n" + line + b'\n"good",pos\ngood,neg\n'
    rows = rows_of(tmp_path / "a.csv", content)
    assert texts(rows) == ["good", None, "good", "good"]
    assert rows[1].problem is not None
    assert rows[1].problem.partition(":")[0] == kind
    assert rows[1].raw == line + b"\n"
    assert [row.number for row in rows] == [1, 2, 3, 4]


def test_a_quote_that_is_never_closed_does_not_swallow_the_rest_of_the_file(
    tmp_path: Path,
) -> None:
    content = b'text,label\n"open,pos\n' + b"good,neg\n" * 500
    rows = rows_of(tmp_path / "a.csv", content)
    assert len(problems(rows)) == 1
    assert texts(rows)[1:] == ["good"] * 500


def test_csv_fields_can_be_longer_than_the_csv_modules_own_limit(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.csv", b"text\n" + b"x" * 199_000 + b"\n")
    assert len(texts(rows)[0]) == 199_000


def test_csv_written_by_python_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    written = ["", "a,b", '"', "\n", "ñ", "'", " x ", "\r\n"]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "n"], *([text, "1"] for text in written)])
    assert texts(list(read_rows(path, name="a", columns=("text",)))) == written


def test_a_csv_header_without_the_column_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'label' in its header") as caught:
        rows_of(tmp_path / "a.csv", b"text,labels\na,b\n", ("text", "label"))
    assert "did you mean 'labels'" in caught.value.message
    assert "text, labels" in caught.value.hint


def test_a_header_with_another_separator_is_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        rows_of(tmp_path / "a.csv", b"text;label\na;b\n")
    assert "another character" in caught.value.hint


def test_a_mapped_column_that_stands_twice_in_the_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column 'text' more than once"):
        rows_of(tmp_path / "a.csv", b"text,text\na,b\n")


@pytest.mark.parametrize("header", [b'"text,label\n', b"text,caf\xe9\n"])
def test_a_header_that_cannot_be_read_is_an_error(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(InputError, match="its header cannot be read"):
        rows_of(tmp_path / "a.csv", header + b"a,b\n")


# --- Parquet


def test_parquet_rows_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    when = datetime(2024, 5, 1, 12, tzinfo=UTC)
    table = pa.table(
        {
            "text": ["one", "two", None],
            "n": [1, 2, 3],
            "when": pa.array([when] * 3, pa.timestamp("ns", tz="UTC")),
        }
    )
    pq.write_table(table, path)
    rows = list(read_rows(path, name="a", columns=("text", "n", "when")))
    assert texts(rows) == ["one", "two", None]
    assert [row.number for row in rows] == [1, 2, 3]
    assert rows[0].values == {"text": "one", "n": 1, "when": when}
    assert count_parquet_rows(path) == 3


def test_parquet_text_that_is_not_utf_8_costs_only_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = pa.array([b"one", b"caf\xe9", b"two"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, data.buffers())
    pq.write_table(pa.table({"text": text}), path)
    rows = list(read_rows(path, name="a", columns=("text",)))
    assert texts(rows) == ["one", None, "two"]
    assert problems(rows) == ["not UTF-8: column 'text'"]


def test_parquet_without_the_column_lists_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"txt": ["a"]}), path)
    with pytest.raises(UsageError, match=r"no column 'text' .*did you mean 'txt'"):
        list(read_rows(path, name="a", columns=("text",)))


def test_parquet_that_was_cut_short_is_an_error_naming_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 50] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.parquet: is not a Parquet file"):
        list(read_rows(path, name=path.name, columns=("text",)))
    assert count_parquet_rows(path) is None


# --- all formats


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b""), ("a.jsonl", b"\n\n"), ("a.csv", b""), ("a.csv", b"text\n"), ("a.tsv", b"")],
)
def test_a_file_without_rows_is_an_error_naming_it(
    tmp_path: Path, name: str, content: bytes
) -> None:
    with pytest.raises(InputError, match=rf"{name}: is empty"):
        rows_of(tmp_path / name, content)


def test_a_parquet_file_without_rows_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(InputError, match="is empty"):
        list(read_rows(path, name="a", columns=("text",)))


def test_an_unknown_file_type_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"'\.jsnl' cannot be read; did you mean '\.jsonl'"
    ) as caught:
        rows_of(tmp_path / "a.jsnl.gz", b"{}")
    assert ".csv" in caught.value.hint
    assert ".parquet" in caught.value.hint


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        list(read_rows(tmp_path / "a.csv", name="a.csv", columns=("text",)))


def test_equal_rows_have_equal_bytes_in_jsonl(tmp_path: Path) -> None:
    line = json.dumps({"text": "ü"}).encode() + b"\n"
    rows = rows_of(tmp_path / "a.jsonl", line * 2)
    assert rows[0].raw == rows[1].raw


def test_a_format_that_is_set_goes_before_the_ending(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b'{"text": "one"}\n')
    rows = read_rows(tmp_path / "a.txt", name="a", columns=("text",), format="jsonl")
    assert texts(list(rows)) == ["one"]
    with pytest.raises(UsageError, match="no format 'jsnl'; did you mean 'jsonl'"):
        list(read_rows(tmp_path / "a.txt", name="a", columns=(), format="jsnl"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", "jsonl"),
        ("b/A.NDJSON.GZ", "jsonl"),
        ("a.json.zst", "json"),
        ("s3://bucket/a.b/x.csv.bz2", "csv"),
        ("a.tsv.zstd", "tsv"),
        ("a.htm", "html"),
        ("a.arrow", "datasets"),
        ("a.parquet", "parquet"),
        ("a.gz", None),
        ("a", None),
        (".jsonl", None),
        ("jsonl", None),
        ("a.jsonl.zip", None),
    ],
)
def test_the_format_is_told_by_the_ending(name: str, expected: str | None) -> None:
    assert file_format(name) == expected


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n....", "a PNG image"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x1f\x8b\x08\x00....", "compressed with gzip"),
        (b"PAR1....", "a Parquet file"),
    ],
)
def test_a_file_under_a_wrong_ending_is_named_as_what_it_is(
    tmp_path: Path, content: bytes, what: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.jsonl: is {what}, not text") as caught:
        rows_of(tmp_path / "a.jsonl", content)
    assert "ending" in caught.value.hint


def test_a_megabyte_of_columns_does_not_hold_up_the_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        rows_of(tmp_path / "a.csv", b"," * 500_000 + b"a" * 500_000 + b"\n")
    assert len(str(caught.value)) < 1000
