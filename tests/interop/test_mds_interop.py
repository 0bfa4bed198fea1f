"""MosaicML's own library reads what slant writes, slant reads what it writes, byte for byte.

The library does not install beside slant's torch, so it runs in a Python of its own; `make interop`
makes one (tests/interop/setup.sh) and names it in SLANT_MDS_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shard_worker import prepare_shard, run_prepared
from slant.shards.reader import ShardReader
from slant.shards.writer import ShardWriter

# torchvision, which these subpackages import, has no build for a CPU-only torch; the shard
# formats do not use them.
STUBS = """
import json, sys, types
for name in ("vision", "multimodal", "text"):
    sys.modules["streaming." + name] = types.ModuleType("streaming." + name)
import numpy as np
from streaming import MDSWriter, StreamingDataset
"""

PLAIN = """
def plain(value):
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "shape": list(value.shape), "values": value.tolist()}
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return value.item() if isinstance(value, np.generic) else value
"""

READ = """
data = StreamingDataset(
    local=sys.argv[1], shuffle=False, batch_size=1, validate_hash=sys.argv[2] or None
)
samples = [{k: plain(v) for k, v in data[i].items()} for i in range(data.num_samples)]
print("RESULT", json.dumps(samples))
"""

READ_SHUFFLED = """
from torch.utils.data import DataLoader

def main():
    data = StreamingDataset(
        local=sys.argv[1], shuffle=True, shuffle_seed=3, batch_size=4, validate_hash="xxh64",
    )
    loader = DataLoader(data, batch_size=4, num_workers=2, collate_fn=list)
    epochs = []
    for _ in range(2):
        epochs.append([{k: plain(v) for k, v in row.items()} for batch in loader for row in batch])
    print("RESULT", json.dumps(epochs))

if __name__ == "__main__":
    main()
"""

# It must make the same samples as `samples()` below; the test that compares bytes holds it to it.
WRITE = """
folder, compression, size_limit, columns, hashes, names = sys.argv[1:7]
texts = ["Magandang umaga", "", "Добрый день", "早上好 🌏", "a\\u0000b"]
with MDSWriter(out=folder, columns=json.loads(columns), compression=compression or None,
               hashes=json.loads(hashes), size_limit=int(size_limit)) as out:
    for i in range(60):
        out.write({
            "text": texts[i % 5],
            "tokens": np.arange(1 + 37 * i % 300, dtype=np.int32) * i,
            "matrix": np.full((2, 3), i / 7, dtype=np.float32),
            "any": np.arange(1 + i, dtype=[np.uint8, np.int64, np.float16][i % 3]),
            "blob": bytes(range(i)),
            "number": -i * 2**40,
            "small": i - 30,
            "weight": i / 3,
            "half": i / 3,
            "facts": {"i": i, "текст": [None, True, texts[i % 5]]},
            **{f"of_{name}": np.array([i, 2 * i]).astype(name) for name in json.loads(names)},
            **{f"one_{name}": np.array(i).astype(name)[()] for name in json.loads(names)},
        })
