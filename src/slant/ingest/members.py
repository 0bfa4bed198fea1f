"""Examples as splitting sees them, and what is settled about their splits before any is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from slant.config.ingest_settings import SplitShares
from slant.errors import UsageError, did_you_mean
from slant.task.normalise import text_digest

__all__ = [
    "Member",
    "held_out_groups",
    "heldout_narratives",
    "own_split",
    "own_splits",
    "rank",
    "strongest_split",
]

_STRENGTH = ("test", "calibration", "validation", "train")  # what is measured on counts for most
_OWN_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "calibration": ("calibration",),
    "test": ("test", "testing", "eval"),
}


@dataclass(frozen=True)
class Member:
    """An example as splitting sees it.

    Attributes:
        source: where it came from; ``sizes`` are by source.
        lang: with ``label``, its stratum.
        label: see ``lang``.
        dataset: the source's data set, for ``heldout_datasets``.
        narrative: its text; None: overall sentiment.
        published_at: of its document.
        own_split: the split that its row names, one of SPLITS.
    """

    source: str
    lang: str
    label: str
    dataset: str = ""
    narrative: str | None = None
    published_at: datetime | None = None
    own_split: str | None = None


def own_split(value: str) -> str | None:
    """The split that a source calls ``value``, e.g. ``dev``; None if it is no name of one."""
    name = value.strip().casefold()
    return next((split for split, names in _OWN_NAMES.items() if name in names), None)


def rank(purpose: str, seed: int, digest: str) -> str:
    """Position of a text in a random order that other texts have no influence on.

    ``purpose`` keeps orders independent: were a source cut to its lowest ranks and then split by
    the same ranks, all of it would be test examples.
    """
    return hashlib.sha256(f"{purpose}\0{seed}\0{digest}".encode()).hexdigest()


def strongest_split(members: Sequence[Member]) -> str | None:
    """Of the splits that examples of a group name, the one that most is measured on."""
    named = {member.own_split for member in members}
    return next((split for split in _STRENGTH if split in named), None)


def own_splits(members: Sequence[Member], *, keep_leaks: bool) -> list[str]:
    """The splits of a group in which an example names one.

    Examples that name none follow the strongest. For those that name a weaker one it stands, or, in
    its place, the reason why the example is set aside.
    """
    strongest = strongest_split(members)
    assert strongest is not None
    splits = [member.own_split or strongest for member in members]
    if keep_leaks:
        return splits
    reason = f"its own split is {{}}, but its text or one nearly the same stands in {strongest}"
    return [split if split == strongest else reason.format(split) for split in splits]


def heldout_narratives(narratives: Iterable[str | None], share: float, seed: int) -> frozenset[str]:
    """The narratives that stand in the test split only, as digests (``text_digest``).

    The lowest in a random order of their own are chosen: adding one moves no more than the border.
    Overall sentiment (None) is never held out.
    """
    digests = {text_digest(narrative) for narrative in narratives if narrative is not None}
    if not share or not digests:
        return frozenset()
    ranked = sorted(digests, key=lambda digest: rank("narrative", seed, digest))
    return frozenset(ranked[: max(1, round(share * len(ranked)))])


def held_out_groups(
    groups: Mapping[str, Sequence[Member]], shares: SplitShares, seed: int
) -> frozenset[str]:
    """The groups that a held-out narrative or data set stands in."""
    everyone = [member for members in groups.values() for member in members]
    known = {member.dataset for member in everyone}
    for name in shares.heldout_datasets:
        if name not in known:
            raise UsageError(
                f"ingest.split.heldout_datasets: no example comes from {name!r}"
                f"{did_you_mean(name, known)}",
                hint=f"The data sets are {', '.join(sorted(known))}.",
            )
    if not shares.heldout_datasets and not shares.heldout_narratives:
        return frozenset()
    narratives = {member.narrative for member in everyone}
    chosen = heldout_narratives(narratives, shares.heldout_narratives, seed)
    held = {text for text in narratives if text is not None and text_digest(text) in chosen}
    return frozenset(
        digest
        for digest, members in groups.items()
        if any(m.narrative in held or m.dataset in shares.heldout_datasets for m in members)
    )
