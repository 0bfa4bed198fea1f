"""Reading what ingestion wrote: documents, narratives and examples, joined.

There may be millions of documents and a few thousand examples. Texts are read for the documents
that have an example, and otherwise in pieces (``texts``), never all at once but on request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from slant.artifacts import Artifact, digest_json
from slant.errors import ArtifactError
from slant.records import Document, Example, Narrative, parquet_schema, read_jsonl, read_parquet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Corpus", "DocumentRows", "LabelledDocument"]

_DOCUMENTS, _NARRATIVES, _EXAMPLES = "documents.parquet", "narratives.jsonl", "examples.parquet"


@dataclass(frozen=True)
class LabelledDocument:
    """An example with the document and the narrative (None: overall sentiment) it is about."""

    example: Example
    document: Document
    narrative: Narrative | None

    @property
    def text(self) -> tuple[str, str | None]:
        """The two texts that a prompt is made from."""
        return self.document.text, self.narrative.text if self.narrative else None


@dataclass(frozen=True)
class DocumentRows:
    """Some documents, without their texts.

    Attributes:
        rows: int64 ``(num_documents,)``, ascending: their places in the file.
        groups: what stands for the text of each: its cluster of near-duplicates, or else its
            digest, or else its id. Documents of one group are never torn apart.
    """

    rows: NDArray[np.int64]
    groups: Sequence[str]


@final
class Corpus:
    """The corpus of an ingest artifact. Files are read when first needed.

    Raises:
        ArtifactError: a file is missing or damaged (raised where it is read).
    """

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    @property
    def digest(self) -> str:
        """sha256 of what a model can learn from or be measured on; reports have no part in it."""
        files = self._artifact.manifest["files"]
        names = (_DOCUMENTS, _NARRATIVES, _EXAMPLES)
        for name in names:
            self._artifact.file(name)  # raises where the manifest does not list it
        return digest_json({name: files[name]["sha256"] for name in names})

    @cached_property
    def documents(self) -> dict[str, Document]:
        """Every document by id, in the order of the file, with its text."""
        records = read_parquet(self._artifact.file(_DOCUMENTS), Document)
        return {document.id: document for document in records}

    @cached_property
    def labelled_documents(self) -> dict[str, Document]:
        """The documents that an example is about, by id, in the order of the file."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array({example.document_id for example in self.examples}, pa.string())
        found = {}
        for table in self._row_groups([*Document.__dataclass_fields__]):
            for row in table.filter(pc.is_in(table["id"], value_set=wanted)).to_pylist():
                found[row["id"]] = Document(**row)
        return found

    @cached_property
    def narratives(self) -> dict[str, Narrative]:
        """Every narrative by id."""
        records = read_jsonl(self._artifact.file(_NARRATIVES), Narrative)
        return {narrative.id: narrative for narrative in records}

    @cached_property
    def examples(self) -> list[Example]:
        """Every example, in the order of the file."""
        return read_parquet(self._artifact.file(_EXAMPLES), Example)

    def split(self, name: str) -> list[LabelledDocument]:
        """The examples of one split, in the order of the file."""
        try:
            return [
                LabelledDocument(
                    example,
                    self.labelled_documents[example.document_id],
                    self.narratives[example.narrative_id] if example.narrative_id else None,
                )
                for example in self.examples
                if example.split == name
            ]
        except KeyError as error:
            raise self._dangling(error.args[0]) from None

    def adaptation_rows(self) -> dict[str, DocumentRows]:
        """Documents that domain adaptation may read, by language (``und``: not known).

        It may read all but those that anything is measured on. A text of a validation, calibration
        or test document is left out under any other id too, and so are its near-duplicates.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        columns = pa.concat_tables(self._row_groups(["id", "lang", "digest", "cluster"]))
        measured = self._measured(columns["id"])
        left_out = measured
        for name in ("digest", "cluster"):
            of_measured = columns[name].filter(measured).drop_null().unique()
            left_out = pc.or_(left_out, pc.is_in(columns[name], value_set=of_measured))
        groups = pc.coalesce(columns["cluster"], columns["digest"], columns["id"])
        lang = pc.fill_null(columns["lang"], "und")
        found = {}
        for name in sorted(pc.unique(lang.filter(pc.invert(left_out))).to_pylist()):
            chosen = pc.and_(pc.equal(lang, name), pc.invert(left_out))
            rows = np.flatnonzero(chosen.to_numpy(zero_copy_only=False)).astype(np.int64)
            found[name] = DocumentRows(rows, groups.filter(chosen).to_pylist())
        return found

    def texts(self, rows: NDArray[np.int64]) -> Iterator[str]:
        """The texts of the documents at ``rows``, read in pieces of some thousand documents.

        Args:
            rows: ascending places in the file.
        """
        import numpy as np
        import pyarrow.parquet as pq

        path = self._artifact.file(_DOCUMENTS)
        with _readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            ends = np.cumsum(sizes, dtype=np.int64)
            borders = np.searchsorted(rows, np.concatenate([[0], ends]))
            for number, (first, last) in enumerate(pairwise(borders)):
                if first < last:
                    texts = file.read_row_group(number, columns=["text"])["text"]
                    within = rows[first:last] - (ends[number] - sizes[number])
                    yield from texts.take(within).to_pylist()

    def _measured(self, ids: Any) -> Any:
        """Which documents stand in a split that something is measured on, as a mask."""
        import pyarrow as pa
        import pyarrow.compute as pc

        held_out = {e.document_id for e in self.examples if e.split != "train"}
        wanted = pa.array(held_out, pa.string())
        mask = pc.is_in(ids, value_set=wanted)
        missing = held_out.difference(ids.filter(mask).to_pylist())
        if missing:
            raise self._dangling(min(missing))
        return mask

    def _row_groups(self, columns: list[str]) -> Iterator[Any]:
        """Some columns of the documents, as Arrow tables of some thousand rows."""
        import pyarrow.parquet as pq

        path = self._artifact.file(_DOCUMENTS)
        with _readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(parquet_schema(Document)):
                raise ArtifactError(f"{path}: holds other columns than Documents have")
            if not file.num_row_groups:
                yield file.schema_arrow.empty_table().select(columns)
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=columns)

    def _dangling(self, id_: str) -> ArtifactError:
        return ArtifactError(
            f"{self._artifact.path}: an example names {id_!r}, which is not there",
            hint="Run `slant ingest` again.",
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what Arrow raises for a damaged file into an error that names it."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
