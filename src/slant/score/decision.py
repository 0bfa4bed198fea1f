"""From label logits to probabilities and decisions: the one place where calibration is applied."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from slant.task.languages import of_language

__all__ = ["ACCEPT", "REVIEW", "decide", "probabilities"]

ACCEPT, REVIEW = "accept", "review"


def probabilities(
    logits_NL: NDArray[np.float32], temperature: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Softmax of the logits divided by ``temperature`` (Guo et al. 2017).

    Args:
        logits_NL: ``(N, L)``.
        temperature: above 0, one for all or ``(N,)``; 1 leaves the logits as they are.

    Returns:
        ``(N, L)``, each row adding up to 1.
    """
    scaled = logits_NL.astype(np.float64) / np.reshape(temperature, (-1, 1))
    scaled -= scaled.max(axis=1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(scaled)
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def decide(confidence: float, lang: str | None, thresholds: Mapping[str, float]) -> str | None:
    """Whether a prediction is accepted as it is, or a person is to look at it.

    Args:
        confidence: probability of the predicted label, 0…1.
        lang: language of the document (BCP 47); ``pt-BR`` goes by ``pt`` where it has no threshold
            of its own.
        thresholds: language → least confidence that is accepted; ``*`` for all others.

    Returns:
        ``accept`` or ``review``; None where there are no thresholds. A language that has none,
        where ``*`` has none either, is for review: nothing is known of it.
    """
    if not thresholds:
        return None
    least = of_language(thresholds, lang)
    return ACCEPT if least is not None and confidence >= least else REVIEW
