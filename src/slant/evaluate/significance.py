"""Whether one system is better than another: tests for paired answers, and for many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["holm", "mcnemar_exact", "paired_p_value"]


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value that two systems are right equally often, on the same examples.

    The exact form of McNemar (1947): of the examples that only one of them has right, each is as
    likely as the other to be it.

    Args:
        only_first: examples that only the first has right.
        only_second: examples that only the second has right.
    """
    from scipy.stats import binom

    discordant = only_first + only_second
    if not discordant:
        return 1.0
    return float(min(1.0, 2 * binom.cdf(min(only_first, only_second), discordant, 0.5)))


def paired_p_value(differences_R: NDArray[np.float64]) -> float:
    """Two-sided p-value of a paired bootstrap: how often the difference is not on its side of 0.

    One is added to counts, so that R resamples never claim less than 2 / (R + 1) (Davison &
    Hinkley 1997, section 4.2).
    """
    count = len(differences_R)
    smaller = min((differences_R <= 0).sum(), (differences_R >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (count + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of one family, adjusted so that all decisions together err rarely (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
