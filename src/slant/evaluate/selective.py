"""Which predictions can be accepted without a person's look, with a promise on their error.

A threshold on the confidence is chosen such that, with probability ``confidence`` over the draw of
the calibration examples, at most a share ``max_error`` of what it accepts is wrong. It is fixed
sequence testing as in Learn then Test (A. Angelopoulos, S. Bates, E. Candès, M. Jordan & L. Lei
2021, https://arxiv.org/abs/2110.01052): thresholds are tried in an order that was fixed before,
each with an exact test (the binomial tail of Clopper & Pearson 1934), until the first that does not
pass. The order comes from other examples, the scouts, so that none both proposes and proves.

Shape letters: N examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Answered",
    "Threshold",
    "accepted_of",
    "find_threshold",
    "least_examples",
    "risk_coverage",
]

_STEPS = 40  # thresholds that are tried: a fortieth more of the predictions each time


@final
@dataclass(frozen=True)
class Answered:
    """How sure a system was, ``(N,)`` in 0…1, and whether it was right, ``(N,)``."""

    confidence_N: NDArray[np.float64]  # noqa: N815
    right_N: NDArray[np.bool_]  # noqa: N815

    def __len__(self) -> int:
        return len(self.right_N)

    def accepted(self, threshold: float) -> tuple[int, int]:
        """How many have at least this confidence, and how many of them are wrong."""
        accepted_N = self.confidence_N >= threshold
        return int(accepted_N.sum()), int((accepted_N & ~self.right_N).sum())


@final
@dataclass(frozen=True)
class Threshold:
    """The least confidence that is accepted, and what shows it.

    Attributes:
        value: None where no threshold keeps the promise; 0: everything is accepted.
        examples: calibration examples that it was tested on.
        accepted: those of them that have at least this confidence; where there is none, at the
            threshold that failed.
        wrong: those of the accepted ones that are wrong.
        p_value: of the last test that was passed, or of the one that failed; None without a test.
        reason: why there is no threshold; empty where there is one.
    """

    value: float | None
    examples: int
    accepted: int = 0
    wrong: int = 0
    p_value: float | None = None
    reason: str = ""


def least_examples(max_error: float, confidence: float) -> int:
    """Accepted examples without a single mistake that it takes to keep the promise."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - max_error))


def find_threshold(
    scout: Answered, proof: Answered, *, max_error: float, confidence: float
) -> Threshold:
    """The threshold that accepts most, among those that are shown to keep the promise.

    Args:
        scout: examples that say which thresholds to try, and which first. Any number of them; the
            promise does not depend on them.
        proof: independent examples that they are tested on, none of them among the scouts.
        max_error: share of wrong answers among the accepted ones, 0…1.
        confidence: of the promise, 0…1.
    """
    needed = least_examples(max_error, confidence)
    if len(proof) < needed:
        return Threshold(
            None,
            len(proof),
            reason=f"{len(proof)} calibration examples are left for the proof; it takes {needed}",
        )
    candidates = _candidates(scout)
    start = max(
        range(len(candidates)),
        key=lambda place: _prospect(scout, candidates[place], len(proof), max_error, confidence),
    )
    best: Threshold | None = None
    for value in candidates[start:]:
        accepted, wrong = proof.accepted(value)
        p_value = _p_value(accepted, wrong, max_error)
        if p_value > 1 - confidence:
            if best is None:
                return Threshold(None, len(proof), accepted, wrong, p_value, _too_often(wrong))
            break
        best = Threshold(value, len(proof), accepted, wrong, p_value)
    return best or Threshold(None, len(proof), reason="nothing was tried")


def _too_often(wrong: int) -> str:
    return (
        "too many of the most confident answers are wrong"
        if wrong
        else "too few answers are confident enough"
    )


def _candidates(scout: Answered) -> list[float]:
    """Thresholds from the one that accepts least to 0, which accepts everything."""
    if not len(scout):
        return [0.0]
    shares = np.arange(1, _STEPS) / _STEPS
    values = np.quantile(scout.confidence_N, 1 - shares)
    # Rounded, as they are written: what is tested is what decides.
    return [*dict.fromkeys(round(float(value), 6) for value in values), 0.0]


def _p_value(accepted: int, wrong: int, max_error: float) -> float:
    """That so few are wrong by chance, where more than ``max_error`` of the accepted are."""
    from scipy.stats import binom

    return float(binom.cdf(wrong, accepted, max_error)) if accepted else 1.0


def _prospect(
    scout: Answered, value: float, num: int, max_error: float, confidence: float
) -> float:
    """How probable it is, by what the scouts say, that a threshold passes on ``num`` examples."""
    from scipy.stats import betabinom, binom

    accepted, wrong = scout.accepted(value)
    share = (accepted + 0.5) / (len(scout) + 1)
    spread = math.sqrt(num * share * (1 - share))
    total = 0.0
    # The number that will be accepted is as uncertain as the share of them that is wrong: the mean
    # over three numbers, half a mistake added to what the scouts made.
    for number in {round(num * share + step * spread) for step in (-1, 0, 1)}:
        allowed = int(binom.ppf(1 - confidence, number, max_error)) if number > 0 else 0
        if number <= 0 or binom.cdf(allowed, number, max_error) > 1 - confidence:
            allowed -= 1
        if allowed >= 0:
            total += betabinom.cdf(allowed, number, wrong + 0.5, accepted - wrong + 0.5)
    return total


def risk_coverage(answered: Answered, most: int = 100) -> list[tuple[float, float, float]]:
    """What share is wrong among the most confident: ``(coverage, error, threshold)``, rising.

    At most ``most`` points, evenly spaced; equal confidences are accepted together.
    """
    if not len(answered):
        return []
    order = np.argsort(-answered.confidence_N, kind="stable")
    confidence, wrong = answered.confidence_N[order], np.cumsum(~answered.right_N[order])
    ends = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True))
    places = np.unique(np.linspace(0, len(ends) - 1, min(most, len(ends))).round().astype(int))
    return [
        ((end + 1) / len(order), wrong[end] / (end + 1), float(confidence[end]))
        for end in ends[places].tolist()
    ]


def accepted_of(answered: Answered, threshold_N: Sequence[float | None]) -> NDArray[np.bool_]:
    """``(N,)`` which answers reach their threshold; those without one (None) do not."""
    least_N = np.array([math.inf if value is None else value for value in threshold_N])
    return answered.confidence_N >= least_N
