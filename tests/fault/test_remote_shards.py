"""Shards in S3: a server that dies and comes back, damage there, processes that share a cache."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from forking import forking
from s3_server import S3Server, s3_server
from shard_worker import prepare_shard
from slant.artifacts import load
from slant.errors import ShardError
from slant.progress import SilentProgress
from slant.shards.reader import ShardReader
from slant.shards.writer import ShardWriter
from slant.train.shard import verify_shards
from slant.train.streams import open_shards, stream_names

COLUMNS = {"id": "int", "noise": "bytes"}
NUM_SAMPLES = 60


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def url(server: S3Server, request: pytest.FixtureRequest) -> str:
    bucket = "b" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    server.put(f"{bucket}/", b"")
    return f"s3://{bucket}/shards"


@pytest.fixture(params=["zstd", None], ids=["zstd", "plain"])
def compression(request: pytest.FixtureRequest) -> str | None:
    return request.param


def samples() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"id": i, "noise": rng.bytes(3000)} for i in range(NUM_SAMPLES)]


def write(folder: Path | str, compression: str | None, pause: Callable[[int], None] = id) -> None:
    with ShardWriter(folder, COLUMNS, compression=compression, size_limit_bytes=10_000) as writer:
        for sample in samples():
            pause(sample["id"])
            writer.write(sample)


def key(url: str) -> str:
    return url.removeprefix("s3://")


def a_shard(server: S3Server, url: str) -> str:
    bucket, _, folder = key(url).partition("/")
    names = [name for name in server.keys(bucket) if name.startswith(f"{folder}/shard.00003")]
    return f"s3://{bucket}/{names[0]}"


@contextmanager
def away_for(server: S3Server, seconds: float) -> Iterator[None]:
    """The server is killed, and started again while the block runs."""
    server.kill()
    later = threading.Timer(seconds, server.restart)
    later.start()
    try:
        yield
    finally:
        later.join()


def test_what_is_written_to_s3_is_what_a_folder_would_hold(
    server: S3Server, url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression)
    write(tmp_path / "here", compression)
    bucket, _, folder = key(url).partition("/")
    found = {name: server.get(f"{bucket}/{name}") for name in server.keys(bucket)}
    here = {f"{folder}/{p.name}": p.read_bytes() for p in (tmp_path / "here").iterdir()}
    assert found == here
    reader = ShardReader(url, cache_folder=tmp_path / "cache")
    assert list(reader) == samples()
    reader.verify()


def test_a_server_that_dies_while_shards_are_written_is_waited_for(
    server: S3Server, url: str, compression: str | None, tmp_path: Path
) -> None:
    back: list[threading.Timer] = []

    def die(number: int) -> None:
        if number in (20, 41):
            server.kill()
            back.append(threading.Timer(0.4, server.restart))
            back[-1].start()

    write(url, compression, die)
    for timer in back:
        timer.join()
    assert len(back) == 2
    reader = ShardReader(url, cache_folder=tmp_path)
    reader.verify()
    assert list(reader) == samples()
    bucket = key(url).partition("/")[0]
    assert len(server.keys(bucket)) == len(reader._entries) + 1  # nothing twice


def test_a_server_that_dies_while_shards_are_read_is_waited_for(
    server: S3Server, url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression)
    reader = ShardReader(url, cache_folder=tmp_path)
    found = [reader[number] for number in range(20)]
    with away_for(server, 0.4):
        found += [reader[number] for number in range(20, 40)]
    with away_for(server, 0.4):
        found += [reader[number] for number in range(40, NUM_SAMPLES)]
        reader.verify()
    assert found == samples()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_read_from_s3_while_it_dies_and_comes_back(
    server: S3Server, url: str, compression: str | None, tmp_path: Path, num_workers: int
) -> None:
    write(url, compression)
    reader = ShardReader(url, cache_folder=tmp_path, cache_disk_bytes=30_000)
    reader[0]  # the workers begin with connections of this process open
    found: list[dict[str, Any]] = []
    for batch in loader(reader, num_workers):
        if len(found) == 10:
            server.kill()
            threading.Timer(0.4, server.restart).start()
        found += batch
    time.sleep(0.5)
    assert found == samples()


def loader(reader: ShardReader, num_workers: int) -> Iterator[list[dict[str, Any]]]:
    batches = iter(
        DataLoader(
            reader,  # type: ignore[arg-type]
            batch_size=2,
            collate_fn=list,
            num_workers=num_workers,
            timeout=60 if num_workers else 0,
        )
    )
    try:
        yield from batches
    finally:
        if num_workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("fault", ["flipped", "missing"])
def test_a_damaged_or_missing_shard_in_s3_is_named_through_any_number_of_workers(
    server: S3Server, url: str, tmp_path: Path, num_workers: int, fault: str
) -> None:
    write(url, "zstd")
    name = a_shard(server, url)
    if fault == "flipped":
        content = bytearray(server.get(key(name)))
        content[len(content) // 2] ^= 1
        server.put(key(name), bytes(content))
    else:
        import s3fs

        s3fs.S3FileSystem().rm_file(name)
    with pytest.raises(ShardError, match=re.escape(name)):
        list(loader(ShardReader(url, cache_folder=tmp_path), num_workers))


READ_AT_RANDOM = """
import random, sys
from pathlib import Path
from slant.shards.reader import ShardReader
url, cache, seed = sys.argv[1:]
reader = ShardReader(url, cache_folder=Path(cache), cache_disk_bytes=30_000, cache_bytes=0)
rng = random.Random(int(seed))
for _ in range(150):
    number = rng.randrange(len(reader))
    assert reader[number]["id"] == number
