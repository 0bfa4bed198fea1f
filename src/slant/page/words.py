"""Figures and lists as a person reads them, where reports say them alike."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed", "score"]


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def score(value: float | None) -> str:
    """``0.71``, ``−0.05``, or a dash where there is none."""
    return "–" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
