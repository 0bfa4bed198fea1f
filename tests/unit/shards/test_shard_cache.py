from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from slant.errors import ShardError, StorageError
from slant.shards.cache import DiskCache


def get(cache: DiskCache, name: str, content: bytes = b"x" * 100) -> BinaryIO:
    def download(file: BinaryIO) -> None:
        file.write(content)

    return cache.open(name, len(content), download)


def names(cache: DiskCache) -> list[str]:
    return sorted(
        path.relative_to(cache.folder).as_posix()
        for path in cache.folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock-")
    )


def test_what_was_downloaded_once_is_there(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "not" / "yet", 1000)
    for content in (b"first", b"never asked for"):
        with get(cache, "a/b", content) as file:
            assert file.read() == b"first"


def test_a_download_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise ShardError("is damaged")

    cache = DiskCache(tmp_path, 1000)
    with pytest.raises(ShardError):
        cache.open("a/b", 100, fail)
    assert names(cache) == []


def test_files_held_open_or_mapped_stay_and_others_go_the_oldest_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 400)
    opened = get(cache, "k/open")
    with get(cache, "k/mapped") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for name in ("k/old", "k/older"):
        get(cache, name).close()
    os.utime(tmp_path / "k" / "older", (1, 1))
    get(cache, "k/new").close()
    assert names(cache) == ["k/mapped", "k/new", "k/old", "k/open"]
    get(cache, "k/large", b"y" * 300).close()
    assert names(cache) == ["k/large", "k/mapped", "k/open"]
    opened.close()
    mapped.close()
    get(cache, "k/largest", b"z" * 400).close()
    assert names(cache) == ["k/largest"]


def test_a_file_that_another_process_reads_stays_until_that_process_is_gone(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    get(cache, "k/theirs").close()
    script = """
import sys
from pathlib import Path
from slant.shards.cache import DiskCache
held = DiskCache(Path(sys.argv[1]), 100).open("k/theirs", 100, None)
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        get(cache, "k/ours").close()
        assert names(cache) == ["k/ours", "k/theirs"]
        reader.kill()
    get(cache, "k/next").close()
    assert names(cache) == ["k/next"]


def test_a_download_under_way_counts_with_its_whole_size(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 300)
    get(cache, "k/first").close()
    get(cache, "k/second").close()

    def nested(file: BinaryIO) -> None:
        get(cache, "k/inner").close()
        assert names(cache) == ["k/inner", "k/outer.part", "k/second"]
        file.write(b"x" * 100)

    cache.open("k/outer", 100, nested).close()
    assert names(cache) == ["k/inner", "k/outer", "k/second"]


def test_a_download_that_was_given_up_long_ago_is_removed(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 200)
    for name, age_s in (("k/new.part", 60), ("k/old.part", 7200)):
        get(cache, name).close()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    get(cache, "k/file").close()
    assert names(cache) == ["k/file", "k/new.part"]


def test_folders_that_became_empty_go_too(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    get(cache, "old/file").close()
    get(cache, "new/file").close()
    assert not (tmp_path / "old").exists()


def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        get(DiskCache(tmp_path / "file", 100), "k/name")