print("RESULT", "null")
"""

DTYPES = ["uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32"]
DTYPES += ["uint64", "int64", "float64"]
COLUMNS = {
    "text": "str",
    "tokens": "ndarray:int32",
    "matrix": "ndarray:float32:2,3",
    "any": "ndarray",
    "blob": "bytes",
    "number": "int",
    "small": "int32",
    "weight": "float64",
    "half": "float32",
    "facts": "json",
    **{f"of_{name}": f"ndarray:{name}" for name in DTYPES},
    **{f"one_{name}": name for name in DTYPES},
}
HASHES = ["blake2b", "blake2s", "md5", "sha1", "sha256", "sha512"]
HASHES += ["xxh128", "xxh32", "xxh3_128", "xxh3_64", "xxh64"]
SIZE_LIMIT_BYTES = 8000


def samples() -> list[dict[str, Any]]:
    texts = ["Magandang umaga", "", "Добрый день", "早上好 🌏", "a\u0000b"]
    dtypes = [np.uint8, np.int64, np.float16]
    return [
        {
            "text": texts[i % 5],
            "tokens": np.arange(1 + 37 * i % 300, dtype=np.int32) * i,
            "matrix": np.full((2, 3), i / 7, dtype=np.float32),
            "any": np.arange(1 + i, dtype=dtypes[i % 3]),
            "blob": bytes(range(i)),
            "number": -i * 2**40,
            "small": i - 30,
            "weight": i / 3,
            "half": i / 3,
            "facts": {"i": i, "текст": [None, True, texts[i % 5]]},
            **{f"of_{name}": np.array([i, 2 * i]).astype(name) for name in DTYPES},
            **{f"one_{name}": np.array(i).astype(name).item() for name in DTYPES},
        }
        for i in range(60)
    ]


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "shape": list(value.shape), "values": value.tolist()}
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def plain_samples(rows: Any) -> list[dict[str, Any]]:
    return [{name: plain(value) for name, value in row.items()} for row in rows]


def expected_samples() -> list[dict[str, Any]]:
    """What any reader must return: float32 columns have been rounded."""
    return plain_samples({**row, "half": float(np.float32(row["half"]))} for row in samples())


@pytest.fixture(scope="module")
def peer_python() -> str:
    python = os.environ.get("SLANT_MDS_PYTHON", "")
    if not python:
        pytest.skip("SLANT_MDS_PYTHON does not name a Python that has mosaicml-streaming")
    found = subprocess.run([python, "-c", STUBS], capture_output=True, text=True, check=False)
    if found.returncode:
        last_line = found.stderr.strip().splitlines()[-1]
        pytest.skip(f"{python} cannot import mosaicml-streaming: {last_line}")
    return python


def run_peer(python: str, script: str, *arguments: str) -> Any:
    done = subprocess.run(
        [python, "-c", STUBS + PLAIN + script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr
    return json.loads(results[0].removeprefix("RESULT "))


def write_ours(folder: Path, compression: str | None) -> None:
    with ShardWriter(
        folder, COLUMNS, compression=compression, size_limit_bytes=SIZE_LIMIT_BYTES
    ) as writer:
        for sample in samples():
            writer.write(sample)


def write_theirs(
    python: str,
    folder: Path,
    compression: str | None,
    hashes: Sequence[str] = ("sha1", "xxh64"),
    columns: Mapping[str, str] = COLUMNS,
) -> None:
    settings = (compression or "", str(SIZE_LIMIT_BYTES), json.dumps(columns))
    run_peer(python, WRITE, str(folder), *settings, json.dumps(list(hashes)), json.dumps(DTYPES))


@pytest.mark.parametrize("compression", [None, "zstd", "zstd:9"])
def test_their_reader_reads_what_our_writer_writes(
    peer_python: str, tmp_path: Path, compression: str | None
) -> None:
    write_ours(tmp_path, compression)
    assert len(list(tmp_path.glob("shard.*"))) > 3
    for hash_name in ("", "sha1", "xxh64"):
        assert run_peer(peer_python, READ, str(tmp_path), hash_name) == expected_samples()


@pytest.mark.parametrize("compression", [None, "zstd", "zstd:9"])
def test_our_reader_reads_what_their_writer_writes(
    peer_python: str, tmp_path: Path, compression: str | None
) -> None:
    write_theirs(peer_python, tmp_path, compression)
    reader = ShardReader(tmp_path)
    reader.verify()
    assert plain_samples(reader) == expected_samples()


def test_our_reader_checks_every_hash_that_their_writer_knows(
    peer_python: str, tmp_path: Path
) -> None:
    write_theirs(peer_python, tmp_path, "zstd", HASHES)
    reader = ShardReader(tmp_path)
    reader.verify()
    assert plain_samples(reader) == expected_samples()


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_their_dataset_with_two_workers_gives_each_of_our_samples_once_an_epoch_shuffled(
    peer_python: str, tmp_path: Path, compression: str | None
) -> None:
    write_ours(tmp_path, compression)
    epochs = run_peer(peer_python, READ_SHUFFLED, str(tmp_path))
    for epoch in epochs:
        # A number stands in every sample; it is theirs alone.
        assert sorted(epoch, key=lambda sample: sample["small"]) == expected_samples()
    assert epochs[0] != epochs[1]
    assert epochs[0] != expected_samples()


def test_their_dataset_reads_what_our_shard_stage_writes(peer_python: str, tmp_path: Path) -> None:
    prepare_shard(tmp_path)
    run_prepared(str(tmp_path), str(tmp_path / "out"))
    for name in ("tune/train", "adapt/train/ru"):
        ours = plain_samples(ShardReader(tmp_path / "out" / name))
        assert run_peer(peer_python, READ, str(tmp_path / "out" / name), "xxh64") == ours


def test_both_writers_write_the_same_bytes(peer_python: str, tmp_path: Path) -> None:
    write_ours(tmp_path / "ours", None)
    write_theirs(peer_python, tmp_path / "theirs", None)
    ours, theirs = (
        {path.name: path.read_bytes() for path in (tmp_path / who).iterdir()}
        for who in ("ours", "theirs")
    )
    assert ours == theirs


def test_our_reader_reads_shards_that_their_reader_has_decompressed_in_place(
    peer_python: str, tmp_path: Path
) -> None:
    write_ours(tmp_path, "zstd")
    run_peer(peer_python, READ, str(tmp_path), "xxh64")
    assert list(tmp_path.glob("*.mds"))
    for zipped in tmp_path.glob("*.zstd"):
        zipped.unlink()
    reader = ShardReader(tmp_path)
    reader.verify()
    assert plain_samples(reader) == expected_samples()


def test_their_reader_reads_empty_arrays_although_their_writer_refuses_them(
    peer_python: str, tmp_path: Path
) -> None:
    rows = [np.zeros(0, np.int32), np.arange(3, dtype=np.int32), np.zeros((0, 2), np.int32)]
    with ShardWriter(tmp_path, {"tokens": "ndarray:int32"}) as writer:
        for row in rows:
            writer.write({"tokens": row})
    expected = plain_samples({"tokens": row} for row in rows)
    assert run_peer(peer_python, READ, str(tmp_path), "xxh64") == expected
