"""Tests of whether more than a promised share of the accepted answers is wrong.

Documents are drawn independently; the answers about one document are not. Where every document has
one answer the number of wrong ones is binomial, and the test is exact (Clopper & Pearson 1934).

Where documents have several, bets are made on one document after the other. A document's gain is
L - aA: L of its A accepted answers are wrong, a is the share that is allowed. If more than that
share of all accepted answers is wrong, the mean of the gain is above 0. So a wealth that begins at
1 and is multiplied by 1 - s(L - aA) for each document does not grow on the average, whatever stake
s is chosen before the document is looked at, as long as nothing below 0 can come of it; and that it
ever reaches 1 / d has a probability of at most d (Ville 1939; I. Waudby-Smith & A. Ramdas 2024,
"Estimating means of bounded random variables by betting", https://doi.org/10.1093/jrsssb/qkad009).
No assumption is made on how the answers of a document hang together, nor on how their number goes
with their difficulty. Stakes are those with which the wealth would end at 1 / d or at nothing if
answers were independent: then this is the binomial test (the idea of aiming at a wealth at the end
is of V. Voráček & F. Orabona 2025, "STaR-Bets", https://arxiv.org/abs/2505.22422).

Shape letters: N answers, D documents, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answered", "Test", "make_test"]

Floats = NDArray[np.float64]

_PRIOR_WRONG = 0.5
"""Wrong answers that are added to what the scouts made: few scouts see no mistake."""
_MOST_STAKES = 400
_RUINED = 1e-12
"""Of what is aimed at; with less nothing can be won any more."""


@final
@dataclass(frozen=True)
class Answered:
    """What a system answered.

    Attributes:
        confidence_N: how sure it was, 0…1.
        right_N: whether it was right.
        document_N: which document an answer is about: integers that were given out by lot, since
            documents are looked at in their order.
    """

    confidence_N: NDArray[np.float64]  # noqa: N815
    right_N: NDArray[np.bool_]  # noqa: N815
    document_N: NDArray[np.int64]  # noqa: N815

    def __len__(self) -> int:
        return len(self.right_N)

    @cached_property
    def _place_N(self) -> NDArray[np.int64]:  # noqa: N802
        """``(N,)`` the place of each answer's document; the same for every threshold."""
        return np.unique(self.document_N, return_inverse=True)[1]

    @property
    def num_documents(self) -> int:
        """Documents that the answers are about."""
        return len(np.unique(self.document_N))

    @property
    def most_of_one_document(self) -> int:
        """Answers about the document that has most of them; 0 without answers."""
        return int(np.unique(self.document_N, return_counts=True)[1].max(initial=0))

    def accepted(self, threshold: float) -> tuple[int, int]:
        """How many have at least this confidence, and how many of them are wrong."""
        accepted_N = self.confidence_N >= threshold
        return int(accepted_N.sum()), int((accepted_N & ~self.right_N).sum())

    def by_document(self, threshold: float) -> tuple[Floats, Floats]:
        """``(D,)`` accepted answers of every document, and ``(D,)`` wrong ones among them."""
        accepted_N = self.confidence_N >= threshold
        wrong_N = accepted_N & ~self.right_N
        counts = [np.bincount(self._place_N, weights=rows_N) for rows_N in (accepted_N, wrong_N)]
        return counts[0].astype(np.float64), counts[1].astype(np.float64)


class Test(Protocol):
    """Whether thresholds are shown to keep a promise."""

    def p_values(self, thresholds: Sequence[float]) -> Floats:
        """``(T,)`` at most how probable such proofs are though the promise is not kept, 0…1."""
        ...

    def prospects(self, thresholds: Sequence[float]) -> Floats:
        """``(T,)`` how probable it is, by what the scouts say, that a threshold passes, 0…1."""
        ...


def make_test(
    scout: Answered, proof: Answered, *, most: int, max_error: float, confidence: float
) -> Test:
    """The test for documents with at most ``most`` answers among the proofs.

    Raises:
        ValueError: a document has more.
    """
    if proof.most_of_one_document > most:
        raise ValueError(f"a document has {proof.most_of_one_document} answers, more than {most}")
    if most > 1:
        return _BettingTest(scout, proof, most, max_error, confidence)
    return _ExactTest(scout, proof, max_error, confidence)


@final
@dataclass(frozen=True)
class _ExactTest:
    """Of documents with one answer each."""

    scout: Answered
    proof: Answered
    max_error: float
    confidence: float

    def p_values(self, thresholds: Sequence[float]) -> Floats:
        from scipy.stats import binom

        counts = [self.proof.accepted(threshold) for threshold in thresholds]
        return np.array(
            [binom.cdf(wrong, num, self.max_error) if num else 1.0 for num, wrong in counts]
        )

    def prospects(self, thresholds: Sequence[float]) -> Floats:
        counts = [self.scout.accepted(threshold) for threshold in thresholds]
        known, num = len(self.scout), len(self.proof)
        delta = 1 - self.confidence
        return np.array([_prospect(count, known, num, self.max_error, delta) for count in counts])


