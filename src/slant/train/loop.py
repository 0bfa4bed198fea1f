"""The training loop that both objectives share: steps, checkpoints, events.

A step is a pure function of its number: its examples come from ``steps(number)``, its learning
rate and the seed of its dropout are computed from it. So a checkpoint holds the trainable weights,
the optimizer's moments and the number of finished steps, nothing else, and a run that was killed
ends in the same weights as one that was not (bit-equal in one CPU process).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch
from torch import Tensor, nn

from slant.artifacts import SCRATCH, digest_json, write_atomically
from slant.config.settings import AdaptSettings, TuneSettings
from slant.errors import ArtifactError, ModelError
from slant.memory import release_memory
from slant.progress import Progress

__all__ = [
    "EVENTS_FILE",
    "Batch",
    "Outcome",
    "TrainingPlan",
    "autocast",
    "to_device",
    "train",
]

EVENTS_FILE = "events.jsonl"
_CHECKPOINTS = "checkpoints"


class Batch(Protocol):
    """What goes through the model in one pass."""

    @property
    def num_tokens(self) -> int:
        """Tokens without padding."""
        ...


@dataclass(frozen=True)
class TrainingPlan:
    """How the weights are updated.

    The learning rate rises linearly over ``warmup_share`` of ``num_steps`` and then falls
    linearly to zero. ``dtype`` is that of the arithmetic; weights keep their own.
    """

    num_steps: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    max_gradient_norm: float
    checkpoint_every_s: float
    seed: int
    dtype: torch.dtype

    @classmethod
    def from_settings(
        cls, section: AdaptSettings | TuneSettings, *, num_steps: int, seed: int, dtype: torch.dtype
    ) -> TrainingPlan:
        """The plan that a stage's section of slant.yaml asks for."""
        return cls(
            num_steps=num_steps,
            learning_rate=section.learning_rate,
            warmup_share=section.warmup_share,
            weight_decay=section.weight_decay,
            max_gradient_norm=section.max_gradient_norm,
            checkpoint_every_s=section.checkpoint_every_s,
            seed=seed,
            dtype=dtype,
        )

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the ``step``-th update, counted from 0."""
        warmup = max(1, round(self.warmup_share * self.num_steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * (self.num_steps - step) / max(1, self.num_steps - warmup)


@dataclass
class Outcome:
    """What a finished training did; ``seconds`` leaves out what a kill undid."""

    steps: int
    tokens: int
    seconds: float


def train(
    objective: nn.Module,
    steps: Callable[[int], Iterable[Any]],
    plan: TrainingPlan,
    folder: Path,
    progress: Progress,
    *,
    name: str,
    after_step: Callable[[int], dict[str, float]] | None = None,
) -> Outcome:
    """Train the trainable parameters of ``objective``; goes on from a checkpoint in ``folder``.

    Args:
        objective: called with a batch, returns its share of the step's mean loss.
        steps: step number (from 0) → the batches of that step. Asked again after a kill, it must
            give the same ones.
        plan: the schedule.
        folder: gets ``events.jsonl`` (one line a step; the same whether killed or not) and, in
            its scratch folder, checkpoints.
        progress: shows loss and tokens/s.
        name: shown beside the bar.
        after_step: called with the number of finished steps; what it returns goes into the event.

    Raises:
        ModelError: the loss or the gradient is not a finite number; the last checkpoint is whole.
    """
    params = {key: p for key, p in objective.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        params.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    checkpoints = _Checkpoints(folder / SCRATCH / _CHECKPOINTS, params, optimizer)
    done = checkpoints.restore()
    saved_s = done.seconds
    with (
        _open_events(folder / EVENTS_FILE, done.steps) as events,
        progress.task(name, plan.num_steps, "steps", done.steps) as task,
    ):
        while done.steps < plan.num_steps:
            started = time.monotonic()
            event, tokens = _update(objective, optimizer, steps(done.steps), plan, done.steps)
            done.steps += 1
            done.tokens += tokens
            if after_step:
                event |= after_step(done.steps)
            events.write(json.dumps({"step": done.steps, "tokens": done.tokens, **event}) + "\n")
            step_s = time.monotonic() - started
            done.seconds += step_s
            task.advance(1, loss=event["loss"], tokens_per_s=tokens / step_s)
            if done.seconds - saved_s >= plan.checkpoint_every_s:
                _sync(events)
                checkpoints.save(done)
                release_memory()
                saved_s = done.seconds
        _sync(events)
    return done


def _update(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Any],
    plan: TrainingPlan,
    step: int,
) -> tuple[dict[str, float], int]:
    """One update of the weights; returns its event and the number of its tokens."""
    rate = plan.learning_rate_at(step)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    device = params[0].device
    for group in optimizer.param_groups:
        group["lr"] = rate
    # Dropout is drawn from the step's own seed: nothing of the generator needs to be saved.
    torch.manual_seed(int(digest_json([plan.seed, step])[:15], 16))
    objective.train()
    loss, tokens = 0.0, 0
    for batch in batches:
        with autocast(device, plan.dtype):
            share = objective(to_device(batch, device))
        share.backward()
        loss += float(share.detach())
        tokens += batch.num_tokens
    norm = float(nn.utils.clip_grad_norm_(params, plan.max_gradient_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise ModelError(
            f"training cannot go on at step {step + 1}: loss {loss}, gradient norm {norm}",
            hint="Lower learning_rate, or set model.dtype to bfloat16 or float32.",
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": loss, "learning_rate": rate, "gradient_norm": norm}, tokens


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Arithmetic in ``dtype``; float32 is left as it is."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on ``device``."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{k: v.to(device) for k, v in values.items() if isinstance(v, Tensor)})


def _open_events(path: Path, steps: int) -> TextIO:
    """Open the event log, cut back to the steps that the checkpoint knows of."""
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    write_atomically(path, "".join(lines[:steps]))
    return path.open("a", encoding="utf-8")


def _sync(file: TextIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Checkpoints:
    """The last checkpoint of a run: tensors and numbers, renamed into place when complete."""

    def __init__(
        self,
        folder: Path,
        params: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._folder = folder
        self._params = params
        self._optimizer = optimizer

    def save(self, done: Outcome) -> None:
        """Write a checkpoint; only then remove the one before."""
        from safetensors.torch import save_file

        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / f"step-{done.steps:08}"
        partial = self._folder / f"{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        tensors = {}
        for key, param in self._params.items():
            tensors[f"weight/{key}"] = param.detach()
            for moment, value in self._optimizer.state[param].items():
                tensors[f"{moment}/{key}"] = value
        save_file(
            {key: t.contiguous() for key, t in tensors.items()}, partial / "state.safetensors"
        )
        write_atomically(partial / "progress.json", json.dumps(asdict(done)))
        for path in (partial / "state.safetensors", partial):
            _sync_path(path)
        partial.rename(target)
        _sync_path(self._folder)
        for other in self._folder.iterdir():
            if other.name != target.name:
                shutil.rmtree(other)

    def restore(self) -> Outcome:
        """Load the last checkpoint, if there is one.

        Raises:
            ArtifactError: it does not fit the model (its folder was changed by hand).
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        found = sorted(self._folder.glob("step-????????"))
        if not found:
            return Outcome(0, 0, 0.0)
        try:
            done = Outcome(**json.loads((found[-1] / "progress.json").read_text("utf-8")))
            tensors = load_file(found[-1] / "state.safetensors")
            with torch.no_grad():
                for key, param in self._params.items():
                    weight = tensors[f"weight/{key}"]
                    if weight.shape != param.shape:  # copy_ would broadcast
                        raise ValueError(f"{key} is {[*weight.shape]}, not {[*param.shape]}")
                    param.copy_(weight)
                    # A parameter that no gradient has reached yet has no moments.
                    if moments := {
                        moment: tensors[f"{moment}/{key}"].to(
                            "cpu" if moment == "step" else param.device
                        )
                        for moment in ("step", "exp_avg", "exp_avg_sq")
                        if f"{moment}/{key}" in tensors
                    }:
                        self._optimizer.state[param] = moments
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ArtifactError(
                f"{found[-1]}: the checkpoint cannot be used: {error}",
                hint="Delete this folder; training then starts from the beginning.",
            ) from error
        return done
