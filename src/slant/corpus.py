"""Reading what ingestion wrote: documents, narratives and examples, joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

from slant.artifacts import Artifact
from slant.errors import ArtifactError
from slant.records import Document, Example, Narrative, read_jsonl, read_parquet

__all__ = ["Corpus", "LabelledDocument"]


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


@final
class Corpus:
    """The corpus of an ingest artifact. Files are read when first needed.

    Raises:
        ArtifactError: a file is missing or damaged (raised where it is read).
    """

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    @cached_property
    def documents(self) -> dict[str, Document]:
        """Every document by id, in the order of the file."""
        records = read_parquet(self._artifact.file("documents.parquet"), Document)
        return {document.id: document for document in records}

    @cached_property
    def narratives(self) -> dict[str, Narrative]:
        """Every narrative by id."""
        records = read_jsonl(self._artifact.file("narratives.jsonl"), Narrative)
        return {narrative.id: narrative for narrative in records}

    @cached_property
    def examples(self) -> list[Example]:
        """Every example, in the order of the file."""
        return read_parquet(self._artifact.file("examples.parquet"), Example)

    def split(self, name: str) -> list[LabelledDocument]:
        """The examples of one split, in the order of the file."""
        try:
            return [
                LabelledDocument(
                    example,
                    self.documents[example.document_id],
                    self.narratives[example.narrative_id] if example.narrative_id else None,
                )
                for example in self.examples
                if example.split == name
            ]
        except KeyError as error:
            raise self._dangling(error) from None

    def adaptation_documents(self) -> Iterator[Document]:
        """Documents that domain adaptation may read: all but those that anything is measured on.

        The text of a validation, calibration or test document is left out under any other id too.
        """
        try:
            held_out = {
                self.documents[example.document_id].digest
                for example in self.examples
                if example.split != "train"
            }
        except KeyError as error:
            raise self._dangling(error) from None
        return (document for document in self.documents.values() if document.digest not in held_out)

    def _dangling(self, error: KeyError) -> ArtifactError:
        return ArtifactError(
            f"{self._artifact.path}: an example names {error}, which is not there",
            hint="Run `slant ingest` again.",
        )
