"""Stage ``adapt``: domain-adaptive pre-training (Gururangan et al. 2020) on unlabelled documents.

The base model learns the domain's languages and registers by next-token loss, through adapters that
are then added to its weights. Perplexity per language is measured before and after on documents
held out for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slant.artifacts import SCRATCH, Artifact, Recipe
from slant.config.settings import ProjectSettings
from slant.config.training_settings import AdaptSettings
from slant.disk import write_atomically
from slant.errors import InputError
from slant.memory import release_memory
from slant.model.adapter import load_merged, save_adapter
from slant.model.base import BaseModel
from slant.model.folder import save_causal_lm
from slant.model.label_head import plain_model
from slant.progress import Progress
from slant.shards.reader import ShardReader
from slant.train.compiled import compile_layers, is_to_compile
from slant.train.interfaces import TrainingPlan
from slant.train.job import Job, decoder_layers, load_trainable
from slant.train.launch import carry_out
from slant.train.loop import autocast, to_device, train
from slant.train.objective import AdaptObjective
from slant.train.parallel import World, shard_model, whole
from slant.train.schedule import AdaptSchedule, adapt_batch
from slant.train.speed import Speedometer, training_facts
from slant.train.streams import open_shards

__all__ = ["adapt_recipe", "adapted_model", "run_adapt", "train_adapt"]

MODEL_FOLDER = "model"
_ADAPTER = "adapter"
_BEFORE = "perplexity-before.json"
# How often to save, and how much goes through at once, change nothing of what is learnt.
_NO_SAY = {"checkpoint_every_s", "keep_checkpoints", "tokens_per_batch"}


def adapt_recipe(settings: ProjectSettings, shards: Artifact, base: BaseModel) -> Recipe:
    """What the adapted model is made from."""
    section = settings.adapt
    return Recipe(
        "adapt",
        {"shard": shards.digest, "base": base.digest},
        {
            "adapt": section.model_dump(exclude=_NO_SAY) if section else None,
            "model": settings.model.model_dump(),
        },
        settings.seed,
    )


def run_adapt(
    settings: ProjectSettings,
    *,
    shards: Artifact,
    base: BaseModel,
    out: Path,
    progress: Progress,
) -> Artifact:
    """Adapt the base model to the documents; the result is a plain Hugging Face folder.

    Raises:
        InputError: there is no document to adapt to.
        SlantError, KeyboardInterrupt: as ``run_tune``.
    """
    if settings.adapt is None:
        raise InputError("adapt is null in the configuration: there is nothing to do")
    recipe = adapt_recipe(settings, shards, base)
    job = Job("adapt", settings, shards.path, base, out, recipe.key, Path())
    return carry_out(job, recipe, train_adapt, progress)


def train_adapt(job: Job, world: World, progress: Progress) -> dict[str, Any]:
    """Train in this process, with the others of ``world``; returns the artifact's facts."""
    section = _section(job)
    shards, spec = job.open_shards()
    cache_bytes = job.settings.shard.cache_bytes
    rows, heldout = (
        {
            lang: open_shards(shards, f"adapt/{part}/{lang}", cache_disk_bytes=cache_bytes)
            for lang in sorted(shards.facts.get("adapt", {}))
        }
        for part in ("train", "heldout")
    )
    if not any(len(reader) for reader in rows.values()):
        raise InputError(
            "there is no document to adapt to",
            hint="Add ingest.documents, or set `adapt: null` to leave this stage out.",
        )
    objective = AdaptObjective(load_trainable(job, section, world.loading_device))
    shard_model(objective, decoder_layers(objective.causal_lm), world)
    schedule = AdaptSchedule(
        list(rows.values()), section, seed=job.settings.seed, pad_token_id=spec.pad_token_id
    )
    if is_to_compile(job.settings, world, schedule.num_tokens):
        compile_layers(objective, plain_model(objective.causal_lm).get_decoder(), progress)
    plan = TrainingPlan.from_settings(
        section, num_steps=schedule.num_steps, seed=job.settings.seed, dtype=job.dtype
    )
    perplexity = partial(_perplexity, objective, heldout, plan, world, progress)
    before = _remembered(job.out / SCRATCH / _BEFORE, perplexity, world)
    speed = Speedometer.measure(job, world, _mean_document(shards))
    with job.open_trackers(world, progress) as trackers:
        state = train(
            objective,
            schedule,
            plan,
            job.out,
            progress,
            name="adapt",
            identity=job.key,
            world=world,
            speed=speed,
            observe=trackers.log,
        )
    after = perplexity()
    trained = whole(objective, world, lambda: AdaptObjective(load_trainable(job, section, "cpu")))
    if trained is None:
        return {}
    _save_trained(job, trained.causal_lm)
    del objective, perplexity, trained  # before another model of this size is loaded
    release_memory()
    _save_merged(job)
    return {
        **training_facts(state, world, speed),
        "perplexity": {
            lang: {"before": before[lang], "after": after[lang]} for lang in sorted(before)
        },
    }


