from __future__ import annotations

import bz2
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from reading import until_error
from slant.errors import InputError, UsageError
from slant.tables.reader import Row, read_rows

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
    ".bz2": bz2.compress,
}
WORDS = random.Random(3).choices(["one", "two", "three", "привет", "你好", "adiós"], k=100_000)
LINES = [
    json.dumps({"n": i, "text": " ".join(WORDS[10 * i : 10 * i + 10])}).encode() + b"\n"
    for i in range(10_000)
]


def rows_of(path: Path, content: bytes) -> list[Row]:
    path.write_bytes(content)
    return list(read_rows(path, name=path.name, columns=("text",)))


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_rows_are_those_of_the_plain_file(tmp_path: Path, ending: str) -> None:
    plain = rows_of(tmp_path / "a.jsonl", b"".join(LINES))
    assert rows_of(tmp_path / f"a.jsonl{ending}", COMPRESS[ending](b"".join(LINES))) == plain


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_parts_one_after_the_other_are_one_file(tmp_path: Path, ending: str) -> None:
    parts = COMPRESS[ending](b"".join(LINES[:70])) + COMPRESS[ending](b"".join(LINES[70:200]))
    assert len(rows_of(tmp_path / f"a.jsonl{ending}", parts)) == 200


def test_a_zstd_stream_that_does_not_tell_its_size_is_read(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(sink, closefd=False) as writer:
        writer.write(b"".join(LINES))
    assert len(rows_of(tmp_path / "a.jsonl.zst", sink.getvalue())) == len(LINES)


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_compressed_file_that_was_cut_gives_the_rows_before_and_then_an_error(
    tmp_path: Path, ending: str, share: float
) -> None:
    whole = COMPRESS[ending](b"".join(LINES))
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(whole[: int(len(whole) * share)])
    rows, error = until_error(read_rows(path, name=path.name, columns=("text",)))
    assert [row.raw for row in rows] == LINES[: len(rows)]
    assert isinstance(error, InputError)
    assert error.message.startswith(f"a.jsonl{ending}: cannot be read")
    if ending != ".bz2":  # whose blocks are larger than this file
        assert len(rows) > (share - 0.2) * len(LINES)
        assert f"(after row {len(rows)})" in error.message


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_file_that_is_not_compressed_as_its_name_says_is_an_error(
    tmp_path: Path, ending: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.jsonl{ending}: cannot be read: "):
        rows_of(tmp_path / f"a.jsonl{ending}", b"".join(LINES))


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_nothing_is_an_empty_file(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InputError, match="is empty"):
        rows_of(tmp_path / f"a.csv{ending}", COMPRESS[ending](b""))


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_file_that_grows_as_no_text_does_is_an_error_and_not_read_to_its_end(
    tmp_path: Path, ending: str
) -> None:
    line = b'{"text": "' + b"a" * (1 << 20) + b'"}\n'
    bomb = COMPRESS[ending](line * 100)
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(bomb)
    rows, error = until_error(read_rows(path, name=path.name, columns=("text",)))
    assert isinstance(error, InputError)
    assert "grows more than 500-fold when decompressed" in error.message
    assert 60 < len(rows) < 70


def test_parquet_inside_gzip_is_refused_with_what_to_do(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["a"]}), sink)
    with pytest.raises(UsageError, match="cannot be read while compressed"):
        rows_of(tmp_path / "a.parquet.gz", gzip.compress(sink.getvalue().to_pybytes()))
