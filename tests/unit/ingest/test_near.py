from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from slant.ingest import near
from slant.ingest.near import (
    NUM_BANDS,
    band_keys,
    candidate_pairs,
    find_clusters,
    jaccard,
    shingle_hashes,
)
from slant.progress import SilentProgress

ALPHABETS = {
    "latin": "abcdefghilmnoprstuv",
    "cyrillic": "абвгдежиклмнопрстуы",
    "han": "桥城市议会长规划河投票钱噪音街道电车冬天计新闻报人民政府大学",
}


def sentence(script: str, num_words: int, seed: int) -> str:
    chance = random.Random(f"{script} {seed}")
    letters = ALPHABETS[script]
    words = ("".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(num_words))
    return ("" if script == "han" else " ").join(words)


def sketches(texts: Sequence[str], length: int = 5) -> NDArray[np.uint64]:
    return np.stack([band_keys(shingle_hashes(text, length)) for text in texts])


def clusters(texts: Sequence[str], threshold: float = 0.8) -> list[int]:
    def read(indices: NDArray[np.int64]) -> Iterator[tuple[int, str]]:
        assert (np.diff(indices) > 0).all()
        return ((int(index), texts[index]) for index in indices)

    bands = sketches(texts) if texts else np.empty((0, NUM_BANDS), np.uint64)
    found = find_clusters(
        bands, read, jaccard=threshold, shingle_characters=5, progress=SilentProgress()
    )
    assert found.shape == (len(texts),)
    return found.tolist()


