"""Scoring with PyTorch: prefill only, label rows only, token budgets, documents once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, cast, final

import numpy as np
import torch
from numpy.typing import NDArray

from slant.errors import ModelError
from slant.memory import is_out_of_memory, release_memory
from slant.model.attention import use_product_attention
from slant.model.batches import PromptBatch, make_batches
from slant.model.compiling import compile_for_scoring
from slant.model.label_head import LabelModel, plain_model
from slant.model.last_layer import narrow_last_layer
from slant.model.quantize import quantize_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TorchEngine"]

# A processor is fastest while a batch stays in its caches: rows of 40 tokens of Gemma 3 270M ran at
# 74 % of the rate of matrix products with 1,024 tokens a batch, at 67 % with 4,096. GPUs want many.
_CPU_TOKENS, _GPU_TOKENS = 1024, 16_384
_ROW_TOKENS = 4096  # a document that many prompts share is read once, whatever the batches hold


@final
class TorchEngine:
    """Label logits from a LabelModel on the device and in the dtype that it is in.

    It may be called from several threads at once, and there may be several in a process.

    Args:
        model: any LabelModel, in evaluation mode.
        pad_token_id: fills the batches.
        tokens_per_batch: tokens, padding included, that go through the model at once; None: 1,024
            on a CPU, 16,384 elsewhere. Where memory runs out it is halved, and stays so.
        compile: let the model's layers run compiled code (some 15 s the first time). Where that
            fails there is a warning, and they run as they are.
    """

    def __init__(
        self,
        model: LabelModel,
        pad_token_id: int,
        tokens_per_batch: int | None = None,
        *,
        compile: bool = False,  # noqa: A002 - PyTorch's own word
    ) -> None:
        self._model = model
        self._pad_token_id = pad_token_id
        self._device = next(model.parameters()).device
        usual = _CPU_TOKENS if self._device.type == "cpu" else _GPU_TOKENS
        self.tokens_per_batch = tokens_per_batch or usual
        self._tokens_per_row = max(self.tokens_per_batch, _ROW_TOKENS)
        self._undo_compiling: Callable[[], None] | None = None
        self._shares_rows = model.shares_rows  # asked of plain layers: compiling may fail
        if compile:
            decoder = plain_model(model.causal_lm).get_decoder()
            self._undo_compiling = compile_for_scoring(decoder)
            self._warm_up()

    @classmethod
    def of(
        cls,
        causal_lm: PreTrainedModel,
        label_ids: tuple[int, ...],
        pad_token_id: int,
        *,
        quantize: str = "none",
        tokens_per_batch: int | None = None,
        compile: bool = False,  # noqa: A002
    ) -> TorchEngine:
        """An engine of a causal language model, which is changed in place to be fast.

        Args:
            causal_lm: in evaluation mode, on its device.
            label_ids: ``(L,)`` token ids of the label words, in label order.
            pad_token_id: fills the batches.
            quantize: ``none``, ``int8`` or ``nf4``; see ``model.quantize``.
            tokens_per_batch: see TorchEngine, as ``compile``.

        Raises:
            ModelError: it cannot be quantised.
        """
        use_product_attention(causal_lm)
        quantize_layers(causal_lm, quantize)
        narrow_last_layer(causal_lm.get_decoder())
        model = LabelModel(causal_lm, label_ids).to(causal_lm.device).eval()
        return cls(model, pad_token_id, tokens_per_batch, compile=compile)

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

        Raises:
            ModelError: memory runs out for a single prompt.
        """
        if not self._shares_rows:
            groups = None
        logits_NL = np.empty((len(prompts), self._model.num_labels), dtype=np.float32)
        left = list(range(len(prompts)))
        while left:
            done = self._as_far_as_memory_goes(prompts, groups, left, logits_NL, on_done)
            left = [place for place in left if place not in done]
        return logits_NL

    def _as_far_as_memory_goes(
        self,
        prompts: Sequence[Sequence[int]],
        groups: Sequence[Hashable] | None,
        places: Sequence[int],
        logits_NL: NDArray[np.float32],
        on_done: Callable[[int], None] | None,
    ) -> set[int]:
        """Fill in ``logits_NL`` at ``places``; returns which were done when memory ran out."""
        budget, done = self.tokens_per_batch, set[int]()
        batches = make_batches(
            [prompts[place] for place in places],
            budget,
            self._pad_token_id,
            groups=None if groups is None else [groups[place] for place in places],
            tokens_per_row=self._tokens_per_row,
        )
        for batch in batches:
            found_NL = self._run_if_it_fits(batch)
            if found_NL is None:
                self._halve(budget)
                break
            members = [places[member] for member in batch.members]
            logits_NL[members] = found_NL
            done.update(members)
            if on_done:
                on_done(len(members))
        return done

    def _run_if_it_fits(self, batch: PromptBatch) -> NDArray[np.float32] | None:
        """Logits of a batch of several prompts; None where memory runs out.

        Once it has returned, nothing holds on to what the failed pass had in memory.
        """
        try:
            return self._run(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch.members) > 1:
                return None
            raise ModelError(
                f"memory does not do for a prompt of {batch.num_tokens} tokens on {self._device}",
                hint="Use score.quantize, a smaller model or another device.",
            ) from error

    def _halve(self, budget: int) -> None:
        """Use less memory from now on, unless another thread has seen to it already."""
        if self.tokens_per_batch == budget:
            self.tokens_per_batch = max(1, budget // 2)
            self._tokens_per_row = max(1, self._tokens_per_row // 2)
        release_memory()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run(self, batch: PromptBatch) -> NDArray[np.float32]:
        on_device, was_compiled = batch.to(self._device), self._undo_compiling is not None
        try:
            logits_NL = self._model(on_device)
        except Exception as error:
            if not was_compiled or is_out_of_memory(error):
                raise
            self._stop_compiling(error)
            logits_NL = self._model(on_device)
        return cast("NDArray[np.float32]", logits_NL.cpu().numpy())

    def _stop_compiling(self, error: Exception) -> None:
        undo, self._undo_compiling = self._undo_compiling, None
        if undo is not None:
            undo()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(
                f"layers could not be compiled, scoring goes on without ({reason})", stacklevel=2
            )

    def _warm_up(self) -> None:
        """Compile what most batches need: one row and several, of their own and shared."""
        prompts = [[self._pad_token_id] * (16 + place) for place in range(4)]
        several = list(make_batches(prompts, 64, self._pad_token_id))
        one = list(make_batches(prompts[:1], 64, self._pad_token_id))
        shared = make_batches(prompts, 64, self._pad_token_id, groups=[0] * len(prompts))
        for batch in [*several, *one, *(shared if self._shares_rows else ())]:
            self._run(batch)
