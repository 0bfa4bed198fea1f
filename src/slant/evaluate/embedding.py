"""What a model that was not tuned makes of a text: the mean of its last hidden states.

Shape letters: N prompts, B rows, T tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from slant.model.attention import use_product_attention
from slant.model.batches import make_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["embed"]

_TOKENS_PER_BATCH = 1024


@torch.inference_mode()
def embed(
    causal_lm: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    pad_token_id: int,
    on_done: Callable[[int], None],
) -> NDArray[np.float32]:
    """``(N, H)`` float32: the mean over the tokens of each prompt.

    Args:
        causal_lm: in evaluation mode, on its device; it is changed in place to be fast.
        prompts: token ids.
        pad_token_id: fills the batches.
        on_done: told how many more are done.
    """
    use_product_attention(causal_lm)
    decoder = causal_lm.get_decoder()
    found_NH = np.empty((len(prompts), causal_lm.config.hidden_size), dtype=np.float32)
    for on_host in make_batches(prompts, _TOKENS_PER_BATCH, pad_token_id):
        batch = on_host.to(causal_lm.device)
        hidden_BTH = decoder(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        # Padding stands to the right, and every row is one prompt: its last token ends it.
        places_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
        is_read_BT = places_T <= batch.columns[:, None]
        sums_BH = (hidden_BTH.float() * is_read_BT[..., None]).sum(dim=1)
        means_BH = sums_BH / is_read_BT.sum(dim=1, keepdim=True)
        found_NH[list(batch.members)] = means_BH.cpu().numpy()
        on_done(len(batch.members))
    return found_NH
