"""Stage ``tune``: fine-tune on labelled examples along the TaskSpec path.

Training computes what scoring reads: the label rows of the LM head at the last prompt token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from slant.artifacts import Artifact, Recipe, digest_json
from slant.config.settings import ProjectSettings
from slant.errors import ModelError
from slant.model.adapter import digest_adapter
from slant.model.base import BaseModel
from slant.model.label_head import LabelModel, check_label_head, plain_model
from slant.model.last_layer import narrow_last_layer
from slant.model.tuned import digest_tuned, save_tuned
from slant.progress import Progress
from slant.task.spec import TaskSpec
from slant.train.checkpoints import State
from slant.train.compiled import compile_layers, is_to_compile
from slant.train.interfaces import SCORE, TrainingPlan
from slant.train.job import Job, decoder_layers, load_trainable
from slant.train.launch import carry_out
from slant.train.loop import EVENTS_FILE, train
from slant.train.objective import TuneObjective
from slant.train.parallel import World, shard_model, whole
from slant.train.schedule import Examples, TuneSchedule
from slant.train.speed import Speedometer, training_facts
from slant.train.streams import open_shards
from slant.train.targets import class_weight_vector, target_distribution
from slant.train.validation import TuneValidation

__all__ = ["run_tune", "train_tune", "tune_recipe"]

# How often to save, and how much goes through at once, change nothing of what is learnt.
_NO_SAY = {"checkpoint_every_s", "keep_checkpoints", "tokens_per_batch"}


def tune_recipe(
    settings: ProjectSettings, shards: Artifact, base: BaseModel, start: Path | None = None
) -> Recipe:
    """What the tuned checkpoint is made from."""
    inputs = {"shard": shards.digest, "base": base.digest}
    if settings.tune.start_from is not None:
        inputs["start_from"] = digest_adapter((start or Path()) / settings.tune.start_from)
    return Recipe(
        "tune",
        inputs,
        {"tune": settings.tune.model_dump(exclude=_NO_SAY), "model": settings.model.model_dump()},
        settings.seed,
    )


def run_tune(
    settings: ProjectSettings,
    *,
    shards: Artifact,
    base: BaseModel,
    out: Path,
    progress: Progress,
    start: Path | None = None,
) -> Artifact:
    """Tune on the training examples of ``shards``.

    Args:
        settings: the project; ``tune``, ``train``, ``model`` and ``seed`` are used.
        shards: of the shard stage.
        base: the base model, or the adapted one.
        out: gets the trained weights (see ``model.tuned``), ``slant.json`` and ``events.jsonl``.
        progress: told of steps and validation.
        start: folder that a relative ``tune.start_from`` starts from; None: the present one.

    Raises:
        SlantError: the data, the model or the devices cannot be used; nothing that was saved is
            lost.
        KeyboardInterrupt: SIGINT or SIGTERM came; the next call goes on.
    """
    recipe = tune_recipe(settings, shards, base, start)
    job = Job("tune", settings, shards.path, base, out, recipe.key, start or Path())
    return carry_out(job, recipe, train_tune, progress)


def train_tune(job: Job, world: World, progress: Progress) -> dict[str, Any]:
    """Train in this process, with the others of ``world``; returns the artifact's facts."""
    shards, spec = job.open_shards()
    section, seed = job.settings.tune, job.settings.seed
    cache_bytes = job.settings.shard.cache_bytes
    examples, validation = (
        Examples.read(
            open_shards(shards, f"tune/{split}", cache_disk_bytes=cache_bytes), len(spec.labels)
        )
        for split in ("train", "validation")
    )
    objective = _objective(job, spec, world.loading_device)
    # Found out by running the model, which split weights do not allow outside a training pass.
    together = section.document_once and objective.model.shares_rows
    shard_model(objective, decoder_layers(objective.model.causal_lm), world)
    schedule = TuneSchedule(
        examples,
        *_targets(job, examples, spec),
        section.model_copy(update={"document_once": together}),
        seed=seed,
        pad_token_id=spec.pad_token_id,
    )
    if is_to_compile(job.settings, world, schedule.num_tokens):
        compile_layers(objective, plain_model(objective.model.causal_lm).get_decoder(), progress)
    plan = TrainingPlan.from_settings(
        section, num_steps=schedule.num_steps, seed=seed, dtype=job.dtype
    )
    speed = Speedometer.measure(job, world, sum(map(len, examples.ids)) / len(examples))
    with job.open_trackers(world, progress) as trackers:
        state = train(
            objective,
            schedule,
            plan,
            job.out,
            progress,
            name="tune",
            identity=job.key,
            world=world,
            validation=TuneValidation(
                objective,
                validation,
                steps=schedule.validation_steps(section.validations_per_epoch),
                dtype=job.dtype,
                world=world,
                pad_token_id=spec.pad_token_id,
                together=together,
            ),
            speed=speed,
            observe=trackers.log,
        )
    trained = whole(objective, world, lambda: _objective(job, spec, "cpu"))
    if trained is None:
        return {}
    save_tuned(job.out, trained.model, job.base)
    tuned = spec.with_weights(digest_json([job.base.digest, digest_tuned(job.out)]))
    tuned.save(job.out)
    facts = training_facts(state, world, speed)
    return {"examples": len(examples), **facts, **_curves(job.out / EVENTS_FILE, state)}


def _objective(job: Job, spec: TaskSpec, device: str) -> TuneObjective:
    """The model with its label head, on ``device``, or on the CPU if it is to be split."""
    section = job.settings.tune
    causal_lm = load_trainable(job, section, device)
    model = LabelModel(
        causal_lm, spec.verbalizer.token_ids, train_rows=section.label_head == "trained"
    ).to(device)
    config: Any = causal_lm.config
    check_label_head(model, config.vocab_size)
    if not job.settings.train.activation_checkpointing:  # which computes again, outside of a pass
        narrow_last_layer(plain_model(causal_lm).get_decoder())
    return TuneObjective(model)


def _targets(job: Job, examples: Examples, spec: TaskSpec) -> tuple[Any, Any]:
    """Targets ``(N, L)`` and weights ``(N,)`` of the training examples."""
    section, num_labels = job.settings.tune, len(spec.labels)
    counts = np.bincount(examples.labels, minlength=num_labels)
    return target_distribution(
        examples.labels,
        num_labels,
        shares=examples.shares,
        soft=section.soft_labels,
        smoothing=section.label_smoothing,
        class_weights=class_weight_vector(section.class_weights, list(spec.labels), counts),
    )


def _curves(events: Path, state: State) -> dict[str, Any]:
    """Curves of training and validation, for the report."""
    if state.best is None:
        raise ModelError("no validation was done, so there are no best weights to keep")
    records = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    return {
        "best_step": state.best.step,
        "losses": [[r["step"], round(r["loss"], 4)] for r in records if "loss" in r],
        "validation": [
            [r["step"], round(r["validation_loss"], 4), round(r[SCORE], 4)]
            for r in records
            if SCORE in r
        ],
    }
