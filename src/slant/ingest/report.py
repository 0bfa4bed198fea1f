"""``ingest.json``: what came in, what became of it and why, in figures.

``report_html`` makes a page of it; docs/formats.md describes the form.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from slant.ingest.candidates import LabelledPair
from slant.ingest.inputs import SCHEMA
from slant.ingest.ledger import Ledger
from slant.ingest.part import START_CHARACTERS
from slant.ingest.write import PlacedPair, RejectedRow
from slant.labels import LabelSet
from slant.records import OVERALL, SPLITS

__all__ = [
    "SCHEMA",
    "UNDETERMINED",
    "DocumentFigures",
    "RejectedFigures",
    "TokenCounter",
    "breakdown",
    "contradictions",
    "example_figures",
    "listed_contradictions",
]

UNDETERMINED = "und"
"""The language of documents without one, in counts (BCP 47)."""

_LISTED_NARRATIVES = 50
_LISTED_REASONS = 50
_LISTED_CONTRADICTIONS = 50
_LISTED_DISAGREEMENTS = 50
_SAMPLES = 3
_COUNTED_TEXTS = 1000
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class TokenCounter:
    """Counts tokens as the model will; ``limit`` is the longest prompt."""

    count: Callable[[list[str]], list[int]]
    limit: int


def _start_of(text: str) -> str:
    """The first characters of a text, on one line."""
    line = " ".join(text[: 2 * START_CHARACTERS].split())
    return line if len(line) <= START_CHARACTERS else line[:START_CHARACTERS] + "…"


# --- examples -----------------------------------------------------------------------------------


def example_figures(placed: Sequence[PlacedPair], labels: LabelSet) -> dict[str, Any]:
    """How many examples there are, by split, language and label: ``examples``."""
    counts = Counter(
        (one.split, one.pair.first.lang or UNDETERMINED, one.pair.label) for one in placed
    )
    langs = sorted({lang for _, lang, _ in counts})
    return {
        split: {lang: {label: counts[split, lang, label] for label in labels} for lang in langs}
        for split in SPLITS
    }


def _slices(pair: LabelledPair) -> dict[str, str]:
    first = pair.first
    month = f"{first.published_at:%Y-%m}" if first.published_at else _UNKNOWN
    return {
        "language": first.lang or UNDETERMINED,
        "source": first.source_kind or _UNKNOWN,
        "dataset": first.source.dataset,
        "month": month,
        "narrative": first.narrative or OVERALL,
    }


# --- documents ----------------------------------------------------------------------------------


@final
@dataclass
class DocumentFigures:
    """What is counted while documents are written."""

    counter: TokenCounter | None
    num: int = 0
    slices: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    changes: Counter[str] = field(default_factory=Counter)
    num_changed: int = 0
    given: Counter[str] = field(default_factory=Counter)
    disagreements: Counter[tuple[str, str]] = field(default_factory=Counter)
    samples: dict[tuple[str, str], list[dict[str, Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    lengths: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    texts: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, dataset: str, batch: Any) -> None:
        """Count a batch of documents: an Arrow table as ``write_documents`` yields it."""
        import pyarrow.compute as pc

        self.num += len(batch)
        langs = [lang or UNDETERMINED for lang in batch.column("lang").to_pylist()]
        self.slices["language"].update(langs)
        self.slices["dataset"][dataset] += len(batch)
        self.slices["source"].update(
            source or _UNKNOWN for source in batch.column("source").to_pylist()
        )
        months = pc.strftime(batch.column("published_at"), format="%Y-%m").to_pylist()
        self.slices["month"].update(month or _UNKNOWN for month in months)
        changes = batch.column("changes").to_pylist()
        self.num_changed += sum(map(bool, changes))
        self.changes.update(kind for kinds in changes for kind in kinds)
        self._add_languages(batch)
        if self.counter is None:
            sizes = pc.utf8_length(batch.column("text")).to_pylist()
            for lang, size in zip(langs, sizes, strict=True):
                self.lengths[lang][size] += 1
        else:
            self._sample(langs, batch)

    def _add_languages(self, batch: Any) -> None:
        names = ("lang_given", "lang_identified", "lang_confidence", "lang")
        columns = [batch.column(name).to_pylist() for name in names]
        for index, (given, identified, confidence, lang) in enumerate(zip(*columns, strict=True)):
            self.given["given" if given else "identified" if lang else "undetermined"] += 1
            if not given or not identified or _primary(given) == identified:
                continue
            key = (_primary(given), identified)
            self.disagreements[key] += 1
            if len(self.samples[key]) < _SAMPLES:
                row = batch.slice(index, 1)
                start = _start_of(row.column("text")[0].as_py())
                id_ = row.column("id")[0].as_py()
                self.samples[key].append({"id": id_, "start": start, "confidence": confidence})

    def _sample(self, langs: Sequence[str], batch: Any) -> None:
        """Keep the texts of lowest digest in each language: the same ones every time."""
        digests, texts = batch.column("digest").to_pylist(), batch.column("text")
        for index, (lang, digest) in enumerate(zip(langs, digests, strict=True)):
            height, heap = -int(digest[:16], 16), self.texts[lang]
            if len(heap) < _COUNTED_TEXTS:
                heapq.heappush(heap, (height, texts[index].as_py()))
            elif height > heap[0][0]:
                heapq.heapreplace(heap, (height, texts[index].as_py()))

    def as_json(self) -> dict[str, Any]:
        """``languages``, ``lengths`` and ``cleaning``."""
        return {
            "languages": {
                **{key: self.given[key] for key in ("given", "identified", "undetermined")},
                "disagreements": [
                    {
                        "given": key[0],
                        "identified": key[1],
                        "count": count,
                        "samples": self.samples[key],
                    }
                    for key, count in _most_common(self.disagreements, _LISTED_DISAGREEMENTS)
                ],
            },
            "lengths": self._lengths(),
            "cleaning": {
                "documents_changed": self.num_changed,
                "kinds": dict(sorted(self.changes.items())),
            },
        }

    def _lengths(self) -> dict[str, Any]:
        """In tokens, of a sample in each language, where tokens can be counted; in characters,
        of all documents, elsewhere."""
        if self.counter is None:
            by_language = {
                lang: _summary(sizes, None) for lang, sizes in sorted(self.lengths.items())
            }
            return {"unit": "characters", "limit": None, "by_language": by_language}
        by_language = {}
        for lang, heap in sorted(self.texts.items()):
            texts = [text for _, text in sorted(heap)]
            by_language[lang] = _summary(Counter(self.counter.count(texts)), self.counter.limit)
        limit = self.counter.limit
        return {"unit": "tokens", "limit": limit, "by_language": by_language}


def _primary(lang: str) -> str:
    return lang.partition("-")[0]


def _most_common(counts: Counter[Any], most: int) -> list[tuple[Any, int]]:
    """By number, then by name: the same order for the same counts."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]


