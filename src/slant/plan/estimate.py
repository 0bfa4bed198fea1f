"""A plan: memory, speed, hours and cost of the training stages on a card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from slant.config.settings import ProjectSettings
from slant.config.training_settings import AdaptSettings, TuneSettings
from slant.model.flops import Flops, Shape, flops_per_token, matmul_rate
from slant.plan.cards import Card, find_card
from slant.plan.fit import Verdict, advice, capacity_bytes, load_of, section_of, verdict
from slant.plan.memory import Load, Memory, host_bytes, training_memory
from slant.plan.shapes import find_shape
from slant.plan.tokens import TokenCounts

__all__ = ["Plan", "StagePlan", "make_plan"]

# Shares of the peak that training reaches. Assumed for GPUs: published are 46 to 64 % for full
# training of a 7B model on A100 and H100 (llm-foundry, scripts/train/benchmarking) and about 60 %
# for compiled LoRA on an RTX 4090 (torchtune's README); slant runs neither compiled nor with fused
# kernels for adapters. NF4 costs a fifth to a third of the speed there.
_GPU_SHARE = 0.40
_NF4_SPEED = 0.75
_DEVICES_SHARE = 0.90
# On a CPU all that is not a matrix product takes its own time, however fast the products are: the
# operations a second that it alone would allow, as seen with Gemma 270M and compiled layers on two
# cores (see benchmarks/results/train.md); without a compiler it is slower. Larger models have less
# of it.
_CPU_REST = {"tune": 1.1e12, "adapt": 1.4e12}


@final
@dataclass(frozen=True)
class StagePlan:
    """What one stage takes.

    Attributes:
        stage: ``adapt`` or ``tune``.
        load: what its memory was reckoned from.
        memory: peak of each device.
        capacity: bytes that each has.
        verdict: whether the one is within the other.
        flops: of a token; activations computed again are not in it.
        tokens_per_s: of all devices together.
        tokens: that will be trained on; None: not known.
        hours: of all of them and of what is measured in between; None: not known.
        cost: None: hours or price are not known.
        advice: settings that would make it fit.
    """

    stage: Literal["adapt", "tune"]
    load: Load
    memory: Memory
    capacity: int
    verdict: Verdict
    flops: Flops
    tokens_per_s: float
    tokens: int | None
    hours: float | None
    cost: float | None
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``: bytes, tokens, hours."""
        return {
            "stage": self.stage,
            "verdict": self.verdict,
            "memory_bytes": {**self.memory.parts, "total": self.memory.total},
            "capacity_bytes": self.capacity,
            "tokens_per_pass": self.load.pass_tokens,
            "flops_per_token": round(self.flops.total),
            "tokens_per_s": round(self.tokens_per_s, 1),
            "tokens": self.tokens,
            "hours": None if self.hours is None else round(self.hours, 3),
            "cost": None if self.cost is None else round(self.cost, 2),
            "advice": list(self.advice),
        }


