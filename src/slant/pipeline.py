"""The stages of a project, in order, each run only when what it is made from has changed."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

from slant.artifacts import Artifact, Recipe, find, load
from slant.config.load import dump_settings, expand_variables
from slant.config.settings import ProjectSettings
from slant.disk import storage_errors, write_atomically
from slant.errors import ArtifactError, GateError, InputError, SlantError, UsageError
from slant.labels import LabelSet
from slant.memory import release_memory
from slant.patience import at_most
from slant.progress import Progress
from slant.publish.address import is_address
from slant.train.environment import in_world, rank

if TYPE_CHECKING:
    from slant.evaluate.stage import Subject
    from slant.ingest.report import TokenCounter
    from slant.model.base import BaseModel
    from slant.plan.estimate import Plan
    from slant.plan.tokens import TokenCounts
    from slant.publish.release import Published

__all__ = ["STAGES", "Pipeline", "StageResult"]

STAGES = ("ingest", "shard", "adapt", "tune", "evaluate", "export")
_TRAINED = ("adapt", "tune")
_IDLE_PATIENCE_S = 10.0
"""How long is waited to hear whether a bundle that was published is still there."""


@dataclass(frozen=True)
class StageResult:
    """A stage's artifact, whether it had to be made, and the seconds that took.

    ``published`` tells where the bundle went, if ``export.to`` is not a folder and it was not there
    before.
    """

    stage: str
    artifact: Artifact
    made: bool
    seconds: float
    published: Published | None = None


@final
class Pipeline:
    """A project's stages and their artifacts.

    Args:
        settings: the project's configuration.
        start: folder that relative paths of the configuration start from.
        progress: told what happens.

    Raises:
        UsageError: the bundle's folder is not its own.
    """

    def __init__(self, settings: ProjectSettings, start: Path, progress: Progress) -> None:
        self._settings = settings
        self._start = start
        self._progress = progress
        self._work = start / settings.work
        self._to = expand_variables(settings.export.to)
        self._artifacts: dict[str, Artifact] = {}
        self._check_bundle_folder()

    def _check_bundle_folder(self) -> None:
        """A bundle in the folder of another artifact would take that artifact's place."""
        bundle = self.folder("export").resolve()
        for stage in STAGES[:-1]:
            other = self.folder(stage).resolve()
            if bundle.is_relative_to(other) or other.is_relative_to(bundle):
                raise UsageError(
                    f"export.to: {self._settings.export.to!r} is not a folder of its own: {stage} "
                    f"writes to {other}",
                    hint="Name another folder, e.g. bundle.",
                )

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of this project, in order: all but those that it leaves out."""
        return tuple(s for s in STAGES if s != "adapt" or self._settings.adapt is not None)

    def folder(self, stage: str) -> Path:
        """Where the artifact of a stage lies."""
        if stage != "export":
            return self._work / stage
        return self._work / ("bundle" if is_address(self._to) else self._to)

    def run(self) -> list[StageResult]:
        """Run every stage whose inputs changed.

        Raises:
            GateError: the evaluation's gate was not met; the report is there, the bundle is not.
            UsageError: this process is one of several, or nothing can be published to
                ``export.to``.
        """
        if in_world():
            raise UsageError(
                "slant run is one process, and this is one of several",
                hint="Under torchrun run `slant adapt` and `slant tune`; the rest without it. Or "
                "set train.devices, and slant starts torchrun itself.",
            )
        self._save_settings()
        self._check_target()
        results = []
        for stage in self.stages:
            results.append(self._run(stage))
            if stage == "evaluate":
                self.check_gate()
        return results

    def run_stage(self, stage: str) -> StageResult:
        """Run one stage on the artifacts of those before it.

        Raises:
            ArtifactError: one of them is missing or was made from something else.
            UsageError: the project leaves this stage out, or ``export.to`` cannot be used.
        """
        if stage not in self.stages:
            raise UsageError(f"{stage} is null in the configuration: there is nothing to run")
        if in_world() and stage not in _TRAINED:
            raise UsageError(
                f"slant {stage} is one process, and this is one of several",
                hint=f"Only {' and '.join(_TRAINED)} run under torchrun.",
            )
        self._save_settings()
        if stage == "export":
            self._check_target()
        for before in self.stages[: self.stages.index(stage)]:
            artifact = load(self.folder(before), before)
            if artifact.key != self._recipe(before).key:
                raise ArtifactError(
                    f"{artifact.path}: was made from other data or settings than the present ones",
                    hint=f"Run `slant {before}` again, or `slant run` for all stages.",
                )
            self._artifacts[before] = artifact
        return self._run(stage)

    def plan(self, card: str | None = None) -> Plan:
        """What the training stages take; see ``plan.estimate``."""
        from slant.plan.estimate import make_plan
        from slant.plan.tokens import counts_of_shards

        counts: TokenCounts | None
        if shards := find(self.folder("shard"), "shard"):
            counts, note = counts_of_shards(shards), ""
        else:
            counts, note = self._guessed_counts()
        return make_plan(self._settings, self._start, counts=counts, counts_note=note, card=card)

    def _guessed_counts(self) -> tuple[TokenCounts | None, str]:
        """Tokens by the size of the input files, or why that cannot be told."""
        from slant.ingest.sources import find_sources
        from slant.plan.tokens import InputFile, counts_of_files

        ingest, names = self._settings.ingest, dict[str, str]()
        try:
            sources = find_sources("documents", ingest.documents, self._start, names)
            sources += find_sources("examples", ingest.examples, self._start, names)
            files = [
                InputFile.of(source.settings, file.location, file.name, num_files=len(source.files))
                for source in sources
                for file in source.files
            ]
            return counts_of_files(self._settings, files), ""
        except SlantError as error:
            return None, f"not known: {error.message}"

    def check_gate(self) -> None:
        """Raises GateError if the evaluation did not meet the configuration's bounds."""
        if unmet := self._artifacts["evaluate"].facts["gate_unmet"]:
            raise GateError("; ".join(unmet), hint="The report says where the model falls short.")

    def _save_settings(self) -> None:
        if rank() > 0:
            return
        with storage_errors(self._work):
            self._work.mkdir(parents=True, exist_ok=True)
            write_atomically(self._work / "slant.resolved.yaml", dump_settings(self._settings))

    def _run(self, stage: str) -> StageResult:
        started = time.monotonic()
        found = find(self.folder(stage), stage)
        made = (
            found is None
            or found.key != self._recipe(stage).key
            or bool(found.facts.get("ask_again"))  # an endpoint did not answer to the end
        )
        if made or found is None:
            artifact = self._make(stage)
            release_memory()
        else:
            artifact = found
        self._artifacts[stage] = artifact
        published = self._publish(artifact) if stage == "export" else None
        return StageResult(stage, artifact, made, time.monotonic() - started, published)

    def _check_target(self) -> None:
        """Before hours of training: whether its protocol is known and its library installed."""
        if is_address(self._to):
            from slant.publish.publish import check_target

            check_target(self._to)

    def _publish(self, bundle: Artifact) -> Published | None:
        """Send the bundle to ``export.to``, if it is not there; None if there is nothing to do.

        A version that this project has published is not published again: somebody may have made an
        older one the latest since then, and meant it.
        """
        if not is_address(self._to):
            return None
        from slant.publish.publish import is_published, publish_bundle

        manifest = (bundle.path / "manifest.json").read_bytes()
        # Digests: a variable in the address may hold what nobody else should read.
        parts = {"address": self._to.encode(), "manifest": manifest}
        done = {f"{name}_sha256": hashlib.sha256(part).hexdigest() for name, part in parts.items()}
        note, content = self._work / "published.json", json.dumps(done, indent=1) + "\n"
        if note.is_file() and note.read_bytes() == content.encode():
            try:
                with at_most(_IDLE_PATIENCE_S):
                    if is_published(bundle.path, self._to):
                        return None
            except InputError as error:
                self._progress.say(
                    f"export: whether the bundle is still where it was published is not known: "
                    f"{error.message}"
                )
                return None
        published = publish_bundle(bundle.path, self._to, progress=self._progress)
        write_atomically(note, content)
        return published

    @cached_property
    def _base(self) -> BaseModel:
        from slant.model.base import resolve_base

        model = self._settings.model
        return resolve_base(
            model.base, revision=model.revision, start=self._start, progress=self._progress
        )

    @property
    def _tuning_base(self) -> BaseModel:
        """What is tuned: the adapted model where there is one."""
        from slant.train.adapt import adapted_model

        adapt = self._artifacts.get("adapt")
        return self._base if adapt is None else adapted_model(self._base, adapt)

    def _token_counter(self) -> TokenCounter | None:
        """Counts tokens as the model will, for the report of what came in."""
        from slant.ingest.report import TokenCounter
        from slant.model.base import find_tokenizer

        model = self._settings.model
        tokenizer = find_tokenizer(
            model.base, revision=model.revision, start=self._start, progress=self._progress
        )
        if tokenizer is None:
            return None

        def count(texts: list[str]) -> list[int]:
            return [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]

        return TokenCounter(count, self._settings.task.token_limit)

    # The stages import torch; nothing does until one of them is needed.

    def _recipe(self, stage: str) -> Recipe:
        done = self._artifacts
        if stage == "ingest":
            from slant.ingest.stage import ingest_recipe

            settings = self._settings
            return ingest_recipe(
                settings.ingest,
                labels=LabelSet(settings.labels),
                seed=settings.seed,
                start=self._start,
            )
        if stage == "shard":
            from slant.train.shard import shard_recipe

            return shard_recipe(self._settings, done["ingest"], self._base)
        if stage == "adapt":
            from slant.train.adapt import adapt_recipe

            return adapt_recipe(self._settings, done["shard"], self._base)
        if stage == "tune":
            from slant.train.tune import tune_recipe

            return tune_recipe(self._settings, done["shard"], self._tuning_base, self._start)
        if stage == "evaluate":
            from slant.evaluate.stage import evaluate_recipe

            return evaluate_recipe(self._settings, done["ingest"], self._subject(), self._start)
        from slant.export.stage import export_recipe

        return export_recipe(self._settings, done["evaluate"], done["tune"])

    def _subject(self) -> Subject:
        from slant.evaluate.stage import Subject

        return Subject(
            tune=self._artifacts["tune"],
            base=self._base,
            adapted=self._tuning_base,
            adapt=self._artifacts.get("adapt"),
        )

    def _make(self, stage: str) -> Artifact:
        settings, out, progress = self._settings, self.folder(stage), self._progress
        done = self._artifacts
        if stage == "ingest":
            from slant.ingest.stage import run_ingest

            return run_ingest(
                settings.ingest,
                labels=LabelSet(settings.labels),
                seed=settings.seed,
                start=self._start,
                out=out,
                progress=progress,
                counter=self._token_counter(),
            )
        if stage == "shard":
            from slant.train.shard import run_shard

            return run_shard(
                settings,
                ingest=done["ingest"],
                base=self._base,
                out=out,
                progress=progress,
                start=self._start,
            )
        if stage == "adapt":
            from slant.plan.fit import check_fit
            from slant.train.adapt import run_adapt

            check_fit(settings, "adapt", self._base.folder, progress)
            return run_adapt(
                settings, shards=done["shard"], base=self._base, out=out, progress=progress
            )
        if stage == "tune":
            from slant.plan.fit import check_fit
            from slant.train.tune import run_tune

            check_fit(settings, "tune", self._tuning_base.folder, progress)
            return run_tune(
                settings,
                shards=done["shard"],
                base=self._tuning_base,
                out=out,
                progress=progress,
                start=self._start,
            )
        if stage == "evaluate":
            from slant.evaluate.stage import run_evaluate

            return run_evaluate(
                settings,
                ingest=done["ingest"],
                subject=self._subject(),
                out=out,
                progress=progress,
                start=self._start,
            )
        from slant.export.stage import run_export

        return run_export(
            settings,
            ingest=done["ingest"],
            evaluate=done["evaluate"],
            tune=done["tune"],
            base=self._tuning_base,
            out=out,
            progress=progress,
            start=self._start,
        )