def _mean_document(shards: Artifact) -> float:
    """Tokens of a document, on the average over all languages."""
    counts = shards.facts["adapt"].values()
    tokens, documents = (sum(int(c[k]) for c in counts) for k in ("train_tokens", "train"))
    return tokens / max(1, documents)


def _section(job: Job) -> AdaptSettings:
    assert job.settings.adapt is not None  # run_adapt has looked
    return job.settings.adapt


def _remembered(
    path: Path, measure: Callable[[], dict[str, float]], world: World
) -> dict[str, float]:
    """Perplexity of the untouched base; kept in a file, since a resumed run starts adapted."""
    if world.sum([float(world.is_main and path.exists())])[0]:
        kept: dict[str, float] = json.loads(path.read_text("utf-8"))
        return kept
    measured = measure()
    if world.is_main:
        write_atomically(path, json.dumps(measured))
    return measured


@torch.no_grad()
def _perplexity(
    objective: AdaptObjective,
    heldout: Mapping[str, ShardReader],
    plan: TrainingPlan,
    world: World,
    progress: Progress,
) -> dict[str, float]:
    """exp of the mean next-token loss over the held-out documents of each language."""
    objective.eval()
    result = {}
    with progress.task("perplexity", sum(map(len, heldout.values())), "rows") as task:
        for lang, reader in heldout.items():
            loss, count = 0.0, 0.0
            for first in range(0, len(reader), world.size):
                row = first + world.rank
                # A process without a row of its own goes through another's with the others.
                counts = row < len(reader)
                batch = to_device(
                    adapt_batch([reader[row if counts else first]], float(counts), 0), world.device
                )
                with autocast(torch.device(world.device), plan.dtype):
                    loss += float(objective(batch))
                count += int((batch.targets >= 0).sum()) if counts else 0
                task.advance(min(world.size, len(reader) - first))
            loss, count = world.sum([loss, count])
            if count:
                result[lang] = round(math.exp(loss / count), 4)
    return result


def _save_trained(job: Job, causal_lm: nn.Module) -> None:
    """Write the adapter where only an interrupted run needs it, or the whole model."""
    if _section(job).method == "full":
        plain, out = plain_model(causal_lm), job.out / MODEL_FOLDER
        save_causal_lm(plain, job.base.folder, out, dtype=job.dtype)
    else:
        save_adapter(causal_lm, job.out / SCRATCH / _ADAPTER, job.base.name)


def _save_merged(job: Job) -> None:
    """Write base and adapter as one Hugging Face folder."""
    if _section(job).method == "lora":
        merged = load_merged(
            job.base.folder,
            job.out / SCRATCH / _ADAPTER,
            dtype=job.dtype,
            quantize=job.settings.model.quantize,
        )
        save_causal_lm(merged, job.base.folder, job.out / MODEL_FOLDER)


def adapted_model(base: BaseModel, adapt: Artifact) -> BaseModel:
    """The adapted model as a base for tuning: under the base's name, with its own digest."""
    return replace(base, folder=adapt.path / MODEL_FOLDER, digest=adapt.digest)
