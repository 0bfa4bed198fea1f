import io
import threading

import numpy as np
import pytest
import zstandard

from slant.errors import ShardError
from slant.progress import JsonProgress
from slant.shards.reader import ShardReader
from slant.shards.writer import ShardWriter

COLUMNS = {"id": "int", "text": "str"}


def write(folder, num_samples=50, compression="zstd"):
    with ShardWriter(folder, COLUMNS, size_limit_bytes=700, compression=compression) as writer:
        for i in range(num_samples):
            writer.write({"id": i, "text": f"dokumento {i}"})
    return folder


@pytest.fixture(params=["zstd", None])
def folder(request, tmp_path):
    return write(tmp_path, compression=request.param)


@pytest.mark.parametrize("cache_bytes", [0, 1500, 10**9])
def test_any_sample_is_read_by_its_number(folder, cache_bytes):
    reader = ShardReader(folder, cache_bytes=cache_bytes)
    assert len(reader) == 50
    for i in [*range(49, -1, -1), 0, 25, 49, 3]:
        assert reader[i] == {"id": i, "text": f"dokumento {i}"}


def test_iterating_is_reading_in_order_and_can_be_repeated(folder):
    reader = ShardReader(folder)
    for _ in range(2):
        assert [sample["id"] for sample in reader] == list(range(50))


def test_numbers_work_as_in_a_list(folder):
    reader = ShardReader(folder)
    assert reader[-1] == reader[49]
    assert reader[np.int64(7)]["id"] == 7
    for number in (50, -51):
        with pytest.raises(IndexError, match=f"sample {number} of 50"):
            reader[number]
    with pytest.raises(TypeError):
        reader[1.0]


def test_threads_may_share_a_reader(folder):
    reader = ShardReader(folder, cache_bytes=0)
    wrong = []

    def read(start):
        for i in range(200):
            number = (start * 17 + i * 7) % 50
            if reader[number]["id"] != number:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_verifying_reports_every_shard(folder):
    stream = io.StringIO()
    ShardReader(folder).verify(JsonProgress(stream))
    num_shards = len(list(folder.glob("shard.*")))
    assert num_shards > 2
    expected = (
        f'{{"task": "verify", "total": {num_shards}, "unit": "shards", "done": {num_shards}}}'
    )
    assert stream.getvalue().splitlines()[-1] == expected


def test_verifying_names_every_damaged_file_at_once(folder):
    first, second, third = sorted(folder.glob("shard.*"))[:3]
    first.unlink()
    third.write_bytes(third.read_bytes() + b"!")
    with pytest.raises(ShardError) as raised:
        ShardReader(folder).verify()
    assert raised.value.message.count("\n") == 1
    assert f"{first}: is missing" in raised.value.message
    assert str(second) not in raised.value.message
    assert str(third) in raised.value.message


def test_the_rest_of_a_damaged_folder_can_still_be_read(folder):
    first, *_ = sorted(folder.glob("shard.*"))
    first.unlink()
    reader = ShardReader(folder)
    assert reader[49]["id"] == 49
    with pytest.raises(ShardError, match=str(first)):
        reader[0]


def test_a_folder_without_an_index_is_no_complete_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ShardError, match=r"holds no complete shards: it has no index\.json"):
            ShardReader(folder)


def test_a_shard_that_was_decompressed_in_place_is_read_without_the_compressed_file(tmp_path):
    for zipped in list(write(tmp_path).glob("*.zstd")):
        raw = zstandard.ZstdDecompressor().decompress(zipped.read_bytes())
        (tmp_path / zipped.stem).write_bytes(raw)
        zipped.unlink()
    reader = ShardReader(tmp_path)
    reader.verify()
    assert [sample["id"] for sample in reader] == list(range(50))


def test_a_shard_of_another_folder_is_noticed_even_without_hashes(tmp_path):
    for name, columns in (("a", {"id": "int"}), ("b", {"no": "int"})):
        with ShardWriter(tmp_path / name, columns, hashes=(), compression=None) as writer:
            writer.write({next(iter(columns)): 5})
    (tmp_path / "b" / "shard.00000.mds").replace(tmp_path / "a" / "shard.00000.mds")
    with pytest.raises(ShardError, match="header and the index disagree about column_names"):
        ShardReader(tmp_path / "a")[0]
