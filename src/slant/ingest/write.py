"""Placed examples and documents to the files of the artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from slant.ingest.collect import Candidate, DocumentFilter, Ledger, Reading, read_source
from slant.ingest.sources import Source
from slant.labels import LabelSet
from slant.records import (
    SPLITS,
    Document,
    Example,
    Narrative,
    Rejected,
    write_jsonl,
    write_parquet,
)

__all__ = ["SCHEMA", "UNDETERMINED", "Placed", "write_records"]

SCHEMA = "slant.ingest/1"
"""Form of ``ingest.json``."""
UNDETERMINED = "und"
"""The language of documents without one, in counts (BCP 47)."""

_LISTED_REASONS = 50


@dataclass(frozen=True)
class Placed:
    """An example and its split; None: it is not used."""

    candidate: Candidate
    split: str | None


def write_records(
    folder: Path,
    placed: Sequence[Placed],
    unlabelled: Sequence[Source],
    reading: Reading,
    ledger: Ledger,
) -> dict[str, Any]:
    """Write all records into ``folder``; the sources of unlabelled documents are read meanwhile.

    Returns:
        The content of ``ingest.json``.

    Raises:
        UsageError: A mapped column of an unlabelled source does not exist.
        InputError: A file of an unlabelled source is empty or damaged, or all its rows are bad.
    """
    for one in placed:
        if one.split is None:
            one.candidate.count.unused += 1
        else:
            one.candidate.count.kept += 1
    # A document whose examples are all unused would pass for an unlabelled one: it stays out.
    labelled = _distinct_documents(placed)
    num_documents = write_parquet(
        folder / "documents.parquet",
        Document,
        _all_documents(labelled, unlabelled, reading, ledger),
    )
    narratives = _distinct_narratives(placed)
    write_jsonl(folder / "narratives.jsonl", narratives)
    write_parquet(folder / "examples.parquet", Example, _examples(placed))
    write_parquet(folder / "rejected.parquet", Rejected, ledger.rejected)
    documents = {"labelled": len(labelled), "unlabelled": num_documents - len(labelled)}
    return {
        "schema": SCHEMA,
        "sources": ledger.files_as_json(),
        "documents": documents,
        "examples": _count_examples(placed, reading.labels),
        "narratives": len(narratives),
        "duplicates": dict(sorted(ledger.duplicates.items())),
        "unused": sum(count.unused for count in ledger.files),
        "reasons": _listed(ledger.reasons),
        "notes": dict(sorted(ledger.notes.items())),
    }


def _all_documents(
    labelled: Sequence[Document], unlabelled: Iterable[Source], reading: Reading, ledger: Ledger
) -> Iterator[Document]:
    yield from labelled
    documents = DocumentFilter(labelled, reading.seed, ledger)
    for source in unlabelled:
        yield from documents.passing(source, read_source(source, "documents", reading, ledger))


def _distinct_documents(placed: Iterable[Placed]) -> list[Document]:
    """The documents with an example in a split, each id once, in order."""
    documents: dict[str, Document] = {}
    for one in placed:
        if one.split is not None:
            documents.setdefault(one.candidate.document.id, one.candidate.document)
    return list(documents.values())


def _distinct_narratives(placed: Iterable[Placed]) -> list[Narrative]:
    texts = dict.fromkeys(one.candidate.narrative for one in placed if one.split is not None)
    return [Narrative(_narrative_id(text), text) for text in texts if text is not None]


def _narrative_id(text: str) -> str:
    return f"n-{sha256(text.encode()).hexdigest()[:12]}"


def _examples(placed: Iterable[Placed]) -> Iterator[Example]:
    for one in placed:
        if one.split is None:
            continue
        candidate = one.candidate
        yield Example(
            document_id=candidate.document.id,
            narrative_id=_narrative_id(candidate.narrative) if candidate.narrative else None,
            label=candidate.label,
            split=one.split,
            dataset=candidate.source.dataset,
            file=candidate.count.file,
            row=candidate.row,
        )


def _count_examples(
    placed: Iterable[Placed], labels: LabelSet
) -> dict[str, dict[str, dict[str, int]]]:
    """Examples by split, language and label, zeros included."""
    counts = Counter(
        (one.split, one.candidate.document.lang or UNDETERMINED, one.candidate.label)
        for one in placed
        if one.split is not None
    )
    langs = sorted({lang for _, lang, _ in counts})
    return {
        split: {lang: {label: counts[split, lang, label] for label in labels} for lang in langs}
        for split in SPLITS
    }


def _listed(reasons: Counter[str]) -> dict[str, int]:
    """Reasons by number; a wrong column can give one per row, so the rare ones are added up."""
    listed = dict(reasons.most_common(_LISTED_REASONS))
    others = reasons.total() - sum(listed.values())
    return listed | ({"(other reasons)": others} if others else {})
