import json
import os
import subprocess
import sys

import numpy as np
import pytest

from slant.errors import ShardError, StorageError
from slant.shards.reader import ShardReader
from slant.shards.writer import ShardWriter

COLUMNS = {"id": "int", "tokens": "ndarray:int32"}


def sample(i, size=10):
    return {"id": i, "tokens": np.full(size, i, np.int32)}


def write(folder, num_samples=20, **options):
    with ShardWriter(folder, COLUMNS, **options) as writer:
        for i in range(num_samples):
            writer.write(sample(i))
    return ShardReader(folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_samples_come_back_in_the_order_written(tmp_path):
    reader = write(tmp_path / "not" / "there" / "yet", size_limit_bytes=600)
    assert [row["id"] for row in reader] == list(range(20))


def test_names_and_compression_are_those_of_the_format(tmp_path):
    write(tmp_path / "zstd", size_limit_bytes=800, num_samples=12, compression="zstd:5")
    write(tmp_path / "none", size_limit_bytes=800, num_samples=12, compression=None)
    assert names(tmp_path / "zstd") == [
        "index.json",
        "shard.00000.mds.zstd",
        "shard.00001.mds.zstd",
    ]
    assert names(tmp_path / "none") == ["index.json", "shard.00000.mds", "shard.00001.mds"]
    index = json.loads((tmp_path / "zstd" / "index.json").read_text())
    assert [shard["compression"] for shard in index["shards"]] == ["zstd:5", "zstd:5"]


def test_no_shard_is_larger_than_the_limit(tmp_path):
    write(tmp_path, size_limit_bytes=700, compression=None)
    shards = list(tmp_path.glob("*.mds"))
    assert len(shards) > 1
    assert all(path.stat().st_size <= 700 for path in shards)


def test_a_sample_larger_than_the_limit_has_a_shard_of_its_own(tmp_path):
    with ShardWriter(tmp_path, COLUMNS, size_limit_bytes=600) as writer:
        for i, size in enumerate([1, 1000, 1, 1]):
            writer.write(sample(i, size))
    index = json.loads((tmp_path / "index.json").read_text())
    assert [shard["samples"] for shard in index["shards"]] == [1, 1, 2]


def test_no_sample_at_all_gives_an_index_without_shards(tmp_path):
    reader = write(tmp_path, num_samples=0)
    assert len(reader) == 0
    assert list(reader) == []
    assert names(tmp_path) == ["index.json"]


def test_equal_samples_give_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        write(tmp_path / folder, size_limit_bytes=600)
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_hashes_are_sorted_and_unique_as_the_format_wants_them(tmp_path):
    write(tmp_path, hashes=("xxh64", "sha256", "xxh64"))
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["shards"][0]["hashes"] == ["sha256", "xxh64"]


def test_a_complete_folder_is_refused_and_left_as_it_is(tmp_path):
    write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ShardError, match="already holds complete shards"):
        write(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_overwriting_leaves_none_of_the_old_shards_and_all_other_files(tmp_path):
    write(tmp_path, num_samples=60, size_limit_bytes=600)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "shard.notes.txt").write_text("mine")
    reader = write(tmp_path, num_samples=2, overwrite=True)
    assert len(reader) == 2
    assert names(tmp_path) == [
        "index.json",
        "manifest.json",
        "shard.00000.mds.zstd",
        "shard.notes.txt",
    ]


def test_an_overwrite_that_fails_does_not_leave_the_old_index(tmp_path):
    write(tmp_path)
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, COLUMNS, overwrite=True):
        raise RuntimeError
    assert names(tmp_path) == []


def test_an_exception_in_the_block_leaves_no_index_and_the_next_run_succeeds(tmp_path):
    def interrupted():
        with ShardWriter(tmp_path, COLUMNS, size_limit_bytes=600) as writer:
            for i in range(30):
                writer.write(sample(i))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "index.json" not in names(tmp_path)
    with pytest.raises(ShardError, match="no complete shards"):
        ShardReader(tmp_path)
    assert len(write(tmp_path, num_samples=1)) == 1
    assert names(tmp_path) == ["index.json", "shard.00000.mds.zstd"]


def test_a_bad_sample_can_be_set_aside(tmp_path):
    with ShardWriter(tmp_path, COLUMNS) as writer:
        writer.write(sample(0))
        with pytest.raises(ShardError, match="column 'id'"):
            writer.write({"id": "one", "tokens": np.zeros(1, np.int32)})
        writer.write(sample(2))
        assert writer.num_samples == 2
    assert [row["id"] for row in ShardReader(tmp_path)] == [0, 2]


def test_a_writer_works_only_inside_its_block(tmp_path):
    writer = ShardWriter(tmp_path, COLUMNS)
    with pytest.raises(ShardError, match="not open"):
        writer.write(sample(0))
    with writer:
        writer.write(sample(0))
    with pytest.raises(ShardError, match="not open"):
        writer.write(sample(1))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gz"},
        {"compression": ""},
        {"size_limit_bytes": 0},
        {"size_limit_bytes": 2**32},
        {"hashes": ("crc32",)},
    ],
)
def test_settings_that_the_format_does_not_have_are_refused(tmp_path, options):
    with pytest.raises(ShardError):
        ShardWriter(tmp_path, COLUMNS, **options)


