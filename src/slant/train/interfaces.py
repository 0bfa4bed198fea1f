"""What the training loop is given: a plan, batches, a schedule of them, and a validation."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from slant.config.training_settings import AdaptSettings, TuneSettings
from slant.train.parallel import World
from slant.train.stopping import Stop

__all__ = ["SCORE", "Batch", "Schedule", "TrainingPlan", "Validation"]

SCORE = "validation_macro_f1"
"""The measurement by which the best weights are chosen."""


class Batch(Protocol):
    """What goes through the model in one pass."""

    @property
    def num_tokens(self) -> int:
        """Tokens without padding."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What is in it, for an error message."""
        ...


class Schedule(Protocol):
    """Which items make up which step."""

    @property
    def num_steps(self) -> int:
        """Updates of the weights, all epochs together."""
        ...

    def passes(self, step: int, world: World, tokens_per_pass: int) -> Iterator[Any]:
        """The batches of one step (from 0) for one process: the same whenever it is asked.

        Every process gets equally many, so that they meet in each; a step's items are divided
        among them without regard to how many they are.

        Args:
            step: 0 … num_steps - 1.
            world: rank and size decide the share of the items.
            tokens_per_pass: most tokens of a batch, padding included, where an item alone is not
                longer.
        """
        ...


class Validation(Protocol):
    """Measures the model from time to time."""

    @property
    def steps(self) -> Collection[int]:
        """Numbers of finished steps after which it is due."""
        ...

    def __call__(self, stop: Stop, tokens_per_pass: int) -> dict[str, float] | None:
        """What goes into the event log, with ``SCORE`` in it; None if it was told to stop."""
        ...


@dataclass(frozen=True)
class TrainingPlan:
    """How the weights are updated.

    The learning rate rises linearly over ``warmup_share`` of ``num_steps`` and then falls
    linearly to zero. ``dtype`` is that of the arithmetic; weights keep their own. ``patience`` is
    the number of validations without a better score after which training stops (None: never).
    ``average`` is the decay of the running average of the weights that is validated in their place
    (0: they are validated themselves).
    """

    num_steps: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    max_gradient_norm: float
    tokens_per_pass: int
    checkpoint_every_s: float
    keep_checkpoints: int
    seed: int
    dtype: torch.dtype
    patience: int | None = None
    average: float = 0.0

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
            tokens_per_pass=section.tokens_per_batch,
            checkpoint_every_s=section.checkpoint_every_s,
            keep_checkpoints=section.keep_checkpoints,
            seed=seed,
            dtype=dtype,
            patience=section.patience if isinstance(section, TuneSettings) else None,
            average=section.average if isinstance(section, TuneSettings) else 0.0,
        )

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the ``step``-th update, counted from 0."""
        warmup = max(1, round(self.warmup_share * self.num_steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * (self.num_steps - step) / max(1, self.num_steps - warmup)
