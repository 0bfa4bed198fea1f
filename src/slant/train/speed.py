"""How fast a training goes, beside how fast its machine can multiply."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass
from typing import Any, final

import torch

from slant.errors import ModelError
from slant.model.flops import Shape, flops_per_token, matmul_rate
from slant.model.processor import processor_name
from slant.train.checkpoints import State
from slant.train.job import Job
from slant.train.parallel import World

__all__ = ["Speedometer", "peak_memory_bytes", "training_facts"]


@final
@dataclass(frozen=True)
class Speedometer:
    """Turns tokens and seconds into figures.

    Attributes:
        device: of this process.
        size: number of processes.
        flops_per_token: of a forward and a backward pass; None: not known for this architecture.
        ceiling: operations a second that one device does in a matrix product of the arithmetic's
            dtype, measured just before training; None: not measured.
    """

    device: str
    size: int = 1
    flops_per_token: float | None = None
    ceiling: float | None = None

    @classmethod
    def measure(cls, job: Job, world: World, row_tokens: float) -> Speedometer:
        """A speedometer for a stage, with the ceiling of this machine; takes half a second.

        Args:
            job: its base model and its settings say what a token costs.
            world: the devices.
            row_tokens: what attention reaches: mean length of a prompt or of a document.
        """
        settings, adapt = job.settings, job.stage == "adapt"
        section = settings.adapt if adapt and settings.adapt else settings.tune
        try:
            config = json.loads((job.base.folder / "config.json").read_text("utf-8"))
            flops = flops_per_token(
                Shape.from_config(config),
                row_tokens=row_tokens,
                head="vocabulary" if adapt else "labels",
                method=section.method,
                rank=section.lora.rank,
                num_labels=len(settings.labels),
                narrowed=not settings.train.activation_checkpointing,
            ).total
        except ModelError:  # a family whose sizes are not known; only this figure is missing
            return cls(world.device, world.size)
        return cls(world.device, world.size, flops, matmul_rate(world.device, job.dtype))

    def figures(self, tokens: float, seconds: float) -> dict[str, float]:
        """Tokens a second of all processes, peak memory in bytes and share of the ceiling."""
        speed = tokens / seconds if seconds > 0 else 0.0
        found = {"tokens_per_s": speed, "memory_bytes": float(peak_memory_bytes(self.device))}
        if self.flops_per_token is not None and self.ceiling is not None:
            found["mfu"] = speed * self.flops_per_token / (self.ceiling * self.size)
        return found


def training_facts(state: State, world: World, speed: Speedometer) -> dict[str, Any]:
    """What a manifest says of any training."""
    figures = speed.figures(state.tokens, state.seconds)
    return {
        "steps": state.steps,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 1),
        "devices": world.size,
        "processor": processor_name(),
        "tokens_per_s": round(figures["tokens_per_s"], 1),
        "share_of_ceiling": round(figures["mfu"], 4) if "mfu" in figures else None,
        "peak_memory_bytes": round(figures["memory_bytes"]),
    }


def peak_memory_bytes(device: str) -> int:
    """Most memory that this process has had: of the GPU, or else of the machine."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
