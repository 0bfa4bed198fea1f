"""The shapes of ingest.html: stacks, bars, table rows and a matrix, in percent of their axes.

Every function takes a part of ``ingest.json`` as it is; what is empty gives nothing to draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slant.ingest import report_words as words
from slant.page.shapes import Bar, position

__all__ = [
    "Flow",
    "LabelGroup",
    "LabelRow",
    "Matrix",
    "Segment",
    "Share",
    "alpha_rows",
    "counted",
    "flows",
    "label_groups",
    "language_matrix",
    "shares",
]

Counts = Mapping[str, int]

_MOST_FLOWS = 20  # sources drawn one by one


@dataclass(frozen=True)
class Segment:
    """One part of a stack; ``mix`` says how far a label is from the middle of the label set."""

    kind: str
    name: str
    count: int
    share: str
    width: float
    mix: int = 0


@dataclass(frozen=True)
class Flow:
    """What became of the rows of one source."""

    name: str
    note: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class LabelRow:
    """One label of one language: its examples, all and per split, and their share of the column."""

    label: str
    kind: str
    mix: int
    count: int
    share: str
    splits: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class LabelGroup:
    """The examples of one language."""

    name: str
    code: str
    count: int
    splits: tuple[int, ...]
    segments: tuple[Segment, ...]
    rows: tuple[LabelRow, ...]


@dataclass(frozen=True)
class Share:
    """One value of an attribute: documents, their share of all, and examples by label."""

    name: str
    code: str
    documents: int
    share: str
    bar: Bar
    examples: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Matrix:
    """Given languages in rows, identified ones in columns; None where both are the same."""

    given: tuple[str, ...]
    identified: tuple[str, ...]
    rows: tuple[tuple[tuple[int, float] | None, ...], ...]


def _segments(parts: Iterable[tuple[str, str, int, int]], whole: int) -> tuple[Segment, ...]:
    """Kind, name, count and mix of each part; empty ones are left out."""
    return tuple(
        Segment(
            kind=kind,
            name=name,
            count=number,
            share=words.share(number, whole),
            width=max(position(number, whole), 0.01),
            mix=mix,
        )
        for kind, name, number, mix in parts
        if number
    )


def flows(sources: Sequence[Mapping[str, Any]]) -> list[Flow]:
    """All sources together, then the largest one by one, then the others together."""
    ordered = sorted(sources, key=lambda source: (-source["rows"], source["file"]))
    parts = [(source["file"], _about(source), [source]) for source in ordered[:_MOST_FLOWS]]
    if rest := ordered[_MOST_FLOWS:]:
        parts.append((words.plural(len(rest), "smaller source"), "", rest))
    if len(ordered) > 1:
        parts.insert(0, ("All sources", "", ordered))
    return [_flow(name, note, members) for name, note, members in parts]


def _about(source: Mapping[str, Any]) -> str:
    return {"examples": "labelled", "documents": "without labels"}.get(source.get("kind", ""), "")


def _flow(name: str, note: str, members: Sequence[Mapping[str, Any]]) -> Flow:
    rows = sum(source["rows"] for source in members)
    sums: dict[tuple[str, str], int] = {}
    for source in members:
        for kind, what, number in words.flow(source):
            sums[kind, what] = sums.get((kind, what), 0) + number
    parts = [(kind, what, number, 0) for (kind, what), number in sums.items()]
    note = ", ".join(filter(None, (words.plural(rows, "row"), note)))
    return Flow(name, note, _segments(parts, max(rows, sum(sums.values()))))


def _tone(index: int, number: int) -> tuple[str, int]:
    """Kind and mix of a label: from the first (low) over the middle to the last (high)."""
    place = 2 * index / (number - 1) - 1 if number > 1 else 1.0
    return ("low" if place < 0 else "high" if place > 0 else "middle"), round(100 * abs(place))


def _label_segments(counts: Counts, labels: Sequence[str]) -> tuple[Segment, ...]:
    parts = []
    for index, label in enumerate(labels):
        kind, mix = _tone(index, len(labels))
        parts.append((kind, label, counts.get(label) or 0, mix))
    return _segments(parts, sum(counts.values()))


def label_groups(report: Mapping[str, Any], labels: Sequence[str]) -> list[LabelGroup]:
    """Examples by language, label and split: all languages first, then the largest one."""
    by_language = words.language_counts(report)
    splits = report.get("examples") or {}
    codes: list[tuple[str, str, list[str]]] = [
        (words.language_name(code), code, [code]) for code in by_language
    ]
    if len(codes) > 1:
        codes.insert(0, ("All languages", "", list(by_language)))
    return [
        _label_group(
            name,
            code,
            labels,
            [
                _added(languages.get(member) or {} for member in members)
                for languages in splits.values()
            ],
        )
        for name, code, members in codes
    ]


def _added(counts: Iterable[Counts]) -> dict[str, int]:
    result: dict[str, int] = {}
    for part in counts:
        for label, number in part.items():
            result[label] = result.get(label, 0) + number
    return result


def _label_group(
    name: str, code: str, labels: Sequence[str], splits: Sequence[Counts]
) -> LabelGroup:
    everything = _added(splits)
    count, sizes = sum(everything.values()), [sum(split.values()) for split in splits]
    rows = []
    for index, label in enumerate(labels):
        kind, mix = _tone(index, len(labels))
        number = everything.get(label) or 0
        inside = tuple(
            (split.get(label) or 0, words.share(split.get(label) or 0, size))
            for split, size in zip(splits, sizes, strict=True)
        )
        rows.append(LabelRow(label, kind, mix, number, words.share(number, count), inside))
    return LabelGroup(
        name=name,
        code=code,
        count=count,
        splits=tuple(sizes),
        segments=_label_segments(everything, labels),
        rows=tuple(rows),
    )


def shares(
    entries: Sequence[Mapping[str, Any]], names: Sequence[str], labels: Sequence[str], whole: int
) -> list[Share]:
    """One row per value, the one with most documents first; ``whole`` is all documents."""
    top = max((entry.get("documents") or 0 for entry in entries), default=0)
    rows = []
    for entry, name in zip(entries, names, strict=True):
        documents, examples = entry.get("documents") or 0, entry.get("examples") or {}
        rows.append(
            Share(
                name=name,
                code=str(entry.get("value") or ""),
                documents=documents,
                share=words.share(documents, whole),
                bar=Bar("all", name, words.count(documents), "", position(documents, top)),
                examples=sum(examples.values()),
                segments=_label_segments(examples, labels),
            )
        )
    return sorted(rows, key=lambda row: (-row.documents, -row.examples, row.name))


def counted(counts: Counts, whole: int) -> list[Bar]:
    """One bar per name, the most frequent first; the bars' axis ends at the most frequent."""
    top = max(counts.values(), default=0)
    return [
        Bar("all", name, words.count(number), words.share(number, whole), position(number, top))
        for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def language_matrix(disagreements: Sequence[Mapping[str, Any]]) -> Matrix | None:
    """Documents by given and identified language; shades are of the most frequent confusion."""
    counts: dict[tuple[str, str], int] = {}
    for entry in disagreements:
        pair = entry["given"], entry["identified"]
        counts[pair] = counts.get(pair, 0) + entry["count"]
    if not counts:
        return None
    given = _by_size(counts, 0)
    # Languages that are in both come in one order, so that the diagonal can be seen.
    found = _by_size(counts, 1)
    identified = [code for code in given if code in found]
    identified += [code for code in found if code not in given]
    most = max(counts.values())
    return Matrix(
        given=tuple(words.language_name(code) for code in given),
        identified=tuple(words.language_name(code) for code in identified),
        rows=tuple(
            tuple(
                None
                if row == column
                else (counts.get((row, column), 0), counts.get((row, column), 0) / most)
                for column in identified
            )
            for row in given
        ),
    )


def _by_size(counts: Mapping[tuple[str, str], int], side: int) -> list[str]:
    sums: dict[str, int] = {}
    for pair, number in counts.items():
        sums[pair[side]] = sums.get(pair[side], 0) + number
    return sorted(sums, key=lambda code: (-sums[code], code))


def alpha_rows(judgements: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Agreement of all languages, then of the one with most judgements."""
    ordered = sorted(
        judgements.items(),
        key=lambda item: (item[0] != "all", -(item[1].get("judgements") or 0), item[0]),
    )
    return [
        {
            **entry,
            "name": "All languages" if code == "all" else words.language_name(code),
            "reading": words.reliability(entry.get("alpha")),
            "bar": Bar(
                kind="low" if (entry.get("alpha") or 0) < 0.667 else "all",
                name="Krippendorff’s alpha",
                value=words.score(entry.get("alpha")),
                interval="",
                width=position(entry.get("alpha") or 0),
            ),
        }
        for code, entry in ordered
    ]
