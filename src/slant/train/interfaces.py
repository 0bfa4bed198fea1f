"""What the training loop is given: batches, a schedule of them, and a validation."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Protocol

from slant.train.parallel import World
from slant.train.stopping import Stop

__all__ = ["SCORE", "Batch", "Schedule", "Validation"]

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
