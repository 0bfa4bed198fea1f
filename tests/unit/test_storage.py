from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slant import storage
from slant.errors import InputError, UsageError


@pytest.fixture
def folder() -> Iterator[str]:
    """A folder of its own at memory://, which fsspec keeps in this process."""
    name = uuid.uuid4().hex
    yield f"memory://{name}"
    if fsspec.filesystem("memory").exists(f"/{name}"):
        fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


def fill(folder: str, *names: str) -> None:
    for name in names:
        storage.write_url(f"{folder}/{name}", name.encode())


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://bucket/a", True),
        ("memory://a", True),
        ("file:///a", True),
        ("/s3://a", False),
        ("a/b.csv", False),
        ("C:/a", False),
        ("", False),
    ],
)
def test_a_url_is_told_from_a_path(location: str, expected: bool) -> None:
    assert storage.is_url(location) is expected


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:topsecret@bucket/a.csv",
        "s3://key:top/sec+ret@bucket/a.csv",  # AWS keys may hold a slash
        "s3://key:topsecret/a.csv",
        "https://user:topsecret@host/a.csv",
        "https://host/a.csv?X-Amz-Signature=topsecret",
        "https://host/a.csv?a=1&token=topsecret",
        "gs://bucket/a?X-Goog-Credential=topsecret",
        "abfs://c@account/a.csv?sv=2020&SIG=topsecret",
        "https://host/a?AWSAccessKeyId=topsecret",
        "s3://[topsecret/a.csv",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        storage.check_url(url)
    assert "secret" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a:b.csv",
        "s3://bucket/a@b.csv",
        "s3://bucket/2024-01-01T10:00@x/[ab]?.csv",
        "https://host:8080/a.csv?version=2",
        "abfs://container@account.dfs.core.windows.net/a.csv",
        "hf://datasets/owner/name@refs%2Fpr%2F1/a.csv",
    ],
)
def test_a_plain_url_is_let_through(url: str) -> None:
    storage.check_url(url)


def test_files_folders_and_globs_are_listed_sorted(folder: str) -> None:
    fill(folder, "b.csv", "a.csv", "sub/c.csv", "sub/deep/d.csv", "x[1].csv")
    assert storage.list_urls(f"{folder}/b.csv") == [f"{folder}/b.csv"]
    assert storage.list_urls(f"{folder}/x[1].csv") == [f"{folder}/x[1].csv"]
    assert storage.list_urls(f"{folder}/?.csv") == [f"{folder}/a.csv", f"{folder}/b.csv"]
    assert storage.list_urls(f"{folder}/*/*.csv") == [f"{folder}/sub/c.csv"]
    assert storage.list_urls(f"{folder}/sub/") == [
        f"{folder}/sub/c.csv",
        f"{folder}/sub/deep/d.csv",
    ]
    assert len(storage.list_urls(f"{folder}/**/*.csv")) == 5
    assert len(storage.list_urls(folder)) == 5


def test_what_is_not_there_is_listed_as_nothing(folder: str) -> None:
    fill(folder, "a.csv")
    assert storage.list_urls(f"{folder}/b.csv") == []
    assert storage.list_urls(f"{folder}/*.tsv") == []
    assert storage.list_urls(f"{folder}/none/") == []


def test_a_folder_whose_name_begins_the_same_is_another_one(folder: str) -> None:
    fill(folder, "sub/a.csv", "subway/b.csv")
    assert storage.list_urls(f"{folder}/sub") == [f"{folder}/sub/a.csv"]
    assert storage.list_urls(f"{folder}/sub/*") == [f"{folder}/sub/a.csv"]


def test_a_listed_url_begins_as_the_one_asked_for(tmp_path: Path) -> None:
    # fsspec would answer file://; of abfs://container@account it would leave out the account.
    (tmp_path / "a.csv").write_bytes(b"x")
    assert storage.list_urls(f"local://{tmp_path}/*.csv") == [f"local://{tmp_path}/a.csv"]


def test_files_are_written_read_and_removed(folder: str) -> None:
    url = storage.join_url(f"{folder}/", "a.bin")
    assert not storage.url_exists(url)
    storage.write_url(url, b"one")
    assert storage.url_exists(url)
    assert not storage.url_exists(folder)
    assert storage.read_url(url) == b"one"
    storage.remove_url(url)
    storage.remove_url(url)
    assert not storage.url_exists(url)


def test_the_version_changes_with_the_content(folder: str) -> None:
    fill(folder, "a")
    before = storage.url_version(f"{folder}/a")
    assert storage.url_version(f"{folder}/a") == before
    storage.write_url(f"{folder}/a", b"other")
    assert storage.url_version(f"{folder}/a") != before


@pytest.mark.parametrize("ask", [storage.read_url, storage.url_version, storage.open_url])
def test_a_missing_file_is_an_error_at_once(folder: str, ask: object) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        ask(f"{folder}/none")  # type: ignore[operator]


def test_an_unknown_protocol_and_a_missing_library_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="'s4://' is no protocol"):
        storage.list_urls("s4://bucket/a")

    def missing(protocol: str) -> object:
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UsageError, match="a library that is not installed") as caught:
        storage.list_urls("gs://bucket/a")
    assert "slant[gcs]" in caught.value.hint


@settings(deadline=None, max_examples=60)
@given(
    content=st.binary(max_size=300),
    block_bytes=st.integers(1, 50),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("read"), st.integers(0, 80)),
            st.tuples(st.just("seek"), st.integers(0, 320)),
        ),
        max_size=12,
    ),
)
def test_an_open_url_reads_and_seeks_as_a_local_file_does(
    content: bytes, block_bytes: int, steps: list[tuple[str, int]]
) -> None:
    url = "memory://test-open-url/a"
    storage.write_url(url, content)
    local = io.BytesIO(content)
    with storage.open_url(url, block_bytes=block_bytes) as remote:
        for step, amount in steps:
            if step == "read":
                assert remote.read(amount) == local.read(amount)
            else:
                assert remote.seek(amount) == local.seek(amount)
            assert remote.tell() == local.tell()
        assert remote.seek(0, io.SEEK_END) == len(content)


@pytest.mark.parametrize("other", [b"short", b"y" * 1000])
def test_a_file_that_changes_while_it_is_read_is_an_error(folder: str, other: bytes) -> None:
    url = f"{folder}/a"
    storage.write_url(url, b"x" * 1000)
    with storage.open_url(url, block_bytes=100) as file:
        assert file.read1(10) == b"x" * 10  # type: ignore[attr-defined]
        storage.write_url(url, other)
        with pytest.raises(InputError, match="changed while it was read"):
            file.read()
