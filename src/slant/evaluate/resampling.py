"""Intervals: what a figure could have been with other test documents of the same kind.

Documents are resampled, each with all of its examples (cluster bootstrap). Documents whose examples
fared alike are interchangeable, so that only how often each *kind* of document is drawn has to be
drawn: the same distribution, at a cost that does not grow with the number of documents.

Shape letters: N examples, D documents, K kinds of documents, C codes, F features, R resamples, L
labels, P = L + 1 columns of a confusion matrix (see ``metrics``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slant.evaluate.metrics import NO_ANSWER, NUM_BINS, Area, confidence_bins, ece

__all__ = [
    "FEW_DOCUMENTS",
    "FEW_FOR_BELIEFS",
    "Draws",
    "Interval",
    "Resamples",
    "area_interval",
    "error_interval",
    "figure",
    "rounded",
    "share_interval",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Interval = tuple[float, float] | None

FEW_DOCUMENTS = 10
"""Fewer documents than these say nothing about how far a figure could move."""
FEW_FOR_BELIEFS = 100
"""Intervals of calibration errors and areas are too narrow for fewer documents."""
_MOST_KINDS = 1000  # of more documents, one hardly matters, and sums are as good as normal
_WEIGHTS_AT_ONCE = 4_000_000
_DIGITS = 5
_STEPS = 1000  # intervals of calibration see confidences and Brier scores in thousandths
_DRAWN_ONE_BY_ONE = 15  # a binomial draw costs as much as so many draws of one document


@final
@dataclass(frozen=True)
class Draws:
    """Sums over the examples of resampled test splits; … is their shape.

    Attributes:
        samples: ``(R, …)``, of each resample.
        whole: ``(…)``, of the test split itself.
        without: ``(K, …)``, of the test split without one document of each kind.
        counts_K: documents of each kind.
    """

    samples: Floats
    whole: Floats
    without: Floats
    counts_K: Ints  # noqa: N815

    @property
    def num_documents(self) -> int:
        """Documents of the test split."""
        return int(self.counts_K.sum())

    def interval(self, figure_of: Callable[[Floats], Floats], confidence: float) -> Interval:
        """Bias-corrected and accelerated interval of a figure, widened for few documents.

        BC_a (Efron 1987) moves the percentiles of the resampled figures by their bias and by how
        much their spread depends on the figure. For few documents all of these intervals are too
        narrow, by what Student's t is wider than the normal distribution and by sqrt(n / (n - 1)):
        the percentiles are moved outward by that first (Hesterberg 2015, "What Teachers Should Know
        About the Bootstrap", section 4.4.1).

        Args:
            figure_of: from sums ``(…, …)`` to figures ``(…)``.
            confidence: 0…1.

        Returns:
            The bounds. None for fewer than 10 documents, and where the figures do not vary at all:
            then the documents say nothing about how far it could move.
        """
        from scipy.stats import norm, t

        num, samples_R = self.num_documents, figure_of(self.samples)
        if num < FEW_DOCUMENTS or samples_R.min() == samples_R.max():
            return None
        value, least = figure_of(self.whole), 1 / len(samples_R)
        below = (samples_R < value).mean() + (samples_R == value).mean() / 2
        bias = norm.ppf(np.clip(below, least, 1 - least))
        reach = math.sqrt(num / (num - 1)) * t.ppf((1 + confidence) / 2, num - 1)
        z_2 = bias + np.array([-reach, reach])
        moved_2 = bias + z_2 / np.maximum(1 - self._acceleration(figure_of) * z_2, 1e-9)
        low, high = np.quantile(samples_R, norm.cdf(moved_2))
        return float(low), float(high)

    def _acceleration(self, figure_of: Callable[[Floats], Floats]) -> float:
        """A sixth of the skewness of the jackknife figures; 0 where they are too many to matter."""
        if len(self.counts_K) > _MOST_KINDS:
            return 0.0
        figures_K = figure_of(self.without)
        moved_K = np.average(figures_K, weights=self.counts_K) - figures_K
        spread = float((self.counts_K * moved_K**2).sum())
        if spread <= 0:
            return 0.0
        return float((self.counts_K * moved_K**3).sum()) / (6 * spread * math.sqrt(spread))


@final
class Resamples:
    """Bootstrap over documents: the examples of one document are drawn together.

    Args:
        document_N: which document each example belongs to, any integers.
        count: number of resamples R.
        seed: of the draws.
    """

    def __init__(self, document_N: Ints, count: int, seed: int) -> None:
        documents, self._document_N = np.unique(document_N, return_inverse=True)
        self.num_documents = len(documents)
        self._count = count
        self._seed = seed

    def draw(self, code_N: Ints, features: NDArray[Any], *, may_be_normal: bool = False) -> Draws:
        """What examples add up to, in every resample.

        Args:
            code_N: what each example is like, 0…C - 1.
            features: ``(C, …)``, what an example of each code adds.
            may_be_normal: where documents are of more than 1,000 kinds, draw the sums from the
                normal distribution that they then have by the central limit theorem.
        """
        shape = features.shape[1:]
        kind_D, kinds_KF = self._kinds(code_N, features.reshape(len(features), math.prod(shape)))
        counts_K = np.bincount(kind_D, minlength=len(kinds_KF))
        whole_F = counts_K @ kinds_KF
        if may_be_normal and len(kinds_KF) > _MOST_KINDS:
            moved_KF = kinds_KF - whole_F / self.num_documents
            covariance_FF = (moved_KF * counts_K[:, None]).T @ moved_KF
            random = np.random.default_rng(self._seed)
            samples = random.multivariate_normal(
                whole_F, covariance_FF, size=self._count, check_valid="ignore"
            )
        else:
            weights = self._weights(kind_D, counts_K)
            samples = np.concatenate([weights_RK @ kinds_KF for weights_RK in weights])
        return Draws(
            samples.reshape(-1, *shape),
            whole_F.reshape(shape),
            (whole_F - kinds_KF[: _MOST_KINDS + 1]).reshape(-1, *shape),
            counts_K,
        )

    def confusions(self, gold_N: Ints, predicted_SN: Ints, num_labels: int) -> Draws:
        """The confusion matrices of S systems ``(S, L, P)``, on the same draws."""
        num_columns = num_labels + 1
        num_systems = len(predicted_SN)
        code_N = gold_N.copy()
        for predicted_N in predicted_SN:
            code_N = code_N * num_columns + np.where(
                predicted_N == NO_ANSWER, num_labels, predicted_N
            )
        shape = (num_labels, *[num_columns] * num_systems)
        # Of tens of labels, few of the many ways to answer occur.
        codes_C, code_N = np.unique(code_N, return_inverse=True)
        gold_C, *columns_C = np.unravel_index(codes_C, shape)
        features = np.zeros((len(codes_C), num_systems, num_labels, num_columns))
        for system, column_C in enumerate(columns_C):
            features[np.arange(len(codes_C)), system, gold_C, column_C] = 1
        return self.draw(code_N, features)

    def calibrations(self, confidence_N: Floats, right_N: NDArray[np.bool_]) -> Draws:
        """What ``metrics.ece`` is made from: ``(B, 3)``."""
        step_C, right_C = np.indices((_STEPS + 1, 2)).reshape(2, -1)
        features = np.zeros((len(step_C), NUM_BINS, 3))
        features[np.arange(len(step_C)), confidence_bins(step_C / _STEPS)] = np.stack(
            [np.ones(len(step_C)), step_C / _STEPS, right_C], axis=1
        )
        code_N = np.rint(confidence_N * _STEPS).astype(np.int64) * 2 + right_N
        return self.draw(code_N, features, may_be_normal=True)

    def sums(self, values_N: Floats, top: float) -> Draws:
        """The sum of values in 0…``top``, and their number: ``(2,)``."""
        steps = np.arange(_STEPS + 1) / _STEPS * top
        features = np.stack([steps, np.ones(len(steps))], axis=1)
        code_N = np.rint(values_N / top * _STEPS).astype(np.int64)
        return self.draw(code_N, features, may_be_normal=True)

    @cached_property
    def _has_one_each(self) -> bool:
        return self.num_documents == len(self._document_N)

    def _kinds(self, code_N: Ints, features_CF: NDArray[Any]) -> tuple[Ints, Floats]:
        """Which kind each document is of, and what a document of each kind adds: ``(K, F)``."""
        if self._has_one_each:
            code_D = np.empty_like(code_N)
            code_D[self._document_N] = code_N
            codes, kind_D = np.unique(code_D, return_inverse=True)
            return kind_D, features_CF[codes].astype(np.float64)
        # Documents are of one kind if the same codes occur in them equally often: then the sums of
        # their codes' random numbers are equal, and by chance no others are.
        numbers_C = np.random.default_rng(0).integers(
            0, 2**63, len(features_CF), dtype=np.uint64, endpoint=True
        )
        sum_D = np.zeros(self.num_documents, dtype=np.uint64)
        np.add.at(sum_D, self._document_N, numbers_C[code_N])
        _, first_K, kind_D = np.unique(sum_D, return_index=True, return_inverse=True)
        kinds_KF = np.zeros((len(first_K), features_CF.shape[1]))
        is_first_D = np.zeros(self.num_documents, dtype=bool)
        is_first_D[first_K] = True
        chosen = np.flatnonzero(is_first_D[self._document_N])
        np.add.at(kinds_KF, kind_D[self._document_N[chosen]], features_CF[code_N[chosen]])
        return kind_D, kinds_KF

    def _weights(self, kind_D: Ints, counts_K: Ints) -> Iterator[Floats]:
        """How often a document of each kind is drawn, some resamples ``(…, K)`` at a time."""
        random = np.random.default_rng(self._seed)
        num_kinds, num_documents = len(counts_K), self.num_documents
        if not num_documents:
            yield np.zeros((self._count, num_kinds))
            return
        shares_K = counts_K / num_documents
        draws_kinds = num_kinds * _DRAWN_ONE_BY_ONE <= num_documents
        size = max(1, _WEIGHTS_AT_ONCE // max(1, num_kinds if draws_kinds else num_documents))
        for start in range(0, self._count, size):
            rows = min(size, self._count - start)
            if draws_kinds:
                weights_RK = random.multinomial(num_documents, shares_K, size=rows)
            else:
                drawn_RD = kind_D[random.integers(0, num_documents, (rows, num_documents))]
                drawn_RD += np.arange(rows)[:, None] * num_kinds
                weights_RK = np.bincount(drawn_RD.ravel(), minlength=rows * num_kinds)
                weights_RK = weights_RK.reshape(rows, num_kinds)
            yield weights_RK.astype(np.float64)


def error_interval(draws: Draws, confidence: float) -> Interval:
    """Of the expected calibration error; ``draws`` are those of ``Resamples.calibrations``.

    Chance alone makes the error larger than it is, in a sample and once more in a resample of it.
    So this is the basic bootstrap interval (Davison & Hinkley 1997, section 2.4: the percentiles
    mirrored at the value), its lower bound moved down by the bias once more; or the percentiles
    less the bias, where they reach further. It holds the value.

    Returns:
        The bounds; None for fewer than 100 documents, of which it says too little.
    """
    if draws.num_documents < FEW_FOR_BELIEFS:
        return None
    value, samples_R = float(ece(draws.whole)), ece(draws.samples)
    low, high = np.quantile(samples_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    bias = max(0.0, float(samples_R.mean()) - value)
    lowest = min(value, 2 * value - high - bias, low - bias)
    return max(0.0, lowest), max(value, 2 * value - low, high - bias)


def area_interval(area: Area, document_N: Ints, confidence: float) -> Interval:
    """Of an area under ROC curves: normal on the logit scale, examples clustered by document.

    None for fewer than 100 documents, where this is too narrow, and for an area of 0 or 1.
    """
    from scipy.stats import t

    sums_D = np.bincount(np.unique(document_N, return_inverse=True)[1], weights=area.influence_N)
    num_documents, value = len(sums_D), area.value
    if num_documents < FEW_FOR_BELIEFS or not 0 < value < 1:
        return None
    error = np.sqrt((sums_D**2).sum() * num_documents / (num_documents - 1))
    reach = t.ppf((1 + confidence) / 2, num_documents - 1) * error / (value * (1 - value))
    centre = np.log(value / (1 - value))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-reach, reach]))))
    return float(low), float(high)


def share_interval(hits: int, count: int, confidence: float) -> tuple[float, float]:
    """Exact interval of a share (Clopper & Pearson 1934); 0…1 where there is nothing to count."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = beta.ppf(tail, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def rounded(value: float) -> float:
    """As the report has figures: five digits."""
    return round(value, _DIGITS)


def figure(value: float, bounds: Interval) -> dict[str, Any]:
    """A figure, as the report has them."""
    low, high = bounds if bounds else (None, None)
    return {
        "value": rounded(value),
        "low": None if low is None else rounded(low),
        "high": None if high is None else rounded(high),
    }
