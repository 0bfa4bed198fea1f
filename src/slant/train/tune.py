"""Stage ``tune``: fine-tune on labelled examples along the TaskSpec path.

Training computes what scoring reads: the label rows of the LM head at the last prompt token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slant.artifacts import Artifact, Recipe, build, digest_file, digest_json, load
from slant.config.settings import ProjectSettings, TuneSettings
from slant.model.adapter import attach_lora, save_adapter
from slant.model.base import BaseModel, load_causal_lm, pick_device, resolve_dtype
from slant.model.batches import pad_batch, token_budget_batches
from slant.model.label_head import LabelModel, check_label_head
from slant.progress import Progress
from slant.score.decision import probabilities
from slant.score.torch_engine import TorchEngine
from slant.shards.order import length_bucketed_steps, mixed_order
from slant.shards.reader import ShardReader
from slant.task.spec import TaskSpec
from slant.train.loop import EVENTS_FILE, TrainingPlan, train
from slant.train.objective import TuneBatch, TuneObjective
from slant.train.streams import open_shards

__all__ = ["ADAPTER_FOLDER", "run_tune", "tune_recipe"]

ADAPTER_FOLDER = "adapter"


def tune_recipe(settings: ProjectSettings, shards: Artifact, base: BaseModel) -> Recipe:
    """What the tuned checkpoint is made from."""
    return Recipe(
        "tune",
        {"shard": shards.digest, "base": base.digest},
        {
            "tune": settings.tune.model_dump(exclude={"checkpoint_every_s"}),
            "model": settings.model.model_dump(),
        },
        settings.seed,
    )


def run_tune(
    settings: ProjectSettings,
    *,
    shards: Artifact,
    base: BaseModel,
    out: Path,
    progress: Progress,
) -> Artifact:
    """Tune an adapter on the training examples of ``shards``.

    Args:
        settings: the project; ``tune``, ``model`` and ``seed`` are used.
        shards: of the shard stage.
        base: the base model, or the adapted one.
        out: gets ``adapter/`` (PEFT), ``slant.json`` and ``events.jsonl``.
        progress: told of steps and validation.
    """
    spec = TaskSpec.load(shards.path)
    section = settings.tune
    with build(out, tune_recipe(settings, shards, base)) as builder:
        dtype, device = resolve_dtype(settings.model.dtype), pick_device()
        causal_lm = load_causal_lm(
            base.folder, dtype=dtype, quantize=settings.model.quantize, device=device
        )
        adapted = attach_lora(causal_lm, **section.lora.model_dump(), seed=settings.seed)
        model = LabelModel(adapted, spec.verbalizer.token_ids).to(device)
        check_label_head(model, causal_lm.config.vocab_size)
        cache_bytes = settings.shard.cache_bytes
        data, validation = (
            _Examples(open_shards(shards, f"tune/{split}", cache_disk_bytes=cache_bytes))
            for split in ("train", "validation")
        )
        schedule = _Schedule(data, section, settings.seed, spec.pad_token_id)
        validate = _Validation(model, validation, section, spec.pad_token_id, schedule.epoch_ends)
        plan = TrainingPlan.from_settings(
            section, num_steps=schedule.num_steps, seed=settings.seed, dtype=dtype
        )
        done = train(
            TuneObjective(model),
            schedule.batches,
            plan,
            out,
            progress,
            name="tune",
            after_step=validate,
        )
        save_adapter(adapted, out / ADAPTER_FOLDER, base.name)
        adapter = digest_file(out / ADAPTER_FOLDER / "adapter_model.safetensors")
        spec.with_weights(digest_json([base.digest, adapter])).save(out)
        builder.facts.update(
            examples=len(data.ids),
            steps=done.steps,
            tokens=done.tokens,
            seconds=round(done.seconds, 1),
            **_curves(out / EVENTS_FILE),
        )
    return load(out, "tune")


class _Examples:
    """The encoded examples of one split, in memory: token ids, label indices and languages."""

    def __init__(self, reader: ShardReader) -> None:
        self.ids: list[NDArray[np.int32]] = []
        self.labels: list[int] = []
        self.langs: list[str] = []
        for sample in reader:
            self.ids.append(np.array(sample["input_ids"], dtype=np.int32))
            self.labels.append(int(sample["label"]))
            self.langs.append(sample["lang"])


class _Schedule:
    """Which examples make up which step, and in which passes they go through the model."""

    def __init__(
        self, data: _Examples, section: TuneSettings, seed: int, pad_token_id: int
    ) -> None:
        self._data = data
        self._tokens_per_batch = section.tokens_per_batch
        self._pad_token_id = pad_token_id
        lengths = np.array([len(ids) for ids in data.ids], dtype=np.int64)
        streams = np.unique(np.array(data.langs, dtype=np.str_), return_inverse=True)[1]
        self._steps: list[Sequence[int]] = []
        self.epoch_ends: list[int] = []
        for epoch in range(section.epochs):
            order = mixed_order(streams, section.language_temperature, seed, epoch)
            for step in length_bucketed_steps(
                lengths, seed, epoch, section.examples_per_step, order=order
            ):
                self._steps.append(step.tolist())
            self.epoch_ends.append(len(self._steps))
        self.num_steps = len(self._steps)

    def batches(self, step: int) -> Iterator[TuneBatch]:
        """The passes of one step, each under the token budget."""
        chosen = self._steps[step]
        lengths = [len(self._data.ids[i]) for i in chosen]
        for batch in token_budget_batches(lengths, self._tokens_per_batch):
            members = [chosen[position] for position in batch]
            input_ids, attention_mask = pad_batch(
                [self._data.ids[i].tolist() for i in members],
                self._pad_token_id,
            )
            labels = torch.tensor([self._data.labels[i] for i in members])
            yield TuneBatch(input_ids, attention_mask, labels, 1 / len(chosen))


class _Validation:
    """Loss and macro-F1 on the validation split at the end of each epoch."""

    def __init__(
        self,
        model: LabelModel,
        data: _Examples,
        section: TuneSettings,
        pad_token_id: int,
        epoch_ends: Sequence[int],
    ) -> None:
        self._model = model
        self._engine = TorchEngine(model, pad_token_id, section.tokens_per_batch)
        self._data = data
        self._epoch_ends = frozenset(epoch_ends)

    def __call__(self, step: int) -> dict[str, float]:
        if step not in self._epoch_ends:
            return {}
        from sklearn.metrics import f1_score

        self._model.eval()
        logits_NL = self._engine.label_logits([ids.tolist() for ids in self._data.ids])
        self._model.train()
        gold = np.array(self._data.labels)
        chosen = probabilities(logits_NL, 1.0)[np.arange(len(gold)), gold]
        classes = range(logits_NL.shape[1])
        return {
            "validation_loss": float(-np.log(np.maximum(chosen, 1e-12)).mean()),
            "validation_macro_f1": float(
                f1_score(
                    gold,
                    logits_NL.argmax(axis=1),
                    labels=list(classes),
                    average="macro",
                    zero_division=0,
                )
            ),
        }


def _curves(events: Path) -> dict[str, Any]:
    """Training and validation curves, for the report."""
    records = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    return {
        "losses": [[r["step"], round(r["loss"], 4)] for r in records],
        "validation": [
            [r["step"], round(r["validation_loss"], 4), round(r["validation_macro_f1"], 4)]
            for r in records
            if "validation_loss" in r
        ],
    }
