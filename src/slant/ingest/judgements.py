"""Several annotators' labels: one label by rule, and how far the annotators agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slant.labels import LabelSet

__all__ = ["Verdict", "adjudicate", "agreement", "krippendorff_alpha"]

Judgements = Sequence[tuple[str, str]]
"""Annotator and label."""


@dataclass(frozen=True)
class Verdict:
    """What the judgements of a pair come to.

    Attributes:
        label: None if the rule gives none; then ``problem`` says why.
        shares: of the judgements, one per label in label order. They add up to 1 (to 0 where there
            is no judgement).
        num_judgements: annotators, each counted once.
        problem: None if there is a label. Details of the row come after a colon.
    """

    label: str | None
    shares: tuple[float, ...]
    num_judgements: int
    problem: str | None


def adjudicate(
    judgements: Judgements,
    *,
    labels: LabelSet,
    rule: Literal["majority", "unanimous"],
    min_annotators: int,
) -> Verdict:
    """One label from the judgements of a pair; their order has no influence.

    Every annotator has one vote. Repeating a label adds nothing to it; one who gave several labels
    has given each an equal part of the vote.

    Args:
        judgements: annotator and label.
        labels: the labels there are.
        rule: ``majority``: the label with more votes than any other. ``unanimous``: the one that
            has all votes.
        min_annotators: fewer give no label.

    Raises:
        TaskError: a label is not among ``labels``.
    """
    votes = _votes(judgements, labels)
    totals = [sum((vote[i] for vote in votes.values()), Fraction()) for i in range(len(labels))]
    shares = tuple(float(total / max(1, len(votes))) for total in totals)
    best = max(range(len(labels)), key=lambda i: totals[i])
    problem = None
    if len(votes) < min_annotators:
        problem = f"fewer annotators than min_annotators ({min_annotators})"
    elif rule == "unanimous" and totals[best] < len(votes):
        problem = "annotators disagree: not unanimous"
    elif totals.count(totals[best]) > 1:
        problem = "annotators disagree: no majority"
    return Verdict(None if problem else labels[best], shares, len(votes), problem)


def _votes(judgements: Judgements, labels: LabelSet) -> dict[str, list[Fraction]]:
    """Each annotator's vote over the labels; exact, so that a tie is one."""
    given: dict[str, set[int]] = {}
    for annotator, label in judgements:
        given.setdefault(annotator, set()).add(labels.index(label))
    return {
        annotator: [Fraction(int(i in chosen), len(chosen)) for i in range(len(labels))]
        for annotator, chosen in given.items()
    }


def krippendorff_alpha(
    units: Sequence[Sequence[int]],
    num_labels: int,
    *,
    metric: Literal["nominal", "ordinal"] = "nominal",
) -> float | None:
    """Krippendorff's alpha: 1 is perfect agreement, 0 what chance would give, below 0 is worse.

    From the coincidence matrix, as in K. Krippendorff (2011), "Computing Krippendorff's
    Alpha-Reliability", https://repository.upenn.edu/asc_papers/43.

    Args:
        units: for each unit the labels its annotators gave, as indices 0 … num_labels - 1, in any
            order. A unit with fewer than two cannot disagree and is left out.
        num_labels: how many labels there are, in their order for ``ordinal``.
        metric: ``nominal``: all disagreements weigh the same. ``ordinal``: more, the more
            judgements lie between the two labels.

    Returns:
        None where alpha is 0/0: there is no unit with two judgements, or all judgements are the
        same label. Whether that is perfect agreement or none cannot be told from such data, and
        programs that print a number for it differ.

    Raises:
        ValueError: a label index is out of range.
    """
    counts_UL = _label_counts(units, num_labels)
    sizes_U = counts_UL.sum(axis=1)
    weighted_UL = counts_UL / np.maximum(sizes_U - 1, 1)[:, None]
    coincidences_LL = counts_UL.T @ weighted_UL - np.diag(weighted_UL.sum(axis=0))
    totals_L = coincidences_LL.sum(axis=1)
    distances_LL = _distances(totals_L, metric)
    expected = float(totals_L @ distances_LL @ totals_L)
    if np.count_nonzero(counts_UL.sum(axis=0)) < 2 or expected <= 0:
        return None
    observed = float((coincidences_LL * distances_LL).sum())
    return 1 - (float(totals_L.sum()) - 1) * observed / expected


