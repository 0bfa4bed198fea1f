"""Rows of all sources to documents and examples without contradictions or duplicates."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, final

from slant.config.settings import IngestSettings
from slant.errors import InputError
from slant.ingest.rows import RowParser, RowRefusedError
from slant.ingest.sources import Source, SourceFile
from slant.ingest.split import rank
from slant.labels import LabelSet
from slant.progress import Progress
from slant.records import Document, Rejected
from slant.tables.reader import Row, count_parquet_rows, read_rows

__all__ = [
    "Candidate",
    "DocumentFilter",
    "FileCount",
    "Ledger",
    "Reading",
    "collect_examples",
    "read_source",
]

_REPORT_EVERY_ROWS = 1000
_MEGABYTE = 1_000_000


@dataclass
class FileCount:
    """What became of one file's rows: ``rows`` = ``kept`` + ``rejected`` + ``unused``."""

    file: str
    dataset: str
    kind: str
    rows: int = 0
    kept: int = 0
    rejected: int = 0
    unused: int = 0


@dataclass
class Ledger:
    """What became of all rows."""

    files: list[FileCount] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def open(self, file: SourceFile, source: Source, kind: str) -> FileCount:
        """Start counting a file's rows."""
        count = FileCount(file.name, source.dataset, kind)
        self.files.append(count)
        return count

    def reject(self, count: FileCount, rejected: Rejected, kind: str) -> None:
        """Set a row aside; ``kind`` is the reason without the row's own details."""
        self.rejected.append(rejected)
        self.reasons[kind] += 1
        count.rejected += 1

    def files_as_json(self) -> list[dict[str, Any]]:
        """The files' counts, in the order they were read."""
        return [asdict(count) for count in self.files]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that can be read: a document, and for labelled sources its narrative and label."""

    document: Document
    digest: str
    narrative: str | None
    label: str
    source: Source
    count: FileCount
    row: int
    raw_digest: str

    @property
    def place(self) -> str:
        """Row and file, for a message."""
        return f"row {self.row} of {self.count.file}"

    def reject(self, ledger: Ledger, reason: str, kind: str | None = None) -> None:
        """Set the row aside after all."""
        rejected = Rejected(self.count.file, self.row, reason, self.raw_digest)
        ledger.reject(self.count, rejected, kind or reason)


@dataclass(frozen=True)
class Reading:
    """What reading a source takes besides the source."""

    settings: IngestSettings
    labels: LabelSet
    seed: int
    progress: Progress


def read_source(source: Source, kind: str, reading: Reading, ledger: Ledger) -> Iterator[Candidate]:
    """The rows of a source that can be used by themselves, in order; others go to ``ledger``.

    Raises:
        UsageError: A mapped column does not exist.
        InputError: A file is empty or damaged, or no row of the source can be used.
    """
    parser = RowParser(source.settings, reading.settings, reading.labels)
    reasons_before = ledger.reasons.copy()
    num_used = 0
    for file in source.files:
        count = ledger.open(file, source, kind)
        rows = read_rows(file.path, name=file.name, columns=parser.columns)
        for row in _reported(rows, file, reading.progress):
            count.rows += 1
            raw_digest = sha256(row.raw).hexdigest()
            try:
                if row.values is None:
                    problem = row.problem or "cannot be read"
                    raise RowRefusedError(problem, kind=problem.partition(":")[0])
                parsed = parser.parse(row.values)
            except RowRefusedError as refused:
                rejected = Rejected(file.name, row.number, refused.reason, raw_digest)
                ledger.reject(count, rejected, refused.kind)
                continue
            num_used += 1
            document = parsed.document
            yield Candidate(
                document=document,
                digest=document.digest or "",
                narrative=parsed.narrative,
                label=parsed.label or "",
                source=source,
                count=count,
                row=row.number,
                raw_digest=raw_digest,
            )
    ledger.notes.update(parser.notes)
    if num_used == 0:
        raise _all_rejected(source, ledger.reasons - reasons_before)


def _all_rejected(source: Source, reasons: Counter[str]) -> InputError:
    most = "".join(f"\n  {number} x {kind}" for kind, number in reasons.most_common(5))
    return InputError(
        f"{source.where}: none of its {reasons.total()} rows can be used:{most}",
        hint="Check `columns`, `labels` and the length limits in slant.yaml against the file.",
    )


def _reported(rows: Iterable[Row], file: SourceFile, progress: Progress) -> Iterator[Row]:
    """``rows``, reported to ``progress`` in megabytes of the file, or in rows of a Parquet file."""
    in_rows = file.path.suffix.lower() == ".parquet"
    total = count_parquet_rows(file.path) if in_rows else _megabytes(file.path)
    name = f"read {Path(file.name).name}"
    with progress.task(name, total, "rows" if in_rows else "MB") as task:
        num_rows = num_bytes = reported = 0
        for row in rows:
            num_rows += 1
            num_bytes += len(row.raw)
            if num_rows % _REPORT_EVERY_ROWS == 0:
                done = num_rows if in_rows else num_bytes // _MEGABYTE
                task.advance(done - reported, rows=str(num_rows))
                reported = done
            yield row
        if total is not None:
            task.advance(total - reported, rows=str(num_rows))


def _megabytes(path: Path) -> int | None:
    """Size of a file, at least 1; None if there is no file (its reader says so)."""
    return max(1, round(path.stat().st_size / _MEGABYTE)) if path.is_file() else None


def collect_examples(
    sources: Sequence[Source], reading: Reading, ledger: Ledger
) -> list[Candidate]:
    """All usable examples, in source and row order.

    Refused are rows that give an id another text, that repeat an example (same text, narrative and
    label) or that contradict one (same text and narrative, another label): the first one stands.

    Raises:
        UsageError: A mapped column does not exist.
        InputError: A file is empty or damaged, or nothing of a source can be used.
    """
    texts: dict[str, Candidate] = {}
    pairs: dict[tuple[str, str | None], Candidate] = {}
    examples: list[Candidate] = []
    for source in sources:
        num_before = len(examples)
        reasons_before = ledger.reasons.copy()
        for candidate in _limited(
            read_source(source, "examples", reading, ledger), source, reading
        ):
            refused = _conflict(candidate, texts, pairs)
            if refused is None:
                texts.setdefault(candidate.document.id, candidate)
                pairs[candidate.digest, candidate.narrative] = candidate
                examples.append(candidate)
                continue
            reason, kind = refused
            candidate.reject(ledger, reason, kind)
            if kind == _DUPLICATE:
                ledger.duplicates["examples"] += 1
        if len(examples) == num_before:
            raise _all_rejected(source, ledger.reasons - reasons_before)
    return examples


_DUPLICATE = "duplicate example"


def _conflict(
    candidate: Candidate,
    texts: dict[str, Candidate],
    pairs: dict[tuple[str, str | None], Candidate],
) -> tuple[str, str] | None:
    """Why an example cannot stand beside those before it (reason and kind), or None."""
    same_id = texts.get(candidate.document.id)
    if same_id is not None and same_id.digest != candidate.digest:
        kind = "id of another text"
        return f"{kind}: {candidate.document.id!r} stands in {same_id.place}", kind
    first = pairs.get((candidate.digest, candidate.narrative))
    if first is None:
        return None
    if first.label == candidate.label:
        return _DUPLICATE, _DUPLICATE
    return f"contradicts {first.place}", "contradicts another row"


def _limited(
    candidates: Iterable[Candidate], source: Source, reading: Reading
) -> Iterable[Candidate]:
    """The candidates of the ``limit`` documents of lowest rank; the others are unused."""
    limit = source.settings.limit
    if limit is None:
        yield from candidates
        return
    held = list(candidates)
    ranks = {
        candidate.document.id: rank("limit", reading.seed, candidate.digest) for candidate in held
    }
    chosen = set(sorted(ranks, key=lambda id_: (ranks[id_], id_))[:limit])
    for candidate in held:
        if candidate.document.id in chosen:
            yield candidate
        else:
            candidate.count.unused += 1


@final
class DocumentFilter:
    """Lets unlabelled documents pass, each text and each id once, and no labelled text.

    Holds the ids and digests that passed, not the texts.
    """

    def __init__(self, labelled: Iterable[Document], seed: int, ledger: Ledger) -> None:
        documents = list(labelled)
        self._labelled = {document.digest for document in documents}
        self._ids = {document.id for document in documents}
        self._digests: set[str] = set()
        self._seed = seed
        self._ledger = ledger

    def passing(self, source: Source, candidates: Iterable[Candidate]) -> Iterator[Document]:
        """The documents of one source that pass, in order, at most its ``limit``."""
        limit = source.settings.limit
        if limit is not None:
            yield from self._lowest(limit, candidates)
            return
        for candidate in candidates:
            if self._admit(candidate):
                yield candidate.document

    def _admit(self, candidate: Candidate) -> bool:
        if candidate.digest in self._labelled:
            self._ledger.duplicates["labelled documents"] += 1
            candidate.reject(self._ledger, "text of a labelled document")
        elif candidate.digest in self._digests:
            self._ledger.duplicates["documents"] += 1
            candidate.reject(self._ledger, "duplicate document")
        elif candidate.document.id in self._ids:
            kind = "id of another text"
            candidate.reject(self._ledger, f"{kind}: {candidate.document.id!r}", kind)
        else:
            self._ids.add(candidate.document.id)
            self._digests.add(candidate.digest)
            candidate.count.kept += 1
            return True
        return False

    def _lowest(self, limit: int, candidates: Iterable[Candidate]) -> Iterator[Document]:
        """The ``limit`` documents of lowest rank, in source order; holds no more than those."""
        heap: list[tuple[int, int, Candidate]] = []  # highest rank first
        for order, candidate in enumerate(candidates):
            height = -int(rank("limit", self._seed, candidate.digest), 16)
            if len(heap) == limit and height < heap[0][0]:
                candidate.count.unused += 1
                continue
            if not self._admit(candidate):
                continue
            heapq.heappush(heap, (height, order, candidate))
            if len(heap) > limit:
                self._dismiss(heapq.heappop(heap)[2])
        for _, _, candidate in sorted(heap, key=lambda entry: entry[1]):
            yield candidate.document

    def _dismiss(self, candidate: Candidate) -> None:
        """Take back an admission."""
        self._ids.remove(candidate.document.id)
        self._digests.remove(candidate.digest)
        candidate.count.kept -= 1
        candidate.count.unused += 1
