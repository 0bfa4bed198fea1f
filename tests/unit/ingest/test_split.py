from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from slant.config.settings import SplitShares, SplitSizes
from slant.errors import InputError
from slant.ingest.split import Member, assign_splits, rank

SIZES = SplitSizes(train=20, validation=5, calibration=6, test=9)
Groups = Mapping[str, Sequence[Member]]


def singles(num: int, source: str = "a", prefix: str = "t") -> dict[str, list[Member]]:
    labels = ("negative", "neutral", "positive")
    return {f"{prefix}{i}": [Member(source, "en", labels[i % 3])] for i in range(num)}


def split(
    groups: Groups, sizes: dict[str, SplitSizes] | None = None, seed: int = 1
) -> dict[str, list[str | None]]:
    return assign_splits(groups, shares=SplitShares(), sizes=sizes or {}, seed=seed)


def count(splits: dict[str, list[str | None]]) -> Counter[str | None]:
    return Counter(one for of_group in splits.values() for one in of_group)


def test_shares_are_met_and_the_rest_is_training() -> None:
    counts = count(split(singles(300)))
    assert counts == {"train": 195, "validation": 15, "calibration": 30, "test": 60}


def test_every_stratum_has_its_share_of_every_split() -> None:
    groups = {
        f"{lang}{i}": [Member("a", lang, "positive" if i % 4 == 0 else "negative")]
        for lang, num in (("en", 400), ("tl", 80))
        for i in range(num)
    }
    splits = split(groups)
    tests = Counter(groups[d][0] for d, of_group in splits.items() if of_group == ["test"])
    assert tests[Member("a", "en", "positive")] == 20
    assert tests[Member("a", "en", "negative")] == 60
    assert tests[Member("a", "tl", "positive")] == 4
    assert tests[Member("a", "tl", "negative")] == 12


def test_sizes_are_met_exactly_and_what_is_over_is_unused() -> None:
    counts = count(split(singles(100), {"a": SIZES}))
    assert counts == {"train": 20, "validation": 5, "calibration": 6, "test": 9, None: 60}


def test_sizes_that_use_every_example_are_met() -> None:
    assert count(split(singles(40), {"a": SIZES}))[None] == 0


def test_sizes_are_met_with_groups_larger_than_a_split() -> None:
    groups = singles(30) | {f"big{i}": [Member("a", "en", "neutral")] * 7 for i in range(10)}
    counts = count(split(groups, {"a": SIZES}))
    assert {name: counts[name] for name in ("train", "validation", "calibration", "test")} == {
        "train": 20,
        "validation": 5,
        "calibration": 6,
        "test": 9,
    }


def test_each_source_has_its_own_sizes_and_the_others_share() -> None:
    groups = singles(60, "a") | singles(80, "b", "u") | singles(100, "c", "v")
    splits = split(groups, {"a": SIZES, "b": SIZES})
    for source, expected in (("a", SIZES.test), ("b", SIZES.test), ("c", 20)):
        tests = [
            d for d, one in splits.items() if one == ["test"] and groups[d][0].source == source
        ]
        assert len(tests) == expected


def test_a_text_in_two_sources_is_in_one_split() -> None:
    groups = {
        digest: [Member("a", "en", "neutral"), Member("b", "en", "neutral")]
        for digest in singles(60)
    }
    splits = split(groups, {"a": SIZES})
    for of_group in splits.values():
        assert len({one for one in of_group if one}) == 1
    assert count({d: of_group[:1] for d, of_group in splits.items()})["test"] == SIZES.test


def test_too_few_examples_for_the_sizes_names_source_asked_and_available() -> None:
    with pytest.raises(InputError, match="a: the split sizes ask for 40 examples, but only 30"):
        split(singles(30), {"a": SIZES})


def test_too_few_texts_to_fill_the_splits_is_an_error_that_names_them() -> None:
    groups = {d: [Member("a", "en", "neutral")] * 20 for d in ("x", "y", "z")}
    with pytest.raises(InputError, match=r"3 different documents .* nothing is left for train"):
        split(groups)


def test_a_share_of_zero_asks_for_nothing() -> None:
    shares = SplitShares(validation=0, calibration=0, test=0.5)
    splits = assign_splits(singles(2), shares=shares, sizes={}, seed=1)
    assert count(splits) == {"train": 1, "test": 1}


def test_four_large_texts_fill_four_splits() -> None:
    groups = {d: [Member("a", "en", "neutral")] * 20 for d in ("w", "x", "y", "z")}
    assert count(split(groups)) == dict.fromkeys(("train", "validation", "calibration", "test"), 20)


def test_the_order_of_the_input_has_no_influence() -> None:
    groups = singles(100)
    assert split(groups) == split(dict(reversed(groups.items())))


def test_another_seed_gives_another_split() -> None:
    assert split(singles(100), seed=1) != split(singles(100), seed=2)


def test_new_rows_move_no_text_from_training_to_test() -> None:
    before = split(singles(2000))
    after = split(singles(2000) | singles(1000, prefix="new"))
    moved = [d for d in before if before[d] != after[d]]
    assert len(moved) < 0.05 * len(before)
    assert not [d for d in moved if before[d] == ["train"] and after[d] == ["test"]]


def test_ranks_for_different_purposes_are_unrelated() -> None:
    digests = [f"d{i}" for i in range(1000)]
    low = {
        purpose: set(sorted(digests, key=lambda d, p=purpose: rank(p, 1, d))[:500])
        for purpose in ("limit", "split")
    }
    assert 200 < len(low["limit"] & low["split"]) < 300
