"""Near-duplicates: recall and precision against brute force, and speed.

    SLANT_PUBLIC_DATA=… python benchmarks/bench_near_duplicates.py

Real texts in every language of the public sets, long (news, up to 2,000 characters) and short
(posts and headlines, up to 140), each with one edited copy: characters exchanged, words swapped,
sentences dropped or foreign ones put in, in every strength, so that similarities spread from 0.5
to 1. Truth is the exact Jaccard similarity of all pairs, by an inverted index over the shingles
themselves. rensa and datasketch run on the same texts where they are installed.

Writes benchmarks/results/near_duplicates.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from result import save, stamp
from scipy import sparse

from slant.ingest.near import (
    NUM_BANDS,
    band_keys,
    candidate_pairs,
    find_clusters,
    jaccard,
    shingle_hashes,
)
from slant.progress import SilentProgress

LENGTH = 5
THRESHOLD = 0.8
LONG, SHORT = 2000, 140
SOURCES = (
    "unlabelled/es", "unlabelled/ru", "unlabelled/tl", "unlabelled/zh", "labelled/en_newsmtsc",
    "labelled/es_elecciones_headlines", "labelled/ru_rusentne", "labelled/tl_firecs",
    "labelled/zh_cstance",
)  # fmt: skip
Pairs = set[tuple[int, int]]


def read_texts(data: Path, longest: int, num: int) -> dict[str, list[str]]:
    """Different texts of each language; long ones are joined of neighbours in the file."""
    texts: dict[str, list[str]] = {}
    for source in SOURCES:
        rows = [json.loads(line) for line in (data / f"{source}.jsonl").open(encoding="utf-8")]
        own = list(dict.fromkeys(row["text"].strip() for row in rows))
        if longest == LONG:
            joined = "\n".join(own)
            own = [joined[at : at + LONG] for at in range(0, len(joined), LONG)]
        own = [text for text in own if 20 <= len(text) <= longest]
        texts.setdefault(rows[0]["lang"], []).extend(own)
    chance = random.Random(17)
    return {lang: chance.sample(own, min(num, len(own))) for lang, own in texts.items()}


def edited(text: str, others: Sequence[str], chance: random.Random) -> str:
    """A copy changed by a random kind of edit, of a random strength."""
    kind, strength = chance.randrange(4), chance.random()
    if kind == 0:  # typing errors
        characters = list(text)
        for _ in range(max(1, round(0.08 * strength * len(characters)))):
            characters[chance.randrange(len(characters))] = chance.choice(text)
        return "".join(characters)
    if kind == 1:  # words swapped; in a script without spaces, pieces of two characters
        words = (
            text.split() if " " in text else [text[at : at + 2] for at in range(0, len(text), 2)]
        )
        for _ in range(max(1, round(0.06 * strength * len(words)))):
            one, other = chance.randrange(len(words)), chance.randrange(len(words))
            words[one], words[other] = words[other], words[one]
        return (" " if " " in text else "").join(words)
    cut = round(0.5 * strength * len(text))
    start = chance.randrange(len(text) - cut + 1)
    foreign = chance.choice(others)[: cut // 2] if kind == 3 else ""
    return text[:start] + foreign + text[start + cut :]


def shingles(text: str) -> set[str]:
    plain = "".join(text.casefold().split())
    return {plain[at : at + LENGTH] for at in range(max(1, len(plain) - LENGTH + 1))} - {""}


def exact_similarities(texts: Sequence[str]) -> dict[tuple[int, int], float]:
    """Every pair of at least 0.5, by counting the shingles it shares."""
    numbers: dict[str, int] = {}
    columns: list[int] = []
    ends = [0]
    for text in texts:
        columns += [numbers.setdefault(one, len(numbers)) for one in shingles(text)]
        ends.append(len(columns))
    ones = np.ones(len(columns), np.int32)
    sets = sparse.csr_matrix((ones, columns, ends), shape=(len(texts), len(numbers)))
    sizes, turned = np.diff(ends), sets.T.tocsr()
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(texts), 256):
        shared = (sets[start : start + 256] @ turned).tocoo()
        first = shared.row + start
        similarity = shared.data / (sizes[first] + sizes[shared.col] - shared.data)
        near = (first < shared.col) & (similarity >= 0.5)
        pairs = zip(first[near].tolist(), shared.col[near].tolist(), strict=True)
        found.update(zip(pairs, similarity[near].tolist(), strict=True))
    return found


def pairs_within(clusters: NDArray[np.int64]) -> Pairs:
    members: dict[int, list[int]] = {}
    for index, root in enumerate(clusters.tolist()):
        members.setdefault(root, []).append(index)
    return {
        (one, other)
        for group in members.values()
        for place, one in enumerate(group)
        for other in group[place + 1 :]
    }


def components(num: int, pairs: Pairs) -> NDArray[np.int64]:
    first, second = np.array(sorted(pairs)).T if pairs else np.empty((2, 0), np.int64)
    graph = sparse.coo_matrix((np.ones(len(first)), (first, second)), shape=(num, num))
    return sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


def sketch(texts: Sequence[str]) -> NDArray[np.uint64]:
    return np.stack([band_keys(shingle_hashes(text, LENGTH)) for text in texts])


def cluster(bands: NDArray[np.uint64], texts: Sequence[str], threshold: float) -> NDArray[np.int64]:
    def read(indices: NDArray[np.int64]) -> Iterator[tuple[int, str]]:
        return ((index, texts[index]) for index in indices.tolist())

    return find_clusters(
        bands, read, jaccard=threshold, shingle_characters=LENGTH, progress=SilentProgress()
    )


def with_rensa(texts: Sequence[str]) -> Pairs:
    import rensa

    index, hashes = rensa.RMinHashLSH(THRESHOLD, 128, 16), []
    for key, text in enumerate(texts):
        hashes.append(rensa.RMinHash(num_perm=128, seed=42))
        hashes[-1].update(sorted(shingles(text)))
        index.insert(key, hashes[-1])
    return {
        (key, other) for key, own in enumerate(hashes) for other in index.query(own) if key < other
    }


def with_datasketch(texts: Sequence[str]) -> Pairs:
    import datasketch

    index, hashes = datasketch.MinHashLSH(threshold=THRESHOLD, num_perm=128), []
    for key, text in enumerate(texts):
        hashes.append(datasketch.MinHash(num_perm=128))
        hashes[-1].update_batch([one.encode() for one in sorted(shingles(text))])
        index.insert(key, hashes[-1])
    return {
        (key, other) for key, own in enumerate(hashes) for other in index.query(own) if key < other
    }


LIBRARIES = {"rensa": with_rensa, "datasketch": with_datasketch}


def share(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else "–"


def measure(name: str, texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """A row of the table of recall and precision, and rows about other libraries."""
    exact = exact_similarities(texts)
    true = {pair for pair, similarity in exact.items() if similarity >= THRESHOLD}
    started = time.process_time()
    bands = sketch(texts)
    sketched = time.process_time()
    clusters = cluster(bands, texts, THRESHOLD)
    ended = time.process_time()
    together = pairs_within(clusters)
    right = pairs_within(components(len(texts), true))
    candidates = set(map(tuple, candidate_pairs(bands, 2).tolist()))
    ours = [
        f"| {name} | {len(texts):,} | {len(true):,} | {share(len(true & candidates), len(true))} "
        f"| **{share(len(true & together), len(true))}** "
        f"| **{share(len(together & right), len(together))}** "
        f"| {share(len(together & true), len(together))} "
        f"| {len(texts) / (sketched - started):,.0f} | {len(texts) / (ended - sketched):,.0f} |"
    ]
    others = [
        other_row(name, library, find, texts, true)
        for library, find in LIBRARIES.items()
        if importlib.util.find_spec(library)
    ]
    rate = len(texts) / (ended - started)
    return ours, [
        f"| {name} | slant | {share(len(true & together), len(true))} "
        f"| {share(len(together & true), len(together))} | {rate:,.0f} |",
        *others,
    ]


def other_row(
    name: str,
    library: str,
    find: Callable[[Sequence[str]], Pairs],
    texts: Sequence[str],
    true: Pairs,
) -> str:
    started = time.process_time()
    found = find(texts)
    rate = len(texts) / (time.process_time() - started)
    return (
        f"| {name} | {library} | {share(len(true & found), len(true))} "
        f"| {share(len(found & true), len(found))} | {rate:,.0f} |"
    )


def by_threshold(texts: Sequence[str]) -> list[str]:
    exact, bands = exact_similarities(texts), sketch(texts)
    rows = []
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        true = {pair for pair, similarity in exact.items() if similarity >= threshold}
        together = pairs_within(cluster(bands, texts, threshold))
        right = pairs_within(components(len(texts), true))
        rows.append(
            f"| {threshold} | {len(true):,} | {share(len(true & together), len(true))} "
            f"| {share(len(together & right), len(together))} |"
        )
    return rows


def at_scale(num: int) -> list[str]:
    """``candidate_pairs`` of random sketches, one in ten made near to an earlier one."""
    chance = np.random.default_rng(1)
    bands = chance.integers(1, 2**64 - 1, (num, NUM_BANDS), dtype=np.uint64)
    copies = np.arange(9, num, 10)
    agree = chance.random((len(copies), NUM_BANDS)) < THRESHOLD**5
    originals = chance.integers(0, copies, dtype=np.int64)
    bands[copies] = np.where(agree, bands[originals], bands[copies])
    started = time.process_time()
    pairs = candidate_pairs(bands, 2)
    seconds = time.process_time() - started
    tracemalloc.start()
    candidate_pairs(bands, 2)
    most = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return [
        f"`candidate_pairs` of {num:,} sketches ({bands.nbytes / 2**20:,.0f} MiB), one in ten near "
        f"another: {seconds:.1f} s, {len(pairs):,} pairs, {most:,.0f} MiB of memory beside them."
    ]


def cost_of_one(texts: Sequence[str]) -> list[str]:
    hashes = [shingle_hashes(text, LENGTH) for text in texts]
    steps: dict[str, Callable[[int], object]] = {
        "shingle_hashes": lambda i: shingle_hashes(texts[i], LENGTH),
        "band_keys": lambda i: band_keys(hashes[i]),
        "jaccard": lambda i: jaccard(hashes[i - 1], hashes[i]),
    }
    rows = []
    for name, step in steps.items():
        started = time.process_time()
        for index in range(len(texts)):
            step(index)
        rows.append(f"| `{name}` | {(time.process_time() - started) / len(texts) * 1e6:.0f} µs |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1000, help="originals per language and length")
    parser.add_argument("--scale", type=int, default=1_000_000)
    arguments = parser.parse_args()
    data = os.environ.get("SLANT_PUBLIC_DATA")
    if not data:
        raise SystemExit("SLANT_PUBLIC_DATA is not set; examples/public/README.md says how to")
    ours: list[str] = []
    others: list[str] = []
    everything: dict[int, list[str]] = {LONG: [], SHORT: []}
    for longest, name in ((LONG, "long"), (SHORT, "short")):
        for lang, originals in sorted(read_texts(Path(data), longest, arguments.texts).items()):
            chance = random.Random(f"{lang} {longest}")
            copies = [edited(text, originals, chance) for text in originals]
            texts = originals + copies
            everything[longest] += texts
            rows = measure(f"{lang}, {name}", texts)
            ours += rows[0]
            others += rows[1]
    lines = [
        "# Near-duplicates",
        "",
        f"{stamp()}, one core used: `python benchmarks/bench_near_duplicates.py`. "
        "Rates: per second of processor time.",
        "",
        f"Shingles of {LENGTH} characters, Jaccard ≥ {THRESHOLD}. Candidates: recall of sketches. "
        "Recall: true pairs in one cluster. Precision: pairs in one cluster that exact computation "
        "puts into one as well; last, those that are near by themselves and not by a chain.",
        "",
        "| texts | number | true pairs | candidates | recall | precision | near themselves "
        "| sketched/s | clustered/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *ours,
        "",
        "Other thresholds (`ingest.duplicates.jaccard`), all short texts together:",
        "",
        "| Jaccard | true pairs | recall | precision |",
        "|---|---:|---:|---:|",
        *by_threshold(everything[SHORT]),
        "",
        "One document of 2,000 characters:",
        "",
        "| step | time |",
        "|---|---:|",
        *cost_of_one(everything[LONG]),
        "",
        *at_scale(arguments.scale),
        "",
        "Other libraries on the same texts (128 permutations, pairs as their index gives them, "
        "without verifying; precision is of pairs near by themselves). Making Python sets of "
        "shingles is part of their time.",
        "",
        "| texts | library | recall | precision | texts/s |",
        "|---|---|---:|---:|---:|",
        *others,
        "",
        *(
            f"{library} was not measured: it is not installed here.\n"
            for library in LIBRARIES
            if not importlib.util.find_spec(library)
        ),
    ]
    save("near_duplicates", lines)


if __name__ == "__main__":
    main()
