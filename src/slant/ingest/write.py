"""What stands, to the files of the artifact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from slant.ingest.candidates import LabelledPair
from slant.ingest.clusters import Clusters
from slant.ingest.ledger import Fate, Ledger, Place
from slant.ingest.parts import FileParts
from slant.progress import Progress
from slant.records import (
    Document,
    Example,
    Judgement,
    Narrative,
    Rejected,
    parquet_schema,
    write_jsonl,
    write_parquet,
)

__all__ = ["PlacedPair", "RejectedRow", "write_documents", "write_examples", "write_rejected"]


@dataclass(frozen=True, slots=True)
class PlacedPair:
    """A pair and its split."""

    pair: LabelledPair
    split: str


@dataclass(frozen=True)
class RejectedRow:
    """A row that was set aside, and the start of what it holds, for the report."""

    record: Rejected
    kind: str
    start: str


def write_examples(folder: Path, placed: Sequence[PlacedPair]) -> int:
    """Write examples, narratives and judgements; returns the number of narratives."""
    write_parquet(folder / "examples.parquet", Example, map(_example, placed))
    write_parquet(folder / "judgements.parquet", Judgement, _judgements(placed))
    texts = dict.fromkeys(one.pair.first.narrative for one in placed)
    narratives = [Narrative(_narrative_id(text), text) for text in texts if text is not None]
    write_jsonl(folder / "narratives.jsonl", narratives)
    return len(narratives)


def _narrative_id(text: str) -> str:
    return f"n-{sha256(text.encode()).hexdigest()[:12]}"


def _narrative_id_of(pair: LabelledPair) -> str | None:
    text = pair.first.narrative
    return _narrative_id(text) if text else None


def _example(one: PlacedPair) -> Example:
    first, verdict = one.pair.first, one.pair.verdict
    return Example(
        document_id=first.id,
        narrative_id=_narrative_id_of(one.pair),
        label=one.pair.label,
        split=one.split,
        dataset=first.source.dataset,
        file=first.file,
        row=first.row,
        num_judgements=verdict.num_judgements,
        shares=verdict.shares if verdict.num_judgements > 1 else None,
    )


def _judgements(placed: Iterable[PlacedPair]) -> Iterator[Judgement]:
    for one in placed:
        for row in one.pair.judgements:
            if row.annotator is not None:
                yield Judgement(
                    document_id=one.pair.first.id,
                    narrative_id=_narrative_id_of(one.pair),
                    annotator=row.annotator,
                    label=row.label,
                    dataset=row.source.dataset,
                    file=row.file,
                    row=row.row,
                )


# --- documents ----------------------------------------------------------------------------------

# What the report wants to know besides the document itself.
_REPORTED = ("lang_given", "changes")


def write_documents(
    path: Path,
    files: Sequence[FileParts],
    placed: Sequence[PlacedPair],
    clusters: Clusters,
    progress: Progress,
) -> Iterator[tuple[str, Any]]:
    """Write the documents: labelled ones in source order, then unlabelled ones.

    Yields:
        The data set and an Arrow table of each batch as it is written: the columns of Document,
        and ``lang_given`` and ``changes``.
    """
    import pyarrow.parquet as pq

    labelled = _distinct_places(placed)
    unlabelled = clusters.unlabelled
    schema = parquet_schema(Document)
    with (
        pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer,
        progress.task("write documents", len(labelled) + len(unlabelled), "documents") as task,
    ):
        for places in (iter(labelled), unlabelled.places()):
            for file, batch in _batches(files, places, clusters.of_labelled):
                writer.write_table(batch.select(schema.names).cast(schema))
                task.advance(len(batch))
                yield files[file].source.dataset, batch


def _distinct_places(placed: Iterable[PlacedPair]) -> list[Place]:
    """Where the text of each labelled document stands first."""
    places: dict[str, Place] = {}
    for one in placed:
        places.setdefault(one.pair.first.id, one.pair.first.place)
    return sorted(places.values())


def _batches(
    files: Sequence[FileParts], places: Iterable[Place], clusters: dict[bytes, bytes]
) -> Iterator[tuple[int, Any]]:
    """The rows at ``places``, which are sorted, a part at a time, as documents."""
    for (file, part), inside in groupby(places, key=lambda place: place[:2]):
        rows = [row for _, _, row in inside]
        yield file, _documents(files[file].paths[part], rows, clusters)


def _documents(path: Path, rows: list[int], clusters: dict[bytes, bytes]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(Document)
    stored = [name for name in schema.names if name != "cluster"]
    table = pq.read_table(path, columns=[*stored, *_REPORTED]).take(pa.array(rows))
    digests = table.column("digest").to_pylist()
    hexadecimal = {
        "digest": [digest.hex() for digest in digests],
        "raw_digest": [digest.hex() for digest in table.column("raw_digest").to_pylist()],
        "cluster": [clusters.get(digest, digest).hex() for digest in digests],
    }
    columns = {
        name: pa.array(hexadecimal[name], pa.string())
        if name in hexadecimal
        else table.column(name)
        for name in (*schema.names, *_REPORTED)
    }
    return pa.table(columns)


# --- rejected rows ------------------------------------------------------------------------------


def write_rejected(
    folder: Path, files: Sequence[FileParts], ledger: Ledger
) -> Iterator[RejectedRow]:
    """Write the rows that were set aside, in the order of the files; yields them as written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(Rejected)
    fates = ledger.by_part()
    with pq.ParquetWriter(
        folder / "rejected.parquet", schema, compression="zstd", write_page_checksum=True
    ) as writer:
        for number, parts in enumerate(files):
            for part, path in enumerate(parts.paths):
                rejected = list(_rejected(parts.file.name, path, fates.get((number, part), {})))
                if rejected:
                    rows = [vars(one.record) for one in rejected]
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                yield from rejected


def _rejected(name: str, path: Path, fates: dict[int, Fate]) -> Iterator[RejectedRow]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["row", "row_digest", "reason", "kind", "start"])
    if not fates and table.column("reason").null_count == len(table):
        return
    for index, row in enumerate(table.to_pylist()):
        fate = fates.get(index)
        reason, kind = (fate.reason, fate.kind) if fate else (row["reason"], row["kind"])
        if reason is not None:
            record = Rejected(name, row["row"], reason, row["row_digest"].hex())
            yield RejectedRow(record, kind, row["start"] or "")
