"""One part: a chunk of a file's rows, parsed, cleaned and sketched, as a Parquet file.

A part has a row for each row of the chunk, whether it can be used or not. It is made in a worker
process, from nothing but the rows and a recipe in plain text.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from slant.artifacts import digest_json
from slant.config.ingest_settings import DocumentSource, ExampleSource, IngestSettings
from slant.ingest.inputs import Reading
from slant.ingest.near import NUM_BANDS, band_keys, shingle_hashes
from slant.ingest.rows import Parsed, RowParser, RowRefusedError
from slant.ingest.sources import Source, SourceFile
from slant.labels import LabelSet
from slant.tables.reader import Row, file_format

__all__ = ["KEY_LENGTH", "START_CHARACTERS", "PartRecipe", "make_part", "read_notes"]

KEY_LENGTH = 24
"""Characters of the name of a file's parts."""
START_CHARACTERS = 80
"""How much of a text is shown where a report tells of it."""
_SCHEMA = "slant.parts/1"
_NOTES = b"slant.notes"
# What of `ingest` has a say in a row; the rest (splits, similarity, …) is decided afterwards.
_ROW_SETTINGS = {"clean", "language", "duplicates", "min_characters", "max_characters"}
_NOT_OF_ROWS = {"duplicates": {"jaccard"}}


@dataclass(frozen=True)
class PartRecipe:
    """What a worker needs to parse rows; plain text, so that equal ones are found equal."""

    source: str
    settings: str
    labels: tuple[str, ...]
    kind: str
    form: str

    @classmethod
    def of(cls, source: Source, file: SourceFile, kind: str, reading: Reading) -> PartRecipe:
        """The recipe for a file; ``kind`` is ``examples`` or ``documents``."""
        own = source.settings.model_dump(mode="json", exclude={"path", "limit", "sizes"})
        form = own["format"]
        if form == "auto":
            form = file_format(file.name) or "auto"
        settings = reading.settings.model_dump(
            mode="json", include=_ROW_SETTINGS, exclude=_NOT_OF_ROWS
        )
        return cls(
            json.dumps({"path": "-", **own}, sort_keys=True),
            json.dumps(settings, sort_keys=True),
            tuple(reading.labels),
            kind,
            form,
        )

    def key(self, fingerprint: str) -> str:
        """Names the parts of a file of this content."""
        made_from = {
            "schema": _SCHEMA,
            "content": fingerprint,
            "recipe": [self.source, self.settings, *self.labels, self.kind, self.form],
            "bands": NUM_BANDS,
        }
        return digest_json(made_from)[:KEY_LENGTH]

    def row_settings(self) -> IngestSettings:
        """What has a say in a row, as it was set; all else has its default."""
        values = {"examples": [{"path": "-"}], **json.loads(self.settings)}
        return IngestSettings.model_validate(values)

    def parser(self) -> RowParser:
        """What reads the rows."""
        kind = ExampleSource if self.kind == "examples" else DocumentSource
        return RowParser(
            kind.model_validate_json(self.source),
            self.row_settings(),
            LabelSet(self.labels),
            is_html=self.form == "html",
        )


@lru_cache(maxsize=8)
def _parser(recipe: PartRecipe) -> RowParser:
    # Kept for the next chunk: its language model takes half a second to load.
    return recipe.parser()


def make_part(recipe: PartRecipe, path: Path, chunk: Sequence[Row]) -> Counter[str]:
    """Write one part, which appears when it is complete; returns its notes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parser = _parser(recipe)
    parser.notes.clear()
    duplicates = recipe.row_settings().duplicates
    shingle_characters = duplicates.shingle_characters if duplicates.near else 0
    columns: dict[str, list[Any]] = {name: [] for name in _part_schema().names}
    for row in chunk:
        record = _record(parser, row, shingle_characters)
        for name, values in columns.items():
            values.append(record.get(name))
    schema = _part_schema().with_metadata({_NOTES: json.dumps(dict(parser.notes)).encode()})
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        pq.write_table(
            pa.table(columns, schema=schema), partial, compression="zstd", compression_level=1
        )
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Counter(parser.notes)


def _record(parser: RowParser, row: Row, shingle_characters: int) -> dict[str, Any]:
    """A row of a part."""
    record: dict[str, Any] = {"row": row.number, "row_digest": sha256(row.raw).digest()}
    try:
        if row.values is None:
            problem = row.problem or "cannot be read"
            raise RowRefusedError(problem, kind=problem.partition(":")[0])
        parsed = parser.parse(row.values)
    except RowRefusedError as refused:
        start = row.raw[: 4 * START_CHARACTERS].decode("utf-8", "replace")[:START_CHARACTERS]
        return record | {"reason": refused.reason, "kind": refused.kind, "start": start}
    return record | _usable(parsed, shingle_characters)


def _usable(parsed: Parsed, shingle_characters: int) -> dict[str, Any]:
    document = parsed.document
    bands = None
    if shingle_characters:
        bands = band_keys(shingle_hashes(document.text, shingle_characters)).tobytes()
    return {
        "id": document.id,
        "text": document.text,
        "lang": document.lang,
        "lang_given": parsed.lang_given,
        "lang_identified": document.lang_identified,
        "lang_confidence": document.lang_confidence,
        "source": document.source,
        "published_at": document.published_at,
        "url": document.url,
        "digest": bytes.fromhex(document.digest or ""),
        "raw_digest": bytes.fromhex(document.raw_digest or ""),
        "changes": list(parsed.changes),
        "narrative": parsed.narrative,
        "label": parsed.label,
        "annotator": parsed.annotator,
        "own_split": parsed.own_split,
        "bands": bands,
    }


@lru_cache(maxsize=1)
def _part_schema() -> Any:
    import pyarrow as pa

    text, digest = pa.string(), pa.binary(32)
    return pa.schema(
        {
            "row": pa.int64(),
            "row_digest": digest,
            "reason": text,  # null: the row can be used
            "kind": text,
            "start": text,
            "id": text,
            "text": text,
            "lang": text,
            "lang_given": text,
            "lang_identified": text,
            "lang_confidence": pa.float64(),
            "source": text,
            "published_at": pa.timestamp("us", tz="UTC"),
            "url": text,
            "digest": digest,
            "raw_digest": digest,
            "changes": pa.list_(text),
            "narrative": text,
            "label": text,
            "annotator": text,
            "own_split": text,
            "bands": pa.binary(NUM_BANDS * 8),
        }
    )


def read_notes(path: Path) -> dict[str, int]:
    """The notes of a part that is there."""
    import pyarrow.parquet as pq

    notes: dict[str, int] = json.loads(pq.read_schema(path).metadata[_NOTES])
    return notes
