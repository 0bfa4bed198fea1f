"""The shapes of report.html: bars, table rows and lines, placed in percent of their axes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slant.evaluate import report_words as words
from slant.evaluate.report_words import Figure
from slant.page.languages import language
from slant.page.shapes import Bar, Group, position, round_up

__all__ = [
    "Cell",
    "Line",
    "LineChart",
    "Row",
    "by_numbers",
    "comparison",
    "confusion",
    "label_groups",
    "language_groups",
    "latency_bars",
    "perplexity_bars",
    "slice_rows",
    "training_charts",
    "worst_confusion",
]

System = Mapping[str, Any]
Point = tuple[float, float]

_MOST_POINTS = 300  # of one line; more cannot be told apart on a screen


@dataclass(frozen=True)
class Row:
    """One slice in a table; ``macro_f1`` holds a figure per system, the tuned model's first."""

    name: str
    code: str
    count: int
    few: bool
    accuracy: Figure
    bar: Bar
    macro_f1: tuple[Figure | None, ...]


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix; ``share`` is of its row."""

    count: int
    share: float
    right: bool


@dataclass(frozen=True)
class Line:
    """One line in a square of 100 by 100 with y downwards; ``first`` and ``last`` are values."""

    name: str
    kind: str
    path: str
    first: str
    last: str


@dataclass(frozen=True)
class LineChart:
    """Lines over training steps; both axes start at 0."""

    name: str
    top: float
    last_step: int
    lines: tuple[Line, ...]


def _bar(figure: Figure, kind: str, name: str) -> Bar:
    known = figure["low"] is not None and figure["high"] is not None
    return Bar(
        kind=kind,
        name=name,
        value=words.score(figure["value"]),
        interval=words.interval(figure),
        width=position(figure["value"]),
        low=position(figure["low"]) if known else None,
        high=position(figure["high"]) if known else None,
    )


def comparison(report: Mapping[str, Any]) -> list[Group]:
    """Macro-F1 and accuracy of every system; the note is the difference to the tuned model."""
    compared = {entry["system"]: entry for entry in report["comparisons"]}
    groups = []
    for system in report["systems"]:
        overall, entry = system["overall"], compared.get(system["id"])
        groups.append(
            Group(
                name=system["name"],
                note=_beside(entry) if entry else "",
                bars=(
                    _bar(overall["macro_f1"], system["kind"], "Macro-F1"),
                    _bar(overall["accuracy"], system["kind"], "Accuracy"),
                ),
                outcome=entry["outcome"] if entry else "",
            )
        )
    return groups


def _beside(entry: Mapping[str, Any]) -> str:
    is_clear = entry["outcome"] != "unclear"
    return f"{'tuned is ' if is_clear else ''}{words.versus(entry)}"


def language_groups(systems: Sequence[System]) -> list[Group]:
    """Macro-F1 of every system in every language, the largest language first."""
    return [
        Group(
            name=language(code),
            note=f"{metrics['count']:,} examples",
            bars=tuple(
                _bar(
                    system["slices"]["lang"][code]["macro_f1"],
                    system["kind"],
                    words.short_name(system),
                )
                for system in systems
                if code in system["slices"]["lang"]
            ),
        )
        for code, metrics in _sorted(systems[0]["slices"]["lang"])
    ]


def label_groups(systems: Sequence[System], labels: Iterable[str]) -> list[Group]:
    """F1 of every system for every label."""
    return [
        Group(
            name=label,
            note="",
            bars=tuple(
                _bar(system["overall"]["f1"][label], system["kind"], words.short_name(system))
                for system in systems
            ),
        )
        for label in labels
    ]


def slice_rows(
    systems: Sequence[System],
    attribute: str,
    name: Callable[[str], str],
    order: Callable[[str], Any] | None = None,
) -> list[Row]:
    """One row per value of ``attribute``: by ``order``, or the largest slice first."""
    rows = []
    for value, metrics in _sorted(systems[0]["slices"][attribute], order):
        found = [system["slices"][attribute].get(value) for system in systems]
        rows.append(
            Row(
                name=name(value),
                code=value,
                count=metrics["count"],
                few=metrics["macro_f1"]["low"] is None,
                accuracy=metrics["accuracy"],
                bar=_bar(metrics["macro_f1"], "tuned", "Macro-F1"),
                macro_f1=tuple(other["macro_f1"] if other else None for other in found),
            )
        )
    return rows


def _sorted(
    slices: Mapping[str, Any], order: Callable[[str], Any] | None = None
) -> list[tuple[str, Any]]:
    return sorted(
        slices.items(),
        key=lambda item: (0 if order else -item[1]["count"], order(item[0]) if order else item[0]),
    )


def by_numbers(value: str) -> tuple[float, ...]:
    """Order of lengths such as ``under 140`` and ``500 to 1,999``: by the numbers in them."""
    return tuple(float(number) for number in re.findall(r"\d+", value.replace(",", "")))


def confusion(matrix: Sequence[Sequence[int]]) -> list[list[Cell]]:
    """Rows gold, columns predicted; the last column is left out where all have an answer."""
    columns = len(matrix) + any(counts[-1] for counts in matrix)
    return [
        [
            Cell(count, count / sum(counts) if count else 0.0, right=gold == predicted)
            for predicted, count in enumerate(counts[:columns])
        ]
        for gold, counts in enumerate(matrix)
    ]


def worst_confusion(
    matrix: Sequence[Sequence[int]], labels: Sequence[str]
) -> dict[str, Any] | None:
    """The most frequent way to be wrong, or None when nothing was."""
    count, gold, predicted = max(
        (
            (count, gold, predicted)
            for gold, counts in enumerate(matrix)
            for predicted, count in enumerate(counts[: len(labels)])
            if gold != predicted
        ),
        key=lambda cell: cell[0],
        default=(0, 0, 0),
    )
    if not count:
        return None
    return {
        "count": count,
        "total": sum(matrix[gold]),
        "gold": labels[gold],
        "predicted": labels[predicted],
    }


def latency_bars(latency: Mapping[str, Any]) -> list[Bar]:
    """Bars to the median (p50), with a line on to p95."""
    ways = (("tuned", "Label scoring", "label_scoring"), ("prompted", "Generating", "generation"))
    top = max(latency[key]["p95"] for _, _, key in ways)
    return [
        Bar(
            kind=kind,
            name=name,
            value=words.milliseconds(latency[key]["p50"]),
            interval=f"p95 {words.milliseconds(latency[key]['p95'])}",
            width=position(latency[key]["p50"], top),
            low=position(latency[key]["p50"], top),
            high=position(latency[key]["p95"], top),
        )
        for kind, name, key in ways
    ]


def perplexity_bars(perplexity: Mapping[str, Mapping[str, float]]) -> list[Group]:
    """Perplexity before and after domain adaptation in every language, on one axis from 0."""
    finite = [
        value for pair in perplexity.values() for value in pair.values() if math.isfinite(value)
    ]
    top = round_up(max(finite, default=1.0))
    groups = []
    for code, pair in sorted(perplexity.items()):
        before, after = pair["before"], pair["after"]
        change = f"{100 * (after / before - 1):+.0f}\N{NO-BREAK SPACE}%" if before > 0 else ""
        groups.append(
            Group(
                name=language(code),
                note=change.replace("-", "\N{MINUS SIGN}"),
                bars=(
                    Bar("tfidf", "Before", f"{before:.1f}", "", position(before, top)),
                    Bar("tuned", "After", f"{after:.1f}", "", position(after, top)),
                ),
            )
        )
    return groups


def training_charts(tune: Mapping[str, Any]) -> list[LineChart]:
    """Loss (training, validation) and validation macro-F1; a chart without points is left out."""
    training = ("training", "training", _finite(tune["losses"]))
    validation = (
        "validation",
        "validation",
        _finite([(step, loss) for step, loss, _ in tune["validation"]]),
    )
    scores = (
        "validation",
        "validation",
        _finite([(step, macro_f1) for step, _, macro_f1 in tune["validation"]]),
    )
    losses = [loss for _, _, points in (training, validation) for _, loss in points]
    charts = []
    if losses:
        charts.append(_line_chart("Loss", round_up(max(losses)), (training, validation)))
    if scores[2]:
        charts.append(_line_chart("Macro-F1", 1.0, (scores,)))
    return charts


def _finite(points: Iterable[Sequence[float | None]]) -> list[Point]:
    """The points that can be drawn: a run that diverged has losses that are no numbers."""
    return [
        (float(step), float(value))
        for step, value in points
        if step is not None and value is not None and math.isfinite(value)
    ]


def _line_chart(
    name: str, top: float, lines: Iterable[tuple[str, str, Sequence[Point]]]
) -> LineChart:
    drawn = [(line_name, kind, _thin(points)) for line_name, kind, points in lines if points]
    last_step = max(points[-1][0] for _, _, points in drawn)
    return LineChart(
        name=name,
        top=top,
        last_step=round(last_step),
        lines=tuple(
            Line(
                name=line_name,
                kind=kind,
                path=_path(points, last_step, top),
                first=words.score(points[0][1]),
                last=words.score(points[-1][1]),
            )
            for line_name, kind, points in drawn
        ),
    )


def _thin(points: Sequence[Point]) -> list[Point]:
    """At most some hundred points: the mean of every stretch, so that no level is lost."""
    size = math.ceil(len(points) / _MOST_POINTS)
    stretches = (points[start : start + size] for start in range(0, len(points), size))
    return [
        (stretch[-1][0], sum(value for _, value in stretch) / len(stretch)) for stretch in stretches
    ]


def _path(points: Iterable[Point], last_step: float, top: float) -> str:
    return "M" + "L".join(
        f"{position(step, last_step):g} {100 - position(value, top):g}" for step, value in points
    )
