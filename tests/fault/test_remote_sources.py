"""Reading from a real S3 server, which dies and comes back."""

from __future__ import annotations

import gzip
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reading import until_error
from s3_server import S3Server, s3_server
from slant import storage
from slant.config.ingest_settings import DocumentSource
from slant.errors import InputError, StorageError, UsageError
from slant.ingest.sources import find_sources
from slant.tables.reader import count_parquet_rows, read_rows

LINES = [json.dumps({"text": f"text {i} привет", "n": i}).encode() + b"\n" for i in range(3000)]
TEXTS = [f"text {i} привет" for i in range(3000)]


def as_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS, "n": range(3000)}), sink, row_group_size=500)
    return sink.getvalue()


def as_arrow() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"text": TEXTS, "n": range(3000)})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return sink.getvalue()


OBJECTS = {
    "docs/a.jsonl": b"".join(LINES),
    "docs/a.jsonl.gz": gzip.compress(b"".join(LINES)),
    "docs/sub/a.csv": b"text,n\n" + b"".join(b"%s,1\n" % text.encode() for text in TEXTS),
    "docs/sub/a.parquet": as_parquet(),
    "docs/sub/a.arrow": as_arrow(),
    "docs/sub/a.json": b"[" + b",".join(LINES) + b"]",
    "docs/.hidden.jsonl": LINES[0],
    "docs/readme.txt": b"x",
    "empty.jsonl": b"",
}


@pytest.fixture(scope="module")
def running() -> Iterator[S3Server]:
    with s3_server() as server:
        for key, content in OBJECTS.items():
            server.put(f"data/{key}", content)
        yield server


@pytest.fixture
def server(running: S3Server) -> Iterator[S3Server]:
    """The server, running again afterwards."""
    yield running
    running.kill()
    running.restart()


def texts_of(url: str) -> list[str]:
    rows = read_rows(url, name=url, columns=("text",), block_bytes=20_000)
    return [str(row.values["text"]) for row in rows if row.values]


