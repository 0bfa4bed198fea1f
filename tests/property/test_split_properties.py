"""What holds of every split, whatever the examples are."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from slant.config.ingest_settings import SplitShares, SplitSizes
from slant.errors import InputError, UsageError
from slant.ingest.split import Member, assign_splits, heldout_narratives
from slant.records import SPLITS
from slant.task.normalise import text_digest

Groups = dict[str, list[Member]]

MEMBERS = st.builds(
    Member,
    source=st.sampled_from(["sized", "shared", "other"]),
    lang=st.sampled_from(["en", "tl"]),
    label=st.sampled_from(["negative", "neutral", "positive"]),
)
GROUPS = st.dictionaries(
    st.text("0123456789abcdef", min_size=8, max_size=8),
    st.lists(MEMBERS, min_size=1, max_size=6),
    min_size=1,
    max_size=80,
)
SMALL_GROUPS = st.dictionaries(
    st.text("0123456789abcdef", min_size=8, max_size=8),
    st.lists(
        st.builds(
            Member,
            source=st.just("shared"),
            lang=st.sampled_from(["en", "tl"]),
            label=st.sampled_from(["negative", "positive"]),
        ),
        min_size=1,
        max_size=3,
    ),
    min_size=60,
    max_size=150,
)
SIZES = {"sized": SplitSizes(train=6, validation=2, calibration=3, test=4)}
SEEDS = st.integers(0, 2**32)


def try_split(
    groups: Groups, sizes: dict[str, SplitSizes], seed: int
) -> dict[str, list[str | None]] | None:
    """The split; None where there are too few examples for one."""
    try:
        return assign_splits(groups, shares=SplitShares(), sizes=sizes, seed=seed)
    except InputError:
        return None


@given(GROUPS, SEEDS)
def test_a_group_is_in_one_split_and_every_example_has_one_answer(
    groups: Groups, seed: int
) -> None:
    splits = try_split(groups, SIZES, seed)
    if splits is None:
        return
    assert splits.keys() == groups.keys()
    for digest, members in groups.items():
        assert len(splits[digest]) == len(members)
        assert len({split for split in splits[digest] if split is not None}) <= 1
        assert set(splits[digest]) <= {*SPLITS, None}


@given(GROUPS, SEEDS)
def test_sizes_are_never_exceeded_and_only_sized_sources_leave_examples_unused(
    groups: Groups, seed: int
) -> None:
    splits = try_split(groups, SIZES, seed)
    if splits is None:
        return
    counts = Counter(
        (member.source, split)
        for digest, members in groups.items()
        for member, split in zip(members, splits[digest], strict=True)
    )
    for split in SPLITS:
        assert 0 < counts["sized", split] <= getattr(SIZES["sized"], split)
    assert counts["shared", None] == counts["other", None] == 0


@given(SMALL_GROUPS, SEEDS)
def test_sizes_are_met_exactly_when_groups_are_small(groups: Groups, seed: int) -> None:
    splits = assign_splits(
        groups, shares=SplitShares(), sizes={"shared": SIZES["sized"]}, seed=seed
    )
    counts = Counter(split for of_group in splits.values() for split in of_group)
    assert {split: counts[split] for split in SPLITS} == SIZES["sized"].model_dump()


@given(SMALL_GROUPS, SEEDS)
def test_shares_are_met_to_within_half_a_group(groups: Groups, seed: int) -> None:
    shares = SplitShares()
    splits = assign_splits(groups, shares=shares, sizes={}, seed=seed)
    counts = Counter(split for of_group in splits.values() for split in of_group)
    largest = max(len(members) for members in groups.values())
    for split in ("validation", "calibration", "test"):
        wanted = max(1, round(getattr(shares, split) * counts.total()))
        assert abs(counts[split] - wanted) <= largest / 2


@given(GROUPS, SEEDS)
def test_the_order_in_which_groups_come_has_no_influence(groups: Groups, seed: int) -> None:
    again = dict(sorted(groups.items(), reverse=True))
    assert try_split(groups, SIZES, seed) == try_split(again, SIZES, seed)


@settings(max_examples=30, deadline=None)
@given(st.integers(200, 400), st.integers(1, 20), SEEDS)
def test_added_texts_move_few_of_the_others(num: int, num_new: int, seed: int) -> None:
    labels = ("negative", "neutral", "positive")
    groups = {f"old{i}": [Member("shared", "en", labels[i % 3])] for i in range(num)}
    new = {f"new{i}": [Member("shared", "en", labels[i % 3])] for i in range(num_new)}
    before = assign_splits(groups, shares=SplitShares(), sizes={}, seed=seed)
    after = assign_splits(groups | new, shares=SplitShares(), sizes={}, seed=seed)
    moved = sum(before[digest] != after[digest] for digest in groups)
    # A new text moves at most one old one over each of the three borders of its stratum, and each
    # of the three strata can gain or lose a seat to rounding in up to three splits (1 + 2 + 3).
    assert moved <= 3 * num_new + 18


TIMES = st.none() | st.datetimes(
    datetime(2024, 1, 1), datetime(2024, 1, 20), timezones=st.just(UTC)
)
FULL_GROUPS = st.dictionaries(
    st.text("0123456789abcdef", min_size=8, max_size=8),
    st.lists(
        st.builds(
            Member,
            source=st.just("shared"),
            lang=st.just("en"),
            label=st.sampled_from(["negative", "positive"]),
            dataset=st.sampled_from(["a", "b", "c"]),
            narrative=st.none() | st.sampled_from("nopqrstu"),
            published_at=TIMES,
            own_split=st.none() | st.none() | st.none() | st.sampled_from(SPLITS),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=12,
    max_size=60,
)
SHARES = st.builds(
    SplitShares,
    by=st.sampled_from(["digest", "time"]),
    leaks=st.sampled_from(["set-aside", "keep"]),
    validation=st.sampled_from([0, 0.05]),
    calibration=st.sampled_from([0, 0.1]),
    heldout_narratives=st.sampled_from([0.0, 0.1, 0.4]),
    heldout_datasets=st.sampled_from([[], ["a"]]),
)


def is_held_out(members: list[Member], shares: SplitShares, held: frozenset[str]) -> bool:
    return any(
        member.dataset in shares.heldout_datasets
        or (member.narrative is not None and text_digest(member.narrative) in held)
        for member in members
    )


@given(FULL_GROUPS, SHARES, SEEDS)
def test_no_rule_puts_a_group_on_two_sides_and_each_keeps_its_promise(
    groups: Groups, shares: SplitShares, seed: int
) -> None:
    try:
        splits = assign_splits(groups, shares=shares, sizes={}, seed=seed)
    except (InputError, UsageError):
        return
    everyone = [member for members in groups.values() for member in members]
    held = heldout_narratives([m.narrative for m in everyone], shares.heldout_narratives, seed)
    trained: list[datetime] = []
    tested: list[datetime] = []
    for digest, members in groups.items():
        sides = {split for split in splits[digest] if split in SPLITS}
        own = [m.own_split for m in members]
        assert len(sides) == 1 or (shares.leaks == "keep" and len(set(own)) > 1)
        if is_held_out(members, shares, held):
            assert splits[digest] == ["test"] * len(members)
        elif any(own):
            kept = [split if split in SPLITS else None for split in splits[digest]]
            named = [split for split in splits[digest] if split not in SPLITS]
            assert all(f"stands in {next(iter(sides))}" in str(reason) for reason in named)
            if shares.leaks == "keep":
                assert kept == [split or kept[own.index(None)] for split in own]
            else:
                assert kept == [
                    next(iter(sides & {split or kept[i]}), None) for i, split in enumerate(own)
                ]
        else:
            assert set(splits[digest]) <= set(SPLITS)
            times = [m.published_at for m in members if m.published_at is not None]
            if "train" in sides:
                trained += times
            elif times:
                tested.append(max(times))
            else:
                assert shares.by == "digest"
    if shares.by == "time" and trained and tested:
        assert max(trained) <= min(tested)


@given(FULL_GROUPS, SHARES, SEEDS)
def test_under_every_rule_the_order_of_groups_has_no_influence(
    groups: Groups, shares: SplitShares, seed: int
) -> None:
    results = []
    for ordered in (groups, dict(sorted(groups.items(), reverse=True))):
        try:
            results.append(assign_splits(ordered, shares=shares, sizes={}, seed=seed))
        except (InputError, UsageError) as error:
            results.append({"error": [str(error)]})
    assert results[0] == results[1]