def _summary(sizes: Counter[int], limit: int | None) -> dict[str, Any]:
    total = sizes.total()
    ordered = sorted(sizes.items())
    bins: Counter[int] = Counter()
    for size, count in ordered:
        bins[1 << (size.bit_length() - 1) if size else 0] += count
    return {
        "count": total,
        "median": _quantile(ordered, total, 0.5),
        "p95": _quantile(ordered, total, 0.95),
        "max": ordered[-1][0] if ordered else 0,
        "over_limit": sum(c for s, c in ordered if limit is not None and s > limit),
        "histogram": [list(item) for item in sorted(bins.items())],
    }


def _quantile(ordered: Sequence[tuple[int, int]], total: int, share: float) -> int:
    """The smallest size that at least ``share`` of all do not exceed."""
    wanted, seen = math.ceil(share * total), 0
    for size, count in ordered:
        seen += count
        if seen >= wanted:
            return size
    return 0


# --- the whole ----------------------------------------------------------------------------------


def breakdown(
    placed: Sequence[PlacedPair], documents: DocumentFigures, labels: LabelSet
) -> dict[str, list[dict[str, Any]]]:
    """Documents and examples by language, source, data set, month and narrative."""
    examples: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    of_narrative: dict[str, set[str]] = defaultdict(set)
    for one in placed:
        for name, value in _slices(one.pair).items():
            examples[name][value][one.pair.label] += 1
        of_narrative[one.pair.first.narrative or OVERALL].add(one.pair.first.id)
    counted = dict(documents.slices)
    counted["narrative"] = Counter({text: len(ids) for text, ids in of_narrative.items()})
    listed = {}
    for name in ("language", "source", "dataset", "month", "narrative"):
        values = counted.get(name, Counter())
        most = _LISTED_NARRATIVES if name == "narrative" else len(values)
        rows = _most_common(values, most)
        if name == "month":
            rows.sort()
        listed[name] = [
            {
                "value": value,
                "documents": count,
                "examples": {label: examples[name][value][label] for label in labels},
            }
            for value, count in rows
        ]
    return listed


def contradictions(
    pairs: Iterable[PlacedPair], clusters: dict[bytes, bytes]
) -> list[list[LabelledPair]]:
    """Pairs of one cluster and one narrative that have different labels, a list for each."""
    groups: dict[tuple[bytes, str | None], list[LabelledPair]] = defaultdict(list)
    for one in pairs:
        first = one.pair.first
        groups[clusters.get(first.digest, first.digest), first.narrative].append(one.pair)
    return [group for group in groups.values() if len({pair.label for pair in group}) > 1]


def listed_contradictions(
    groups: Sequence[Sequence[LabelledPair]], texts: Callable[[LabelledPair], str]
) -> list[dict[str, Any]]:
    """The first contradictions, as ``ingest.json`` has them; ``texts`` reads a pair's text."""
    return [
        {
            "places": [f"{pair.first.where}: {pair.label}" for pair in group],
            "narrative": group[0].first.narrative or OVERALL,
            "start": _start_of(texts(group[0])),
            "kind": "near",
        }
        for group in groups[:_LISTED_CONTRADICTIONS]
    ]


@final
@dataclass
class RejectedFigures:
    """What is noted while rejected rows are written."""

    samples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: RejectedRow) -> None:
        """Note a row."""
        record, samples = row.record, self.samples[row.kind]
        if len(self.samples) <= _LISTED_REASONS and len(samples) < _SAMPLES:
            samples.append(
                {
                    "reason": record.reason,
                    "file": record.file,
                    "row": record.row,
                    "start": _start_of(row.start),
                }
            )

    def as_json(self, ledger: Ledger) -> dict[str, Any]:
        """``reasons`` and ``rejected_samples``; a wrong column can give a reason per row, so the
        rare ones are added up."""
        listed = dict(_most_common(ledger.reasons, _LISTED_REASONS))
        others = ledger.reasons.total() - sum(listed.values())
        samples = [sample for kind in listed for sample in self.samples.get(kind, [])]
        return {
            "reasons": listed | ({"(other reasons)": others} if others else {}),
            "rejected_samples": samples,
        }
