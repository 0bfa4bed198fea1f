"""Temperature scaling: one number, or one for each language, that makes confidence match accuracy.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from slant.task.languages import UNKNOWN_LANGUAGE, language_code, of_language

__all__ = ["Temperatures", "fit_temperature", "fit_temperatures"]

_LOWEST, _HIGHEST = 0.05, 20.0
_SPREAD = 0.25
"""How far temperatures of languages lie from the pooled one, as the standard deviation of their
logarithms: two in three within 28 %."""


@final
@dataclass(frozen=True)
class Temperatures:
    """What logits are divided by: ``pooled``, and by language where one has its own."""

    pooled: float
    by_language: dict[str, float]

    def of(self, langs: Sequence[str | None]) -> NDArray[np.float64]:
        """``(N,)`` temperatures of documents in these languages."""
        found = [of_language(self.by_language, lang) for lang in langs]
        return np.array([self.pooled if value is None else value for value in found])


def fit_temperatures(
    logits_NL: NDArray[np.float32], gold_N: NDArray[np.int64], langs: Sequence[str | None]
) -> Temperatures:
    """A temperature for all examples, and one for each language that is drawn toward it.

    The language's is the most probable one if temperatures of languages are spread log-normally
    around the pooled one: few examples hardly move it, hundreds decide alone.

    Args:
        logits_NL: of the calibration split, never of the test split.
        gold_N: label indices.
        langs: language of each example; those without one go by the pooled temperature.
    """
    pooled = fit_temperature(logits_NL, gold_N)
    names = np.array([language_code(lang) for lang in langs], dtype=object)
    return Temperatures(
        pooled,
        {
            lang: fit_temperature(logits_NL[names == lang], gold_N[names == lang], pooled)
            for lang in sorted(set(names) - {UNKNOWN_LANGUAGE})
        },
    )


def fit_temperature(
    logits_NL: NDArray[np.float32], gold_N: NDArray[np.int64], centre: float | None = None
) -> float:
    """Temperature with the least negative log-likelihood (Guo et al. 2017).

    Args:
        logits_NL: of the calibration split, never of the test split.
        gold_N: label indices.
        centre: a temperature that it is drawn toward, if any.

    Returns:
        0.05…20, rounded to four digits; ``centre``, or else 1, where there are no examples or
        nothing is better.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    start = 1.0 if centre is None else centre
    if not len(gold_N):
        return start

    def loss(log_temperature: float) -> float:
        # In logarithms throughout: a probability that was cut off at some smallest one would make
        # very confident mistakes cost nothing more, and give the loss a second minimum.
        scaled_NL = logits_NL.astype(np.float64) / np.exp(log_temperature)
        chosen_N = scaled_NL[np.arange(len(gold_N)), gold_N]
        total = float((logsumexp(scaled_NL, axis=1) - chosen_N).sum())
        if centre is not None:
            total += (log_temperature - np.log(centre)) ** 2 / (2 * _SPREAD**2)
        return total

    bounds = (np.log(_LOWEST), np.log(_HIGHEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded").x
    temperature = round(float(np.exp(found)), 4)
    return temperature if loss(np.log(temperature)) < loss(np.log(start)) else start
