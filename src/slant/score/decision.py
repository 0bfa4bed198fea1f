"""From label logits to probabilities: the one place where calibration is applied."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["probabilities"]


def probabilities(logits_NL: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Softmax of the logits divided by ``temperature`` (Guo et al. 2017).

    Args:
        logits_NL: ``(N, L)``.
        temperature: above 0; 1 leaves the logits as they are.

    Returns:
        ``(N, L)``, each row adding up to 1.
    """
    scaled = logits_NL.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(scaled)
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result
