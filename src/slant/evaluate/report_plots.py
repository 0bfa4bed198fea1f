"""Dots with intervals in report.html: quality against cost, quality over the months.

Places are in percent of a drawing of any width, y downwards, so that text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slant.evaluate import report_finding as finding
from slant.evaluate import report_words as words
from slant.page.shapes import position

__all__ = ["Dot", "DotPlot", "cost_plot", "month_plot"]

_LONGEST_LABEL = 22
_LABEL_WIDTH, _LABEL_HEIGHT = 34, 7  # about as much of the drawing as a label takes, in percent
_MOST_MONTHS = 36
_MOST_TICKS = 6
_FEWEST_MONTHS = 3
_MARGIN = 0.5  # powers of ten beside the cheapest and the dearest system: a tick is in view


@dataclass(frozen=True)
class Dot:
    """One measured value; ``low`` and ``high`` are None where there is no interval."""

    x: float
    y: float
    low: float | None
    high: float | None
    kind: str
    label: str
    label_y: float
    is_label_left: bool


@dataclass(frozen=True)
class DotPlot:
    """Dots over an axis whose ticks stand at places in percent; y runs from 0 to 1."""

    dots: tuple[Dot, ...]
    ticks: tuple[tuple[float, str], ...]
    legend: tuple[tuple[str, str], ...]
    summary: str


def cost_plot(report: Mapping[str, Any]) -> DotPlot | None:
    """Macro-F1 against the cost of 1,000 answers, on a logarithmic axis.

    None where fewer than two systems have a price above nothing.
    """
    priced = [
        (system, math.log10(system["cost"]["usd_per_1000"]))
        for system in report["systems"]
        if system["cost"] and system["cost"]["usd_per_1000"] > 0
    ]
    if len(priced) < 2:
        return None
    powers = [power for _, power in priced]
    first, last = min(powers) - _MARGIN, max(powers) + _MARGIN
    decades = range(math.ceil(first), math.floor(last) + 1)
    dots: list[Dot] = []
    # The best ones get the places beside their dots; others give way to them.
    for system, power in sorted(priced, key=lambda item: -item[0]["overall"]["macro_f1"]["value"]):
        x = position(power - first, last - first)
        figure = system["overall"]["macro_f1"]
        is_left = x > 55
        y = 100 - position(figure["value"])
        dots.append(
            Dot(
                x=x,
                y=y,
                low=_down(figure["low"]),
                high=_down(figure["high"]),
                kind=system["kind"],
                label=_shortened(words.short_name(system)),
                label_y=_free_place(x, y, is_left, dots),
                is_label_left=is_left,
            )
        )
    step = max(math.ceil(len(decades) / _MOST_TICKS), 1)
    told = (
        f"{system['name']}: {words.score(system['overall']['macro_f1']['value'])} at "
        f"{words.money(system['cost']['usd_per_1000'])}"
        for system, _ in priced
    )
    return DotPlot(
        dots=tuple(dots),
        ticks=tuple(
            (position(power - first, last - first), _power(power)) for power in decades[::step]
        ),
        legend=(),
        summary="; ".join(told),
    )


def _free_place(x: float, y: float, is_left: bool, others: Sequence[Dot]) -> float:
    """A height for a label at which it covers none of the labels before it."""
    near = [
        other.label_y
        for other in others
        if abs(other.x - x) < _LABEL_WIDTH or other.is_label_left != is_left
    ]
    place = y
    while any(abs(place - other) < _LABEL_HEIGHT for other in near):
        place += 1
    return place


def month_plot(report: Mapping[str, Any]) -> DotPlot | None:
    """Macro-F1 of the tuned model and its main rival in each month; None with less than three."""
    systems = [report["systems"][0]]
    rival = finding.main_rival(report)
    if rival is not None:
        systems.append(rival[0])
    known = sorted(month for month in systems[0]["slices"]["month"] if month[:1].isdigit())
    months = known[-_MOST_MONTHS:]
    if len(months) < _FEWEST_MONTHS:
        return None
    apart = min(3.0, 30 / len(months))
    dots = []
    for number, system in enumerate(systems):
        shift = (number - (len(systems) - 1) / 2) * apart
        for place, month in enumerate(months):
            metrics = system["slices"]["month"].get(month)
            if metrics is None:
                continue
            figure = metrics["macro_f1"]
            y = 100 - position(figure["value"])
            x = round(100 * (place + 0.5) / len(months) + shift, 2)
            low, high = _down(figure["low"]), _down(figure["high"])
            dots.append(Dot(x, y, low, high, system["kind"], "", y, is_label_left=False))
    step = math.ceil(len(months) / _MOST_TICKS)
    tuned = systems[0]["slices"]["month"]
    told = (f"{month}: {words.score(tuned[month]['macro_f1']['value'])}" for month in months)
    return DotPlot(
        dots=tuple(dots),
        ticks=tuple(
            (round(100 * (place + 0.5) / len(months), 2), months[place])
            for place in range(0, len(months), step)
        ),
        legend=tuple((system["kind"], words.short_name(system)) for system in systems),
        summary="; ".join(told),
    )


def _down(value: float | None) -> float | None:
    return None if value is None else round(100 - position(value), 2)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1].rstrip()}…"


def _power(power: int) -> str:
    return f"${10**power:,}" if power >= 0 else f"${10.0**power:.{-power}f}"
