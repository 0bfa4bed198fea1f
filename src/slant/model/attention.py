"""Attention as plain matrix products: on a CPU the fast way for rows of some hundred tokens.

PyTorch's fused kernel goes through the keys in small blocks, for the sake of memory. On a CPU with
bfloat16 arithmetic, forward and backward in whole products took a third of its time for rows of 256
to 1,024 tokens. The price is the probabilities, which are kept: heads x T x S for each layer.

Shape letters: B rows, Q heads of queries, K heads of keys (G = Q / K queries share one), T queries,
S keys, D size of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["MOST_TOKENS", "PRODUCTS", "as_numbers", "use_product_attention"]

PRODUCTS = "slant_products"
"""Name of this attention in a model's configuration."""
_MORE = ("is_causal", "position_bias", "softcap", "s_aux")
MOST_TOKENS = 1024
"""Of a row in training. Longer ones go through PyTorch's kernel: their probabilities, which are
kept in every layer, would take more memory than all else."""
_MOST_PROBABILITIES = 2**26
"""Of a batch in scoring, where those of one layer are there at a time."""


def use_product_attention(model: Any) -> bool:
    """Give ``model`` this attention, in place, where it is on a CPU.

    Args:
        model: a Hugging Face causal LM.

    Returns:
        Whether it was done. It is left undone for attention other than PyTorch's, or with a
        softcap, which this one has not.
    """
    config = model.config.get_text_config()
    if (
        model.device.type != "cpu"
        or config._attn_implementation != "sdpa"
        or getattr(config, "attn_logit_softcapping", None) is not None
    ):
        return False
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(PRODUCTS, _attend)
    AttentionMaskInterface.register(PRODUCTS, sdpa_mask)
    model.set_attn_implementation(PRODUCTS)
    return True


def _attend(  # noqa: PLR0917 (transformers calls it so)
    module: Any,
    query_BQTD: Tensor,
    key_BKSD: Tensor,
    value_BKSD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers' ``sdpa`` computes: without a mask, each token sees those up to itself.

    Args:
        module: attention layer.
        query_BQTD: queries.
        key_BKSD: keys; fewer heads than queries where groups share them.
        value_BKSD: values.
        attention_mask: true where a query sees a key, or numbers to add; ``(B or 1, 1, T, S)``.
        dropout: on the probabilities.
        scaling: of the scores; None: one over the root of D.
        options: PyTorch's kernel gets what is asked of it beyond this.

    Returns:
        ``(B, T, Q, D)``, and None for the probabilities.
    """
    import torch

    more = [name for name, value in options.items() if name in _MORE and value is not None]
    if more or _is_too_wide(query_BQTD, key_BKSD) or not getattr(module, "is_causal", True):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_BQTD, key_BKSD, value_BKSD, attention_mask, dropout, scaling, **options
        )
        return fused
    num_rows, num_heads, num_queries, size = query_BQTD.shape
    num_key_heads, num_keys = key_BKSD.shape[1:3]
    together = num_rows * num_key_heads
    query = query_BQTD.reshape(together, -1, size)  # the queries of a group, one below the other
    key = key_BKSD.reshape(together, num_keys, size)
    value = value_BKSD.reshape(together, num_keys, -1)
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(size**-0.5 if scaling is None else scaling)
    scores = scores.view(num_rows, num_key_heads, -1, num_queries, num_keys)
    scores.add_(_numbers_to_add(attention_mask, num_queries, num_keys, scores)[:, :, None])
    probabilities = torch.softmax(scores, dim=-1)
    if dropout:
        probabilities = torch.dropout(probabilities, dropout, train=True)
    mixed = torch.bmm(probabilities.view(together, -1, num_keys), value)
    return mixed.view(num_rows, num_heads, num_queries, -1).transpose(1, 2).contiguous(), None


def _is_too_wide(query_BQTD: Tensor, key_BKSD: Tensor) -> bool:
    import torch

    num_keys = key_BKSD.shape[2]
    if torch.is_grad_enabled():
        return num_keys > MOST_TOKENS
    num_rows, num_heads, num_queries, _ = query_BQTD.shape
    return num_rows * num_heads * num_queries * num_keys > _MOST_PROBABILITIES


def as_numbers(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask that is true where a query sees a key, as what is added to scores."""
    import torch

    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


def _numbers_to_add(mask: Tensor | None, num_queries: int, num_keys: int, like: Tensor) -> Tensor:
    """A mask ``(B or 1, 1, T, S)`` as what is added to scores."""
    import torch

    if mask is None:
        lowest = torch.finfo(like.dtype).min
        past = torch.full((num_queries, num_keys), lowest, dtype=like.dtype, device=like.device)
        return past.triu_(num_keys - num_queries + 1)[None, None]
    if mask.dtype == torch.bool:
        return as_numbers(mask, like.dtype)
    return mask.to(like.dtype)
