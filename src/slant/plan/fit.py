"""Whether a training fits a card, and what to change where it does not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal

from slant.config.settings import ProjectSettings
from slant.config.training_settings import AdaptSettings, TuneSettings
from slant.errors import ModelError
from slant.model.flops import Shape
from slant.plan.cards import Card, find_card
from slant.plan.memory import Load, training_memory
from slant.plan.shapes import read_shape
from slant.progress import Progress

__all__ = [
    "Verdict",
    "advice",
    "capacity_bytes",
    "check_fit",
    "gib",
    "load_of",
    "refusal",
    "section_of",
    "verdict",
]

Verdict = Literal["fits", "tight", "does not fit"]

_TIGHT = 0.9
# An estimate may be wrong by so much; only what is beyond it is refused without being tried.
_CLEARLY = 1.1
_MOST_DEVICES = 8
_GIB = 1 << 30


def section_of(settings: ProjectSettings, stage: str) -> AdaptSettings | TuneSettings | None:
    """The section of a training stage; None where it is left out."""
    return settings.adapt if stage == "adapt" else settings.tune


def load_of(
    settings: ProjectSettings, stage: Literal["adapt", "tune"], shape: Shape, card: Card
) -> Load:
    """What a stage's training loads a card with."""
    section = section_of(settings, stage)
    assert section is not None
    adapt = stage == "adapt"
    row = settings.shard.sequence_tokens if adapt else settings.task.token_limit
    return Load(
        shape=shape,
        stage=stage,
        method=section.method,
        rank=section.lora.rank,
        has_dropout=section.lora.dropout > 0,
        has_average=isinstance(section, TuneSettings) and section.average > 0,
        half=_is_half(settings.model.dtype, card),
        quantized=settings.model.quantize == "nf4",
        checkpointing=settings.train.activation_checkpointing,
        pass_tokens=max(row, section.tokens_per_batch),
        row_tokens=row,
        devices=settings.train.devices,
        sharded=settings.train.splits_weights,
        cuda=card.is_gpu,
    )


def _is_half(dtype: str, card: Card) -> bool:
    if dtype != "auto":
        return dtype != "float32"
    if card.is_gpu and not card.is_here:
        return True  # every listed card computes bfloat16
    from slant.model.base import computes_bfloat16

    return computes_bfloat16()


def capacity_bytes(card: Card, devices: int) -> int:
    """What one process can have: of a GPU all, of main memory its share."""
    return card.memory_bytes if card.is_gpu else card.memory_bytes // devices


def verdict(load: Load, card: Card) -> Verdict:
    """Whether the training's peak stays within the card's memory; above 90 % of it is tight."""
    share = training_memory(load).total / capacity_bytes(card, load.devices)
    if share > 1:
        return "does not fit"
    return "tight" if share > _TIGHT else "fits"


def advice(load: Load, card: Card, *, most: int = 4) -> list[str]:
    """Settings that make a training fit with room to spare, each with what it would then take.

    Single changes first, pairs only where no single one is enough.
    """
    capacity = capacity_bytes(card, load.devices)
    changes = list(_changes(load, card))
    found: list[str] = []
    for number in (1, 2, 3):
        for chosen in combinations(changes, number):
            changed = load
            for _, values in chosen:
                changed = replace(changed, **values)  # type: ignore[arg-type]
            if changed.quantized and changed.sharded:
                continue
            total = training_memory(changed).total
            if total <= _TIGHT * capacity:
                found.append(f"{' and '.join(words for words, _ in chosen)} ({gib(total)})")
        if found:
            break
    return found[:most]


def _changes(load: Load, card: Card) -> Iterator[tuple[str, dict[str, object]]]:
    if not load.checkpointing:
        yield "train.activation_checkpointing: true", {"checkpointing": True}
    if load.pass_tokens > load.row_tokens:
        limit = capacity_bytes(card, load.devices) * _TIGHT
        tokens = load.pass_tokens
        while tokens > load.row_tokens:
            tokens = max(load.row_tokens, tokens // 2)
            if training_memory(replace(load, pass_tokens=tokens)).total <= limit:
                break
        yield f"{load.stage}.tokens_per_batch: {tokens}", {"pass_tokens": tokens}
    if not load.quantized and load.method == "lora":
        yield "model.quantize: nf4", {"quantized": True}
    if load.method == "full":
        yield f"{load.stage}.method: lora", {"method": "lora"}
    if card.is_gpu and not load.sharded:
        devices = max(2, load.devices)
        while devices <= _MOST_DEVICES:
            split = replace(load, devices=devices, sharded=True)
            if training_memory(split).total <= _TIGHT * card.memory_bytes:
                break
            devices *= 2
        yield (
            f"train: {{devices: {min(devices, _MOST_DEVICES)}, strategy: fsdp}}",
            {"devices": min(devices, _MOST_DEVICES), "sharded": True},
        )


def refusal(load: Load, card: Card) -> ModelError:
    """The error for a training that does not fit."""
    needed = training_memory(load).total
    ways = advice(load, card)
    hint = "It would fit with " + "; or with ".join(ways) + "." if ways else _no_way(load)
    return ModelError(
        f"{load.stage} does not fit {card.title}: a pass of {load.pass_tokens:,} tokens takes "
        f"{gib(needed)} on each device, and {gib(capacity_bytes(card, load.devices))} are there",
        hint=hint,
    )


def _no_way(load: Load) -> str:
    row = "shard.sequence_tokens" if load.stage == "adapt" else "task.token_limit"
    return f"Choose a card with more memory, a smaller model.base or a smaller {row}."


def gib(size: float) -> str:
    """Bytes as ``13.5 GiB``, rounded up so that a bound is never understated."""
    return f"{math.ceil(10 * size / _GIB) / 10:.1f} GiB"


def check_fit(
    settings: ProjectSettings,
    stage: Literal["adapt", "tune"],
    base: Path,
    progress: Progress,
    *,
    card: Card | None = None,
) -> None:
    """Refuse a training that a machine clearly cannot hold, before anything is loaded.

    Training halves its passes where memory runs out, so what counts is a pass of one row, by more
    than the estimate may be wrong. What is merely tight, or too much at the configured
    ``tokens_per_batch``, is said.

    Args:
        settings: the project.
        stage: what is about to be trained.
        base: folder of the base model.
        progress: told of a warning.
        card: to train on; None: this machine's.

    Raises:
        ModelError: it cannot fit; the hint says what to change.
    """
    try:
        shape = read_shape(base)
    except ModelError:
        return  # a family that the plan does not know; loading it will tell more
    card = card or find_card("auto")
    load = load_of(settings, stage, shape, card)
    capacity = capacity_bytes(card, load.devices)
    if training_memory(load.smallest).total > _CLEARLY * capacity:
        raise refusal(load.smallest, card)
    found = verdict(load, card)
    if found == "fits":
        return
    needed = gib(training_memory(load).total)
    words = (
        f"{stage} may run out of memory: about {needed} of {gib(capacity)}"
        if found == "tight"
        else f"{stage} is expected to run out of memory ({needed} of {gib(capacity)}) and then to "
        "go on with smaller passes"
    )
    progress.say(f"{words}; `slant plan` says what to change")
