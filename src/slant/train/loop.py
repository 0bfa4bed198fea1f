"""The training loop that both objectives share: steps, checkpoints, validation, events.

A step is a pure function of its number: its examples come from the schedule, its learning rate and
the seed of its dropout are computed from it. So a checkpoint holds the trainable weights, the
optimizer's moments and a few numbers, nothing else, and a run that was killed ends in the same
weights as one that was not (bit-equal in one CPU process). Which processes share a step is no part
of it either, so a run may go on with another number of them.
"""

from __future__ import annotations

import gc
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO, final

import torch
from torch import Tensor, nn

from slant.artifacts import SCRATCH, digest_json
from slant.disk import write_atomically
from slant.errors import ModelError
from slant.memory import is_out_of_memory, release_memory, trim_memory
from slant.progress import Progress, Task
from slant.train.checkpoints import AVERAGE, Best, Checkpoints, State
from slant.train.interfaces import SCORE, Schedule, TrainingPlan, Validation
from slant.train.parallel import World, full_norm, let_go
from slant.train.speed import Speedometer
from slant.train.stopping import Stop, held_back_signals

__all__ = [
    "EVENTS_FILE",
    "autocast",
    "to_device",
    "train",
]

EVENTS_FILE = "events.jsonl"
_CHECKPOINTS = "checkpoints"
_LEAST_TOKENS_PER_PASS = 16
_STEPS_PER_TRIM = 8  # memory that was given back has to be asked for again
_NAMED = 8  # items of a failed pass that an error names


