"""Malformed input files: some made by hand, most by damaging good ones at random places."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

__all__ = ["Malformed", "malformed_files"]

_SEED = 17
_TEXTS = ["Hello, world", "Привет, мир", "你好，世界", "Kumusta, 'mundo'", 'a "quoted"\nline', "😀"]
_RECORDS = [{"id": i, "text": f"{_TEXTS[i % 6]} {i}", "label": "neutral"} for i in range(30)]


@dataclass(frozen=True)
class Malformed:
    """One file.

    Attributes:
        case: What is wrong with it, unlike that of any other.
        file: Its name; the ending counts.
        content: Makes its bytes.
        format: The setting ``format``.
        expected: ``rows/problems`` where that is known, or a part of the error; None: anything but
            a traceback or a hang.
    """

    case: str
    file: str
    content: Callable[[], bytes]
    format: str = "auto"
    expected: str | None = None


def malformed_files() -> list[Malformed]:
    """All of them, the same ones every time."""
    return [*_by_hand(), *_at_random()]


# --- good files ----------------------------------------------------------------------------------


def _lines(records: list[dict[str, Any]] = _RECORDS) -> bytes:
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in records)


def _csv(delimiter: str = ",") -> bytes:
    rows = (
        delimiter.join([str(one["id"]), '"' + str(one["text"]).replace('"', '""') + '"', "neutral"])
        for one in _RECORDS
    )
    return "\r\n".join([delimiter.join(["id", "text", "label"]), *rows]).encode()


def _table() -> pa.Table:
    return pa.Table.from_pylist(_RECORDS)


def _parquet(**options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(_table(), sink, row_group_size=7, **options)
    return sink.getvalue()


def _arrow(new: Any, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    table = _table()
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=7)
    return sink.getvalue()


def _label_studio() -> bytes:
    result = [{"type": "choices", "value": {"choices": ["neutral"]}}]
    annotations = [{"completed_by": {"id": 1, "email": "a@x"}, "result": result}]
    tasks = [{"id": one["id"], "data": one, "annotations": annotations} for one in _RECORDS]
    return json.dumps(tasks, indent=1, ensure_ascii=False).encode()


def _doccano() -> bytes:
    return _lines([{**one, "label": ["neutral"]} for one in _RECORDS])


def _page() -> bytes:
    body = "".join(f"<p>{one['text']} and a few more words of it.</p>" for one in _RECORDS)
    head = '<meta charset="utf-8"><meta name="date" content="2024-05-01"><title>A page</title>'
    return f"<html><head>{head}</head><body><article>{body}</article></body></html>".encode()


_GOOD: dict[str, tuple[Callable[[], bytes], str]] = {
    "a.jsonl": (_lines, "auto"),
    "a.csv": (_csv, "auto"),
    "a.tsv": (lambda: _csv("\t"), "auto"),
    "a.json": (lambda: json.dumps(_RECORDS, ensure_ascii=False).encode(), "auto"),
    "b.json": (_label_studio, "label-studio"),
    "b.jsonl": (_doccano, "doccano"),
    "a.html": (_page, "auto"),
    "a.parquet": (_parquet, "auto"),
    "b.parquet": (lambda: _parquet(compression="zstd", use_dictionary=False), "auto"),
    "a.arrow": (lambda: _arrow(pa.ipc.new_stream), "auto"),
    "b.arrow": (lambda: _arrow(pa.ipc.new_file), "auto"),
    "c.arrow": (lambda: _arrow(pa.ipc.new_stream, "zstd"), "datasets"),
    "a.jsonl.gz": (lambda: gzip.compress(_lines(), mtime=0), "auto"),
    "a.csv.zst": (lambda: zstandard.compress(_csv()), "auto"),
    "a.json.bz2": (lambda: bz2.compress(json.dumps(_RECORDS).encode()), "auto"),
}
_TEXT_FILES = ("a.jsonl", "a.csv", "a.tsv", "a.json", "b.json", "b.jsonl", "a.html")


# --- damage at random places ---------------------------------------------------------------------


def _cut(good: bytes, chance: random.Random) -> bytes:
    return good[: chance.randrange(1, len(good))]


def _flipped(good: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(good)
    for _ in range(chance.choice([1, 3, 20])):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _without_a_part(good: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(good))
    return good[:start] + good[start + chance.randrange(1, 400) :]


def _with_garbage(good: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(good))
    return good[:start] + chance.randbytes(chance.randrange(1, 400)) + good[start:]


def _with_zeros(good: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(good))
    return good[:start] + bytes(chance.randrange(1, 400)) + good[start:]


def _twice(good: bytes, chance: random.Random) -> bytes:
    return good + good[: chance.randrange(1, len(good))]


_DAMAGE = {
    "cut": (_cut, 6),
    "flipped": (_flipped, 4),
    "without a part": (_without_a_part, 1),
    "with garbage": (_with_garbage, 1),
    "with zeros": (_with_zeros, 1),
    "twice": (_twice, 1),
}
_ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1251", "gb18030"]


def _at_random() -> Iterator[Malformed]:
    for file, (make, format_) in _GOOD.items():
        for what, (damage, times) in _DAMAGE.items():
            for time in range(times):
                case = f"{file} {what} {time}"
                yield Malformed(case, file, _damaged(make, damage, case), format_)
    for file in _TEXT_FILES:
        make, format_ = _GOOD[file]
        for encoding in _ENCODINGS:
            content = _encoded(make, encoding)
            yield Malformed(f"{file} in {encoding}", file, content, format_)
        yield Malformed(f"{file} in two encodings", file, _mixed(make), format_)


def _damaged(
    make: Callable[[], bytes], damage: Callable[[bytes, random.Random], bytes], case: str
) -> Callable[[], bytes]:
    return lambda: damage(make(), random.Random(f"{_SEED} {case}"))


def _encoded(make: Callable[[], bytes], encoding: str) -> Callable[[], bytes]:
    return lambda: make().decode().encode(encoding, "replace")


def _mixed(make: Callable[[], bytes]) -> Callable[[], bytes]:
    def content() -> bytes:
        lines = make().decode().splitlines(keepends=True)
        encodings = ("utf-8", "cp1251", "gb18030")
        return b"".join(line.encode(encodings[i % 3], "replace") for i, line in enumerate(lines))

    return content


# --- made by hand --------------------------------------------------------------------------------

_GOOD_LINE = b'{"text": "good"}\n'


def _between(*bad: bytes) -> Callable[[], bytes]:
    """The bad lines, each between two good ones."""
    return lambda: _GOOD_LINE + b"".join(line + b"\n" + _GOOD_LINE for line in bad)


def _by_hand() -> Iterator[Malformed]:
    yield from _lines_of_json()
    yield from _tables_of_text()
    yield from _wrong_endings()
    yield from _large()
    yield from _odd_columns()
    for file in _GOOD:
        expected = "1/1" if file == "a.html" else "is empty (0 bytes)"
        yield Malformed(f"{file} of no bytes", file, lambda: b"", _GOOD[file][1], expected)
        yield Malformed(f"{file} of one zero", file, lambda: b"\0", _GOOD[file][1])
        yield Malformed(f"{file} of newlines", file, lambda: b"\n" * 1000, _GOOD[file][1])


def _lines_of_json() -> Iterator[Malformed]:
    bad: dict[str, bytes] = {
        "array": b'["text"]',
        "string": b'"text"',
        "number": b"7",
        "null": b"null",
        "cut": b'{"text": "a',
        "two objects": b'{"text": "a"}{"text": "b"}',
        "single quotes": b"{'text': 'a'}",
        "nan word": b'{"text": nan}',
        "trailing comma": b'{"text": "a",}',
        "no quotes": b"{text: a}",
        "comment": b'{"text": "a"} // why',
        "latin 1": b'{"text": "caf\xe9"}',
        "overlong": b'{"text": "\xc0\xaf"}',
        "surrogate in bytes": b'{"text": "\xed\xa0\x80"}',
        "half a pair": b'{"text": "\\ud800"}',
        "half a pair as a key": b'{"\\udc00": "a", "text": "a"}',
        "control character": b'{"text": "a\x01b"}',
        "zero": b'{"text": "a\0b"}',
        "deep arrays": b'{"text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "deep objects": b'{"text": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
        "only openings": b"[" * 1_000_000,
        "huge integer": b'{"text": ' + b"9" * 100_000 + b"}",
        "xml": b"<text>a</text>",
        "mark in the middle": b'\xef\xbb\xbf{"text": "a"}',
    }
    for what, line in bad.items():
        yield Malformed(f"lines: {what}", "a.jsonl", _between(line), expected="3/1")
    fine = {
        "nan": b'{"text": NaN}',
        "infinity": b'{"text": -Infinity}',
        "huge float": b'{"text": 1e999999}',
        "same key twice": b'{"text": "a", "text": "b"}',
        "object for text": b'{"text": {"a": 1}}',
        "array for text": b'{"text": [1, 2]}',
        "no text": b'{"txt": "a"}',
        "empty key": b'{"": 1, "text": "a"}',
    }
    for what, line in fine.items():
        yield Malformed(f"lines: {what}", "a.jsonl", _between(line), expected="3/0")
    everything = _between(*bad.values())
    yield Malformed(
        "lines: all of it", "a.jsonl", everything, expected=f"{2 * len(bad) + 1}/{len(bad)}"
    )
    as_array = b"[" + b",".join(bad.values()) + b"]"
    yield Malformed("array: all of it", "a.json", lambda: as_array)
    pretty = json.dumps({"data": _RECORDS}, indent=2).encode()
    yield Malformed("array: inside an object", "a.json", lambda: pretty)


def _tables_of_text() -> Iterator[Malformed]:
    tables: dict[str, tuple[bytes, str | None]] = {
        "header twice": (b"text,text\na,b\n", "more than once"),
        "header only": (b"text\n", "is empty (no rows)"),
        "header of nothing": (b",,,\n1,2,3,4\n", "no column 'text'"),
        "open quote": (b'text,n\n"open,1\ngood,2\n"good",3\n', "3/1"),
        "open quote at the end": (b'text,n\ngood,1\n"open,2', "2/1"),
        "open quote in the header": (b'"text,n\ngood,1\n', "its header cannot be read"),
        "quote in a field": (b'text\ngo"od\n', "1/0"),
        "text behind a quote": (b'text\n"a"b\ngood\n', "2/1"),
        "newlines in quotes": (b'text\n"a\n\n\nb"\ngood\n', "2/0"),
        "zeros": (b"text\na\0b\n\0\n", "2/0"),
        "too many fields": (b"text\na,b,c\ngood\n", "2/1"),
        "too few fields": (b"text,n\na\ngood,1\n", "2/1"),
        "old macintosh": (b"text\ra\rb\r", "its header cannot be read"),
        "semicolons": (b"text;n\na;1\n", "no column 'text'"),
        "latin 1 header": (b"caf\xe9,text\n1,a\n", "its header cannot be read"),
        "latin 1 row": (b"text\ncaf\xe9\ngood\n", "2/1"),
        "only quotes": (b'text\n"""""""\n', "1/1"),
        "mark twice": (b"\xef\xbb\xbf\xef\xbb\xbftext\na\n", "no column 'text'"),
        "mark of utf-16 only": (b"\xff\xfe", None),
        "mark of utf-32 only": (b"\xff\xfe\x00\x00", None),
        "half a character of utf-16": (b"\xff\xfet\x00e", None),
        "many open quotes": (b'text\n"a\n' + b'x,"\n' * 20_000, None),
    }
    for what, (content, expected) in tables.items():
        yield Malformed(f"csv: {what}", "a.csv", lambda content=content: content, expected=expected)


def _wrong_endings() -> Iterator[Malformed]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.jsonl", _lines())
    contents = {
        "png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "zip": archive.getvalue(),
        "gzip": gzip.compress(_lines(), mtime=0),
        "zstd": zstandard.compress(_lines()),
        "parquet": _parquet(),
        "lines": _lines(),
    }
    for what, content in contents.items():
        for file in ("a.jsonl", "a.csv", "a.json", "a.parquet", "a.arrow", "a.csv.gz", "a.html"):
            if what == "lines" and file in ("a.jsonl", "a.json"):
                continue
            if what == "parquet" and file == "a.parquet":
                continue
            yield Malformed(f"{what} called {file}", file, lambda content=content: content)


def _large() -> Iterator[Malformed]:
    long = 100 << 20
    endless = b'{"text": "' + b"a" * (1 << 20) + b'"}\n'

    def growing(pack: Callable[[bytes], bytes], part: bytes, times: int) -> Callable[[], bytes]:
        """Parts that are compressed one by one and joined, as each of the formats allows."""
        return lambda: pack(part) * times

    yield Malformed(
        "a line of 100 MB", "a.jsonl", lambda: _GOOD_LINE + b"a" * long + b"\n" + _GOOD_LINE,
        expected="3/1",
    )  # fmt: skip
    yield Malformed(
        "a field of 100 MB", "a.csv", lambda: b"text\n" + b"a" * long + b"\ngood\n", expected="2/1"
    )
    yield Malformed(
        "an element of 100 MB", "a.json",
        lambda: b'[{"text": "' + b"a" * long + b'"}, {"text": "good"}]', expected="2/1",
    )  # fmt: skip
    yield Malformed("a header of 10 MB", "a.csv", lambda: b"a," * (5 << 20) + b"\n1\n")
    yield Malformed(
        "many small objects", "a.jsonl",
        lambda: b'{"text": [' + b"{}," * (2 << 20) + b"{}]}\n", expected="1/0",
    )  # fmt: skip
    yield Malformed(
        "5 GB in gzip", "a.jsonl.gz", growing(gzip.compress, endless * 16, 320),
        expected="grows more than",
    )  # fmt: skip
    yield Malformed(
        "5 GB in zstd", "a.jsonl.zst", growing(zstandard.compress, endless * 16, 320),
        expected="grows more than",
    )  # fmt: skip
    yield Malformed(
        "1 GB of newlines in zstd", "a.csv.zst",
        growing(zstandard.compress, b"\n" * (64 << 20), 16), expected="grows more than",
    )  # fmt: skip
    yield Malformed(
        "one line of 5 GB in zstd", "a.jsonl.zst",
        growing(zstandard.compress, b"a" * (64 << 20), 80), expected="grows more than",
    )  # fmt: skip
    yield Malformed(
        "one page of 1 GB in gzip", "a.html.gz", growing(gzip.compress, b"<p>" * (16 << 20), 20),
        expected="1/1",
    )  # fmt: skip


def _odd_columns() -> Iterator[Malformed]:
    def stored(**columns: Any) -> Callable[[], bytes]:
        def content() -> bytes:
            sink = io.BytesIO()
            pq.write_table(pa.table({name: make() for name, make in columns.items()}), sink)
            return sink.getvalue()

        return content

    odd: dict[str, tuple[Callable[[], Any], str | None]] = {
        "numbers": (lambda: pa.array([1, None, 3]), "3/0"),
        "lists": (lambda: pa.array([["a"], None, []]), "3/0"),
        "structs": (lambda: pa.array([{"a": 1}, None]), "2/0"),
        "bytes": (lambda: pa.array([b"\xff", None]), "2/0"),
        "nothing": (lambda: pa.nulls(3), "3/0"),
        "far times": (lambda: pa.array([2**62, 0], pa.timestamp("us")), "2/1"),
        "nan": (lambda: pa.array([float("nan"), float("inf")]), "2/0"),
        "a dictionary": (lambda: pa.array(["a", "b", "a"]).dictionary_encode(), "3/0"),
        "no rows": (lambda: pa.array([], pa.string()), "is empty (no rows)"),
        "no UTF-8": (
            lambda: pa.Array.from_buffers(
                pa.string(), 2, pa.array([b"a", b"\xff"], pa.binary()).buffers()
            ),
            "2/1",
        ),
    }
    for what, (make, expected) in odd.items():
        yield Malformed(f"parquet: {what}", "a.parquet", stored(text=make), expected=expected)