def true_jaccard(first: str, second: str, length: int = 5) -> float:
    sets = []
    for text in (first, second):
        plain = "".join(text.casefold().split())
        sets.append({plain[i : i + length] for i in range(max(1, len(plain) - length + 1))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize("script", ALPHABETS)
def test_similarity_is_that_of_the_sets_of_shingles(script: str) -> None:
    for seed in range(20):
        first, second = sentence(script, 60, seed), sentence(script, 40, seed + 100)
        second = first[: len(first) // 2] + second
        hashes = shingle_hashes(first, 5), shingle_hashes(second, 5)
        assert jaccard(*hashes) == pytest.approx(true_jaccard(first, second))


def test_case_and_white_space_make_no_difference() -> None:
    plain = shingle_hashes("Straße am Fluss", 5)
    assert np.array_equal(plain, shingle_hashes("STRASSE\n am\u00a0FLUSS ", 5))


def test_hashes_are_sorted_and_distinct() -> None:
    hashes = shingle_hashes("abcabcabcabc", 3)
    assert len(hashes) == 3
    assert (hashes[1:] > hashes[:-1]).all()


def test_a_text_shorter_than_a_shingle_is_one_shingle_of_its_own() -> None:
    short = [shingle_hashes(text, 5) for text in ("a", "ab", "ab\0", "abc", "你")]
    assert [len(hashes) for hashes in short] == [1] * 5
    assert len({int(hashes[0]) for hashes in short}) == 5


def test_a_text_of_white_space_has_no_shingles_and_no_partner() -> None:
    assert len(shingle_hashes(" \n\t", 5)) == 0
    assert candidate_pairs(sketches(["", " ", "\n", "a text", "a text"])).tolist() == [[3, 4]]


def test_similarity_of_nothing_with_nothing_is_zero() -> None:
    nothing = np.empty(0, np.uint64)
    assert jaccard(nothing, nothing) == 0


def test_the_sketch_is_the_same_in_every_release() -> None:
    # Sketches are stored with the ingested parts: other numbers here mean another sketch.
    keys = band_keys(shingle_hashes("The new bridge is open. Новый мост открыт. 新桥开通。", 5))
    assert keys.shape == (NUM_BANDS,)
    assert keys.dtype == np.uint64
    assert keys[:3].tolist() == [
        11427838988792188731,
        6778049318757629203,
        13043052666761192923,
    ]


def test_equal_sets_have_equal_sketches_and_unlike_ones_share_no_band() -> None:
    texts = [sentence("latin", 50, seed) + sentence("han", 50, seed) for seed in range(40)]
    assert candidate_pairs(sketches(texts + texts)).tolist() == [[i, i + 40] for i in range(40)]


def test_candidates_are_all_pairs_that_share_a_key_in_small_buckets() -> None:
    chance = np.random.default_rng(1)
    bands = chance.integers(1, 60, (200, 5)).astype(np.uint64)
    agree = (bands[:, None] == bands[None]).any(axis=2)
    assert candidate_pairs(bands).tolist() == np.argwhere(np.triu(agree, 1)).tolist()
    agree = (bands[:, None] == bands[None]).sum(axis=2) >= 2
    assert candidate_pairs(bands, 2).tolist() == np.argwhere(np.triu(agree, 1)).tolist()


def test_there_are_no_candidates_among_no_documents() -> None:
    assert candidate_pairs(np.empty((0, NUM_BANDS), np.uint64)).shape == (0, 2)
    assert clusters([]) == []


def test_a_large_bucket_gives_few_pairs_and_one_cluster() -> None:
    copies = ["Vote for the new bridge across the river, says the council."] * 3000
    assert len(candidate_pairs(sketches(copies))) < 10 * len(copies)
    assert set(clusters(copies)) == {0}


def test_two_groups_in_one_large_bucket_become_two_clusters() -> None:
    groups = [sentence("latin", 40, 1), sentence("latin", 40, 2)]
    texts = [groups[index % 2] for index in range(400)]
    # As if the first two bands had put both groups into one bucket.
    bands = sketches(texts)
    bands[:, :2] = 7
    found = find_clusters(
        bands,
        lambda indices: ((int(i), texts[i]) for i in indices),
        jaccard=0.8,
        shingle_characters=5,
        progress=SilentProgress(),
    )
    assert found.tolist() == [index % 2 for index in range(400)]


def test_near_texts_are_together_and_others_alone() -> None:
    first, other = sentence("cyrillic", 80, 1), sentence("cyrillic", 80, 2)
    near_first = first.replace(first.split()[40], "и")
    assert true_jaccard(first, near_first) > 0.8
    assert clusters([other, first, "", "new", near_first, "", first.upper()]) == [
        0, 1, 2, 3, 1, 5, 1,
    ]  # fmt: skip


def test_the_threshold_is_met_exactly() -> None:
    # 10 shingles each, of which 8 are shared by both: 8 of 12.
    first, second = "abcdefghijklmn", "cdefghijklmnop"
    exact = true_jaccard(first, second)
    assert exact == pytest.approx(8 / 12)
    assert clusters([first, second], threshold=exact) == [0, 0]
    assert clusters([first, second], threshold=exact + 1e-9) == [0, 1]


def test_a_chain_of_near_texts_is_one_cluster() -> None:
    words = sentence("latin", 200, 3).split()
    chain = [" ".join(words[start : start + 100]) for start in range(0, 60, 6)]
    assert true_jaccard(chain[0], chain[-1]) < 0.5
    assert set(clusters(chain)) == {0}


def test_blocks_that_do_not_fit_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [sentence("latin", 60, seed // 3) for seed in range(300)]
    in_one = clusters(texts)
    assert in_one == [index - index % 3 for index in range(300)]
    for held_bytes, first_block in ((1, 16), (3000, 16), (3000, 10_000), (10**9, 1)):
        monkeypatch.setattr(near, "_HELD_BYTES", held_bytes)
        monkeypatch.setattr(near, "_FIRST_BLOCK", first_block)
        assert clusters(texts) == in_one


def test_short_posts_are_found() -> None:
    posts = [f"{sentence('latin', 7, seed)}" for seed in range(200)]
    near_posts = [f"{post}!!" for post in posts]
    pairs = candidate_pairs(sketches(posts + near_posts), 2).tolist()
    close = [i for i in range(200) if true_jaccard(posts[i], near_posts[i]) >= 0.8]
    assert len(close) > 190
    found = sum([i, i + 200] in pairs for i in close)
    assert found >= 0.97 * len(close)
