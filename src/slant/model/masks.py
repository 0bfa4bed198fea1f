"""Attention masks of shared rows: prompts of one document that hold what they share once.

A shared row is the token ids that its prompts begin with (segment 0), then the rest of each prompt
(segments 1, 2, …). A token sees segment 0 and its own segment, up to itself. Positions go on from
segment 0 in every other segment, and sliding windows go by position, not by place in the row: each
prompt is computed as if it stood alone.

Shape letters: B rows, T tokens of a row, Q and K the same as queries and as keys.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from slant.errors import ModelError
from slant.model.attention import PRODUCTS, as_numbers

__all__ = ["shared_row_masks", "takes_shared_rows"]

_FULL, _SLIDING = "full_attention", "sliding_attention"
_WITH_TRUTHS = ("sdpa", PRODUCTS)  # attention that takes masks of true and false
# Rounding was seen to make a share of 4e-6 in float32 and 0.04 in bfloat16, and a prompt that sees
# others makes 1.
_MOST_OFF = 0.25


@torch.no_grad()
def takes_shared_rows(decoder: Any) -> bool:
    """Whether this decoder computes shared rows.

    Its configuration must tell of nothing but full and sliding attention to the left, and its code
    of positions and masks that can be given. Some decoders carry on a state beside attention, or
    measure distance without positions: so a prompt of 24 tokens must also come out the same in a
    shared row, measured against what it gives where the prompts of a row see each other.

    Args:
        decoder: a Hugging Face decoder (``causal_lm.get_decoder()``); its mode is left as it is.
    """
    if not _could_take_shared_rows(decoder):
        return False
    positions_T = torch.arange(32, device=decoder.device)
    ids_T = (positions_T + 1) * 7919 % decoder.get_input_embeddings().num_embeddings
    segments_T = torch.tensor([0] * 16 + [1] * 8 + [2] * 8, device=decoder.device)
    restarted_T = torch.where(segments_T == 2, positions_T - 8, positions_T)
    of_second_T = segments_T != 1
    masks = shared_row_masks(decoder, restarted_T[None], segments_T[None])
    training = decoder.training
    decoder.eval()
    try:
        alone, shared, mixed_up = (
            decoder(
                input_ids=ids[None],
                position_ids=positions[None],
                attention_mask=mask,
                use_cache=False,
            )
            .last_hidden_state[0, -8:]
            .float()
            for ids, positions, mask in (
                (ids_T[of_second_T], restarted_T[of_second_T], None),
                (ids_T, restarted_T, masks),
                (ids_T, positions_T, None),
            )
        )
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False  # an architecture that takes no such mask says so in its own way
    finally:
        decoder.train(training)
    return bool((shared - alone).norm() <= _MOST_OFF * (mixed_up - alone).norm())


def _could_take_shared_rows(decoder: Any) -> bool:
    config = decoder.config.get_text_config()
    return (
        _layer_kinds(config) <= {_FULL, _SLIDING}
        and config._attn_implementation in (*_WITH_TRUTHS, "eager")
        and not getattr(config, "use_bidirectional_attention", False)
        and getattr(config, "is_causal", True)
        and "position_ids" in inspect.signature(decoder.forward).parameters
    )


def shared_row_masks(
    decoder: Any, positions_BT: Tensor, segments_BT: Tensor
) -> Tensor | dict[str, Tensor]:
    """What a decoder must be given as ``attention_mask`` to keep the prompts of a row apart.

    Args:
        decoder: a Hugging Face decoder.
        positions_BT: of each token within its own prompt, from 0.
        segments_BT: 0 for what a row's prompts share, 1, 2, … for the rest of each, -1 for padding
            on the right.

    Returns:
        ``(B, 1, T, T)``, true where the query (third axis) sees the key (in eager mode numbers to
        add to the scores instead). A decoder that mixes full and sliding layers gets a dictionary
        of both under the names of the layer types; transformers takes these forms as they are.

    Raises:
        ModelError: its configuration rules shared rows out (see ``takes_shared_rows``).
    """
    config = decoder.config.get_text_config()
    if not _could_take_shared_rows(decoder):
        raise ModelError(
            f"{type(decoder).__name__}: its attention cannot keep prompts in one row apart "
            f"({', '.join(sorted(_layer_kinds(config)))}; {config._attn_implementation})",
            hint="Give each prompt a row of its own.",
        )
    num_tokens = segments_BT.shape[1]
    full_BQK = (segments_BT == 0)[:, None, :] | (segments_BT[:, :, None] == segments_BT[:, None, :])
    full_BQK &= torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=full_BQK.device).tril()
    masks = {}
    for kind in sorted(_layer_kinds(config)):
        seen_BQK = full_BQK
        if kind == _SLIDING and num_tokens > config.sliding_window:
            places_BT = positions_BT.int()
            distance_BQK = places_BT[:, :, None] - places_BT[:, None, :]
            seen_BQK = full_BQK & (distance_BQK < config.sliding_window)
        masks[kind] = _as_attention_takes_it(decoder, seen_BQK[:, None])
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _layer_kinds(config: Any) -> set[str]:
    """The layer types, by the rules of ``create_masks_for_generate`` in transformers."""
    if getattr(config, "layer_types", None):
        return set(config.layer_types)
    if getattr(config, "sliding_window", None) is not None:
        return {_SLIDING}
    return {"chunked_attention" if getattr(config, "attention_chunk_size", None) else _FULL}


def _as_attention_takes_it(decoder: Any, seen: Tensor) -> Tensor:
    if decoder.config.get_text_config()._attn_implementation in _WITH_TRUTHS:
        return seen
    return as_numbers(seen, decoder.dtype)
