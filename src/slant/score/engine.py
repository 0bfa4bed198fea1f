"""What a scorer needs of an inference engine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Engine"]


class Engine(Protocol):
    """Computes label logits for encoded prompts."""

    def label_logits(
        self,
        prompts: Sequence[Sequence[int]],
        on_done: Callable[[int], None] | None = None,
        *,
        groups: Sequence[Hashable] | None = None,
    ) -> NDArray[np.float32]:
        """Label logits of every prompt.

        Args:
            prompts: N lists of token ids.
            on_done: told after each pass how many more prompts are done.
            groups: the document of each prompt; an engine may compute what they share once.

        Returns:
            ``(N, L)`` float32, in input order, columns in label order.
        """
        ...
