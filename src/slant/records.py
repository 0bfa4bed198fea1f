"""The records that stages exchange, and their Parquet and JSONL forms.

Documents, narratives and examples are stored apart and joined by id: one document can stand under
many narratives, with a different label under each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from slant.errors import ArtifactError

__all__ = [
    "OVERALL",
    "SOURCES",
    "SPLITS",
    "Document",
    "Example",
    "Judgement",
    "Narrative",
    "Pair",
    "Prediction",
    "Rejected",
    "parquet_schema",
    "read_jsonl",
    "read_parquet",
    "write_jsonl",
    "write_parquet",
]

SOURCES = ("news", "blog", "social", "review", "other")
SPLITS = ("train", "validation", "calibration", "test")
OVERALL = "(overall sentiment)"
"""How a missing narrative is named in tables."""


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        id: names it; no two documents share one.
        text: as it was cleaned.
        lang: BCP 47 code, as given, or else as identified.
        source: one of SOURCES.
        published_at: UTC.
        url: where it was found.
        digest: sha256 of the normalised text, equal for exact duplicates.
        raw_digest: sha256 of the text before cleaning, in UTF-8.
        lang_identified: what the text itself looks like; None: not identified with confidence.
        lang_confidence: of the identification, 0…1.
        cluster: the digest of the first text in a cluster of near-duplicates; its own where it is
            alone.
    """

    id: str
    text: str
    lang: str | None = None
    source: str | None = None
    published_at: datetime | None = None
    url: str | None = None
    digest: str | None = None
    raw_digest: str | None = None
    lang_identified: str | None = None
    lang_confidence: float | None = None
    cluster: str | None = None


@dataclass(frozen=True)
class Narrative:
    """A storyline, claim or entity that sentiment is judged toward."""

    id: str
    text: str


@dataclass(frozen=True)
class Example:
    """A gold label for a document under a narrative (None: overall sentiment).

    ``split`` is one of SPLITS; ``dataset``, ``file`` and ``row`` (1-based) say where it came from.
    ``shares`` is what share of its judgements each label has, in label order, where there are
    several judgements; None where there is one.
    """

    document_id: str
    narrative_id: str | None
    label: str
    split: str
    dataset: str
    file: str
    row: int
    num_judgements: int = 1
    shares: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Judgement:
    """One annotator's label for a document under a narrative."""

    document_id: str
    narrative_id: str | None
    annotator: str
    label: str
    dataset: str
    file: str
    row: int


@dataclass(frozen=True)
class Rejected:
    """An input row that was set aside. ``raw_digest`` is the sha256 of the row as it was read."""

    file: str
    row: int
    reason: str
    raw_digest: str


@dataclass(frozen=True)
class Pair:
    """What is scored: a text under a narrative (None: overall sentiment)."""

    text: str
    narrative: str | None = None
    id: str | None = None
    lang: str | None = None


@dataclass(frozen=True)
class Prediction:
    """What the model says of a pair.

    Attributes:
        id: the pair's id.
        label: the most probable label.
        probabilities: one per label, in label order; they add up to 1.
        fingerprint: of the TaskSpec and weights that made it.
        decision: ``accept`` or ``review`` (a person is to look at it); None where the bundle has no
            thresholds.
    """

    id: str | None
    label: str
    probabilities: tuple[float, ...]
    fingerprint: str
    decision: str | None = None

    @property
    def confidence(self) -> float:
        """Probability of the predicted label, 0…1."""
        return max(self.probabilities)


_Record = TypeVar("_Record", Document, Narrative, Example, Judgement, Rejected)


def parquet_schema(kind: type[Any]) -> Any:
    """The Arrow schema of the records of a kind; columns are the fields, in order."""
    import pyarrow as pa

    types = {
        "int": pa.int64(),
        "float | None": pa.float64(),
        "datetime | None": pa.timestamp("us", tz="UTC"),
        "tuple[float, ...] | None": pa.list_(pa.float64()),
    }
    # Annotations are strings here; everything that is not listed is text.
    return pa.schema(
        [(field.name, types.get(str(field.type), pa.string())) for field in fields(kind)]
    )


def write_parquet(path: Path, kind: type[_Record], records: Iterable[_Record]) -> int:
    """Write records of one kind; returns how many. Columns are the fields, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(kind)
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for chunk in _chunks(records, 10_000):
            writer.write_table(pa.Table.from_pylist([_flat(r) for r in chunk], schema=schema))
            count += len(chunk)
    return count


def read_parquet(path: Path, kind: type[_Record]) -> list[_Record]:
    """Read what ``write_parquet`` wrote.

    Raises:
        ArtifactError: the file is missing, damaged or holds other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if not table.schema.equals(parquet_schema(kind)):
            columns = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
            raise ArtifactError(f"{path}: holds columns {columns}, not {kind.__name__}s")
        return [kind(**_with_tuples(row)) for row in table.to_pylist()]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error


def write_jsonl(path: Path, records: Iterable[_Record]) -> int:
    """Write records, one JSON object a line; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            line = json.dumps(_flat(record), ensure_ascii=False, default=datetime.isoformat)
            file.write(line + "\n")
            count += 1
    return count


def read_jsonl(path: Path, kind: type[_Record]) -> list[_Record]:
    """Read what ``write_jsonl`` wrote.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return [kind(**_with_times(kind, json.loads(line))) for line in file]
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error


def _with_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}


def _with_times(kind: type[Any], row: dict[str, Any]) -> dict[str, Any]:
    times = [field.name for field in fields(kind) if field.type == "datetime | None"]
    return {**row, **{name: datetime.fromisoformat(row[name]) for name in times if row.get(name)}}


def _flat(record: Any) -> dict[str, Any]:
    return asdict(record)


def _chunks(items: Iterable[_Record], size: int) -> Iterator[Sequence[_Record]]:
    chunk: list[_Record] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
