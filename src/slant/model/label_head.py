"""Label logits: the label rows of the LM head at the last prompt token, and nothing else.

Shape letters: B rows, T tokens, N prompts, H hidden size, L labels.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from slant.errors import ModelError
from slant.model.batches import PromptBatch, make_batches
from slant.model.last_layer import read_only_at
from slant.model.masks import shared_row_masks, takes_shared_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LabelModel", "check_label_head", "plain_model"]

_TOLERANCE = 1e-3


class LabelModel(nn.Module):
    """A causal language model that answers with label logits.

    The LM head is never applied: the hidden state of the last prompt token is multiplied with the
    label rows alone, in float32. With a vocabulary of 262k words this saves more than half of the
    arithmetic of a prompt.

    Args:
        causal_lm: a Hugging Face causal LM, with or without a PEFT adapter.
        label_ids: ``(L,)`` token ids of the label words, in label order.
        train_rows: give the model label rows of its own, float32 and trainable, that start as
            those of the LM head: the parameter ``rows`` ``(L, H)``, and ``rows_bias`` ``(L,)``
            where the head has a bias.
    """

    rows: Tensor | None
    rows_bias: Tensor | None

    def __init__(
        self, causal_lm: nn.Module, label_ids: tuple[int, ...], *, train_rows: bool = False
    ) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.register_buffer("label_ids", torch.tensor(label_ids), persistent=False)
        self.num_labels = len(label_ids)
        rows_LH, bias_L = self._head_rows(plain_model(causal_lm)) if train_rows else (None, None)
        self.register_parameter("rows", _trainable(rows_LH))
        self.register_parameter("rows_bias", _trainable(bias_L))

    def forward(self, batch: PromptBatch) -> Tensor:
        """Label logits of the prompts of a batch.

        Returns:
            ``(N, L)`` float32 logits, in the order of the batch's members.

        Raises:
            ModelError: prompts share a row, which this architecture does not do.
        """
        plain = plain_model(self.causal_lm)
        decoder = plain.get_decoder()
        masks = None
        if batch.positions is not None and batch.segments is not None:
            masks = shared_row_masks(decoder, batch.positions, batch.segments)
        # Padding stands to the right of all that is read, and attention looks to the left: it needs
        # no mask, and attention is faster without one.
        with read_only_at(batch.rows, batch.columns):
            hidden_BTH = decoder(
                input_ids=batch.input_ids,
                position_ids=batch.positions,
                attention_mask=masks,
                use_cache=False,
            ).last_hidden_state
        return self._rows_times(hidden_BTH[batch.rows, batch.columns], plain)

    @cached_property
    def shares_rows(self) -> bool:
        """Whether prompts may share a row (``make_batches(groups=…)``); see ``takes_shared_rows``.

        Found out at the first asking. Ask before the model is wrapped for several devices.
        """
        return takes_shared_rows(plain_model(self.causal_lm).get_decoder())

    def _head_rows(self, plain: PreTrainedModel) -> tuple[Tensor, Tensor | None]:
        head = cast("nn.Linear", plain.get_output_embeddings())
        label_ids = cast("Tensor", self.label_ids).to(head.weight.device)
        bias = getattr(head, "bias", None)
        return head.weight[label_ids], None if bias is None else bias[label_ids]

    def _rows_times(self, hidden_NH: Tensor, plain: PreTrainedModel) -> Tensor:
        rows_LH, bias_L = (
            self._head_rows(plain) if self.rows is None else (self.rows, self.rows_bias)
        )
        with torch.autocast(hidden_NH.device.type, enabled=False):
            logits_NL = hidden_NH.float() @ rows_LH.float().T
            if bias_L is not None:
                logits_NL = logits_NL + bias_L.float()
        cap = getattr(plain.config, "final_logit_softcapping", None)
        return cap * torch.tanh(logits_NL / cap) if cap else logits_NL


def plain_model(causal_lm: nn.Module) -> PreTrainedModel:
    """The Hugging Face model inside a PEFT wrapper, or the model itself."""
    unwrap: Any = getattr(causal_lm, "get_base_model", None)
    return cast("PreTrainedModel", unwrap() if unwrap else causal_lm)


@torch.no_grad()
def check_label_head(model: LabelModel, vocabulary_size: int) -> None:
    """Compare the label logits with the model's own full logits on one short input.

    Some architectures scale or shift their logits; reading rows of the head alone would then be
    wrong, silently. Label rows of the model's own must not have been trained yet.

    Raises:
        ModelError: the two differ by more than rounding.
    """
    plain = plain_model(model.causal_lm)
    device = cast("Tensor", model.label_ids).device
    ids = [place * 7919 % vocabulary_size for place in range(1, 9)]
    (batch,) = make_batches([ids], len(ids), 0)
    ours = model(batch.to(device))
    # The model's own way through a head that has the label rows alone: all rows would bring the
    # whole vocabulary into memory, which nothing else does.
    whole = plain.get_output_embeddings()
    plain.set_output_embeddings(_only_rows(whole, model.label_ids))
    try:
        input_ids = torch.tensor([ids], device=device)
        full = plain(input_ids=input_ids, use_cache=False, logits_to_keep=1)
    finally:
        plain.set_output_embeddings(whole)
    theirs = full.logits[:, -1].float()
    # Differences between labels are what counts; half-precision logits carry about 2^-8 relative.
    scale = 1 if full.logits.dtype == torch.float32 else 2**-6 / _TOLERANCE
    bound = _TOLERANCE * scale * max(1.0, float(theirs.abs().max()))
    if float((ours - theirs).abs().max()) > bound:
        raise ModelError(
            f"{type(plain).__name__}: the rows of the LM head do not reproduce the model's logits "
            f"({ours.tolist()} against {theirs.tolist()})",
            hint="This architecture changes its logits after the head and is not supported.",
        )


def _only_rows(head: Any, label_ids: Any) -> nn.Linear:
    bias = getattr(head, "bias", None)
    rows = nn.Linear(head.in_features, len(label_ids), bias=bias is not None, device="meta")
    rows.weight = nn.Parameter(head.weight[label_ids], requires_grad=False)
    if bias is not None:
        rows.bias = nn.Parameter(bias[label_ids], requires_grad=False)
    return rows


def _trainable(values: Tensor | None) -> nn.Parameter | None:
    return None if values is None else nn.Parameter(values.detach().float().clone())
