from __future__ import annotations

import json
import pickle
import threading
import uuid
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from slant.errors import ShardError, UsageError
from slant.shards.reader import ShardReader
from slant.shards.writer import ShardWriter

COLUMNS = {"id": "int", "noise": "bytes"}
MEMORY = fsspec.filesystem("memory")  # a URL like any other, inside this process


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/shards"


@pytest.fixture(params=["zstd", None])
def compression(request: pytest.FixtureRequest) -> str | None:
    return request.param


def write(folder: Path | str, num_samples: int = 40, seed: int = 0, **options: Any) -> None:
    rng = np.random.default_rng(seed)
    with ShardWriter(folder, COLUMNS, size_limit_bytes=2000, **options) as writer:
        for i in range(num_samples):
            writer.write({"id": i, "noise": rng.bytes(300)})


def read(folder: Path | str, cache: Path, **options: Any) -> ShardReader:
    return ShardReader(folder, cache_folder=cache, **options)


def expected(num_samples: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"id": i, "noise": rng.bytes(300)} for i in range(num_samples)]


def contents(url: str) -> dict[str, bytes]:
    return {Path(name).name: MEMORY.cat_file(name) for name in MEMORY.find(url)}


def copies(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.name[0] != ".")


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_url_holds_the_same_bytes_as_a_folder_and_gives_the_same_samples(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    for folder in (url, tmp_path / "local"):
        write(folder, compression=compression)
    assert contents(url) == {p.name: p.read_bytes() for p in (tmp_path / "local").iterdir()}
    reader = read(url, tmp_path / "cache")
    assert list(reader) == expected()
    reader.verify()
    assert [reader[i]["id"] for i in (39, 0, 20)] == [39, 0, 20]


def test_a_complete_url_is_refused_and_left_as_it_is(url: str) -> None:
    write(url)
    before = contents(url)
    with pytest.raises(ShardError, match="already holds complete shards"):
        write(url)
    assert contents(url) == before


def test_overwriting_leaves_none_of_the_old_shards_and_all_other_files(
    url: str, tmp_path: Path
) -> None:
    write(url)
    MEMORY.pipe_file(f"{url}/notes.txt", b"mine")
    MEMORY.pipe_file(f"{url}/below/shard.00000.mds", b"not ours")
    write(url, num_samples=1, overwrite=True)
    assert set(contents(url)) == {
        "index.json", "shard.00000.mds.zstd", "notes.txt", "shard.00000.mds"
    }  # fmt: skip
    assert len(read(url, tmp_path)) == 1


def test_a_failed_writer_leaves_no_index(url: str, tmp_path: Path) -> None:
    write(url)
    with pytest.raises(RuntimeError), ShardWriter(url, COLUMNS, overwrite=True):
        raise RuntimeError
    with pytest.raises(ShardError, match=f"{url} holds no complete shards"):
        read(url, tmp_path)


def test_a_url_with_credentials_is_refused_without_repeating_them(tmp_path: Path) -> None:
    for make in (lambda u: ShardWriter(u, COLUMNS), ShardReader):
        with pytest.raises(UsageError) as raised:
            make("s3://key:secret@bucket/shards")
        assert "secret" not in str(raised.value)


def test_copies_lie_in_the_users_cache_where_no_folder_is_named(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLANT_CACHE", str(tmp_path))
    write(url)
    list(ShardReader(url))
    assert copies(tmp_path / "shards")


def test_a_shard_is_downloaded_once_and_then_read_from_the_disk(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression=compression)
    assert list(read(url, tmp_path)) == expected()
    for name in MEMORY.find(url):
        if not name.endswith("index.json"):
            MEMORY.rm_file(name)
    assert list(read(url, tmp_path)) == expected()


def test_shards_written_anew_never_mix_with_the_copies_of_the_old_ones(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression=compression)
    assert list(read(url, tmp_path)) == expected()
    write(url, seed=1, overwrite=True, compression=compression)
    assert list(read(url, tmp_path)) == expected(seed=1)


def test_a_copy_that_was_removed_is_downloaded_again(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression=compression)
    reader = read(url, tmp_path, cache_bytes=0)
    assert list(reader) == expected()
    for copy in copies(tmp_path):
        copy.unlink()
    assert list(reader) == expected()


@pytest.mark.parametrize("damage", [flip, lambda content: content[:-1], lambda content: b""])
def test_a_damaged_copy_is_downloaded_again(
    url: str, compression: str | None, tmp_path: Path, damage: Any
) -> None:
    write(url, compression=compression)
    list(read(url, tmp_path))
    sound = {copy: copy.read_bytes() for copy in copies(tmp_path)}
    for copy, content in sound.items():
        copy.write_bytes(damage(content))
    assert list(read(url, tmp_path)) == expected()
    assert {copy: copy.read_bytes() for copy in copies(tmp_path)} == sound


@pytest.mark.parametrize("damage", [flip, lambda content: content[:-1]])
@pytest.mark.parametrize("checks", [True, False])
def test_damage_at_the_url_is_an_error_that_names_it_and_leaves_no_copy(
    url: str, compression: str | None, tmp_path: Path, damage: Any, checks: bool
) -> None:
    write(url, compression=compression)
    (name,) = (name for name in contents(url) if name.startswith("shard.00001"))
    MEMORY.pipe_file(f"{url}/{name}", damage(MEMORY.cat_file(f"{url}/{name}")))
    with pytest.raises(ShardError, match=f"{url}/{name}") as raised:
        list(read(url, tmp_path, check_on_read=checks))
    assert raised.value.hint
    assert [copy.name[:11] for copy in copies(tmp_path)] == ["shard.00000"]


def test_a_shard_that_is_missing_at_the_url_is_an_error_that_names_it(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression=compression)
    (name,) = (name for name in contents(url) if name.startswith("shard.00001"))
    MEMORY.rm_file(f"{url}/{name}")
    reader = read(url, tmp_path)
    with pytest.raises(ShardError, match=f"{url}/{name}: is missing"):
        list(reader)
    with pytest.raises(ShardError, match=f"{url}/{name}: is missing"):
        reader.verify()
    assert reader[39]["id"] == 39


def test_verifying_looks_at_the_url_and_not_at_the_copies(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression=compression)
    reader = read(url, tmp_path)
    list(reader)
    name = f"{url}/{sorted(contents(url))[-1]}"
    MEMORY.pipe_file(name, flip(MEMORY.cat_file(name)))
    with pytest.raises(ShardError, match=name):
        reader.verify()
    assert list(reader) == expected()


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_the_copies_never_take_more_than_they_may(
    url: str, compression: str | None, tmp_path: Path, cache_bytes: int
) -> None:
    write(url, compression=compression)
    limit = 5000
    reader = read(url, tmp_path, cache_disk_bytes=limit, cache_bytes=cache_bytes)
    for i in np.random.default_rng(0).integers(0, 40, 200).tolist():
        assert reader[i] == expected()[i]
        assert 0 < sum(copy.stat().st_size for copy in copies(tmp_path)) <= limit


def test_one_shard_is_let_in_even_where_it_alone_takes_more(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression=compression)
    reader = read(url, tmp_path, cache_disk_bytes=1)
    assert list(reader) == expected()
    assert len(copies(tmp_path)) == 1


def test_the_shard_that_was_used_least_recently_goes_first(url: str, tmp_path: Path) -> None:
    write(url)
    shards = json.loads(MEMORY.cat_file(f"{url}/index.json"))["shards"]
    names = [shard["zip_data"]["basename"] for shard in shards]
    limit = 3 * max(shard["zip_data"]["bytes"] for shard in shards)
    reader = read(url, tmp_path, cache_disk_bytes=limit, cache_bytes=0)
    for number in (0, 1, 2, 0, 3):
        reader[sum(shard["samples"] for shard in shards[:number])]
    assert [copy.name for copy in copies(tmp_path)] == [names[0], names[2], names[3]]


def test_a_reader_can_be_pickled_without_what_it_holds(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression=compression)
    reader = read(url, tmp_path)
    small = len(pickle.dumps(reader))
    assert list(reader) == expected()
    assert len(pickle.dumps(reader)) == small
    assert list(pickle.loads(pickle.dumps(reader))) == expected()


def test_threads_may_share_a_reader_and_readers_a_small_cache(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression=compression)
    want = expected()
    wrong: list[Any] = []

    def look(reader: ShardReader, seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, 40, 60).tolist():
            try:
                if reader[i] != want[i]:
                    wrong.append(i)
            except Exception as error:
                wrong.append(error)

    readers = [read(url, tmp_path, cache_disk_bytes=4000, cache_bytes=0) for _ in range(2)]
    threads = [threading.Thread(target=look, args=(readers[i % 2], i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_index_with_folders_in_its_names_is_read_from_a_url(url: str, tmp_path: Path) -> None:
    write(f"{url}/a", compression=None)
    index = json.loads(MEMORY.cat_file(f"{url}/a/index.json"))
    for shard in index["shards"]:
        shard["raw_data"]["basename"] = f"a/{shard['raw_data']['basename']}"
    MEMORY.pipe_file(f"{url}/index.json", json.dumps(index).encode())
    assert list(read(url, tmp_path)) == expected()
