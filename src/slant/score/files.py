"""Scoring the rows of a file into another file, in the same order."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, final

from slant.errors import InputError, UsageError
from slant.progress import Progress
from slant.records import Pair
from slant.score.scorer import Refusal, Scorer
from slant.tables.reader import read_rows
from slant.tables.writer import TableWriter, check_writable
from slant.task.normalise import normalise_text

__all__ = ["FileOutcome", "check_files", "score_file"]


@dataclass(frozen=True)
class FileOutcome:
    """How many rows were scored, how many were set aside, and where those are listed."""

    scored: int
    rejected: int
    rejected_path: Path

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "scored": self.scored,
            "rejected": self.rejected,
            "rejected_path": str(self.rejected_path) if self.rejected else None,
        }


def check_files(source: Path, target: Path) -> None:
    """Raises UsageError if ``source`` is no file or ``target`` cannot be a result file."""
    if not source.is_file():
        raise UsageError(f"{source}: no such file")
    check_writable(target)
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target}: is the input file", hint="Name another file with --out.")


def score_file(
    scorer: Scorer, source: Path, target: Path, *, narrative: str | None, progress: Progress
) -> FileOutcome:
    """Score every row of ``source`` with bounded memory.

    Args:
        scorer: a loaded bundle.
        source: JSONL, CSV, TSV or Parquet with a column ``text`` and, if wanted, ``id``,
            ``narrative`` (empty: see below) and ``lang``.
        target: gets ``id``, ``label`` and ``p_<label>`` for each label, in input order. A row
            without an id gets its row number. The file appears when all rows are scored.
        narrative: for rows that name none; None asks for overall sentiment.
        progress: told of rows.

    Rows that cannot be read or scored are listed in ``<target>.rejected.jsonl``, in input order,
    with row number, reason and the sha256 of the row; that file is only there if there are any.

    Raises:
        UsageError: ``source`` does not exist or has no column ``text``; ``target`` cannot be.
        InputError: ``source`` is empty or damaged, or none of its rows can be scored.
        StorageError: no space left or no permission.
    """
    check_files(source, target)
    rejected_path = target.with_name(target.name + ".rejected.jsonl")
    columns: dict[str, type] = {"id": str, "label": str}
    columns |= {f"p_{label}": float for label in scorer.labels}
    run = _Run(source, narrative)
    scored = 0
    with ExitStack() as stack:
        writer = stack.enter_context(TableWriter(target, columns))
        rejected = _Rejected(rejected_path, stack)
        task = stack.enter_context(progress.task("score", None, "rows"))
        for outcome in scorer.stream(run.pairs()):
            rejected.write(run.refused_before_next())
            task.advance()
            row = run.next()
            if isinstance(outcome, Refusal):
                rejected.write([replace(row, reason=outcome.reason)])
                continue
            scored += 1
            probabilities = zip(scorer.labels, outcome.probabilities, strict=True)
            writer.write(
                {
                    "id": outcome.id,
                    "label": outcome.label,
                    **{f"p_{label}": round(p, 6) for label, p in probabilities},
                }
            )
        rejected.write(run.refused_before_next())
        if not scored:
            raise InputError(
                f"{source}: none of its {rejected.count} rows can be scored; "
                f"the first one: {rejected.first_reason}"
            )
        if not rejected.count:
            rejected_path.unlink(missing_ok=True)  # of an earlier run
    return FileOutcome(scored, rejected.count, rejected_path)


@dataclass(frozen=True)
class _Row:
    """A row on its way; ``reason`` if it was set aside before it came to the scorer."""

    row: int
    id: str | None
    reason: str
    raw_digest: str


@final
class _Rejected:
    """The file of the rows that were set aside; it is begun with the first of them."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack
        self._writer: TableWriter | None = None
        self.count = 0
        self.first_reason = ""

    def write(self, rows: Iterable[_Row]) -> None:
        for row in rows:
            if self._writer is None:
                columns = dict.fromkeys((field.name for field in fields(_Row)), str)
                self._writer = self._stack.enter_context(TableWriter(self._path, columns))
                self.first_reason = row.reason
            self._writer.write(asdict(row))
            self.count += 1


@final
class _Run:
    """One pass over the input: pairs for the scorer, which reads ahead, and their rows."""

    def __init__(self, source: Path, narrative: str | None) -> None:
        self._source = source
        self._narrative = narrative
        self._rows: deque[_Row] = deque()

    def pairs(self) -> Iterator[Pair]:
        columns = _columns(self._source)
        for row in read_rows(self._source, name=str(self._source), columns=columns):
            values = row.values or {}
            text = values.get("text")
            problem = row.problem or ""
            if not problem and not (isinstance(text, str) and normalise_text(text).strip()):
                problem = "text is empty or not a text"
            id_ = _text(values.get("id"))
            self._rows.append(_Row(row.number, id_, problem, hashlib.sha256(row.raw).hexdigest()))
            if not problem:
                yield Pair(
                    text=str(text),
                    narrative=_text(values.get("narrative")) or self._narrative,
                    id=id_ or str(row.number),
                    lang=_text(values.get("lang")),
                )

    def refused_before_next(self) -> Iterator[_Row]:
        """The rows set aside before the next row that went to the scorer."""
        while self._rows and self._rows[0].reason:
            yield self._rows.popleft()

    def next(self) -> _Row:
        """The next row that went to the scorer."""
        return self._rows.popleft()


def _columns(source: Path) -> list[str]:
    """What to ask for: of a Parquet file nothing else is read, in others it has to be there."""
    if source.suffix.lower() != ".parquet":
        return ["text"]
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = set(pq.read_schema(source).names)
    except (OSError, pa.ArrowException):
        names = set()  # reading the rows will say what is wrong with the file
    return ["text", *(name for name in ("id", "narrative", "lang") if name in names)]


def _text(value: Any) -> str | None:
    text = "" if value is None else str(value)
    return text if text.strip() else None
