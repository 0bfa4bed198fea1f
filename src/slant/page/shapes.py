"""The shapes that reports share, placed in percent of their axes.

Percent, because a page draws them in SVG of any width: a bar keeps its height and its text its
size from a phone to a sheet of paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Bar", "Group", "position", "round_up"]


@dataclass(frozen=True)
class Bar:
    """One bar: what it says, and where it lies in percent of the axis."""

    kind: str  # chooses the fill; the name stands beside it, so colour is never the only sign
    name: str
    value: str
    interval: str
    width: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """The bars of one language, label or system."""

    name: str
    note: str
    bars: tuple[Bar, ...]
    outcome: str = ""


def position(value: float, top: float = 1.0) -> float:
    """``value`` in percent of an axis from 0 to ``top``; what lies outside stays at its edge."""
    return round(100 * min(max(value / top, 0.0), 1.0), 2) if top > 0 else 0.0


def round_up(value: float) -> float:
    """A round number at or above ``value``, for the top of an axis."""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    return next((step * power for step in steps if step * power >= value), value)
