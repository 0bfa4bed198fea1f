"""Scoring with PyTorch: prefill only, label rows only, token budgets, documents once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from slant.model.batches import make_batches
from slant.model.label_head import LabelModel

__all__ = ["TorchEngine"]

DEFAULT_TOKENS_PER_BATCH = 4096


@final
class TorchEngine:
    """Label logits from a LabelModel on the device and in the dtype that it is in.

    Args:
        model: any LabelModel, in evaluation mode.
        pad_token_id: fills the batches.
        tokens_per_batch: tokens, padding included, that go through the model at once.
    """

    def __init__(
        self,
        model: LabelModel,
        pad_token_id: int,
        tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    ) -> None:
        self._model = model
        self._pad_token_id = pad_token_id
        self._tokens_per_batch = tokens_per_batch
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def label_logits(
        self,
        prompts: Sequence[Sequence[int]],
        on_done: Callable[[int], None] | None = None,
        *,
        groups: Sequence[Hashable] | None = None,
    ) -> NDArray[np.float32]:
        """See Engine.

        ``groups`` names the document of each prompt; a document's prompts are computed together,
        what they begin with once, where the architecture allows it.
        """
        if groups is not None and not self._model.shares_rows:
            groups = None
        logits_NL: NDArray[np.float32] = np.empty(
            (len(prompts), self._model.num_labels), dtype=np.float32
        )
        for batch in make_batches(
            prompts, self._tokens_per_batch, self._pad_token_id, groups=groups
        ):
            logits_NL[list(batch.members)] = self._model(batch.to(self._device)).cpu().numpy()
            if on_done:
                on_done(len(batch.members))
        return logits_NL
