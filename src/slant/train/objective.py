"""The two training objectives. Neither ever holds the logits of a whole batch.

Shape letters: B rows, N prompts, T tokens, C tokens of a chunk, H hidden size, L labels,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from slant.model.batches import PromptBatch, make_batches
from slant.model.label_head import LabelModel, plain_model

__all__ = ["AdaptBatch", "AdaptObjective", "TuneBatch", "TuneObjective", "chunked_cross_entropy"]

_CHUNK_TOKENS = 256


@dataclass(frozen=True)
class TuneBatch:
    """Prompts and what is to be predicted of each.

    Attributes:
        prompts: N of them.
        targets: ``(N, L)`` float32; each row adds up to 1.
        weights: ``(N,)`` float32, of the prompts in the loss.
        share: one over the number of examples of the whole step; 0 for a batch that does not count.
        names: what an error message calls the examples.
    """

    prompts: PromptBatch
    targets: Tensor
    weights: Tensor
    share: float
    names: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens without padding; a shared document counts once."""
        return self.prompts.num_tokens if self.share else 0


class TuneObjective(nn.Module):
    """Cross-entropy over the label logits at the last prompt token: what scoring reads."""

    def __init__(self, model: LabelModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TuneBatch | PromptBatch) -> Tensor:
        """A batch's share of the step's mean loss (a scalar); of bare prompts, the label logits.

        Both go through here, because split weights are only whole within a module's own pass.
        """
        if isinstance(batch, PromptBatch):
            logits_NL: Tensor = self.model(batch)
            return logits_NL
        logs_NL = F.log_softmax(self.model(batch.prompts), dim=1)
        losses_N = -(batch.targets * logs_NL).sum(dim=1)
        return (losses_N * batch.weights).sum() * batch.share

    def shape_of(self, batch: TuneBatch) -> tuple[int, int, bool]:
        """Rows, tokens of a row, and whether positions start again within a row."""
        num_rows, num_tokens = batch.prompts.input_ids.shape
        return num_rows, num_tokens, batch.prompts.segments is not None

    def sample(self, num_rows: int, num_tokens: int, *, shared: bool) -> TuneBatch:
        """A batch of about that shape on the CPU, always the same (see ``train.compiled``)."""
        ends = (8, 9) if shared else (9,)  # prompts of one row differ in their last token
        prompts = [[row + 1] * (num_tokens - 2) + [end] for row in range(num_rows) for end in ends]
        rows = [row for row in range(num_rows) for _ in ends]
        (batch,) = make_batches(prompts, num_rows * num_tokens, 0, groups=rows)
        targets = torch.full((len(prompts), self.model.num_labels), 1 / self.model.num_labels)
        return TuneBatch(batch, targets, torch.ones(len(prompts)), 1 / len(prompts), ())


@dataclass(frozen=True)
class AdaptBatch:
    """Packed rows of documents.

    Attributes:
        input_ids: ``(B, T)`` int64.
        positions: ``(B, T)`` int64, restarting at 0 with each document.
        targets: ``(B, T)`` int64, the next token; -100 at the end of a document and in padding.
        share: one over the number of targets of the whole step; 0 for a batch that does not count.
        num_tokens: without padding.
        names: what an error message calls the rows.
    """

    input_ids: Tensor
    positions: Tensor
    targets: Tensor
    share: float
    num_tokens: int
    names: tuple[str, ...] = ()


