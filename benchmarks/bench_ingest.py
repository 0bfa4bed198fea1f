"""Ingestion of a million documents: documents/s, memory, and the time that one new file costs.

    python benchmarks/bench_ingest.py                # 1,000,000 documents, 2 GB
    python benchmarks/bench_ingest.py --documents 20000

The documents are generated: five languages, 2,000 bytes on average, 10 % near-duplicates of an
earlier document (one word in fifty exchanged), 1 % garbage. Words are drawn from the texts of
examples/quickstart. The ceiling beside it is what the same machine needs, on the same number of
processes, to do nothing but parse the JSON of the same files and hash every row.

Writes benchmarks/results/ingest.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from result import save, stamp

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"
LANGS = ("es", "ru", "zh", "tl", "en")
NEAR_SHARE, GARBAGE_SHARE, EDITED_SHARE = 0.10, 0.01, 0.02
NUM_FILES = 10
BYTES = 2000
GARBAGE = (
    b'{"id": "x", "text": \n',
    b"\xff\xfe broken \xc3\x28\n",
    b'{"id": "y", "text": ""}\n',
    b'["not", "an", "object"]\n',
    b'{"id": "z", "text": 17}\n',
)
CONFIG = """
ingest:
  documents: [{path: docs/*.jsonl, columns: {id: id, text: text, lang: lang}}]
  examples: [{path: labelled.jsonl, columns: {id: id, narrative: narrative, lang: lang}}]
"""


def vocabulary() -> dict[str, list[str]]:
    words: dict[str, set[str]] = {lang: set() for lang in LANGS}
    for name in ("labelled.jsonl", "unlabelled.jsonl"):
        for line in (QUICKSTART / name).read_text("utf-8").splitlines():
            row = json.loads(line)
            text = row["text"]
            # Chinese has no spaces: pieces of two characters take the place of words.
            pieces = [text[i : i + 2] for i in range(0, len(text) - 1, 2)]
            words[row["lang"]].update(pieces if row["lang"] == "zh" else text.split())
    return {lang: sorted(found) for lang, found in words.items()}


def write_files(folder: Path, num: int, seed: int, first: int = 0, files: int = NUM_FILES) -> None:
    words = vocabulary()
    weights = {lang: _zipf(len(found)) for lang, found in words.items()}
    chance = random.Random(seed)
    kept: list[tuple[str, list[str]]] = []
    for number in range(files):
        with (folder / f"part-{first + number:03}.jsonl").open("wb") as file:
            for index in range(num // files):
                draw = chance.random()
                if draw < GARBAGE_SHARE:
                    file.write(chance.choice(GARBAGE))
                    continue
                if draw < GARBAGE_SHARE + NEAR_SHARE and kept:
                    lang, tokens = chance.choice(kept)
                    tokens = list(tokens)
                    for _ in range(max(1, round(EDITED_SHARE * len(tokens)))):
                        tokens[chance.randrange(len(tokens))] = chance.choice(words[lang])
                else:
                    lang = chance.choice(LANGS)
                    size = BYTES // {"ru": 12, "zh": 6}.get(lang, 7)
                    count = max(5, round(size * chance.uniform(0.3, 1.7)))
                    tokens = chance.choices(words[lang], cum_weights=weights[lang], k=count)
                    if len(kept) < 20_000:
                        kept.append((lang, tokens))
                    else:
                        kept[chance.randrange(20_000)] = (lang, tokens)
                text = ("" if lang == "zh" else " ").join(tokens)
                row = {"id": f"{seed}-{number}-{index}", "text": text, "lang": lang}
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _zipf(size: int) -> list[float]:
    total, sums = 0.0, []
    for place in range(size):
        total += 1 / (place + 10)
        sums.append(total)
    return sums


def parse_only(path: Path) -> int:
    rows = 0
    with path.open("rb") as file:
        for line in file:
            hashlib.sha256(line).digest()
            try:
                json.loads(line)
            except ValueError:
                continue
            rows += 1
    return rows


class Memory(threading.Thread):
    """The largest sum of resident bytes of a process and its descendants."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.most, self.ended = process, 0, False

    def run(self) -> None:
        while not self.ended:
            self.most = max(self.most, sum(self._resident()))
            time.sleep(0.5)

    def _resident(self) -> Iterator[int]:
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                parents[int(entry.name)] = int(stat[1])
        tree = {self.process}
        for _ in range(4):
            tree |= {child for child, parent in parents.items() if parent in tree}
        for process in tree:
            try:
                yield int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
            except OSError:
                continue


def ingest(folder: Path) -> tuple[float, int]:
    """Seconds and most resident bytes of ``slant ingest``, in a process of its own."""
    command = [str(Path(sys.executable).with_name("slant")), "ingest", "slant.yaml"]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        memory = Memory(process.pid)
        memory.start()
        status = process.wait()
    memory.ended = True
    if status:
        raise SystemExit(f"slant ingest ended with {status}")
    return time.monotonic() - started, memory.most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to work; needs 6 GB for the default")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-ingest-", dir=arguments.folder))
    try:
        run(folder, arguments.documents)
    finally:
        shutil.rmtree(folder)


def run(folder: Path, num: int) -> None:
    docs = folder / "docs"
    docs.mkdir()
    (folder / "slant.yaml").write_text(CONFIG, "utf-8")
    shutil.copy(QUICKSTART / "labelled.jsonl", folder)
    write_files(docs, num, seed=1)
    size = sum(path.stat().st_size for path in docs.iterdir())
    workers = os.cpu_count() or 1
    started = time.monotonic()
    with ProcessPoolExecutor(workers) as pool:
        rows = sum(pool.map(parse_only, sorted(docs.iterdir())))
    ceiling_s = time.monotonic() - started
    seconds, memory = ingest(folder)
    first = json.loads((folder / "work/ingest/ingest.json").read_text("utf-8"))
    write_files(docs, num // NUM_FILES, seed=2, first=NUM_FILES, files=1)
    again_s, _ = ingest(folder)
    again = json.loads((folder / "work/ingest/ingest.json").read_text("utf-8"))
    duplicates = first["duplicates"]
    lines = [
        "# Ingestion",
        "",
        f"{stamp()}: `python benchmarks/bench_ingest.py --documents {num}`",
        "",
        f"{num:,} rows, {size / 1e9:.2f} GB of JSONL in {NUM_FILES} files; language, "
        "near-duplicates and the report included.",
        "",
        "| what | figure |",
        "|---|---|",
        f"| `slant ingest` | {seconds:.0f} s, **{num / seconds:,.0f} documents/s** |",
        f"| most memory, all processes together | {memory / 1e9:.2f} GB |",
        f"| parsing and hashing alone ({rows:,} rows) | {ceiling_s:.1f} s |",
        f"| ratio to that ceiling | {ceiling_s / seconds:.3f} |",
        f"| again with one new file of {num // NUM_FILES:,} rows | {again_s:.0f} s |",
        f"| kept | {first['documents']['unlabelled']:,} |",
        f"| near-duplicates set aside | {duplicates['near']:,} |",
        f"| exact duplicates set aside | {duplicates['exact']:,} |",
        f"| kept after the new file | {again['documents']['unlabelled']:,} |",
    ]
    save("ingest", lines)


if __name__ == "__main__":
    main()
