"""MosaicML's own library reads what slant writes, slant reads what it writes, byte for byte.

The library does not install beside slant's torch, so it runs in a Python of its own:

    python3.11 -m venv mds-venv
    mds-venv/bin/pip install torch transformers numpy boto3 matplotlib \
        zstd zstandard Brotli python-snappy cramjam catalogue tqdm requests xxhash
    mds-venv/bin/pip install mosaicml-streaming==0.13.0 --no-deps
    SLANT_MDS_PYTHON=mds-venv/bin/python pytest tests/interop/test_mds_interop.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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

READ = """
def plain(value):
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "shape": list(value.shape), "values": value.tolist()}
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return value.item() if isinstance(value, np.generic) else value

data = StreamingDataset(
    local=sys.argv[1], shuffle=False, batch_size=1, validate_hash=sys.argv[2] or None
)
samples = [{k: plain(v) for k, v in data[i].items()} for i in range(data.num_samples)]
print("RESULT", json.dumps(samples))
"""

# It must make the same samples as `samples()` below; the test that compares bytes holds it to it.
WRITE = """
folder, compression, size_limit, columns = sys.argv[1:5]
texts = ["Magandang umaga", "", "Добрый день", "早上好 🌏", "a\\u0000b"]
with MDSWriter(out=folder, columns=json.loads(columns), compression=compression or None,
               hashes=["sha1", "xxh64"], size_limit=int(size_limit)) as out:
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
        })
print("RESULT", "null")
"""

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
}
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
        [python, "-c", STUBS + script, *arguments],
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


def write_theirs(python: str, folder: Path, compression: str | None) -> None:
    settings = (compression or "", str(SIZE_LIMIT_BYTES), json.dumps(COLUMNS))
    run_peer(python, WRITE, str(folder), *settings)


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