class AdaptObjective(nn.Module):
    """Next-token loss on packed rows, without attention across documents."""

    def __init__(self, causal_lm: nn.Module) -> None:
        super().__init__()
        self.causal_lm = causal_lm

    def forward(self, batch: AdaptBatch) -> Tensor:
        """The batch's share of the step's mean loss (a scalar)."""
        plain = plain_model(self.causal_lm)
        # Positions that restart, no attention mask and no cache: only so does transformers keep
        # the documents of a row apart.
        hidden_BTH = plain.get_decoder()(
            input_ids=batch.input_ids,
            position_ids=batch.positions,
            attention_mask=None,
            use_cache=False,
        ).last_hidden_state
        head = cast("nn.Linear", plain.get_output_embeddings())
        cap = getattr(plain.config, "final_logit_softcapping", None)
        losses = chunked_cross_entropy(
            hidden_BTH.flatten(0, 1), head.weight, batch.targets.flatten(), cap
        )
        return losses * batch.share

    def shape_of(self, batch: AdaptBatch) -> tuple[int, int, bool]:
        """Rows, tokens of a row, and whether positions start again within a row."""
        places_BT = batch.positions
        again = bool((places_BT[:, 1:] <= places_BT[:, :-1]).any())
        return *batch.input_ids.shape, again

    def sample(self, num_rows: int, num_tokens: int, *, shared: bool) -> AdaptBatch:
        """A batch of about that shape on the CPU, always the same (see ``train.compiled``)."""
        places_T = torch.arange(num_tokens)
        if shared:
            places_T = places_T % (num_tokens // 2)
        ids_BT = torch.ones(num_rows, num_tokens, dtype=torch.int64)
        return AdaptBatch(ids_BT, places_T.expand_as(ids_BT), ids_BT, 1 / ids_BT.numel(), 0)


def chunked_cross_entropy(
    hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, softcap: float | None = None
) -> Tensor:
    """Summed cross-entropy of a linear head, 256 tokens at a time.

    Args:
        hidden_TH: hidden states.
        weight_VH: the LM head; without bias.
        targets_T: token ids; -100 is left out.
        softcap: logits become ``softcap * tanh(logits / softcap)`` where it is given (Gemma 2).

    Returns:
        A float32 scalar: the sum over the targets, in nats.
    """
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_TH, weight_VH, targets_T, softcap
    )
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradient is taken chunk by chunk in the forward pass, while the logits are there.

    This is the scheme of Liger Kernel's fused linear cross-entropy (Hsu et al. 2024), in plain
    PyTorch: two or three matrix products a chunk and ``(C, V)`` of memory instead of ``(T, V)``.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, softcap: float | None
    ) -> Tensor:
        dtype = torch.promote_types(hidden_TH.dtype, torch.bfloat16)
        if torch.is_autocast_enabled(hidden_TH.device.type):
            dtype = torch.get_autocast_dtype(hidden_TH.device.type)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        weight = weight_VH.to(dtype)
        grad_hidden = torch.zeros_like(hidden_TH) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VH, dtype=torch.float32) if needs_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_TH.device)
        for start in range(0, len(hidden_TH), _CHUNK_TOKENS):
            rows = slice(start, start + _CHUNK_TOKENS)
            keep = targets_T[rows] >= 0
            hidden_CH, targets_C = hidden_TH[rows][keep].to(dtype), targets_T[rows][keep]
            if not len(targets_C):
                continue
            logits_CV = F.linear(hidden_CH, weight)
            if not (needs_hidden or needs_weight):
                exact_CV = _capped(logits_CV.float(), softcap)
                total += exact_CV.logsumexp(dim=1).sum()
                total -= exact_CV.gather(1, targets_C[:, None]).sum()
                continue
            loss, grad = _loss_and_gradient(logits_CV, targets_C, softcap)
            total += loss
            if grad_hidden is not None:
                kept = start + keep.nonzero()[:, 0]
                grad_hidden[kept] = (grad @ weight).to(grad_hidden.dtype)
            if grad_weight is not None:
                grad_weight += (grad.T @ hidden_CH).float()
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight_VH.dtype
        return total

    @staticmethod
    def backward(
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        (scale,) = grad_outputs
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * scale).to(ctx.weight_dtype),
            None,
            None,
        )


def _loss_and_gradient(
    logits_CV: Tensor, targets_C: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Summed loss of a chunk and its gradient with respect to the logits, in their dtype.

    Memory traffic over ``(C, V)`` is what a large vocabulary costs, so there is one softmax and
    nothing else; the loss is read from it. In bfloat16 that rounds a token's loss by less than
    0.004; without gradients the loss is taken in float32.
    """
    capped_CV = _capped(logits_CV, softcap)
    grad_CV = capped_CV.softmax(dim=1)
    rows = torch.arange(len(targets_C), device=targets_C.device)
    smallest = torch.finfo(torch.float32).tiny
    loss = -grad_CV[rows, targets_C].float().clamp_min(smallest).log().sum()
    grad_CV[rows, targets_C] -= 1
    if softcap:
        grad_CV = grad_CV * (1 - (capped_CV / softcap) ** 2)
    return loss, grad_CV


def _capped(logits_CV: Tensor, softcap: float | None) -> Tensor:
    return softcap * torch.tanh(logits_CV / softcap) if softcap else logits_CV
