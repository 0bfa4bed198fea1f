"""Classification metrics as pure functions of arrays.

Shape letters: N examples, L labels, D documents, R resamples. A confusion matrix has gold labels in
rows and predicted ones in columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Reliability",
    "Resamples",
    "accuracy",
    "brier",
    "confusion",
    "f1_per_label",
    "interval",
    "macro_f1",
    "reliability",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_RESAMPLES_AT_ONCE = 100


def confusion(gold_N: Ints, predicted_N: Ints, num_labels: int) -> Ints:
    """``(L, L)`` counts: rows gold, columns predicted."""
    flat = np.bincount(gold_N * num_labels + predicted_N, minlength=num_labels**2)
    return flat.reshape(num_labels, num_labels).astype(np.int64)


def accuracy(confusion_LL: NDArray[Any]) -> Floats:
    """Share of the examples on the diagonal; ``(…, L, L)`` → ``(…)``; 0 where there are none."""
    total = confusion_LL.sum(axis=(-2, -1))
    hits = np.trace(confusion_LL, axis1=-2, axis2=-1)
    return np.asarray(hits / np.maximum(total, 1), dtype=np.float64)


def f1_per_label(confusion_LL: NDArray[Any]) -> Floats:
    """F1 of each label, ``(…, L, L)`` → ``(…, L)``; 0 where it is neither gold nor predicted."""
    hits = np.diagonal(confusion_LL, axis1=-2, axis2=-1)
    involved = confusion_LL.sum(axis=-1) + confusion_LL.sum(axis=-2)
    return np.asarray(2 * hits / np.maximum(involved, 1), dtype=np.float64)


def macro_f1(confusion_LL: NDArray[Any]) -> Floats:
    """Mean of the F1 of all labels, ``(…, L, L)`` → ``(…)``: each label counts alike."""
    return np.asarray(f1_per_label(confusion_LL).mean(axis=-1), dtype=np.float64)


@dataclass(frozen=True)
class Reliability:
    """How well confidence matches accuracy.

    Attributes:
        counts: ``(bins,)`` examples in each bin of equal width.
        confidence: ``(bins,)`` mean confidence; NaN in an empty bin.
        accuracy: ``(bins,)`` share of right predictions; NaN in an empty bin.
        ece: expected calibration error (Naeini et al. 2015), 0…1.
    """

    counts: Ints
    confidence: Floats
    accuracy: Floats
    ece: float


def reliability(probabilities_NL: Floats, gold_N: Ints, num_bins: int = 10) -> Reliability:
    """Bin predictions by their confidence (the largest probability)."""
    confidence_N = probabilities_NL.max(axis=1)
    right_N = probabilities_NL.argmax(axis=1) == gold_N
    bin_N = np.minimum((confidence_N * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bin_N, minlength=num_bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence = np.bincount(bin_N, weights=confidence_N, minlength=num_bins) / counts
        right = np.bincount(bin_N, weights=right_N, minlength=num_bins) / counts
    gap = np.nan_to_num(np.abs(confidence - right))
    ece = float((gap * counts).sum() / max(1, len(gold_N)))
    return Reliability(counts.astype(np.int64), confidence, right, ece)


def brier(probabilities_NL: Floats, gold_N: Ints) -> float:
    """Mean squared distance to the gold label's unit vector (Brier 1950), 0…2."""
    target_NL = np.eye(probabilities_NL.shape[1])[gold_N]
    return float(((probabilities_NL - target_NL) ** 2).sum(axis=1).mean())


class Resamples:
    """Bootstrap over documents: the examples of one document are drawn together.

    Two systems measured with the same Resamples see the same draws, so that their differences are
    paired.

    Args:
        document_N: which document each example belongs to, any integers.
        count: number of resamples R.
        seed: of the draws.
    """

    def __init__(self, document_N: Ints, count: int, seed: int) -> None:
        _, self._document_N = np.unique(document_N, return_inverse=True)
        self._num_documents = int(self._document_N.max(initial=-1)) + 1
        self._count = count
        self._seed = seed

    def confusions(self, gold_N: Ints, predicted_N: Ints, num_labels: int) -> Ints:
        """``(R, L, L)``: the confusion matrix of every resample."""
        per_document = np.zeros((self._num_documents, num_labels**2))
        np.add.at(per_document, (self._document_N, gold_N * num_labels + predicted_N), 1)
        drawn = np.concatenate([weights @ per_document for weights in self._weights()])
        return drawn.reshape(-1, num_labels, num_labels).round().astype(np.int64)

    def _weights(self) -> Iterator[Floats]:
        """How often each document is drawn, ``(≤100, D)`` at a time."""
        random = np.random.default_rng(self._seed)
        shares = np.full(self._num_documents, 1 / self._num_documents)
        for start in range(0, self._count, _RESAMPLES_AT_ONCE):
            size = min(_RESAMPLES_AT_ONCE, self._count - start)
            yield random.multinomial(self._num_documents, shares, size=size).astype(np.float64)


def interval(samples_R: Floats, confidence: float) -> tuple[float, float]:
    """Percentile interval of resampled values (Efron 1979)."""
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(samples_R, [tail, 100 - tail])
    return float(low), float(high)
