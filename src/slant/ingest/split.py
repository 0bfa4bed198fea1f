"""Which split each example belongs to: pure functions of the examples and the seed.

Documents whose texts are equal or nearly so form a group, and a whole group goes to one split, so
that no text is both learned from and tested on. Within that, each split gets its share of every
stratum (language × label).

A group's rank is a hash of its digest. The test split takes the groups of lowest rank until its
seats are filled, stratum by stratum; the next ranks go to calibration, then to validation, then to
training; what fixed sizes leave over is not used. So a group's split depends on its own hash and
on where the borders lie, and new rows move groups near a border only. Iterative stratification
(Sechidis et al. 2011) gives each group to the split in greatest need instead; there, one more row
shifts every later decision, and what was tested on yesterday is trained on today.

By time, groups stand in the order of their latest publication; test takes the latest ones, then
come calibration, validation and training. A group that spans a border is one side whole: the side
of its latest text, so that nothing is trained on that is later than what is tested on.

Two things go before all that: a group with a held-out narrative or data set is for testing, whole,
and an example with a split of its own keeps it, unless that leaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import product
from typing import final

from slant.config.ingest_settings import SplitShares, SplitSizes
from slant.errors import InputError, UsageError
from slant.ingest.members import (
    Member,
    held_out_groups,
    heldout_narratives,
    own_split,
    own_splits,
    rank,
    strongest_split,
)
from slant.page.words import listed

__all__ = ["Member", "assign_splits", "heldout_narratives", "own_split", "rank"]

_TRAIN = "train"
_HELD_OUT = ("test", "calibration", "validation")  # in the order in which they are filled
_SHARED = ""  # the pool of all sources without sizes of their own


def assign_splits(
    groups: Mapping[str, Sequence[Member]],
    *,
    shares: SplitShares,
    sizes: Mapping[str, SplitSizes],
    seed: int,
) -> dict[str, list[str | None]]:
    """Give every group a split.

    A group with a held-out narrative or data set goes to test, whatever else holds of it; the test
    split takes that many fewer others. A group in which an example has a split of its own gets
    that; where they differ, all the rest follow the one that most is measured on (test, then
    calibration, validation, training), and ``shares.leaks`` says what becomes of those that name
    another. Such groups count for no share and no size.

    Args:
        groups: By digest, the examples under texts that are equal or nearly so; none is empty.
        shares: Shares of the examples of all sources that are not in ``sizes``, and how to split.
        sizes: By source, numbers of examples. They are met exactly unless a group is larger than
            what other groups leave; then a split is left short.
        seed: Of the order in which groups are taken.

    Returns:
        By digest, for each example in the order given: its split, one of SPLITS; None if it is
        beyond the numbers that ``sizes`` asks for; or else the reason why it leaks and is set
        aside. Unless ``shares.leaks`` is "keep", all splits of a group are the same.

    Raises:
        InputError: There are fewer examples than the sizes add up to, or too few groups to have
            one in each split.
        UsageError: ``shares`` names a data set that there is not, or asks for a split by time
            together with sizes.
    """
    held_out = held_out_groups(groups, shares, seed)
    splits: dict[str, list[str | None]] = {
        digest: [*own_splits(members, keep_leaks=shares.leaks == "keep")]
        for digest, members in groups.items()
        if digest not in held_out and strongest_split(members)
    }
    free = {digest: members for digest, members in groups.items() if digest not in splits}
    sizes = _needed_sizes(sizes, groups, free)
    if shares.by == "time":
        splits |= _split_by_time(free, held_out, shares, sizes, seed)
    else:
        splits |= _split_by_rank(free, held_out, shares, sizes, seed)
    _check_not_empty(groups, splits, sizes, shares)
    return splits


def _needed_sizes(
    sizes: Mapping[str, SplitSizes],
    groups: Mapping[str, Sequence[Member]],
    free: Mapping[str, Sequence[Member]],
) -> dict[str, SplitSizes]:
    """The sizes without those of sources whose examples all have splits of their own."""
    present = {member.source for members in groups.values() for member in members}
    to_place = {member.source for members in free.values() for member in members}
    return {
        source: wanted
        for source, wanted in sizes.items()
        if source in to_place or source not in present
    }


def _split_by_time(
    groups: Mapping[str, Sequence[Member]],
    held_out: frozenset[str],
    shares: SplitShares,
    sizes: Mapping[str, SplitSizes],
    seed: int,
) -> dict[str, list[str | None]]:
    """The latest groups to test, then to calibration and validation, the oldest to training.

    Held-out groups are for testing at any time, groups without a time for training.
    """
    if sizes:
        raise UsageError(
            f"{next(iter(sizes))}: `sizes` cannot be met in a split by time",
            hint="Leave `sizes` out, or set ingest.split.by to digest.",
        )
    latest = {digest: time for digest, members in groups.items() if (time := _latest(members))}
    if groups and not latest:
        raise InputError(
            "ingest.split.by is time, but no example has a time of publication",
            hint="Name its column under `columns.published_at`, or set ingest.split.by to digest.",
        )
    total = sum(len(members) for members in groups.values())
    splits = {digest: "test" if digest in held_out else _TRAIN for digest in groups}
    num_held_out = sum(len(groups[digest]) for digest in held_out)
    waiting = sorted(
        latest.keys() - held_out,
        key=lambda digest: (latest[digest], rank("split", seed, digest)),
    )
    for split in _HELD_OUT:
        share = getattr(shares, split)
        asked = max(1, round(share * total)) if share else 0
        free = asked - (num_held_out if split == "test" else 0)
        # As by rank: a group is taken if that brings the split nearer to its number.
        while waiting and free > 0:
            size = len(groups[waiting[-1]])
            if size >= 2 * free and free < asked:
                break
            splits[waiting.pop()] = split
            free -= size
    return {digest: [split] * len(groups[digest]) for digest, split in splits.items()}


def _latest(members: Sequence[Member]) -> datetime | None:
    times = [member.published_at for member in members if member.published_at is not None]
    return max(times, default=None)


def _split_by_rank(
    groups: Mapping[str, Sequence[Member]],
    held_out: frozenset[str],
    shares: SplitShares,
    sizes: Mapping[str, SplitSizes],
    seed: int,
) -> dict[str, list[str | None]]:
    """Groups by rank to the splits that have seats for them; held-out ones to test."""
    pools = _count_pools(groups, sizes)
    seats = _Seats({split: _seats(split, pools, shares, sizes) for split in (*_HELD_OUT, _TRAIN)})
    ranked = sorted(groups, key=lambda digest: rank("split", seed, digest))
    strata = {
        digest: [_stratum(member, sizes) for member in members]
        for digest, members in groups.items()
    }
    splits = {digest: seats.take("test", strata[digest]) for digest in ranked if digest in held_out}
    waiting = [digest for digest in ranked if digest not in held_out]
    # Training is last: it is large, and would leave nothing to a small split when groups are few.
    for choices, rule in product((_HELD_OUT, (_TRAIN,)), _Rule):
        still_waiting = []
        for digest in waiting:
            split = seats.find(choices, strata[digest], rule)
            if split is None:
                still_waiting.append(digest)
            else:
                splits[digest] = seats.take(split, strata[digest])
        waiting = still_waiting
    for digest in waiting:  # the rest of the shared pool is training; the rest of others is unused
        splits[digest] = seats.take(_TRAIN, strata[digest])
    return splits


@dataclass(frozen=True, order=True)
class _Stratum:
    pool: str
    lang: str
    label: str


def _stratum(member: Member, sizes: Mapping[str, SplitSizes]) -> _Stratum:
    pool = member.source if member.source in sizes else _SHARED
    return _Stratum(pool, member.lang, member.label)


_Pools = dict[str, Counter[_Stratum]]


def _count_pools(groups: Mapping[str, Sequence[Member]], sizes: Mapping[str, SplitSizes]) -> _Pools:
    """Examples per stratum, by pool; raises InputError for a source with fewer than it needs."""
    pools: _Pools = {source: Counter() for source in sizes}
    for members in groups.values():
        for member in members:
            stratum = _stratum(member, sizes)
            pools.setdefault(stratum.pool, Counter())[stratum] += 1
    for source, wanted in sizes.items():
        asked = wanted.train + wanted.validation + wanted.calibration + wanted.test
        available = pools[source].total()
        if available < asked:
            raise InputError(
                f"{source}: the split sizes ask for {asked} examples, but only {available} can be "
                "used",
                hint="Ask for fewer under `sizes`, or leave `sizes` out to split by shares.",
            )
    return pools


def _seats(
    split: str, pools: _Pools, shares: SplitShares, sizes: Mapping[str, SplitSizes]
) -> Counter[_Stratum]:
    """How many examples of each stratum ``split`` is to have.

    Training has no seats in the shared pool: it takes what the others leave.
    """
    seats: Counter[_Stratum] = Counter()
    for pool, strata in pools.items():
        if pool in sizes:
            total: int = getattr(sizes[pool], split)
        elif split == _TRAIN or not (share := getattr(shares, split)):
            continue
        else:
            total = max(1, round(share * strata.total()))
        seats.update(_apportion(total, strata))
    return seats


def _apportion(total: int, strata: Counter[_Stratum]) -> dict[_Stratum, int]:
    """``total`` seats in proportion to the strata, by largest remainder (Hamilton's method)."""
    num_examples = strata.total()
    shares = {stratum: divmod(total * count, num_examples) for stratum, count in strata.items()}
    seats = {stratum: whole for stratum, (whole, _) in shares.items()}
    left = total - sum(seats.values())
    by_remainder = sorted(shares, key=lambda stratum: (-shares[stratum][1], stratum))
    for stratum in by_remainder[:left]:
        seats[stratum] += 1
    return seats


class _Rule(Enum):
    """When a split may take a group; each rule is tried on what the one before left."""

    STRATA = "it has seats for all members in their strata"
    TOTAL = "it has seats for all members, whatever their strata"
    NEED = "it is short of examples, and nearer to its number with the group than without"


@final
class _Seats:
    """Free seats of the splits, while groups take them."""

    def __init__(self, seats: Mapping[str, Counter[_Stratum]]) -> None:
        self._strata = {split: Counter(counts) for split, counts in seats.items()}
        self._totals = {split: _by_pool(counts) for split, counts in seats.items()}
        self._asked = {split: _by_pool(counts) for split, counts in seats.items()}

    def find(self, splits: Sequence[str], members: Sequence[_Stratum], rule: _Rule) -> str | None:
        """The first of ``splits`` that may take a group, or None."""
        needed = Counter(members)
        for split in splits:
            # Training takes the shared pool's rest at the end: those members do not count there.
            counted = needed if split != _TRAIN else _without_shared(needed)
            if counted and self._may_take(split, counted, rule):
                return split
        return None

    def _may_take(self, split: str, needed: Counter[_Stratum], rule: _Rule) -> bool:
        if rule is _Rule.STRATA:
            free = self._strata[split]
            return all(free[stratum] >= count for stratum, count in needed.items())
        totals = self._totals[split]
        pools = _by_pool(needed)
        if rule is _Rule.TOTAL:
            return all(totals[pool] >= count for pool, count in pools.items())
        return any(self._is_short(split, pool, count) for pool, count in pools.items())

    def _is_short(self, split: str, pool: str, count: int) -> bool:
        free = self._totals[split][pool]
        if pool != _SHARED:
            return free > 0  # what is too many is left unused
        return count < 2 * free or 0 < free == self._asked[split][pool]

    def take(self, split: str, members: Sequence[_Stratum]) -> list[str | None]:
        """Seat a group; members of a pool with sizes stay out (None) once it is full."""
        taken: list[str | None] = []
        for stratum in members:
            if stratum.pool != _SHARED and self._totals[split][stratum.pool] <= 0:
                taken.append(None)
                continue
            self._totals[split][stratum.pool] -= 1
            self._strata[split][stratum] -= 1
            taken.append(split)
        return taken


def _by_pool(strata: Counter[_Stratum]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for stratum, count in strata.items():
        totals[stratum.pool] += count
    return totals


def _without_shared(strata: Counter[_Stratum]) -> Counter[_Stratum]:
    return Counter({stratum: n for stratum, n in strata.items() if stratum.pool != _SHARED})


def _check_not_empty(
    groups: Mapping[str, Sequence[Member]],
    splits: Mapping[str, Sequence[str | None]],
    sizes: Mapping[str, SplitSizes],
    shares: SplitShares,
) -> None:
    """Raise InputError for a split that was asked for and has no example."""
    filled: set[tuple[str, str | None]] = set()
    num_groups: Counter[str] = Counter()
    for digest, members in groups.items():
        pools = [_stratum(member, sizes).pool for member in members]
        filled.update(zip(pools, splits[digest], strict=True))
        num_groups.update(set(pools))
    for pool, count in num_groups.items():
        empty = [
            split
            for split in (_TRAIN, *reversed(_HELD_OUT))
            if (pool, split) not in filled and _is_asked(split, pool, shares)
        ]
        if not empty:
            continue
        where = pool or "ingest.examples"
        raise InputError(
            f"{where}: {_num(count, 'different document')} cannot fill the splits: nothing is left "
            f"for {listed(empty)}",
            hint="Give more examples, or set shares that are not needed to 0 under `ingest.split`.",
        )


def _is_asked(split: str, pool: str, shares: SplitShares) -> bool:
    return pool != _SHARED or split == _TRAIN or getattr(shares, split) > 0


def _num(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
