"""The plots of ingest.html: columns over time, and over lengths, in percent of their axes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slant.ingest import report_words as words
from slant.page.shapes import position, round_up

__all__ = ["Column", "Columns", "histograms", "months"]

_MOST_PERIODS = 120  # columns that can be told apart on a telephone
_MOST_TICKS = 6


@dataclass(frozen=True)
class Column:
    """One column, with y downwards from 0 to 100."""

    kind: str
    title: str
    x: float
    width: float
    height: float


@dataclass(frozen=True)
class Columns:
    """Columns side by side over an axis; ``mark`` is a line across it."""

    name: str
    note: str
    about: str
    top: str
    columns: tuple[Column, ...]
    ticks: tuple[tuple[float, str], ...]
    mark: float | None = None


def months(entries: Sequence[Mapping[str, Any]]) -> Columns | None:
    """Documents, and examples in front of them, over time; a long time in years or more.

    Months without a document are columns of no height: the axis is time.
    """
    documents, examples, undated = {}, {}, 0
    for entry in entries:
        found = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", str(entry.get("value") or ""))
        if not found:
            undated += entry.get("documents") or 0
            continue
        month = 12 * int(found[1]) + int(found[2]) - 1
        documents[month] = entry.get("documents") or 0
        examples[month] = sum((entry.get("examples") or {}).values())
    if not documents:
        return None
    first, last = min(documents), max(documents)
    size = next(size for size in (1, 12, 120, 1200) if (last - first) / size < _MOST_PERIODS)
    periods = range(first // size, last // size + 1)
    bars = [_within(documents, period, size) for period in periods]
    inner = [_within(examples, period, size) for period in periods]
    names = [_period(period, size) for period in periods]
    layers = {"documents": bars} | ({"examples": inner} if any(inner) else {})
    unit = {1: "month", 12: "year", 120: "decade", 1200: "century"}[size]
    return Columns(
        name=f"Documents by {unit}",
        note=f"{words.plural(undated, 'document')} without a date." if undated else "",
        about=f"Documents by {unit}, {names[0]} to {names[-1]}",
        top=words.count(_top(bars + inner)),
        columns=_columns(names, layers),
        ticks=_ticks(names),
    )


def _within(counts: Mapping[int, int], period: int, size: int) -> int:
    return sum(counts.get(month, 0) for month in range(period * size, (period + 1) * size))


def _period(period: int, size: int) -> str:
    """``2026-01``, or the first year of a longer period."""
    return f"{period // 12:04}-{period % 12 + 1:02}" if size == 1 else f"{period * size // 12:04}"


def _top(counts: Sequence[int]) -> int:
    return math.ceil(round_up(max(counts, default=0)))


def _columns(names: Sequence[str], layers: Mapping[str, Sequence[int]]) -> tuple[Column, ...]:
    """Layers one before the other, each narrower than the one behind it."""
    top, step = _top([count for counts in layers.values() for count in counts]), 100 / len(names)
    result = []
    for depth, (kind, counts) in enumerate(layers.items()):
        inset = step * (0.08 + 0.2 * depth)
        result += [
            Column(
                kind=kind,
                title=f"{name}: {words.count(count)} {kind}",
                x=round(index * step + inset, 3),
                width=round(step - 2 * inset, 3),
                height=position(count, top),
            )
            for index, (name, count) in enumerate(zip(names, counts, strict=True))
            if count
        ]
    return tuple(result)


def _ticks(names: Sequence[str]) -> tuple[tuple[float, str], ...]:
    """The names of some columns, at their middles."""
    step = math.ceil(len(names) / _MOST_TICKS)
    return tuple(
        (round(100 * (index + 0.5) / len(names), 2), names[index])
        for index in range(0, len(names), step)
    )


@dataclass(frozen=True)
class _LengthAxis:
    """What the histograms of all languages share: bins by index, the highest share, the limit."""

    bins: range
    top: float
    unit: str
    limit: int | None

    def position(self, index: float) -> float:
        """Where bin ``index`` begins, in percent."""
        return round(100 * (index - self.bins[0]) / len(self.bins), 3)


def histograms(lengths: Mapping[str, Any]) -> list[Columns]:
    """Lengths in every language, on one logarithmic axis and in shares of each language."""
    found = {
        code: {_bin(edge): count for edge, count in entry["histogram"] if count}
        for code, entry in (lengths.get("by_language") or {}).items()
    }
    found = {code: counts for code, counts in found.items() if counts}
    if not found:
        return []
    limit = lengths.get("limit")
    bins = [index for counts in found.values() for index in counts]
    if limit:
        bins.append(math.ceil(math.log2(limit)) - 1)  # so that the mark lies on the axis
    axis = _LengthAxis(
        bins=range(min(bins), max(bins) + 1),
        top=max(max(counts.values()) / sum(counts.values()) for counts in found.values()),
        unit=lengths.get("unit") or "tokens",
        limit=limit,
    )
    return [
        _histogram(words.language_name(code), lengths["by_language"][code], counts, axis)
        for code, counts in sorted(found.items(), key=lambda item: -sum(item[1].values()))
    ]


def _bin(edge: float) -> int:
    """Index of a bin by its lower edge: 1 is in bin 0, 2 in bin 1, 4 in bin 2; 0 before them."""
    return math.floor(math.log2(edge)) if edge >= 1 else -1


def _edge(index: int) -> int:
    return 2**index if index >= 0 else 0


def _histogram(
    name: str, entry: Mapping[str, Any], counts: Mapping[int, int], axis: _LengthAxis
) -> Columns:
    whole, step = sum(counts.values()), 100 / len(axis.bins)
    stride = math.ceil((len(axis.bins) + 1) / _MOST_TICKS)
    note = _length_note(entry, axis.limit)
    return Columns(
        name=name,
        note=note,
        about=f"{name}: lengths of documents in {axis.unit}; {note}",
        top=words.share(axis.top, 1),
        columns=tuple(
            Column(
                kind="over" if axis.limit and _edge(index) >= axis.limit else "documents",
                title=f"{_range(index)} {axis.unit}: {words.plural(number, 'document')} "
                f"({words.share(number, whole)})",
                x=round(axis.position(index) + 0.06 * step, 3),
                width=round(0.88 * step, 3),
                height=position(number / whole, axis.top),
            )
            for index, number in sorted(counts.items())
        ),
        ticks=tuple(
            (axis.position(index), words.count(_edge(index)))
            for index in range(axis.bins[0], axis.bins[-1] + 2, stride)
        ),
        mark=axis.position(math.log2(axis.limit)) if axis.limit else None,
    )


def _range(index: int) -> str:
    low, high = _edge(index), 2 ** (index + 1) - 1 if index >= 0 else 0
    return words.count(low) if low == high else f"{words.count(low)} to {words.count(high)}"


def _length_note(entry: Mapping[str, Any], limit: int | None) -> str:
    share = words.share(95, 100)
    note = (
        f"median {words.count(round(entry['median']))}, {share} up to "
        f"{words.count(round(entry['p95']))}, longest {words.count(round(entry['max']))}"
    )
    over = entry.get("over_limit") or 0
    if limit:
        note += f"; {words.count(over) if over else 'none'} over the limit"
        note += f" ({words.share(over, entry['count'])})" if over else ""
    return note
