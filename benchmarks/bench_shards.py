"""Samples read per second: slant's ShardReader against mosaicml-streaming's LocalDataset.

    sh tests/interop/setup.sh
    python benchmarks/bench_shards.py .venv-interop/bin/python

Both read the same shards (rows of token ids, as the shard stage writes them), once at random and
once in order, in turns, each time in a fresh process on one core; opening the data set is not
timed, the first touch of every shard is. LocalDataset does not read compressed shards: for those it
gets the files that its own library decompressed beforehand, which is not timed either, while
ShardReader decompresses as it goes.

Writes benchmarks/results/shards.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from result import save, stamp

from slant.shards.writer import ShardWriter

NUM_SAMPLES = 60_000
SEQUENCE_TOKENS = 512
SIZE_LIMIT_BYTES = 16 * 1024**2

IMPORTS = "import json, sys, time\nimport numpy as np\n"
OPEN_OURS = """
from pathlib import Path
from slant.shards.reader import ShardReader
data = ShardReader(Path(sys.argv[1]))
"""
OPEN_THEIRS = """
import types
for name in ("vision", "multimodal", "text"):  # they import torchvision, and nothing here needs it
    sys.modules["streaming." + name] = types.ModuleType("streaming." + name)
from streaming import LocalDataset
data = LocalDataset(sys.argv[1])
"""
READ = """
numbers = np.arange(len(data))
if sys.argv[2] == "random":
    numbers = np.random.default_rng(0).permutation(len(data))
numbers = numbers.tolist()
started = time.perf_counter()
total = 0
for number in numbers:
    sample = data[number]
    total += len(sample["tokens"]) * int(sample["lengths"][0])
seconds = time.perf_counter() - started
print("RESULT", json.dumps({"rate": len(numbers) / seconds, "total": total}))
"""
DECOMPRESS = """
from streaming import StreamingDataset
dataset = StreamingDataset(local=sys.argv[1], shuffle=False, batch_size=1)
for number in range(0, len(dataset), 100):
    dataset[number]
"""


def write(folder: Path, compression: str | None) -> None:
    rng = np.random.default_rng(0)
    columns = {"tokens": "ndarray:int32", "lengths": "ndarray:int32"}
    with ShardWriter(
        folder, columns, compression=compression, size_limit_bytes=SIZE_LIMIT_BYTES
    ) as writer:
        for _ in range(NUM_SAMPLES):
            # Small ids are frequent, as in a real vocabulary.
            tokens = (rng.pareto(1.0, SEQUENCE_TOKENS) * 50).clip(0, 30_000).astype(np.int32)
            lengths = np.array([100, 212, 200], dtype=np.int32)
            writer.write({"tokens": tokens, "lengths": lengths})


def run(python: str, script: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run(
        ["taskset", "-c", "0", python, "-c", IMPORTS + script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found and "RESULT" in script:
        sys.exit(done.stderr)
    return json.loads(found[0].removeprefix("RESULT ")) if found else {}


def compare(peer: str, folder: Path, their_folder: Path, order: str, rounds: int) -> str:
    """A row of the table: medians of both, and their ratio."""
    ours, theirs = [], []
    for _ in range(rounds):
        mine = run(sys.executable, OPEN_OURS + READ, str(folder), order)
        other = run(peer, OPEN_THEIRS + READ, str(their_folder), order)
        assert mine["total"] == other["total"], "they do not read the same"
        ours.append(mine["rate"])
        theirs.append(other["rate"])
    mine_rate, other_rate = statistics.median(ours), statistics.median(theirs)
    spread = f"{min(ours):,.0f} to {max(ours):,.0f} | {min(theirs):,.0f} to {max(theirs):,.0f}"
    return (
        f"| {folder.name} | {order} | {mine_rate:,.0f} | {other_rate:,.0f} | "
        f"**{mine_rate / other_rate:.2f}** | {spread} |"
    )


def header(rounds: int) -> str:
    what = " ".join((__doc__ or "").partition("\n\n    sh")[0].split())
    how = " ".join((__doc__ or "").split("\n\n")[2].split())
    return f"""# Shards

{what} {how}

    sh tests/interop/setup.sh
    python benchmarks/bench_shards.py .venv-interop/bin/python --rounds {rounds}

{stamp()},
mosaicml-streaming 0.13.0; {NUM_SAMPLES:,} samples of {SEQUENCE_TOKENS} token ids (2 kB) in shards
of {SIZE_LIMIT_BYTES >> 20} MiB; medians of {rounds} rounds. The bar is a ratio of 1.

| shards | order | ShardReader, samples/s | LocalDataset, samples/s | ratio |\
 ShardReader, from to | LocalDataset, from to |
|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peer", help="a Python that has mosaicml-streaming")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for compression in (None, "zstd"):
            folder = their_folder = root / (compression or "uncompressed")
            write(folder, compression)
            if compression:
                their_folder = root / "decompressed"
                write(their_folder, compression)
                run(arguments.peer, OPEN_THEIRS + DECOMPRESS, str(their_folder))
            for order in ("random", "sequential"):
                rows.append(compare(arguments.peer, folder, their_folder, order, arguments.rounds))
                print(rows[-1], flush=True)
    save("shards", [header(arguments.rounds), *rows])


if __name__ == "__main__":
    main()
