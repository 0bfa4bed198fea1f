"""The Python SDK: a project from its slant.yaml."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from slant.artifacts import load
from slant.config.load import load_settings
from slant.config.settings import ProjectSettings, project_folder
from slant.corpus import Corpus
from slant.labels import LabelSet
from slant.pipeline import Pipeline, StageResult
from slant.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from slant.ingest.leakage import Leak
    from slant.plan.estimate import Plan

__all__ = ["Project"]


@final
class Project:
    """A slant.yaml and everything made from it.

    Args:
        config: path of the slant.yaml.
        overrides: ``key=value`` as for ``--set``.
        progress: told what happens; silent by default.

    Raises:
        ConfigError: the configuration cannot be used; holds every mistake with its place.
        UsageError: there is no such file, or the bundle's folder is not its own.
    """

    def __init__(
        self,
        config: str | Path,
        *,
        overrides: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        path = Path(config)
        self.settings: ProjectSettings = load_settings(path, overrides)
        self._progress = progress or SilentProgress()
        self._pipeline = Pipeline(self.settings, project_folder(path), self._progress)

    def run(self) -> list[StageResult]:
        """Run every stage whose inputs changed; what is up to date is left alone.

        Raises:
            SlantError: a stage could not do its work; GateError if a bound was not met.
        """
        return self._pipeline.run()

    def run_stage(self, stage: str) -> StageResult:
        """Run one stage (``ingest``, ``shard``, ``adapt``, ``tune``, ``evaluate``, ``export``).

        Raises:
            SlantError: as ``run``; ArtifactError if a stage before it has to be run first.
        """
        result = self._pipeline.run_stage(stage)
        if stage == "evaluate":
            self._pipeline.check_gate()
        return result

    def folder(self, stage: str) -> Path:
        """Where a stage's artifact lies."""
        return self._pipeline.folder(stage)

    def report(self) -> dict[str, Any]:
        """The content of ``report.json``; raises ArtifactError before the first evaluation."""
        artifact = load(self.folder("evaluate"), "evaluate")
        content: dict[str, Any] = json.loads(artifact.file("report.json").read_text("utf-8"))
        return content

    def plan(self, card: str | None = None) -> Plan:
        """What training takes on a card: memory, speed, hours, cost. Nothing is trained or made.

        Args:
            card: its name; None: that of ``plan.card``.

        Raises:
            UsageError: there is no such card or base model.
            ModelError: the sizes of the base model cannot be found out.
        """
        return self._pipeline.plan(card)

    def find_leaks(self) -> list[Leak]:
        """Texts that stand on two sides of a split of the ingested corpus; see ``ingest.leakage``.

        Raises:
            ArtifactError: before the first ingestion.
        """
        from slant.ingest.leakage import find_leaks

        corpus = Corpus(load(self.folder("ingest"), "ingest"))
        return find_leaks(corpus, self.settings.ingest, self._progress, seed=self.settings.seed)

    def verify_shards(self) -> None:
        """Check every size and hash of the shards.

        Raises:
            ShardError: files are missing or damaged; the message names each.
            ArtifactError: before the first sharding.
        """
        from slant.train.shard import verify_shards

        verify_shards(load(self.folder("shard"), "shard"), self._progress)

    def label_noise(self, split: str = "train") -> list[dict[str, Any]]:
        """Examples whose label looks wrong, the likeliest first; see ``evaluate.noise``.

        Args:
            split: ``train``, judged by TF-IDF models that have not seen the example, or ``test``,
                judged by the tuned model.

        Raises:
            ArtifactError: before the first ingestion; for ``test``, before the first evaluation.
        """
        from slant.evaluate.noise import label_noise, predicted_probabilities

        corpus = Corpus(load(self.folder("ingest"), "ingest"))
        labels, probabilities = LabelSet(self.settings.labels), None
        if split == "test":
            predictions = load(self.folder("evaluate"), "evaluate").file("predictions.parquet")
            probabilities = predicted_probabilities(predictions, corpus.split(split), labels)
        return label_noise(
            corpus, labels, seed=self.settings.seed, split=split, probabilities=probabilities
        )
