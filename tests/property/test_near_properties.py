"""What holds of near-duplicate detection, whatever the texts are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slant.ingest.near import (
    NUM_BANDS,
    band_keys,
    candidate_pairs,
    find_clusters,
    jaccard,
    shingle_hashes,
)
from slant.progress import SilentProgress

TEXTS = st.text(max_size=60)
LENGTHS = st.integers(2, 16)
# Few letters, so that texts resemble each other.
ALIKE = st.lists(st.text("abc", max_size=14) | st.text("ab ", min_size=4, max_size=9), max_size=25)
BANDS = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 4), min_size=width, max_size=width), min_size=1, max_size=50
    )
)


def shingles(text: str, length: int) -> set[str]:
    plain = "".join(text.casefold().split())
    return {plain[i : i + length] for i in range(max(1, len(plain) - length + 1))} - {""}


def clusters(texts: Sequence[str], threshold: float) -> list[int]:
    def read(indices: NDArray[np.int64]) -> Iterator[tuple[int, str]]:
        return ((int(index), texts[index]) for index in indices)

    bands = np.zeros((len(texts), NUM_BANDS), np.uint64)
    for index, text in enumerate(texts):
        bands[index] = band_keys(shingle_hashes(text, 3))
    return find_clusters(
        bands, read, jaccard=threshold, shingle_characters=3, progress=SilentProgress()
    ).tolist()


def components(texts: Sequence[str], threshold: float) -> list[int]:
    """By brute force: the smallest index of each connected component."""
    roots = list(range(len(texts)))
    sets = [shingles(text, 3) for text in texts]
    for first, one in enumerate(sets):
        for second, other in enumerate(sets[:first]):
            if one and other and len(one & other) >= threshold * len(one | other):
                low, high = sorted((roots[first], roots[second]))
                roots = [low if root == high else root for root in roots]
    return roots


@given(TEXTS, LENGTHS)
def test_there_is_one_hash_for_each_distinct_shingle(text: str, length: int) -> None:
    hashes = shingle_hashes(text, length)
    assert len(hashes) == len(shingles(text, length))
    assert (hashes[1:] > hashes[:-1]).all()


@given(TEXTS, TEXTS, LENGTHS)
def test_similarity_is_exact_and_symmetric(first: str, second: str, length: int) -> None:
    one, other = shingle_hashes(first, length), shingle_hashes(second, length)
    sets = shingles(first, length), shingles(second, length)
    shared, total = len(sets[0] & sets[1]), len(sets[0] | sets[1])
    assert jaccard(one, other) == jaccard(other, one) == (shared / total if total else 0)


@given(st.sets(st.integers(0, 2**64 - 1), max_size=40))
def test_a_sketch_depends_on_the_set_only(values: set[int]) -> None:
    hashes = np.array(sorted(values), np.uint64)
    keys = band_keys(hashes)
    assert keys.shape == (NUM_BANDS,)
    assert (keys != 0).all() == bool(values)
    assert np.array_equal(keys, band_keys(hashes.copy()))


@given(BANDS)
def test_candidates_share_a_key_and_what_shares_a_key_is_connected(rows: list[list[int]]) -> None:
    bands = np.array(rows, np.uint64)
    pairs = candidate_pairs(bands)
    agree = ((bands[:, None] == bands[None]) & (bands[:, None] != 0)).any(axis=2)
    assert agree[pairs[:, 0], pairs[:, 1]].all()
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert np.array_equal(pairs, np.unique(pairs, axis=0))
    roots = np.arange(len(bands))
    for first, second in pairs:
        roots[roots == roots[second]] = roots[first]
    assert (roots[:, None] == roots[None])[agree].all()


@settings(max_examples=60, deadline=None)
@given(ALIKE, st.sampled_from([0.5, 0.8, 1.0]))
def test_no_two_texts_are_joined_that_brute_force_keeps_apart(
    texts: list[str], threshold: float
) -> None:
    found, exact = clusters(texts, threshold), components(texts, threshold)
    for index, root in enumerate(found):
        assert root <= index
        assert found[root] == root
        assert exact[root] == exact[index]


@settings(max_examples=60, deadline=None)
@given(ALIKE)
def test_texts_with_equal_shingles_are_always_joined(texts: list[str]) -> None:
    doubled = [*texts, *(text.upper() for text in texts)]
    found = clusters(doubled, 0.9)
    for index, text in enumerate(texts):
        same = found[index] == found[index + len(texts)]
        assert same == bool(shingles(text, 3))