def test_files_folders_and_globs_of_a_bucket_are_found(running: S3Server, tmp_path: Path) -> None:
    paths = [
        "s3://data/docs/a.jsonl",
        "s3://data/docs/*.jsonl",
        "s3://data/docs/",
        "s3://data/**/*.csv",
    ]
    found = find_sources("documents", [DocumentSource(path=path) for path in paths], tmp_path, {})
    assert [[file.location for file in source.files] for source in found] == [
        ["s3://data/docs/a.jsonl"],
        ["s3://data/docs/a.jsonl"],
        [
            "s3://data/docs/a.jsonl",
            "s3://data/docs/a.jsonl.gz",
            "s3://data/docs/sub/a.arrow",
            "s3://data/docs/sub/a.csv",
            "s3://data/docs/sub/a.json",
            "s3://data/docs/sub/a.parquet",
        ],
        ["s3://data/docs/sub/a.csv"],
    ]
    assert all(file.name == file.location for source in found for file in source.files)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("s3://data/docs/a.jsnl", "did you mean 'a.jsonl'"),
        ("s3://data/dosc/*.jsonl", "no file there"),
        ("s3://nobucket/a.jsonl", "no file there"),
    ],
)
def test_a_url_without_files_is_a_usage_error(
    running: S3Server, tmp_path: Path, path: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        find_sources("documents", [DocumentSource(path=path)], tmp_path, {})
    assert path in caught.value.message
    assert words in caught.value.message


@pytest.mark.parametrize(
    "key", [key for key in OBJECTS if key.startswith(("docs/a.", "docs/sub/a."))]
)
def test_rows_of_each_format_are_those_that_were_stored(running: S3Server, key: str) -> None:
    assert texts_of(f"s3://data/{key}") == TEXTS


def test_rows_are_counted_from_the_footer_of_a_remote_file(running: S3Server) -> None:
    assert count_parquet_rows("s3://data/docs/sub/a.parquet") == 3000
    assert count_parquet_rows("s3://data/docs/sub/a.csv") is None


def test_an_empty_and_a_missing_object_are_errors_naming_them(running: S3Server) -> None:
    with pytest.raises(InputError, match=r"empty\.jsonl: is empty"):
        texts_of("s3://data/empty.jsonl")
    with pytest.raises(InputError, match=r"none\.jsonl: there is no such file"):
        texts_of("s3://data/none.jsonl")


def test_the_version_tells_the_content_whenever_it_was_stored(running: S3Server) -> None:
    before = storage.url_version("s3://data/empty.jsonl")
    running.put("data/empty.jsonl", b"x")
    assert storage.url_version("s3://data/empty.jsonl") != before
    running.put("data/empty.jsonl", b"")
    assert storage.url_version("s3://data/empty.jsonl") == before


@pytest.mark.parametrize(
    "key", ["docs/a.jsonl", "docs/a.jsonl.gz", "docs/sub/a.parquet", "docs/sub/a.arrow"]
)
def test_a_server_killed_in_the_middle_costs_no_row_and_gives_none_twice(
    server: S3Server, key: str
) -> None:
    rows = read_rows(f"s3://data/{key}", name=key, columns=("n",), block_bytes=4_000)
    seen = [next(rows)]
    server.kill()
    comeback = threading.Timer(2, server.restart)
    comeback.start()
    started = time.monotonic()
    seen += rows
    comeback.join()
    assert [row.values["n"] for row in seen if row.values] == list(range(3000))
    assert time.monotonic() - started > 1.9  # it did wait


def test_a_server_that_stays_away_is_an_error_after_the_patience(server: S3Server) -> None:
    url = "s3://data/docs/a.jsonl"
    rows = read_rows(url, name="a", columns=(), block_bytes=4_000, patience_s=1)
    first = next(rows)
    server.kill()
    started = time.monotonic()
    more, error = until_error(rows)
    assert time.monotonic() - started < 10
    assert isinstance(error, InputError)
    assert f"{url}: no answer for 1 s" in error.message
    assert error.hint
    read = [first, *more]
    assert [row.raw for row in read] == LINES[: len(read)]


def test_nothing_takes_a_server_that_is_away_for_one_without_files(server: S3Server) -> None:
    server.kill()
    for ask in (storage.url_exists, storage.list_urls, storage.url_version, storage.read_url):
        with pytest.raises(InputError, match=r"no answer for 0\.5 s"):
            ask("s3://data/docs/a.jsonl", patience_s=0.5)
    with pytest.raises(InputError, match="no answer"):
        storage.list_urls("s3://data/docs/**/*.jsonl", patience_s=0.5)
    with pytest.raises(StorageError, match="no answer"):
        storage.write_url("s3://data/new", b"x", patience_s=0.5)


def test_a_write_waits_for_the_server_too(server: S3Server) -> None:
    server.kill()
    comeback = threading.Timer(1, server.restart)
    comeback.start()
    storage.write_url("s3://data/new", b"content")
    comeback.join()
    assert server.get("data/new") == b"content"
    storage.remove_url("s3://data/new")
    assert not storage.url_exists("s3://data/new")


def test_an_object_replaced_while_it_is_read_is_an_error(server: S3Server) -> None:
    rows = read_rows("s3://data/docs/a.jsonl", name="a", columns=(), block_bytes=20_000)
    next(rows)
    server.put("data/docs/a.jsonl", b"".join(LINES).replace(b"text", b"TEXT"))
    try:
        _, error = until_error(rows)
    finally:
        server.put("data/docs/a.jsonl", OBJECTS["docs/a.jsonl"])
    assert isinstance(error, InputError)
    assert "changed while it was read" in error.message


def test_a_bucket_that_refuses_is_an_error_at_once(
    running: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(InputError, match=r"no credentials were found|access is refused"):
            storage.read_url("s3://data/docs/a.jsonl")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("secret", ["topsecret", "top/secret"])
def test_credentials_in_a_url_are_refused_and_not_repeated(
    tmp_path: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://key:{secret}@data/docs/a.jsonl"
    monkeypatch.setenv("SLANT_TEST_DATA", url)  # written in slant.yaml it is refused earlier
    with pytest.raises(UsageError) as caught:
        find_sources("documents", [DocumentSource(path="${SLANT_TEST_DATA}")], tmp_path, {})
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        texts_of(url)
    assert "secret" not in str(caught.value)