def _label_counts(units: Sequence[Sequence[int]], num_labels: int) -> NDArray[np.float64]:
    """``(U, L)`` judgements per label, of the units with two or more."""
    counted = [unit for unit in units if len(unit) >= 2]
    counts_UL = np.zeros((len(counted), num_labels))
    for row, unit in enumerate(counted):
        for label in unit:
            if not 0 <= label < num_labels:
                raise ValueError(f"label index must be in 0 … {num_labels - 1}, got {label}")
            counts_UL[row, label] += 1
    return counts_UL


def _distances(totals_L: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """Squared differences between labels."""
    if metric == "nominal":
        return 1 - np.eye(len(totals_L))
    # The judgements from one label to the other, the two themselves by half, are the distance
    # between the middles of their ranks.
    middles_L = np.cumsum(totals_L) - totals_L / 2
    squares: NDArray[np.float64] = (middles_L[:, None] - middles_L[None, :]) ** 2
    return squares


def agreement(units: Iterable[tuple[str, Judgements]], labels: LabelSet) -> dict[str, Any]:
    """How far annotators agree, as plain JSON.

    Args:
        units: for each pair its language and its judgements. Pairs with fewer than two annotators
            are left out of every figure.
        labels: the labels there are.

    Returns:
        ``all`` and ``languages`` (by language): ``alpha`` and ``alpha_ordinal`` (None where
        undefined), ``units``, ``judgements``, ``annotators``, and ``contradictions``: how often an
        annotator gave one pair several labels. Those count in no alpha, which asks for one label of
        each. ``annotators`` (by name): ``units``, ``compared`` (units in which the others have a
        majority) and ``agreement`` (the share of those in which this annotator gave that label;
        for one who gave several, the part of the vote; None if there is none).

    Raises:
        TaskError: a label is not among ``labels``.
    """
    everything = _Agreement(labels)
    languages: dict[str, _Agreement] = {}
    annotators: dict[str, _Annotator] = {}
    for lang, judgements in units:
        votes = _votes(judgements, labels)
        if len(votes) < 2:
            continue
        everything.add(votes)
        languages.setdefault(lang, _Agreement(labels)).add(votes)
        for name in votes:
            annotators.setdefault(name, _Annotator()).add(name, votes)
    return {
        "all": everything.as_json(),
        "languages": {lang: one.as_json() for lang, one in sorted(languages.items())},
        "annotators": {name: one.as_json() for name, one in sorted(annotators.items())},
    }


class _Agreement:
    """The judgements of one language, or of all."""

    def __init__(self, labels: LabelSet) -> None:
        self._num_labels = len(labels)
        self._units: list[list[int]] = []
        self._annotators: set[str] = set()
        self._counts: Counter[str] = Counter()

    def add(self, votes: Mapping[str, Sequence[Fraction]]) -> None:
        single = [list(vote).index(Fraction(1)) for vote in votes.values() if 1 in vote]
        self._units.append(single)
        self._annotators.update(votes)
        self._counts.update(judgements=len(votes), contradictions=len(votes) - len(single))

    def as_json(self) -> dict[str, Any]:
        return {
            "alpha": krippendorff_alpha(self._units, self._num_labels),
            "alpha_ordinal": krippendorff_alpha(self._units, self._num_labels, metric="ordinal"),
            "units": len(self._units),
            "judgements": self._counts["judgements"],
            "annotators": len(self._annotators),
            "contradictions": self._counts["contradictions"],
        }


class _Annotator:
    """One annotator against the others."""

    def __init__(self) -> None:
        self._units = self._compared = 0
        self._agreed = Fraction()

    def add(self, name: str, votes: Mapping[str, Sequence[Fraction]]) -> None:
        self._units += 1
        others = [vote for other, vote in votes.items() if other != name]
        totals = [sum(of_label, Fraction()) for of_label in zip(*others, strict=True)]
        if totals.count(max(totals)) == 1:
            self._compared += 1
            self._agreed += votes[name][totals.index(max(totals))]

    def as_json(self) -> dict[str, Any]:
        return {
            "units": self._units,
            "compared": self._compared,
            "agreement": float(self._agreed / self._compared) if self._compared else None,
        }
