"""The last layer, computed where its output is read and nowhere else.

Label logits are read at the last token of each prompt. There the last layer looks at the keys and
values of all tokens, but what it would make of the other tokens nobody reads: their queries, their
norms, their way through the MLP. That is nearly a whole layer less, with the same result: one of 18
in Gemma 3 270M, one of 32 in Mistral 7B.

Shape letters: B rows, T tokens, N places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from torch import Tensor

from slant.model.flops import FAMILIES

__all__ = ["narrow_last_layer", "read_only_at", "wide_layers"]

_PLACES: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("places", default=None)


@contextmanager
def read_only_at(rows_N: Tensor, columns_N: Tensor) -> Iterator[None]:
    """In this block (and thread), narrowed layers are computed at these places alone."""
    token = _PLACES.set((rows_N, columns_N))
    try:
        yield
    finally:
        _PLACES.reset(token)


def narrow_last_layer(decoder: Any) -> bool:
    """Let ``read_only_at`` narrow the last layer of ``decoder``, in place.

    What the decoder gives at other places is then meaningless. Outside of ``read_only_at`` nothing
    changes.

    Args:
        decoder: a Hugging Face decoder.

    Returns:
        Whether it was done: only for families whose layers are known (``flops.FAMILIES``).
    """
    if decoder.config.model_type not in FAMILIES:
        return False
    if _is_narrowed(decoder.norm):
        return True
    layer = decoder.layers[-1]
    parts = [part for name, part in layer.named_children() if name not in _OF_ALL_TOKENS]
    for part in (layer.self_attn.q_proj, layer.self_attn.o_proj, *parts, decoder.norm):
        part.forward = partial(_at_places, part.forward)
    return True


def wide_layers(decoder: Any) -> list[Any]:
    """The layers of ``decoder`` that are computed for all tokens."""
    return [layer for layer in decoder.layers if not any(map(_is_narrowed, layer.children()))]


def _is_narrowed(part: Any) -> bool:
    return getattr(vars(part).get("forward"), "func", None) is _at_places


_OF_ALL_TOKENS = ("input_layernorm", "self_attn")  # keys and values are made of these


def _at_places(forward: Callable[[Tensor], Tensor], values_BTH: Tensor) -> Tensor:
    """``forward`` of each token by itself; zeros where nobody reads it."""
    if (places := _PLACES.get()) is None:
        return forward(values_BTH)
    rows_N, columns_N = places
    # Selecting whole rows of a matrix; the gradient of ``values_BTH[rows_N, columns_N]`` is slow.
    flat_N = rows_N * values_BTH.shape[1] + columns_N
    found_NH = forward(values_BTH.flatten(0, 1).index_select(0, flat_N))
    out_MH = found_NH.new_zeros((values_BTH[..., 0].numel(), found_NH.shape[-1]))
    return out_MH.index_copy_(0, flat_N, found_NH).view(*values_BTH.shape[:-1], -1)