@final
@dataclass(frozen=True)
class Plan:
    """What a project's training takes on a card.

    Attributes:
        base: name of the base model.
        shape: its sizes.
        card: what is planned for.
        devices: how many of them.
        stages: adapt, if there is one, and tune.
        host_bytes: main memory that putting the adapters into the base takes.
        host_capacity: main memory of this machine, where it is what is planned for.
        notes: where each figure comes from: what was counted, measured, published or assumed.
    """

    base: str
    shape: Shape
    card: Card
    devices: int
    stages: tuple[StagePlan, ...]
    host_bytes: int
    host_capacity: int | None
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every stage does."""
        return all(stage.verdict != "does not fit" for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "schema": "slant.plan/1",
            "base": self.base,
            "parameters": self.shape.num_params,
            "card": self.card.name,
            "devices": self.devices,
            "fits": self.fits,
            "host_bytes": self.host_bytes,
            "host_capacity_bytes": self.host_capacity,
            "stages": [stage.to_json() for stage in self.stages],
            "notes": list(self.notes),
        }


def make_plan(
    settings: ProjectSettings,
    start: Path,
    *,
    counts: TokenCounts | None,
    counts_note: str = "",
    card: str | None = None,
) -> Plan:
    """Reckon what the training stages of a project take; loads and downloads no weights.

    Args:
        settings: the project.
        start: folder that relative paths of it start from.
        counts: tokens of its corpus; None: not known.
        counts_note: why they are not.
        card: name of the card; None: that of ``plan.card``.

    Raises:
        UsageError: there is no such card or base model.
        ModelError: the sizes of the base model cannot be found out.
    """
    found = find_card(card or settings.plan.card)
    model = settings.model
    shape, source = find_shape(model.base, revision=model.revision, start=start)
    half = load_of(settings, "tune", shape, found).half
    rate, rate_note = _rate(found, half=half)
    devices = settings.train.devices
    if devices > 1:
        rate *= devices * _DEVICES_SHARE if found.is_gpu else 1.0
    price = settings.plan.price_per_hour.get(found.name)
    stages = tuple(
        _stage(settings, stage, shape, found, counts=counts, rate=rate, price=price)
        for stage in _stages(settings)
    )
    notes = [
        f"sizes: {source}",
        f"tokens: {counts.source if counts else counts_note or 'not known'}",
        f"memory of the card: {found.source}",
        f"speed: {rate_note}",
        "assumed: training reaches "
        + ", ".join(f"{_share(stage.load, rate):.0%} of it in {stage.stage}" for stage in stages),
    ]
    if devices > 1 and found.is_gpu:
        notes.append(f"assumed: {devices} devices do {_DEVICES_SHARE:.0%} of {devices} times one")
    if price is None and found.is_gpu:
        notes.append(f"cost: set plan.price_per_hour: {{{found.name}: …}}")
    return Plan(
        base=model.base,
        shape=shape,
        card=found,
        devices=devices,
        stages=stages,
        host_bytes=max(host_bytes(stage.load) for stage in stages),
        host_capacity=find_card("cpu").memory_bytes if found.is_here else None,
        notes=tuple(notes),
    )


def _stages(settings: ProjectSettings) -> tuple[Literal["adapt", "tune"], ...]:
    return ("tune",) if settings.adapt is None else ("adapt", "tune")


def _rate(card: Card, *, half: bool) -> tuple[float, str]:
    """Operations a second that one device does at most, and how that is known."""
    peak = card.half_flops if half else card.single_flops
    kind = "bfloat16" if half else "float32"
    if peak is not None:
        return peak, f"published peak: {peak / 1e12:.0f} TFLOP/s ({kind}, dense)"
    import torch

    device = "cuda" if card.is_gpu else "cpu"
    measured = matmul_rate(device, torch.bfloat16 if half else torch.float32)
    return measured, f"measured now: {measured / 1e9:,.0f} GFLOP/s in {kind} matrix products"


def _share(load: Load, rate: float) -> float:
    """Share of the rate of matrix products that training is assumed to reach."""
    if not load.cuda:
        return 1 / (1 + rate / _CPU_REST[load.stage])
    return _GPU_SHARE * (_NF4_SPEED if load.quantized else 1.0)


def _stage(
    settings: ProjectSettings,
    stage: Literal["adapt", "tune"],
    shape: Shape,
    card: Card,
    *,
    counts: TokenCounts | None,
    rate: float,
    price: float | None,
) -> StagePlan:
    section = section_of(settings, stage)
    assert section is not None
    load = load_of(settings, stage, shape, card)
    rate *= _share(load, rate)
    flops = flops_per_token(
        shape,
        row_tokens=_row_tokens(load, counts),
        head="vocabulary" if stage == "adapt" else "labels",
        method=section.method,
        rank=section.lora.rank,
        num_labels=len(settings.labels),
        narrowed=not load.checkpointing,
    )
    tokens, forward_only = _tokens(section, counts)
    cost_per_token = flops.recomputed if load.checkpointing else flops.total
    hours = None
    if tokens is not None:
        hours = (tokens * cost_per_token + forward_only * flops.forward) / rate / 3600
    found = verdict(load, card)
    return StagePlan(
        stage=stage,
        load=load,
        memory=training_memory(load),
        capacity=capacity_bytes(card, load.devices),
        verdict=found,
        flops=flops,
        tokens_per_s=rate / cost_per_token,
        tokens=tokens,
        hours=hours,
        cost=None if hours is None or price is None else hours * price * load.devices,
        advice=tuple(advice(load, card)) if found != "fits" else (),
    )


def _row_tokens(load: Load, counts: TokenCounts | None) -> float:
    """How far attention reaches: the mean prompt; for packed rows, at most a row."""
    if load.stage == "tune" and counts and counts.examples:
        return min(load.row_tokens, counts.tune / counts.examples)
    return load.row_tokens


def _tokens(
    section: AdaptSettings | TuneSettings, counts: TokenCounts | None
) -> tuple[int | None, int]:
    """Tokens that are trained on, and those that are only measured on."""
    if isinstance(section, AdaptSettings):
        if counts is None:
            return section.tokens, 0
        return min(section.tokens, round(section.epochs * counts.adapt)), 2 * counts.heldout
    if counts is None:
        return None, 0
    validations = section.epochs * section.validations_per_epoch
    return section.epochs * counts.tune, validations * counts.validation