@final
@dataclass(frozen=True)
class _BettingTest:
    """Of documents with up to ``most`` answers each."""

    scout: Answered
    proof: Answered
    most: int
    max_error: float
    confidence: float

    def p_values(self, thresholds: Sequence[float]) -> Floats:
        per_document_T, together_T = self._scouted(thresholds)
        pairs = [self.proof.by_document(threshold) for threshold in thresholds]
        gain_TD = np.array([wrong_D - self.max_error * num_D for num_D, wrong_D in pairs])
        num_documents = gain_TD.shape[1]
        block = -(-num_documents // _MOST_STAKES)
        wealth_T, highest_T = np.ones(len(thresholds)), np.ones(len(thresholds))
        for start in range(0, num_documents, block):
            left_T = (num_documents - start) * per_document_T / together_T
            stake_T = self._stakes(wealth_T, left_T) / together_T
            # Nothing below 0 can come of it: a document's gain is at most (1 - a) most.
            stake_T = np.minimum(stake_T, (1 - 1e-12) / ((1 - self.max_error) * self.most))
            factor_TD = 1 - stake_T[:, None] * gain_TD[:, start : start + block]
            wealth_TD = wealth_T[:, None] * np.cumprod(factor_TD, axis=1)
            wealth_T, highest_T = wealth_TD[:, -1], np.maximum(highest_T, wealth_TD.max(axis=1))
        return np.asarray(1 / highest_T)

    def prospects(self, thresholds: Sequence[float]) -> Floats:
        # As many answers as hang together count as one.
        _, together_T = self._scouted(thresholds)
        prospects = []
        for threshold, together in zip(thresholds, together_T.tolist(), strict=True):
            accepted, wrong = self.scout.accepted(threshold)
            count = accepted / together, wrong / together
            known = len(self.scout) / together
            num = self.proof.num_documents * known / max(1, self.scout.num_documents)
            delta = 1 - self.confidence
            prospects.append(_prospect(count, known, num, self.max_error, delta))
        return np.array(prospects)

    def _scouted(self, thresholds: Sequence[float]) -> tuple[Floats, Floats]:
        """``(T,)`` accepted answers of a document on the average, and ``(T,)`` how many answers
        are wrong together: 1 where every mistake is one of its own."""
        pairs = [self.scout.by_document(threshold) for threshold in thresholds]
        accepted_T = np.array([(num_D.sum() + 0.5) / (len(num_D) + 1) for num_D, _ in pairs])
        together = [((wrong_D**2).sum() + 1) / (wrong_D.sum() + 1) for _, wrong_D in pairs]
        return accepted_T, np.minimum(np.array(together), self.most)

    def _stakes(self, wealth_T: Floats, left_T: Floats) -> Floats:
        """``(T,)`` what to bet on the next of ``left_T`` independent answers, to end with the
        wealth that is aimed at or with nothing."""
        from scipy.special import bdtrik

        share_T = (1 - self.confidence) * wealth_T
        open_T = (share_T > _RUINED) & (share_T < 1)
        aimed_T, left_T = np.where(open_T, share_T, 0.5), np.maximum(left_T, 1.0)
        # The wealth is that of a binomial test which allows so many more mistakes.
        allowed_T = bdtrik(aimed_T, left_T, self.max_error)
        right_T = _binomial_cdf(allowed_T, left_T - 1, self.max_error)
        wrong_T = _binomial_cdf(allowed_T - 1, left_T - 1, self.max_error)
        return np.where(open_T, (right_T - wrong_T) / aimed_T, 0.0)


def _binomial_cdf(wrong_T: Floats, num_T: Floats, chance: float) -> Floats:
    """``(T,)`` that at most so many of ``num_T`` are wrong, also for numbers that are not whole."""
    from scipy.special import betainc

    inside_T = (wrong_T > -1) & (wrong_T < num_T)
    first_T = np.where(inside_T, num_T - wrong_T, 1.0)
    tail_T = betainc(first_T, np.where(inside_T, wrong_T + 1, 1.0), 1 - chance)
    return np.asarray(np.where(inside_T, tail_T, (wrong_T >= num_T) & (wrong_T > -1)))


def _prospect(
    count: tuple[float, float], known: float, num: float, max_error: float, delta: float
) -> float:
    """How probable it is that an exact test passes.

    Args:
        count: how many answers of the scouts are accepted, and how many of these are wrong.
        known: answers of the scouts.
        num: answers of the proofs.
        max_error: the share that is allowed.
        delta: the largest p-value that passes.
    """
    from scipy.stats import betabinom, binom

    accepted, wrong = count
    share = (accepted + 0.5) / (known + 1)
    # The number that will be accepted is as uncertain as the share of them that is wrong: the mean
    # over three numbers, half a mistake added to what the scouts made.
    spread = np.sqrt(num * share * (1 - share))
    total = 0.0
    for number in {round(num * share + step * spread) for step in (-1, 0, 1)}:
        allowed = int(binom.ppf(delta, number, max_error)) if number > 0 else 0
        if number <= 0 or binom.cdf(allowed, number, max_error) > delta:
            allowed -= 1
        if allowed >= 0:
            prior = wrong + _PRIOR_WRONG, accepted - wrong + _PRIOR_WRONG
            total += float(betabinom.cdf(allowed, number, *prior))
    return total / 3
