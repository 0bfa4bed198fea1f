"""Label logits: the label rows of the LM head at the last prompt token, and nothing else.

Shape letters: B prompts, T tokens, H hidden size, L labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from slant.errors import ModelError

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
    """

    def __init__(self, causal_lm: nn.Module, label_ids: tuple[int, ...]) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.register_buffer("label_ids", torch.tensor(label_ids), persistent=False)
        self.num_labels = len(label_ids)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Label logits of right-padded prompts.

        Args:
            input_ids: ``(B, T)`` token ids.
            attention_mask: ``(B, T)``, 1 for a token and 0 for padding.

        Returns:
            ``(B, L)`` float32 logits.
        """
        plain = plain_model(self.causal_lm)
        decoder = plain.get_decoder()
        # Without padding no mask is needed, and attention is faster without one.
        mask = None if bool(attention_mask.all()) else attention_mask
        hidden_BTH = decoder(
            input_ids=input_ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        last_B = attention_mask.sum(dim=1) - 1
        hidden_BH = hidden_BTH[torch.arange(len(last_B), device=last_B.device), last_B]
        return self._rows_times(hidden_BH, plain)

    def _rows_times(self, hidden_BH: Tensor, plain: PreTrainedModel) -> Tensor:
        head = cast("nn.Linear", plain.get_output_embeddings())
        label_ids = cast("Tensor", self.label_ids)
        device_type = hidden_BH.device.type
        with torch.autocast(device_type, enabled=False):
            logits_BL = hidden_BH.float() @ head.weight[label_ids].float().T
            if getattr(head, "bias", None) is not None:
                logits_BL = logits_BL + head.bias[label_ids].float()
        cap = getattr(plain.config, "final_logit_softcapping", None)
        return cap * torch.tanh(logits_BL / cap) if cap else logits_BL


def plain_model(causal_lm: nn.Module) -> PreTrainedModel:
    """The Hugging Face model inside a PEFT wrapper, or the model itself."""
    unwrap: Any = getattr(causal_lm, "get_base_model", None)
    return cast("PreTrainedModel", unwrap() if unwrap else causal_lm)


@torch.no_grad()
def check_label_head(model: LabelModel, vocabulary_size: int) -> None:
    """Compare the label logits with the model's own full logits on one short input.

    Some architectures scale or shift their logits; reading rows of the head alone would then be
    wrong, silently.

    Raises:
        ModelError: the two differ by more than rounding.
    """
    plain = plain_model(model.causal_lm)
    device = cast("Tensor", model.label_ids).device
    input_ids = (torch.arange(1, 9, device=device) * 7919 % vocabulary_size).unsqueeze(0)
    ours = model(input_ids, torch.ones_like(input_ids))
    full = plain(input_ids=input_ids, use_cache=False, logits_to_keep=1).logits[:, -1]
    theirs = full[:, model.label_ids].float()
    # Differences between labels are what counts; half-precision logits carry about 2^-8 relative.
    scale = 1 if full.dtype == torch.float32 else 2**-6 / _TOLERANCE
    bound = _TOLERANCE * scale * max(1.0, float(theirs.abs().max()))
    if float((ours - theirs).abs().max()) > bound:
        raise ModelError(
            f"{type(plain).__name__}: the rows of the LM head do not reproduce the model's logits "
            f"({ours.tolist()} against {theirs.tolist()})",
            hint="This architecture changes its logits after the head and is not supported.",
        )
