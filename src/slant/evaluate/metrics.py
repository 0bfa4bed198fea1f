"""Classification metrics as pure functions of arrays.

Shape letters: N examples, L labels, P = L + 1 columns of a confusion matrix, B bins. A confusion
matrix has gold labels in rows and predicted ones in columns; its last column counts examples
without an answer, which are wrong answers to every metric made from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NO_ANSWER",
    "Area",
    "Reliability",
    "accuracy",
    "auroc",
    "brier_scores",
    "confidence_bins",
    "confusion",
    "ece",
    "f1_per_label",
    "macro_f1",
    "mcc",
    "mean_f1_of",
    "predicted_labels",
    "reliability",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_ANSWER = -1
"""The predicted label of an example without an answer."""
NUM_BINS = 10


def predicted_labels(probabilities_NL: Floats) -> Ints:
    """``(N,)`` most probable labels; NO_ANSWER where a row holds something that is no number."""
    answered_N = np.isfinite(probabilities_NL).all(axis=1)
    return np.where(answered_N, np.argmax(probabilities_NL, axis=1), NO_ANSWER).astype(np.int64)


def confusion(gold_N: Ints, predicted_N: Ints, num_labels: int) -> Ints:
    """``(L, P)`` counts: rows gold, columns predicted, the last one without an answer."""
    num_columns = num_labels + 1
    column_N = np.where(predicted_N == NO_ANSWER, num_labels, predicted_N)
    flat = np.bincount(gold_N * num_columns + column_N, minlength=num_labels * num_columns)
    return flat.reshape(num_labels, num_columns).astype(np.int64)


def accuracy(confusion_LP: NDArray[Any]) -> Floats:
    """Share of the examples on the diagonal; ``(…, L, P)`` → ``(…)``; 0 where there are none."""
    total = confusion_LP.sum(axis=(-2, -1))
    hits = np.trace(confusion_LP, axis1=-2, axis2=-1)
    return np.asarray(hits / np.maximum(total, 1), dtype=np.float64)


def f1_per_label(confusion_LP: NDArray[Any]) -> Floats:
    """F1 of each label, ``(…, L, P)`` → ``(…, L)``; 0 where it is neither gold nor predicted."""
    num_labels = confusion_LP.shape[-2]
    hits = np.diagonal(confusion_LP, axis1=-2, axis2=-1)
    involved = confusion_LP.sum(axis=-1) + confusion_LP.sum(axis=-2)[..., :num_labels]
    return np.asarray(2 * hits / np.maximum(involved, 1), dtype=np.float64)


def macro_f1(confusion_LP: NDArray[Any]) -> Floats:
    """Mean of the F1 of all labels, ``(…, L, P)`` → ``(…)``: each label counts alike."""
    return np.asarray(f1_per_label(confusion_LP).mean(axis=-1), dtype=np.float64)


def mean_f1_of(confusion_LP: NDArray[Any], labels: Sequence[int]) -> Floats:
    """Mean of the F1 of some labels, ``(…, L, P)`` → ``(…)``.

    Over positive and negative it is the measure of RuSentNE (Golubev et al. 2023): the model may
    say neutral, but is not rewarded for it.
    """
    return np.asarray(f1_per_label(confusion_LP)[..., list(labels)].mean(axis=-1), np.float64)


def mcc(confusion_LP: NDArray[Any]) -> Floats:
    """Matthews correlation coefficient, ``(…, L, P)`` → ``(…)``, -1…1.

    With several labels it is R_K of Gorodkin (2004), "Comparing two K-category assignments by a
    K-category correlation coefficient"; 0 where all gold or all predicted labels are the same.
    """
    counts = confusion_LP.astype(np.float64)
    total = counts.sum(axis=(-2, -1))
    hits = np.trace(counts, axis1=-2, axis2=-1)
    gold, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    num_labels = counts.shape[-2]
    covariance = hits * total - (gold * predicted[..., :num_labels]).sum(axis=-1)
    spread = (total**2 - (gold**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return np.asarray(
        np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)
    )


@dataclass(frozen=True)
class Reliability:
    """How well confidence matches accuracy.

    Attributes:
        counts: ``(B,)`` examples in each bin of equal width.
        confidence: ``(B,)`` mean confidence; NaN in an empty bin.
        accuracy: ``(B,)`` share of right predictions; NaN in an empty bin.
    """

    counts: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def ece(self) -> float:
        """Expected calibration error (Naeini et al. 2015), 0…1."""
        sums = self.counts[:, None] * np.stack([self.confidence, self.accuracy], axis=1)
        return float(ece(np.column_stack([self.counts, np.nan_to_num(sums)])[None])[0])


def confidence_bins(confidence_N: Floats, num_bins: int = NUM_BINS) -> Ints:
    """``(N,)`` which bin of equal width each confidence (0…1) falls into."""
    return np.minimum((confidence_N * num_bins).astype(np.int64), num_bins - 1)


def reliability(probabilities_NL: Floats, gold_N: Ints, num_bins: int = NUM_BINS) -> Reliability:
    """Bin predictions by their confidence (the largest probability); all must be answered."""
    confidence_N = probabilities_NL.max(axis=1, initial=0.0)
    right_N = probabilities_NL.argmax(axis=1) == gold_N
    bin_N = confidence_bins(confidence_N, num_bins)
    counts = np.bincount(bin_N, minlength=num_bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence = np.bincount(bin_N, weights=confidence_N, minlength=num_bins) / counts
        right = np.bincount(bin_N, weights=right_N, minlength=num_bins) / counts
    return Reliability(counts.astype(np.int64), confidence, right)


def ece(sums_B3: NDArray[Any]) -> Floats:
    """Expected calibration error from the sums of each bin.

    Args:
        sums_B3: ``(…, B, 3)``: in each bin the number of examples, the sum of their confidences
            and the number of right ones.

    Returns:
        ``(…)``, 0…1; 0 where there are no examples.
    """
    gaps = np.abs(sums_B3[..., 1] - sums_B3[..., 2]).sum(axis=-1)
    return np.asarray(gaps / np.maximum(sums_B3[..., 0].sum(axis=-1), 1), dtype=np.float64)


def brier_scores(probabilities_NL: Floats, gold_N: Ints) -> Floats:
    """``(N,)`` squared distances to the gold label's unit vector (Brier 1950), 0…2 each."""
    target_NL = np.eye(probabilities_NL.shape[1])[gold_N]
    return np.asarray(((probabilities_NL - target_NL) ** 2).sum(axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Area:
    """The mean area under the ROC curves of the labels, each against the rest.

    ``influence_N`` says by how much each example moves it: the structural components of DeLong et
    al. (1988), centred. The sum of their squares estimates the variance; for examples of one
    document, which are not independent, they are added up first (Obuchowski 1997).
    """

    value: float
    influence_N: Floats  # noqa: N815


def auroc(probabilities_NL: Floats, gold_N: Ints) -> Area | None:
    """Area under the ROC curve, mean over the labels that occur but are not alone, if any.

    Ties count half. All examples must be answered.
    """
    from scipy.stats import rankdata

    areas: list[float] = []
    influence_N = np.zeros(len(gold_N))
    for label in range(probabilities_NL.shape[1]):
        positive_N = gold_N == label
        num_positive, num_negative = int(positive_N.sum()), int((~positive_N).sum())
        if not num_positive or not num_negative:
            continue
        rank_N = rankdata(probabilities_NL[:, label])
        rank_within_N = np.empty(len(gold_N))
        for group_N in (positive_N, ~positive_N):
            rank_within_N[group_N] = rankdata(probabilities_NL[group_N, label])
        # How many of the other group lie below each example, ties half.
        below_N = rank_N - rank_within_N
        component_N = np.where(positive_N, below_N / num_negative, 1 - below_N / num_positive)
        area = float(component_N[positive_N].mean())
        areas.append(area)
        influence_N += (component_N - area) / np.where(positive_N, num_positive, num_negative)
    if not areas:
        return None
    return Area(float(np.mean(areas)), influence_N / len(areas))
