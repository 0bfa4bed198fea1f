"""What an ingestion is given: the sources with their files, and how to read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slant.artifacts import Recipe
from slant.config.ingest_settings import IngestSettings
from slant.ingest.sources import Source, find_sources
from slant.labels import LabelSet
from slant.progress import Progress

__all__ = ["KIND", "SCHEMA", "Inputs", "Reading"]

KIND = "ingest"
"""The kind of the artifact."""
SCHEMA = "slant.ingest/2"
"""Form of ``ingest.json``."""


@dataclass(frozen=True)
class Reading:
    """What reading takes besides the sources."""

    settings: IngestSettings
    labels: LabelSet
    seed: int
    progress: Progress


@dataclass(frozen=True)
class Inputs:
    """The sources of examples and of documents, and what tells each file's content, by name."""

    labelled: list[Source]
    unlabelled: list[Source]
    fingerprints: dict[str, str]

    @classmethod
    def find(cls, settings: IngestSettings, start: Path) -> Inputs:
        """Find the files; reads local ones for their digest.

        Raises:
            UsageError: a file does not exist.
            InputError: a storage does not answer.
        """
        names: dict[str, str] = {}
        labelled = find_sources("examples", settings.examples, start, names)
        unlabelled = find_sources("documents", settings.documents, start, names)
        files = (file for source in (*labelled, *unlabelled) for file in source.files)
        return cls(labelled, unlabelled, {file.name: file.fingerprint() for file in files})

    def recipe(self, settings: IngestSettings, labels: LabelSet, seed: int) -> Recipe:
        """What the artifact is made from, with file names in place of paths of this machine."""
        elsewhere = {"documents", "examples", "workers"}
        resolved = {
            "schema": SCHEMA,
            "labels": list(labels),
            **settings.model_dump(mode="json", exclude=elsewhere),
            "documents": [_source_settings(source) for source in self.unlabelled],
            "examples": [_source_settings(source) for source in self.labelled],
        }
        return Recipe(KIND, self.fingerprints, resolved, seed)


def _source_settings(source: Source) -> dict[str, Any]:
    dumped = source.settings.model_dump(mode="json", exclude={"path"})
    return {"files": [file.name for file in source.files], "dataset": source.dataset, **dumped}