print("right")
"""


def test_processes_share_a_small_cache(url: str, compression: str | None, tmp_path: Path) -> None:
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    write(url, compression)
    command = [sys.executable, "-c", READ_AT_RANDOM, url, str(tmp_path)]
    readers = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True, env=os.environ)
        for seed in range(3)
    ]
    sizes = []
    while any(reader.poll() is None for reader in readers):
        sizes.append(taken(tmp_path))
        time.sleep(0.005)
    assert [reader.communicate()[0] for reader in readers] == ["right\n"] * 3
    # Every process may hold one shard that nobody else can remove.
    assert 10_000 < max(sizes) <= 30_000 + 3 * 10_000
    if Path("/dev/shm").is_dir():
        assert not {p for p in set(Path("/dev/shm").iterdir()) - before if "slant" in p.name}


def taken(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def test_a_reader_that_was_killed_in_the_middle_of_a_download_leaves_nothing_that_harms(
    url: str, compression: str | None, tmp_path: Path
) -> None:
    write(url, compression)
    command = [sys.executable, "-c", READ_AT_RANDOM, url, str(tmp_path), "7"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ) as killed:
        while not list(tmp_path.rglob("shard.*")):
            time.sleep(0.001)
        killed.kill()
    for partial in [p for p in tmp_path.rglob("shard.*") if not p.name.endswith(".part")]:
        # As a kill would leave it: taken, half written, locked by nobody.
        partial.with_name(partial.name + ".part").write_bytes(b"half")
        partial.unlink()
    assert list(ShardReader(url, cache_folder=tmp_path, cache_disk_bytes=30_000)) == samples()


def test_a_stage_that_writes_to_s3_survives_its_own_kills_and_those_of_the_server(
    server: S3Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLANT_CACHE", str(tmp_path / "cache"))
    prepare_shard(tmp_path / "here")
    # In larger shards: every request to this server takes its time.
    prepare_shard(tmp_path / "there", shard={"to": url, "size_limit_bytes": 8000})
    rng = random.Random(5)
    with forking("shard_worker:run_prepared") as worker:
        worker.run(tmp_path / "here", tmp_path / "here" / "out")
    out = tmp_path / "there" / "out"
    kills = 0
    with forking("shard_worker:run_prepared") as worker:
        for _ in range(6):
            kills += worker.run(tmp_path / "there", out, kill_after_s=rng.uniform(0.05, 0.4))
        with away_for(server, 0.4):
            worker.run(tmp_path / "there", out)
    assert kills >= 3
    here, there = (load(tmp_path / name / "out", "shard") for name in ("here", "there"))
    assert stream_names(there) == stream_names(here)
    for name in stream_names(here):
        expected = [str(sample) for sample in open_shards(here, name)]
        assert [str(sample) for sample in open_shards(there, name)] == expected
    assert there.facts == here.facts
    verify_shards(there, SilentProgress())
    location = json.loads(there.file("shards.json").read_text())["location"]
    assert location == f"{url}/{there.key[:16]}"
