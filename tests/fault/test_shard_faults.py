"""What can go wrong with shards on a disk: flipped bytes, lost files, a killed writer."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from forking import forking
from shard_worker import prepare_shard
from slant.artifacts import digest_file, find
from slant.errors import ShardError
from slant.shards.reader import ShardReader
from slant.shards.writer import ShardWriter

COLUMNS = {"id": "int", "tokens": "ndarray:int32", "text": "str"}


def write(folder: Path, compression: str | None, num_samples: int = 12) -> None:
    with ShardWriter(folder, COLUMNS, compression=compression, size_limit_bytes=900) as writer:
        for i in range(num_samples):
            tokens = np.arange(20, dtype=np.int32) * i
            writer.write({"id": i, "tokens": tokens, "text": f"текст {i}"})


@pytest.fixture(params=[None, "zstd"], ids=["plain", "zstd"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write(tmp_path, request.param)
    return tmp_path


def a_shard(folder: Path) -> Path:
    return sorted(folder.glob("shard.*"))[1]


def assert_verify_names(folder: Path, path: Path) -> None:
    with pytest.raises(ShardError) as raised:
        ShardReader(folder).verify()
    assert str(path) in raised.value.message
    assert raised.value.hint


def assert_reading_names(folder: Path, path: Path) -> None:
    with pytest.raises(ShardError) as raised:
        list(ShardReader(folder))
    assert str(path) in raised.value.message


def test_a_flipped_bit_in_any_byte_of_a_shard_is_noticed(folder: Path) -> None:
    path = a_shard(folder)
    content = path.read_bytes()
    rng = random.Random(0)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert_verify_names(folder, path)
        assert_reading_names(folder, path)


def test_a_flipped_bit_in_any_byte_of_the_index_is_noticed(folder: Path) -> None:
    path = folder / "index.json"
    content = path.read_bytes()
    rng = random.Random(1)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        # Damage to a name, a size or a hash shows as a shard that does not fit, named likewise.
        with pytest.raises(ShardError, match=str(folder)):
            ShardReader(folder).verify()


@pytest.mark.parametrize("kept", [0, 1, 4, 50, -1])
def test_a_truncated_shard_is_noticed(folder: Path, kept: int) -> None:
    path = a_shard(folder)
    path.write_bytes(path.read_bytes()[:kept])
    assert_verify_names(folder, path)
    assert_reading_names(folder, path)


def test_bytes_after_a_shard_are_noticed(folder: Path) -> None:
    path = a_shard(folder)
    path.write_bytes(path.read_bytes() + b"\0")
    assert_verify_names(folder, path)
    assert_reading_names(folder, path)


def test_a_missing_shard_is_noticed(folder: Path) -> None:
    path = a_shard(folder)
    path.unlink()
    assert_verify_names(folder, path)
    assert_reading_names(folder, path)


def test_a_folder_in_the_place_of_a_shard_is_noticed(folder: Path) -> None:
    path = a_shard(folder)
    path.unlink()
    path.mkdir()
    assert_verify_names(folder, path)
    assert_reading_names(folder, path)


def test_two_shards_in_each_others_place_are_noticed(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("shard.*"))
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    assert_verify_names(folder, first)
    assert_verify_names(folder, second)


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_truncated_index_is_noticed(folder: Path, length: int) -> None:
    path = folder / "index.json"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ShardError, match=str(path)):
        ShardReader(folder)


def test_a_name_that_climbs_out_of_the_folder_is_refused_even_if_the_file_is_right(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "inside"
    write(folder, None)
    shutil.copy(folder / "shard.00000.mds", tmp_path / "shard.00000.mds")
    path = folder / "index.json"
    index = json.loads(path.read_text())
    for name in ("../shard.00000.mds", str(tmp_path / "shard.00000.mds")):
        index["shards"][0]["raw_data"]["basename"] = name
        path.write_text(json.dumps(index))
        with pytest.raises(ShardError, match="unsafe name") as raised:
            ShardReader(folder)
        assert str(path) in raised.value.message


def test_checks_at_first_read_can_be_turned_off(tmp_path: Path) -> None:
    write(tmp_path, None)
    path = a_shard(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert len(list(ShardReader(tmp_path, check_on_read=False))) == 12
    assert_verify_names(tmp_path, path)


def test_without_hashes_a_sample_that_cannot_be_decoded_still_names_its_shard(
    tmp_path: Path,
) -> None:
    with ShardWriter(tmp_path, {"text": "str"}, compression=None, hashes=()) as writer:
        writer.write({"text": "fine"})
        writer.write({"text": "cut"})
    path = tmp_path / "shard.00000.mds"
    path.write_bytes(path.read_bytes()[:-3] + b"\xff\xff\xff")
    reader = ShardReader(tmp_path)
    assert reader[0] == {"text": "fine"}
    with pytest.raises(ShardError, match=f"{path}: sample 1: column 'text'"):
        reader[1]


WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from typing import Any
import numpy as np
from slant.shards.writer import ShardWriter
columns = {"id": "int", "noise": "bytes"}
with ShardWriter(Path(sys.argv[1]), columns, size_limit_bytes=300_000) as writer:
    rng = np.random.default_rng(0)
    for i in itertools.count():
        writer.write({"id": i, "noise": rng.bytes(1000)})
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.11])
def test_a_writer_killed_in_the_middle_leaves_no_index_and_a_rerun_succeeds(
    tmp_path: Path, delay_s: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("shard.*.zstd"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(delay_s)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "index.json").exists()
    with pytest.raises(ShardError, match="holds no complete shards"):
        ShardReader(tmp_path)

    write(tmp_path, "zstd")
    reader = ShardReader(tmp_path)
    reader.verify()
    assert [sample["id"] for sample in reader] == list(range(12))
    index = json.loads((tmp_path / "index.json").read_text())
    left = {path.name for path in tmp_path.iterdir()} - {"index.json"}
    assert left == {shard["zip_data"]["basename"] for shard in index["shards"]}


# --- with the workers of a DataLoader


def with_workers(reader: ShardReader, num_workers: int) -> list[dict[str, Any]]:
    """All samples through a DataLoader; half a minute is its time to hang."""
    loader = DataLoader(
        reader,  # type: ignore[arg-type]
        batch_size=2,
        collate_fn=list,
        num_workers=num_workers,
        timeout=30 if num_workers else 0,
    )
    batches = iter(loader)
    try:
        return [sample for batch in batches for sample in batch]
    finally:
        if num_workers:  # left to the garbage collector, the workers go after ten seconds
            batches._shutdown_workers()  # type: ignore[attr-defined]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_read_every_sample_once(folder: Path, num_workers: int) -> None:
    reader = ShardReader(folder)
    reader[0]  # the workers begin with a reader that holds a shard and has used its lock
    assert [sample["id"] for sample in with_workers(reader, num_workers)] == list(range(12))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("fault", ["flipped", "missing"])
def test_a_damaged_or_missing_shard_is_named_through_any_number_of_workers(
    folder: Path, num_workers: int, fault: str
) -> None:
    path = a_shard(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if fault == "flipped":
        path.write_bytes(content)
    with pytest.raises(ShardError, match=re.escape(str(path))):
        with_workers(ShardReader(folder), num_workers)


def test_a_fork_while_another_thread_reads_does_not_wait_for_that_thread(folder: Path) -> None:
    reader = ShardReader(folder)
    with reader._lock:  # as it is while a shard is read
        assert len(with_workers(reader, 1)) == 12


# --- kill -9 in the middle of the shard stage


def stage_files(out: Path) -> dict[str, str]:
    """Digest of every file of an artifact; the manifest tells when it was made, so it is out."""
    assert find(out, "shard") is not None
    return {
        path.relative_to(out).as_posix(): digest_file(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def test_a_stage_killed_at_twenty_random_moments_ends_like_one_that_was_not(tmp_path: Path) -> None:
    prepare_shard(tmp_path)
    rng = random.Random(3)
    kills = resumed = 0
    with forking("shard_worker:run_prepared") as worker:
        worker.run(tmp_path, tmp_path / "whole")
        started = time.monotonic()
        worker.run(tmp_path, tmp_path / "timed")
        seconds = time.monotonic() - started
        whole = stage_files(tmp_path / "whole")
        assert len([name for name in whole if "shard." in name]) > 60
        while kills < 20:
            out = tmp_path / f"killed-{resumed}"
            killed = worker.run(tmp_path, out, kill_after_s=rng.uniform(0, seconds))
            kills += killed
            if killed and rng.random() < 0.5:
                continue  # and once more in the same place
            worker.run(tmp_path, out)
            assert stage_files(out) == whole
            shutil.rmtree(out)
            resumed += 1
    assert resumed >= 5
