"""Near-duplicates: texts whose sets of character shingles overlap, put into clusters.

A text becomes the set of its shingles (every run of k characters, in lower case and without white
space: Chinese and Latin alike), the set becomes a sketch of ``NUM_BANDS`` keys, and two texts that
share a key are a candidate pair. Candidates are then verified by the exact Jaccard similarity, so
the sketch decides what is found, and never what counts as a near-duplicate.

The sketch is one-permutation MinHash (Li, Owen & Zhang, "One Permutation Hashing", NIPS 2012) with
densification (Shrivastava, "Optimal Densification for Fast and Accurate Minwise Hashing", ICML
2017), cut into bands (Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", ch. 3). A pair of
Jaccard similarity j shares a band with probability about 1 - (1 - j**BAND_ROWS)**NUM_BANDS: 0.9999
at 0.8, 0.99 at 0.7, 0.87 at 0.6, 0.55 at 0.5.

Shape letters: N documents, B bands, P pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray

from slant.progress import Progress, Task

__all__ = [
    "BAND_ROWS",
    "NUM_BANDS",
    "band_keys",
    "candidate_pairs",
    "find_clusters",
    "jaccard",
    "shingle_hashes",
]

NUM_BANDS = 25
BAND_ROWS = 5
_NUM_BINS = NUM_BANDS * BAND_ROWS

_NO_KEY = 0  # the key of a text without shingles: shared with nothing
_PADDING = 0x110000  # one more than the last code point

_LARGE_BUCKET = 16
_NUM_LINKS = 4
_PAIRS_AT_ONCE = 65_536

_HELD_BYTES = 256 * 2**20
_FIRST_BLOCK = 16_384
_REPORT_EVERY = 256

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


def shingle_hashes(text: str, length: int) -> Hashes:
    """Hashes of the distinct shingles of a text, sorted.

    The text is case-folded and its white space removed first. A text shorter than ``length`` is
    one shingle; a text of white space has none. Each character times a random odd number of its
    place, summed modulo 2**64 (multilinear hashing), then mixed: two of a million shingles collide
    with probability 3e-8.

    Args:
        text: Any text.
        length: Characters of a shingle, at least 1.

    Returns:
        Shape (number of distinct shingles,).
    """
    canonical = "".join(text.casefold().split())
    if not canonical:
        return np.empty(0, np.uint64)
    canonical_bytes = canonical.encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(canonical_bytes, np.uint32).astype(np.uint64)
    if len(points) < length:
        points = np.pad(points, (0, length - len(points)), constant_values=_PADDING)
    num_shingles = len(points) - length + 1
    multipliers = _multipliers(length)
    hashes: Hashes = points[:num_shingles] * multipliers[0]
    term = np.empty_like(hashes)
    for place in range(1, length):
        np.multiply(points[place : place + num_shingles], multipliers[place], out=term)
        hashes += term
    _mix(hashes)
    hashes.sort()
    is_first = np.empty(num_shingles, np.bool_)
    is_first[0] = True
    np.not_equal(hashes[1:], hashes[:-1], out=is_first[1:])
    return hashes[is_first]


def jaccard(first: Hashes, second: Hashes) -> float:
    """|A ∩ B| / |A ∪ B| of two sets of sorted distinct hashes; 0 where both are empty."""
    both = np.concatenate((first, second))
    if not len(both):
        return 0.0
    both.sort()
    num_shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return num_shared / (len(both) - num_shared)


def band_keys(hashes: Hashes) -> Hashes:
    """The sketch of a set of shingles.

    The range of the hashes is cut into ``NUM_BANDS * BAND_ROWS`` equal bins; the smallest hash in
    each is a value of the sketch. An empty bin takes the value of the first bin with one, in an
    order of its own that is the same for all texts, so that bins match with probability equal to
    the Jaccard similarity even where shingles are few. ``BAND_ROWS`` values make a key.

    Args:
        hashes: Sorted, as ``shingle_hashes`` gives them.

    Returns:
        Shape (NUM_BANDS,). All zero for an empty set: ``candidate_pairs`` passes over it.
    """
    if not len(hashes):
        return np.full(NUM_BANDS, _NO_KEY, np.uint64)
    starts = np.searchsorted(hashes, _bin_edges())
    is_filled = starts[:-1] < starts[1:]
    values = hashes[np.minimum(starts[:-1], len(hashes) - 1)]
    if not is_filled.all():
        empty = np.flatnonzero(~is_filled)
        probes = _probes()[empty]
        first_filled = is_filled[probes].argmax(axis=1)
        values[empty] = values[probes[np.arange(len(empty)), first_filled]]
    rows = values.reshape(NUM_BANDS, BAND_ROWS) * _multipliers(BAND_ROWS)
    return np.maximum(_mix(rows.sum(axis=1, dtype=np.uint64)), np.uint64(_NO_KEY + 1))


def candidate_pairs(bands: Hashes, least_shared: int = 1) -> Indices:
    """Pairs of documents that share keys of the same band.

    Documents with one key form a bucket. In a bucket of up to 16 all pairs are candidates. In a
    larger one each member is paired with the four of lowest index, and with its four neighbours
    in the order of the next band's keys, which puts those that are most alike side by side. A
    cluster needs a chain of verified pairs, not every pair: members near each other all meet the
    same first ones, groups that merely share a bucket meet their own kind, and that in each of the
    bands they share.

    Args:
        bands: Shape (N, NUM_BANDS), a row of ``band_keys`` each.
        least_shared: In how many bands the two must agree.

    Returns:
        Shape (P, 2): distinct pairs, first < second, sorted. Memory beside the result: some
        arrays of N numbers, and the pairs of one band.
    """
    num_documents = max(len(bands), 1)
    found = np.empty(0, np.int64)
    for band in range(bands.shape[1]):
        codes = np.unique(_pairs_of_band(bands, band))
        if least_shared > 1:
            codes = codes[_num_shared(bands, codes) >= least_shared]
        found = np.union1d(found, codes)
    return np.stack(np.divmod(found, num_documents), axis=1)


def find_clusters(
    bands: Hashes,
    texts: Callable[[Indices], Iterator[tuple[int, str]]],
    *,
    jaccard: float,
    shingle_characters: int,
    progress: Progress,
) -> Indices:
    """Put documents whose texts are nearly the same into clusters.

    Clusters are connected components: a text may be less alike to another of its cluster than
    ``jaccard`` if texts between them link the two. Equal input gives equal output.

    Args:
        bands: Shape (N, NUM_BANDS), a row of ``band_keys`` for each document.
        texts: Given ascending indices, yields (index, text) in that order, in one pass. Called
            for one block of pairs after another; about 256 MB of texts are held at once.
        jaccard: Least similarity of two sets of shingles, 0 to 1.
        shingle_characters: Length of a shingle, the same as in the sketch.
        progress: Told of verified pairs.

    Returns:
        Shape (N,): for each document the smallest index in its cluster; its own if it is alone.
    """
    forest = _Forest(len(bands))
    # At 0.8 a pair shares 8 bands of 25 on average. One only is a chance meeting, and a million
    # texts of one language have millions of those.
    waiting = candidate_pairs(bands, least_shared=2 if jaccard >= 0.8 else 1)
    num_at_once = _FIRST_BLOCK
    with progress.task("near-duplicates", len(waiting), "pairs") as task:
        while len(waiting):
            joined = forest.are_joined(waiting)
            task.advance(int(joined.sum()))
            waiting = waiting[~joined]
            block, waiting = waiting[:num_at_once], waiting[num_at_once:]
            held, num_bytes, is_whole = _hold(texts, np.unique(block))
            is_here = np.isin(block, list(held)).all(axis=1)
            _verify(
                block[is_here],
                held,
                forest,
                threshold=jaccard,
                length=shingle_characters,
                task=task,
            )
            if is_whole:
                share = _HELD_BYTES / max(num_bytes, 1)
                num_at_once = max(1, int(num_at_once * min(0.8 * share, 8)))
            else:
                waiting = np.concatenate((block[~is_here], waiting))
                num_at_once = max(1, min(int(is_here.sum()), num_at_once // 2))
    return forest.roots()


def _hold(
    texts: Callable[[Indices], Iterator[tuple[int, str]]], wanted: Indices
) -> tuple[dict[int, str], int, bool]:
    """Texts by index, their bytes, and whether all were read before there were too many."""
    held: dict[int, str] = {}
    num_bytes = 0
    for index, text in texts(wanted) if len(wanted) else ():
        held[index] = text
        num_bytes += sys.getsizeof(text)
        # Two are always held, or a pair of long texts would never be verified.
        if num_bytes > _HELD_BYTES and 2 <= len(held) < len(wanted):
            return held, num_bytes, False
    return held, num_bytes, True


def _verify(
    pairs: Indices,
    held: dict[int, str],
    forest: _Forest,
    *,
    threshold: float,
    length: int,
    task: Task,
) -> None:
    """Join the pairs whose exact similarity reaches the threshold."""

    @lru_cache(maxsize=64)  # pairs are sorted: a text's partners come one after another
    def hashes(index: int) -> Hashes:
        return shingle_hashes(held[index], length)

    for done, (first, second) in enumerate(pairs.tolist(), 1):
        if not forest.is_joined(first, second):
            one, other = hashes(first), hashes(second)
            # |A ∩ B| / |A ∪ B| cannot exceed the ratio of the sizes.
            if min(len(one), len(other)) >= threshold * max(len(one), len(other)) and (
                jaccard(one, other) >= threshold
            ):
                forest.join(first, second)
        if done % _REPORT_EVERY == 0:
            task.advance(_REPORT_EVERY)
    task.advance(len(pairs) % _REPORT_EVERY)


@final
class _Forest:
    """Union-find whose roots are the smallest index of their tree."""

    def __init__(self, size: int) -> None:
        self._parents = np.arange(size)

    def _root(self, index: int) -> int:
        parents = self._parents
        while (parent := int(parents[index])) != index:
            parents[index] = parents[parent]
            index = parent
        return index

    def is_joined(self, first: int, second: int) -> bool:
        return self._root(first) == self._root(second)

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self._root(first), self._root(second)))
        self._parents[high] = low

    def roots(self) -> Indices:
        """Shape (N,): the root of each."""
        while True:
            above = self._parents[self._parents]
            if np.array_equal(above, self._parents):
                return above
            self._parents = above

    def are_joined(self, pairs: Indices) -> NDArray[np.bool_]:
        """Shape (P,): which pairs are in one tree already."""
        roots = self.roots()
        joined: NDArray[np.bool_] = roots[pairs[:, 0]] == roots[pairs[:, 1]]
        return joined


def _pairs_of_band(bands: Hashes, band: int) -> Indices:
    """Pairs of one band as ``first * N + second``, some of them more than once."""
    keys = bands[:, band]
    order = np.argsort(keys)
    sorted_keys = keys[order]
    starts = np.flatnonzero(np.r_[True, sorted_keys[1:] != sorted_keys[:-1]][: len(keys)])
    sizes = np.diff(starts, append=len(keys))
    # Both in the order of the keys: the bucket of each document, and the size of that bucket.
    bucket = np.repeat(np.arange(len(starts)), sizes)
    size = np.where(sorted_keys == _NO_KEY, 1, np.repeat(sizes, sizes))

    is_small = (size > 1) & (size <= _LARGE_BUCKET)
    codes = _neighbours(order[is_small], bucket[is_small], _LARGE_BUCKET - 1, len(keys))
    is_large = size > _LARGE_BUCKET
    if is_large.any():
        members, of_bucket = order[is_large], bucket[is_large]
        by_index = np.lexsort((members, of_bucket))
        next_keys = bands[members, (band + 1) % bands.shape[1]]
        by_likeness = np.lexsort((members, next_keys, of_bucket))
        codes += _with_the_first(members[by_index], of_bucket[by_index], len(keys))
        codes += _neighbours(members[by_likeness], of_bucket[by_likeness], _NUM_LINKS, len(keys))
    return np.concatenate(codes) if codes else np.empty(0, np.int64)


def _num_shared(bands: Hashes, codes: Indices) -> Indices:
    """Shape (P,): in how many bands the two documents of each pair agree."""
    num_shared = np.empty(len(codes), np.int64)
    for start in range(0, len(codes), _PAIRS_AT_ONCE):
        first, second = np.divmod(codes[start : start + _PAIRS_AT_ONCE], len(bands))
        agree = bands[first] == bands[second]
        num_shared[start : start + _PAIRS_AT_ONCE] = agree.sum(axis=1)
    return num_shared


def _neighbours(members: Indices, bucket: Indices, reach: int, base: int) -> list[Indices]:
    """Codes of the pairs at most ``reach`` places apart in one bucket."""
    codes = []
    for distance in range(1, reach + 1):
        together = bucket[distance:] == bucket[:-distance]
        if not together.any():
            break
        codes.append(_codes(members[distance:][together], members[:-distance][together], base))
    return codes


def _with_the_first(members: Indices, bucket: Indices, base: int) -> list[Indices]:
    """Codes of each member with the first few of its bucket; members are sorted in each."""
    _, starts, sizes = np.unique(bucket, return_index=True, return_counts=True)
    codes = []
    for place in range(_NUM_LINKS):
        firsts = np.repeat(members[starts + place], sizes)
        differ = firsts != members
        codes.append(_codes(firsts[differ], members[differ], base))
    return codes


def _codes(some: Indices, others: Indices, base: int) -> Indices:
    codes: Indices = np.minimum(some, others) * base + np.maximum(some, others)
    return codes


def _mix(values: Hashes) -> Hashes:
    """Mix the bits of each value, in place: the finaliser of MurmurHash3 (fmix64), a bijection."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values ^= values >> np.uint64(33)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(33)
    return values


@cache
def _multipliers(count: int) -> Hashes:
    """Fixed random odd numbers, the same in every release of every library."""
    return _mix(np.arange(1, count + 1, dtype=np.uint64)) | np.uint64(1)


@cache
def _bin_edges() -> Hashes:
    """Shape (bins + 1,): where in a sorted array each bin starts; the last edge is the end."""
    edges = [2**64 * place // _NUM_BINS for place in range(_NUM_BINS)]
    return np.array([*edges, 2**64 - 1], np.uint64)


@cache
def _probes() -> Indices:
    """Shape (bins, bins): for each bin a fixed random order of all bins."""
    seeds = np.arange(_NUM_BINS**2, dtype=np.uint64) + np.uint64(2**32)
    return np.argsort(_mix(seeds).reshape(_NUM_BINS, _NUM_BINS), axis=1, kind="stable")