def train(
    objective: nn.Module,
    schedule: Schedule,
    plan: TrainingPlan,
    folder: Path,
    progress: Progress,
    *,
    name: str,
    identity: str,
    world: World = World(),  # noqa: B008 (frozen)
    validation: Validation | None = None,
    speed: Speedometer | None = None,
    observe: Callable[[int, Mapping[str, float]], None] | None = None,
) -> State:
    """Train the trainable parameters of ``objective``; goes on from a checkpoint in ``folder``.

    At the end ``objective`` has the weights of the best validation, or, without validation, the
    last ones.

    Args:
        objective: called with a batch, returns its share of the step's mean loss.
        schedule: the steps.
        plan: how weights are updated.
        folder: gets ``events.jsonl`` (a line for each step and each validation; the same whether
            the run was killed or not) and, in its scratch folder, checkpoints.
        progress: shows loss and tokens/s.
        name: shown beside the bar.
        identity: of what is trained, e.g. a digest; a checkpoint of something else is refused.
        world: the processes that train together; all call this with the same arguments.
        validation: where it is given, the best weights by its score are the result.
        speed: gives the figures of speed and memory; None: those that need no knowledge of the
            model.
        observe: called after each event with its step and all numbers, those of speed and memory
            among them, which the event log leaves out because no two runs have the same.

    Raises:
        ModelError: the loss or the gradient is not a finite number, or memory does not suffice for
            a pass of the least size; the last checkpoint is whole.
        ArtifactError: the checkpoint cannot be used.
        KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint was saved.
    """
    params = {key: p for key, p in objective.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        params.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    checkpoints = Checkpoints(
        folder / SCRATCH / _CHECKPOINTS,
        params,
        optimizer,
        world,
        identity,
        plan.keep_checkpoints,
        progress,
    )
    state = checkpoints.restore()
    with (
        held_back_signals() as stop,
        _open_events(folder / EVENTS_FILE, state.events, world) as events,
        progress.task(name, plan.num_steps, "steps", state.steps) as task,
    ):
        run = _Run(
            objective,
            optimizer,
            schedule,
            plan,
            world,
            validation,
            checkpoints,
            state,
            stop,
            events,
            task,
            progress,
            speed or Speedometer(world.device, world.size),
            observe or _observe_nothing,
        )
        run.to_the_end()
    if state.best is not None:
        checkpoints.load_best(state.best)
        let_go(objective, world)
    return state


def _observe_nothing(step: int, values: Mapping[str, float]) -> None:
    pass


@final
@dataclass
class _Run:
    """One training under way."""

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    plan: TrainingPlan
    world: World
    validation: Validation | None
    checkpoints: Checkpoints
    state: State
    stop: Stop
    events: TextIO
    task: Task
    progress: Progress
    speed: Speedometer
    observe: Callable[[int, Mapping[str, float]], None]

    def to_the_end(self) -> None:
        """Steps and validations until all are done, or patience is at its end."""
        saved_s = self.state.seconds
        while True:
            started = time.monotonic()
            save = False
            if self._validation_is_due():
                save = self._validate()
            elif self._is_finished():
                break
            else:
                due = self.state.seconds - saved_s >= self.plan.checkpoint_every_s
                save = self._step(due=due)
            self.state.seconds += time.monotonic() - started
            if self._is_stopping():
                self._save()
                self.progress.say(
                    f"stopped after step {self.state.steps} of {self.plan.num_steps}; "
                    "what is done is saved"
                )
                raise KeyboardInterrupt
            if save:
                self._save()
                saved_s = self.state.seconds
        _sync(self.events)

    def _validation_is_due(self) -> bool:
        due = self.validation is not None and self.state.steps in self.validation.steps
        return due and self.state.validated < self.state.steps

    def _is_finished(self) -> bool:
        patience = self.plan.patience
        if patience is not None and self.state.worse >= patience:
            return True
        return self.state.steps >= self.plan.num_steps

    def _is_stopping(self) -> bool:
        return self.world.sum([self.stop.requested])[0] > 0

    def _save(self) -> None:
        _sync(self.events)
        self.checkpoints.save(self.state)
        release_memory()

    def _step(self, *, due: bool) -> bool:
        """One update of the weights; returns whether a checkpoint is due, as rank 0's clock says.

        Where memory runs out, the step is done again in smaller passes.
        """
        started = time.monotonic()
        while True:
            passes = self._tokens_per_pass
            done = self._gradients(passes)
            sums = [*done.sums, float(due and self.world.is_main)]
            loss, tokens, failed, save = self.world.sum(sums)
            if not failed:
                break
            self.optimizer.zero_grad(set_to_none=True)
            self._halve(passes)
        norm = self._update(done, loss)
        self.state.steps += 1
        if self.world.device == "cpu" and self.state.steps % _STEPS_PER_TRIM == 0:
            trim_memory()
        self.state.tokens += round(tokens)
        event = {
            "loss": loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": norm,
        }
        self._log({"tokens": self.state.tokens, **event})
        figures = self.speed.figures(tokens, time.monotonic() - started)
        self.task.advance(1, loss=loss, tokens_per_s=figures["tokens_per_s"])
        self.observe(self.state.steps, {**event, "tokens": self.state.tokens, **figures})
        return save > 0

    def _gradients(self, passes: int) -> _Gradients:
        """Run the passes of the next step; gradients are left in the parameters."""
        step, world = self.state.steps, self.world
        # Dropout is drawn from the step's own seed: nothing of the generator needs to be saved.
        torch.manual_seed(int(digest_json([self.plan.seed, step, world.rank])[:15], 16))
        self.objective.train()
        done = _Gradients([], 0, failed=False)
        try:
            for batch in self.schedule.passes(step, world, passes):
                with autocast(torch.device(world.device), self.plan.dtype):
                    share = self.objective(to_device(batch, world.device))
                (share * world.loss_scale).backward()
                done.losses.append((share.detach(), batch.names))
                done.tokens += batch.num_tokens
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if world.sharded:  # the other processes wait for this one in the middle of a pass
                raise ModelError(
                    f"memory ran out in a pass of {passes} tokens at step {step + 1}",
                    hint="Lower tokens_per_batch and run the same command: it goes on from the "
                    "last checkpoint.",
                ) from error
            return _Gradients([], 0, failed=True)
        return done

    def _update(self, done: _Gradients, loss: float) -> float:
        """Clip the gradients and move the weights; returns the gradients' norm."""
        rate = self.plan.learning_rate_at(self.state.steps)
        params = list(self.checkpoints.params.values())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.world.sum_gradients(params)
        norm = full_norm(nn.utils.clip_grad_norm_(params, self.plan.max_gradient_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            suspects = self.world.gather(done.suspects())
            raise ModelError(
                f"training cannot go on at step {self.state.steps + 1}: loss {loss}, gradient norm "
                f"{norm}; the step held {_listed(suspects)}",
                hint="Look at these texts; lower learning_rate, or set model.dtype to bfloat16 or "
                "float32. The last checkpoint is kept.",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.plan.average:
            self._take_into_average(params)
        return norm

    @torch.no_grad()
    def _take_into_average(self, params: list[nn.Parameter]) -> None:
        """Running average of the weights: over few steps at first, so that it forgets the start."""
        decay = min(self.plan.average, (1 + self.state.steps) / (10 + self.state.steps))
        for param in params:
            kept = self.optimizer.state[param]
            if AVERAGE in kept:
                kept[AVERAGE].lerp_(param, 1 - decay)
            elif kept:  # a parameter that no gradient has reached yet has no state
                kept[AVERAGE] = param.detach().clone()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The average in place of the weights."""
        own = {p: p.detach().clone() for p, kept in self.optimizer.state.items() if AVERAGE in kept}
        with torch.no_grad():
            for param in own:
                param.copy_(self.optimizer.state[param][AVERAGE])
            try:
                yield
            finally:
                for param, value in own.items():
                    param.copy_(value)
                let_go(self.objective, self.world)

    @property
    def _tokens_per_pass(self) -> int:
        return self.state.passes or self.plan.tokens_per_pass

    def _halve(self, passes: int) -> None:
        """Go on with passes of half the size; raises where that cannot help."""
        if passes // 2 < _LEAST_TOKENS_PER_PASS:
            raise ModelError(
                f"memory does not suffice for a pass of {passes} tokens at step "
                f"{self.state.steps + 1}",
                hint="Set model.quantize: nf4, train.activation_checkpointing: true, or "
                "train.strategy: fsdp on several devices; `slant plan` shows what fits.",
            )
        self.state.passes = passes // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.progress.say(
            f"memory ran out in a pass of {passes} tokens: going on with {self.state.passes}"
        )

    def _validate(self) -> bool:
        """Measure; remembers the weights if they are the best. Returns whether it was done."""
        with self._averaged():
            return self._validate_weights()

    def _validate_weights(self) -> bool:
        assert self.validation is not None
        measured = self.validation(self.stop, self._tokens_per_pass)
        if measured is None:
            return False
        state = self.state
        state.validated = state.steps
        score = measured[SCORE]
        if state.best is None or score > state.best.score:
            self.checkpoints.save_best(state.steps)
            state.best, state.worse = Best(state.steps, score), 0
        else:
            state.worse += 1
        self._log(measured)
        self.observe(state.steps, measured)
        return True

    def _log(self, event: Mapping[str, float]) -> None:
        self.events.write(json.dumps({"step": self.state.steps, **event}) + "\n")
        self.state.events += 1


@final
@dataclass
class _Gradients:
    """What the passes of one step left besides the gradients."""

    losses: list[tuple[Tensor, tuple[str, ...]]]
    tokens: int
    failed: bool

    @property
    def sums(self) -> list[float]:
        """Loss, tokens and failures of this process."""
        loss = sum(float(share) for share, _ in self.losses)
        return [loss, float(self.tokens), float(self.failed)]

    def suspects(self) -> list[str]:
        """Names of what was in the passes that went wrong, or, if none did, in all of them."""
        wrong = [names for share, names in self.losses if not math.isfinite(float(share))]
        return [name for names in wrong or [n for _, n in self.losses] for name in names]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Arithmetic in ``dtype``; float32 is left as it is."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def to_device(batch: Any, device: torch.device | str) -> Any:
    """A batch (a dataclass) with everything in it that has a device on ``device``."""
    values = {item.name: getattr(batch, item.name) for item in fields(batch)}
    return replace(batch, **{k: v.to(device) for k, v in values.items() if hasattr(v, "to")})


@contextmanager
def _open_events(path: Path, lines: int, world: World) -> Iterator[TextIO]:
    """Open the event log, cut back to the lines that the checkpoint knows of."""
    if not world.is_main:
        with Path(os.devnull).open("w", encoding="utf-8") as file:
            yield file
        return
    kept = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    write_atomically(path, "".join(kept[:lines]))
    with path.open("a", encoding="utf-8") as file:
        yield file


def _sync(file: TextIO) -> None:
    file.flush()
    if file.name != os.devnull:
        os.fsync(file.fileno())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
