"""Temperature scaling: one number that makes confidence match accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_temperature"]

_LOWEST, _HIGHEST = 0.05, 20.0


def fit_temperature(logits_NL: NDArray[np.float32], gold_N: NDArray[np.int64]) -> float:
    """Temperature with the least negative log-likelihood (Guo et al. 2017).

    Args:
        logits_NL: of the calibration split, never of the test split.
        gold_N: label indices.

    Returns:
        0.05…20, rounded to four digits; 1 where there are no examples or nothing is better.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if not len(gold_N):
        return 1.0

    def loss(log_temperature: float) -> float:
        # In logarithms throughout: a probability that was cut off at some smallest one would make
        # very confident mistakes cost nothing more, and give the loss a second minimum.
        scaled_NL = logits_NL.astype(np.float64) / np.exp(log_temperature)
        chosen_N = scaled_NL[np.arange(len(gold_N)), gold_N]
        return float((logsumexp(scaled_NL, axis=1) - chosen_N).mean())

    bounds = (np.log(_LOWEST), np.log(_HIGHEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded").x
    temperature = round(float(np.exp(found)), 4)
    return temperature if loss(np.log(temperature)) < loss(0.0) else 1.0
