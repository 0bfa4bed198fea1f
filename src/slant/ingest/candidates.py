"""Which of the rows that can be read stand: one text an id, one label a pair, each text once.

Only what decides is held in memory, never a text: a million documents are a few hundred megabytes.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, final

from slant.config.ingest_settings import JudgementSettings
from slant.errors import InputError
from slant.ingest.judgements import Verdict, adjudicate
from slant.ingest.ledger import Fate, Ledger, Place
from slant.ingest.parts import FileParts
from slant.ingest.sources import Source
from slant.ingest.split import rank
from slant.labels import LabelSet

__all__ = [
    "Candidate",
    "LabelledPair",
    "Unit",
    "UnlabelledDocuments",
    "collect_pairs",
    "collect_unlabelled",
]

_PAIR_COLUMNS = (
    "lang",
    "source",
    "published_at",
    "narrative",
    "label",
    "annotator",
    "own_split",
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A usable row of a labelled source, without its text."""

    place: Place
    file: str
    source: Source
    row: int
    id: str
    digest: bytes
    lang: str | None
    source_kind: str | None
    published_at: datetime | None
    narrative: str | None
    label: str
    annotator: str | None
    own_split: str | None

    @property
    def where(self) -> str:
        """Row and file, for a message."""
        return f"row {self.row} of {self.file}"


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A document under a narrative with the label that its judgements come to.

    ``first`` is the row that stands for the pair; ``judgements`` are all its rows.
    """

    first: Candidate
    verdict: Verdict
    judgements: tuple[Candidate, ...]

    @property
    def label(self) -> str:
        """The label; only pairs with one are made."""
        return self.verdict.label or ""


Unit = tuple[str | None, list[tuple[str, str]]]
"""What several annotators were asked: its language, and their names and labels."""


def collect_pairs(
    files: Sequence[FileParts],
    ledger: Ledger,
    *,
    labels: LabelSet,
    rule: JudgementSettings,
    seed: int,
) -> tuple[list[LabelledPair], list[Unit]]:
    """The pairs of all labelled files, in the order of their first rows.

    Refused are rows that give an id another text, that repeat a row (same text, narrative, label
    and annotator), that contradict one without naming another annotator (the first one stands),
    and all rows of a pair whose annotators come to no label.

    Returns:
        The pairs, and the judgements of named annotators, of refused pairs too: agreement measured
        without those would be too good.

    Raises:
        InputError: Nothing of a source can be used.
    """
    texts: dict[str, Candidate] = {}
    pairs: dict[tuple[bytes, str | None], list[Candidate]] = {}
    for source, members in _by_source(files, "examples"):
        reasons_before, num_used = ledger.reasons.copy(), 0
        for candidate in _limited(_candidates(members, ledger), source, seed, ledger):
            refused = _conflict(candidate, texts, pairs)
            if refused is not None:
                ledger.reject(candidate.place, refused)
                continue
            num_used += 1
            texts.setdefault(candidate.id, candidate)
            pairs.setdefault((candidate.digest, candidate.narrative), []).append(candidate)
        if not num_used:
            raise _all_rejected(source, ledger.reasons - reasons_before)
    units = [
        (rows[0].lang, [(row.annotator, row.label) for row in rows if row.annotator])
        for rows in pairs.values()
    ]
    adjudicated = list(_adjudicated(pairs.values(), ledger, labels, rule))
    return adjudicated, [unit for unit in units if unit[1]]


def _by_source(
    files: Sequence[FileParts], kind: str
) -> Iterator[tuple[Source, list[tuple[int, FileParts]]]]:
    grouped: dict[str, tuple[Source, list[tuple[int, FileParts]]]] = {}
    for number, parts in enumerate(files):
        if parts.kind == kind:
            grouped.setdefault(parts.source.where, (parts.source, []))[1].append((number, parts))
    yield from grouped.values()


def _light_rows(
    files: Sequence[tuple[int, FileParts]], columns: Sequence[str], ledger: Ledger
) -> Iterator[tuple[Place, FileParts, tuple[Any, ...]]]:
    """The wanted columns of all rows that can be used; the others are counted."""
    for number, parts in files:
        for part, path in enumerate(parts.paths):
            cells = _read_columns(path, ("kind", *columns))
            ledger.files[number].rows += len(cells[0])
            for index, (kind, *values) in enumerate(zip(*cells, strict=True)):
                if kind is not None:
                    ledger.unreadable(number, kind)
                else:
                    yield (number, part, index), parts, tuple(values)


def _read_columns(path: Path, names: Sequence[str]) -> list[list[Any]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=list(names))
    return [table.column(name).to_pylist() for name in names]


def _candidates(files: Sequence[tuple[int, FileParts]], ledger: Ledger) -> Iterator[Candidate]:
    columns = ("row", "id", "digest", *_PAIR_COLUMNS)
    for place, parts, values in _light_rows(files, columns, ledger):
        yield Candidate(place, parts.file.name, parts.source, *values)


def _limited(
    candidates: Iterable[Candidate], source: Source, seed: int, ledger: Ledger
) -> Iterable[Candidate]:
    """The candidates of the ``limit`` documents of lowest rank; the others are unused."""
    limit = source.settings.limit
    if limit is None:
        yield from candidates
        return
    held = list(candidates)
    ranks = {one.id: rank("limit", seed, one.digest.hex()) for one in held}
    chosen = set(sorted(ranks, key=lambda id_: (ranks[id_], id_))[:limit])
    for candidate in held:
        if candidate.id in chosen:
            yield candidate
        else:
            ledger.leave(candidate.place)


_OTHER_TEXT = "id of another text"


def _conflict(
    candidate: Candidate,
    texts: dict[str, Candidate],
    pairs: dict[tuple[bytes, str | None], list[Candidate]],
) -> Fate | None:
    """Why a row cannot stand beside those before it, or None."""
    same_id = texts.get(candidate.id)
    if same_id is not None and same_id.digest != candidate.digest:
        return Fate(f"{_OTHER_TEXT}: {candidate.id!r} stands in {same_id.where}", _OTHER_TEXT)
    rows = pairs.get((candidate.digest, candidate.narrative), [])
    by_same = [row for row in rows if row.annotator == candidate.annotator]
    if any(row.label == candidate.label for row in by_same):
        return Fate("duplicate example", "duplicate example", duplicate="exact")
    if by_same and candidate.annotator is None:
        return Fate(f"contradicts {by_same[0].where}", "contradicts another row")
    return None


def _adjudicated(
    pairs: Iterable[list[Candidate]], ledger: Ledger, labels: LabelSet, rule: JudgementSettings
) -> Iterator[LabelledPair]:
    for rows in pairs:
        judgements = [(row.annotator or "", row.label) for row in rows]
        # A source that names no annotators has one judgement a pair, and is not asked for more.
        least = rule.min_annotators if any(row.annotator for row in rows) else 1
        verdict = adjudicate(judgements, labels=labels, rule=rule.rule, min_annotators=least)
        if verdict.label is not None:
            yield LabelledPair(rows[0], verdict, tuple(rows))
            continue
        problem = verdict.problem or "annotators disagree"
        for row in rows:
            ledger.reject(row.place, Fate(problem, problem.partition(":")[0]))


def _all_rejected(source: Source, reasons: Counter[str]) -> InputError:
    most = "".join(f"\n  {number} x {kind}" for kind, number in reasons.most_common(5))
    return InputError(
        f"{source.where}: none of its {reasons.total()} rows can be used:{most}",
        hint="Check `columns`, `labels` and the length limits in slant.yaml against the file.",
    )


@final
class UnlabelledDocuments:
    """The unlabelled documents that stand, as parallel arrays in source order."""

    def __init__(self) -> None:
        self.files, self.parts, self.rows = array("i"), array("i"), array("i")

    def append(self, place: Place) -> None:
        """Add a document."""
        for numbers, number in zip((self.files, self.parts, self.rows), place, strict=True):
            numbers.append(number)

    def __len__(self) -> int:
        return len(self.files)

    def place(self, index: int) -> Place:
        """Where a document stands."""
        return self.files[index], self.parts[index], self.rows[index]

    def places(self) -> Iterator[Place]:
        """Where all stand, in order."""
        return zip(self.files, self.parts, self.rows, strict=True)


def collect_unlabelled(
    files: Sequence[FileParts], pairs: Sequence[LabelledPair], ledger: Ledger, *, seed: int
) -> UnlabelledDocuments:
    """The documents without labels: each text and each id once, and no labelled text.

    Raises:
        InputError: Nothing of a source can be used.
    """
    admission = _Admission(pairs, ledger)
    found = UnlabelledDocuments()
    for source, members in _by_source(files, "documents"):
        reasons_before = ledger.reasons.copy()
        num_read = 0
        rows = _light_rows(members, ("id", "digest"), ledger)
        limit = source.settings.limit
        passing = admission.all(rows) if limit is None else admission.lowest(limit, rows, seed)
        for place in passing:
            num_read += 1
            found.append(place)
        if not num_read and not any(ledger.files[n].duplicates for n, _ in members):
            raise _all_rejected(source, ledger.reasons - reasons_before)
    return found


_LightRow = tuple[Place, FileParts, tuple[Any, ...]]


@final
class _Admission:
    """Lets documents pass, each text and each id once. Holds ids and digests."""

    def __init__(self, pairs: Sequence[LabelledPair], ledger: Ledger) -> None:
        self._labelled = {pair.first.digest for pair in pairs}
        self._ids = {row.id for pair in pairs for row in pair.judgements}
        self._digests: set[bytes] = set()
        self._ledger = ledger

    def all(self, rows: Iterable[_LightRow]) -> Iterator[Place]:
        """All that pass, in order."""
        for place, _, (id_, digest) in rows:
            if self._admit(place, id_, digest):
                yield place

    def lowest(self, limit: int, rows: Iterable[_LightRow], seed: int) -> list[Place]:
        """The ``limit`` of lowest rank, in source order; holds no more than those."""
        heap: list[tuple[int, Place, str, bytes]] = []  # highest rank first
        for place, _, (id_, digest) in rows:
            height = -int(rank("limit", seed, digest.hex()), 16)
            if len(heap) == limit and height < heap[0][0]:
                self._ledger.leave(place)
            elif self._admit(place, id_, digest):
                heapq.heappush(heap, (height, place, id_, digest))
                if len(heap) > limit:
                    self._dismiss(heapq.heappop(heap))
        return sorted(place for _, place, _, _ in heap)

    def _admit(self, place: Place, id_: str, digest: bytes) -> bool:
        fate = None
        if digest in self._labelled:
            text = "text of a labelled document"
            fate = Fate(text, text, duplicate="exact")
        elif digest in self._digests:
            fate = Fate("duplicate document", "duplicate document", duplicate="exact")
        elif id_ in self._ids:
            fate = Fate(f"{_OTHER_TEXT}: {id_!r}", _OTHER_TEXT)
        if fate is not None:
            self._ledger.reject(place, fate)
            return False
        self._ids.add(id_)
        self._digests.add(digest)
        return True

    def _dismiss(self, admitted: tuple[int, Place, str, bytes]) -> None:
        """Take back an admission."""
        _, place, id_, digest = admitted
        self._ids.remove(id_)
        self._digests.remove(digest)
        self._ledger.leave(place)
