"""Which predictions can be accepted without a person's look, with a promise on their error.

A threshold on the confidence is chosen such that, with probability ``confidence`` over the draw of
the calibration examples, at most a share ``max_error`` of what it accepts is wrong. It is fixed
sequence testing as in Learn then Test (A. Angelopoulos, S. Bates, E. Candès, M. Jordan & L. Lei
2021, https://arxiv.org/abs/2110.01052): thresholds are tried in an order that was fixed before,
each with a test of ``evaluate.proofs``, until the first that does not pass. The order comes from
other examples, the scouts, so that none both proposes and proves.

Shape letters: N examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from slant.evaluate.proofs import Answered, make_test

__all__ = [
    "Threshold",
    "accepted_of",
    "find_threshold",
    "least_examples",
    "risk_coverage",
]

_STEPS = 40  # thresholds that are tried: a fortieth more of the predictions each time


@final
@dataclass(frozen=True)
class Threshold:
    """The least confidence that is accepted, and what shows it.

    Attributes:
        value: None where no threshold keeps the promise; 0: everything is accepted.
        examples: calibration examples that it was tested on.
        documents: that they are about.
        most: examples that one document counts with at most.
        accepted: those of them that have at least this confidence; where there is none, at the
            threshold that failed.
        wrong: those of the accepted ones that are wrong.
        p_value: of the last test that was passed, or of the one that failed; None without a test.
        reason: why there is no threshold; empty where there is one.
    """

    value: float | None
    examples: int
    documents: int
    most: int
    accepted: int = 0
    wrong: int = 0
    p_value: float | None = None
    reason: str = ""


def least_examples(max_error: float, confidence: float) -> int:
    """Accepted examples without a single mistake that it takes to keep the promise."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - max_error))


def find_threshold(
    scout: Answered, proof: Answered, *, max_error: float, confidence: float, most: int = 1
) -> Threshold:
    """The threshold that accepts most, among those that are shown to keep the promise.

    Args:
        scout: examples that say which thresholds to try, and which first. Any number of them; the
            promise does not depend on them.
        proof: examples that they are tested on, of documents that are independent of each other and
            of those of the scouts.
        max_error: share of wrong answers among the accepted ones, 0…1.
        confidence: of the promise, 0…1.
        most: examples that a document has at most among the proofs; fixed without a look at them.
    """
    size = len(proof), proof.num_documents, most
    needed = least_examples(max_error, confidence)
    if proof.num_documents < needed:
        found = f"{proof.num_documents} calibration documents are left for the proof"
        return Threshold(None, *size, reason=f"{found}; it takes {needed}")
    candidates = _candidates(scout)
    test = make_test(scout, proof, most=most, max_error=max_error, confidence=confidence)
    candidates = candidates[int(np.argmax(test.prospects(candidates))) :]
    best: Threshold | None = None
    for value, p_value in zip(candidates, test.p_values(candidates).tolist(), strict=True):
        accepted, wrong = proof.accepted(value)
        if p_value > 1 - confidence:
            if best is None:
                return Threshold(None, *size, accepted, wrong, p_value, _too_often(wrong, most))
            break
        best = Threshold(value, *size, accepted, wrong, p_value)
    return best or Threshold(None, *size, reason="nothing was tried")


def _too_often(wrong: int, most: int) -> str:
    reason = (
        "too many of the most confident answers are wrong"
        if wrong
        else "too few answers are confident enough"
    )
    if most == 1:
        return reason
    return (
        f"{reason}, for documents of up to {most} answers that may be wrong together "
        "(counting: documents takes fewer examples)"
    )


def _candidates(scout: Answered) -> list[float]:
    """Thresholds from the one that accepts least to 0, which accepts everything."""
    if not len(scout):
        return [0.0]
    shares = np.arange(1, _STEPS) / _STEPS
    values = np.quantile(scout.confidence_N, 1 - shares)
    # Rounded, as they are written: what is tested is what decides. Down, so that those who are
    # exactly as sure are accepted.
    return [*dict.fromkeys(math.floor(1e6 * float(value)) / 1e6 for value in values), 0.0]


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
