"""Stage ``adapt``: domain-adaptive pre-training (Gururangan et al. 2020) on unlabelled documents.

The base model learns the domain's languages and registers by next-token loss, through adapters that
are then added to its weights. Perplexity per language is measured before and after on documents
held out for it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slant.artifacts import Artifact, Recipe, build, load, write_atomically
from slant.config.settings import AdaptSettings, ProjectSettings
from slant.errors import InputError
from slant.model.adapter import attach_lora, load_merged, save_adapter
from slant.model.base import (
    TOKENIZER_FILES,
    BaseModel,
    load_causal_lm,
    pick_device,
    quiet_transformers,
    resolve_dtype,
)
from slant.progress import Progress
from slant.shards.order import mixed_order
from slant.shards.pack import positions
from slant.shards.reader import ShardReader
from slant.train.loop import TrainingPlan, autocast, to_device, train
from slant.train.objective import AdaptBatch, AdaptObjective
from slant.train.streams import open_shards

__all__ = ["adapt_recipe", "run_adapt"]

MODEL_FOLDER = "model"
_BEFORE = "perplexity-before.json"


def adapt_recipe(settings: ProjectSettings, shards: Artifact, base: BaseModel) -> Recipe:
    """What the adapted model is made from."""
    section = settings.adapt
    return Recipe(
        "adapt",
        {"shard": shards.digest, "base": base.digest},
        {
            "adapt": section.model_dump(exclude={"checkpoint_every_s"}) if section else None,
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
    """
    section = settings.adapt
    if section is None:
        raise InputError("adapt is null in the configuration: there is nothing to do")
    langs = sorted(shards.facts.get("adapt", {}))
    cache_bytes = settings.shard.cache_bytes
    rows, heldout = (
        {
            lang: open_shards(shards, f"adapt/{part}/{lang}", cache_disk_bytes=cache_bytes)
            for lang in langs
        }
        for part in ("train", "heldout")
    )
    if not any(len(reader) for reader in rows.values()):
        raise InputError(
            "there is no document to adapt to",
            hint="Add ingest.documents, or set `adapt: null` to leave this stage out.",
        )
    with build(out, adapt_recipe(settings, shards, base)) as builder:
        dtype, device = resolve_dtype(settings.model.dtype), pick_device()
        causal_lm = load_causal_lm(
            base.folder, dtype=dtype, quantize=settings.model.quantize, device=device
        )
        model = attach_lora(causal_lm, **section.lora.model_dump(), seed=settings.seed)
        objective = AdaptObjective(model)
        before = _remembered(
            builder.scratch / _BEFORE, lambda: _perplexity(objective, heldout, dtype, progress)
        )
        schedule = _Schedule(list(rows.values()), section, settings.seed)
        plan = TrainingPlan.from_settings(
            section, num_steps=schedule.num_steps, seed=settings.seed, dtype=dtype
        )
        done = train(objective, schedule.batches, plan, out, progress, name="adapt")
        after = _perplexity(objective, heldout, dtype, progress)
        adapter = builder.scratch / "adapter"
        save_adapter(model, adapter, base.name)
        _save_merged(base, adapter, out / MODEL_FOLDER, dtype)
        builder.facts.update(
            tokens=done.tokens,
            steps=done.steps,
            seconds=round(done.seconds, 1),
            perplexity={
                lang: {"before": before[lang], "after": after[lang]} for lang in sorted(before)
            },
        )
    return load(out, "adapt")


class _Schedule:
    """Which packed rows make up which step: epochs of all languages, mixed and shuffled."""

    def __init__(self, readers: Sequence[ShardReader], section: AdaptSettings, seed: int) -> None:
        self._rows = [(reader, i) for reader in readers for i in range(len(reader))]
        self._streams = np.repeat(np.arange(len(readers)), [len(reader) for reader in readers])
        self._temperature = section.language_temperature
        self._seed = seed
        self._orders: dict[int, np.ndarray[Any, np.dtype[np.int64]]] = {}
        sizes = [len(reader[i]["tokens"]) for reader, i in self._rows]
        mean_tokens = sum(sizes) / len(sizes)
        self._rows_per_step = max(1, round(section.tokens_per_step / mean_tokens))
        wanted = min(section.tokens / mean_tokens, section.epochs * len(sizes))
        self._num_rows = max(1, round(wanted))
        self.num_steps = math.ceil(self._num_rows / self._rows_per_step)

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        if epoch not in self._orders:
            order = mixed_order(self._streams, self._temperature, self._seed, epoch)
            self._orders = {epoch: order}
        return self._orders[epoch]

    def batches(self, step: int) -> Iterator[AdaptBatch]:
        """The rows of one step, each a batch of its own."""
        first = step * self._rows_per_step
        samples = []
        for number in range(first, min(first + self._rows_per_step, self._num_rows)):
            epoch, place = divmod(number, len(self._rows))
            reader, index = self._rows[int(self._order(epoch)[place])]
            samples.append(reader[index])
        targets = sum(len(s["tokens"]) - len(s["lengths"]) for s in samples)
        for sample in samples:
            yield _batch(sample, 1 / max(1, targets))


def _batch(sample: Mapping[str, Any], share: float) -> AdaptBatch:
    tokens = torch.from_numpy(np.array(sample["tokens"], dtype=np.int64))
    targets = torch.full_like(tokens, -100)
    targets[:-1] = tokens[1:]
    # The last token of a document has no next one in its row.
    targets[torch.from_numpy(np.cumsum(sample["lengths"], dtype=np.int64)) - 1] = -100
    return AdaptBatch(tokens, torch.from_numpy(positions(sample["lengths"])), targets, share)


def _remembered(path: Path, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Perplexity of the untouched base; kept in a file, since a resumed run starts adapted."""
    if path.exists():
        kept: dict[str, float] = json.loads(path.read_text("utf-8"))
        return kept
    measured = measure()
    write_atomically(path, json.dumps(measured))
    return measured


@torch.no_grad()
def _perplexity(
    objective: AdaptObjective,
    heldout: Mapping[str, ShardReader],
    dtype: torch.dtype,
    progress: Progress,
) -> dict[str, float]:
    """exp of the mean next-token loss over the held-out documents of each language."""
    objective.eval()
    device = next(objective.parameters()).device
    result = {}
    with progress.task("perplexity", sum(map(len, heldout.values())), "rows") as task:
        for lang, reader in heldout.items():
            loss, count = 0.0, 0
            for sample in reader:
                batch = to_device(_batch(sample, 1.0), device)
                with autocast(device, dtype):
                    loss += float(objective(batch))
                count += int((batch.targets >= 0).sum())
                task.advance()
            if count:
                result[lang] = round(math.exp(loss / count), 4)
    return result


def _save_merged(base: BaseModel, adapter: Path, out: Path, dtype: torch.dtype) -> None:
    """Write base + adapter as a Hugging Face folder with the base's own tokenizer files."""
    merged = load_merged(base.folder, adapter, dtype=dtype)
    with quiet_transformers():
        merged.save_pretrained(out)
    for name in TOKENIZER_FILES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, out / name)


def adapted_model(base: BaseModel, adapt: Artifact) -> BaseModel:
    """The adapted model as a base for tuning: under the base's name, with its own digest."""
    return BaseModel(base.name, adapt.path / MODEL_FOLDER, adapt.digest)