def test_a_full_disk_is_a_storage_error_naming_the_file(tmp_path):
    def write_to_a_full_disk():
        with ShardWriter(tmp_path, COLUMNS) as writer:
            writer.write(sample(0))
            # Every write to this device fails as on a full disk.
            (tmp_path / "shard.00000.mds.zstd.tmp").symlink_to("/dev/full")

    with pytest.raises(StorageError, match=r"shard\.00000\.mds\.zstd: No space left") as raised:
        write_to_a_full_disk()
    assert "Free some space" in raised.value.hint
    assert names(tmp_path) == []


def test_after_a_full_disk_the_same_sample_can_be_written_again(tmp_path):
    with ShardWriter(tmp_path, COLUMNS, size_limit_bytes=600) as writer:
        (tmp_path / "shard.00000.mds.zstd.tmp").symlink_to("/dev/full")
        i = failures = 0
        while i < 20:
            try:
                writer.write(sample(i))
                i += 1
            except StorageError:  # the link is gone with the failed attempt
                failures += 1
    assert failures == 1
    assert [row["id"] for row in ShardReader(tmp_path)] == list(range(20))


def test_a_file_in_the_place_of_the_folder_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file"):
        write(tmp_path / "file")


def test_a_folder_in_the_place_of_a_shard_is_a_storage_error(tmp_path):
    (tmp_path / "shard.00000.mds.zstd").mkdir()
    with pytest.raises(StorageError, match=r"shard\.00000\.mds\.zstd"):
        write(tmp_path)


def test_a_missing_permission_is_a_storage_error(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    script = """
import os, sys
from pathlib import Path
from slant.errors import StorageError
from slant.shards.writer import ShardWriter
if os.geteuid() == 0:
    os.setuid(65534)  # root may write everywhere
try:
    with ShardWriter(Path(sys.argv[1]), {"id": "int"}) as writer:
        writer.write({"id": 1})
except StorageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "Permission denied" in done.stdout
    assert str(folder) in done.stdout
    assert "Check who owns the folder" in done.stdout


def stop_after(folder, journal, num_samples):
    """Write some samples with a mark after each, and fail; returns the complete shards."""

    def stopped():
        with ShardWriter(folder, COLUMNS, size_limit_bytes=600, journal=journal) as writer:
            for i in range(num_samples):
                writer.write(sample(i))
                writer.mark({"next": i + 1})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    return {path: path.stat().st_ino for path in folder.glob("shard.*")}


def test_with_a_journal_a_writer_goes_on_after_the_last_complete_shard(tmp_path):
    folder, journal = tmp_path / "shards", tmp_path / "not" / "yet" / "journal.json"
    before = stop_after(folder, journal, 20)
    assert len(before) > 2
    with ShardWriter(folder, COLUMNS, size_limit_bytes=600, journal=journal) as writer:
        present = writer.num_samples
        assert 0 < present < 20
        assert writer.resumed.num_samples == writer.resumed.note["next"] == present
        for i in range(present, 20):
            writer.write(sample(i))
    assert {path: path.stat().st_ino for path in before} == before
    assert [row["id"] for row in ShardReader(folder)] == list(range(20))
    write(tmp_path / "whole", size_limit_bytes=600)
    for name in names(tmp_path / "whole"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"index": {}, "mark": {}}', '{"index": 7}'])
def test_a_damaged_journal_only_costs_time(tmp_path, content):
    folder, journal = tmp_path / "shards", tmp_path / "journal.json"
    stop_after(folder, journal, 20)
    journal.write_text(content)
    with ShardWriter(folder, COLUMNS, size_limit_bytes=600, journal=journal) as writer:
        assert (writer.num_samples, writer.resumed) == (0, None)
        assert names(folder) == []


def test_a_journal_of_other_settings_or_of_shards_that_are_gone_is_not_followed(tmp_path):
    folder, journal = tmp_path / "shards", tmp_path / "journal.json"
    stop_after(folder, journal, 20)
    with ShardWriter(folder, COLUMNS, size_limit_bytes=700, journal=journal) as writer:
        assert writer.resumed is None
    stop_after(tmp_path / "other", journal, 20)
    (tmp_path / "other" / names(tmp_path / "other")[0]).unlink()
    with ShardWriter(tmp_path / "other", COLUMNS, size_limit_bytes=600, journal=journal) as writer:
        assert writer.resumed is None


def test_a_journal_does_not_allow_a_complete_folder_to_be_overwritten(tmp_path):
    folder, journal = tmp_path / "shards", tmp_path / "journal.json"
    write(folder, journal=journal)
    with pytest.raises(ShardError, match="already holds complete shards"):
        write(folder, journal=journal)
