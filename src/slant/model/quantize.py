"""Linear layers rounded to 8 or 4 bits, for scoring.

``int8``: weights rounded once, activations as they come (dynamic W8A8). A product of 8-bit integers
takes half the time of one in bfloat16 on processors with VNNI or AMX and on GPUs, and its weights
half the memory. Every output channel of a weight and every token of an activation has a scale of
its own, the largest magnitude over 127 (symmetric; Dettmers et al. 2022, LLM.int8(), without its
outliers apart).

``nf4``: weights in 4 bits, double-quantised (Dettmers et al. 2023, QLoRA; bitsandbytes). A quarter
of the memory; the arithmetic stays what it was, so that it is no faster.

Shape letters: M tokens, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast, final

import torch
from torch import Tensor, nn

from slant.errors import ModelError, did_you_mean
from slant.model.base import quiet_transformers
from slant.task.spec import QUANTIZE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Int8Linear", "quantize_layers", "round_to_nf4"]

_LARGEST = 127
# Their input is the result of a norm or of a product of elements, which compiled code rounds on the
# way. That of others may be a transposition, as after attention: fused with the search for the
# largest, it was seen to take twenty times as long.
_AFTER_ELEMENTWISE = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj")
_LEAST_ROWS = 17  # torch's product of integers takes no fewer on CUDA
_MULTIPLE = 8  # and no other widths there


@final
class Int8Linear(nn.Module):
    """What ``linear`` computes, in 8 bits.

    Attributes:
        weight: ``(K, N)`` int8.
        scales: ``(N,)`` float32; ``weight * scales`` is about what was rounded.
        bias: ``(N,)``, if any.

    Args:
        linear: its weights are rounded; it is not kept.
        apart: whether compiled code is to round activations in a step of its own.
    """

    weight: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, *, apart: bool = True) -> None:
        super().__init__()
        self._round = _round_apart if apart else _round_tokens
        weight_NK = linear.weight.detach().float()
        scale_N = weight_NK.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
        rounded_NK = (weight_NK / scale_N[:, None]).round().to(torch.int8)
        self.register_buffer("weight", rounded_NK.T.contiguous())
        self.register_buffer("scales", scale_N)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        """``(…, K)`` → ``(…, N)``, in the dtype of ``inputs``."""
        rounded, scale = self._round(inputs)
        sums_MN = _integer_product(rounded.reshape(-1, inputs.shape[-1]), self.weight)
        outputs = (
            sums_MN.reshape(*inputs.shape[:-1], self.scales.shape[0]).float() * scale * self.scales
        )
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.to(inputs.dtype)


def _round_tokens(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """``(…, K)`` int8 and ``(…, 1)`` float32 scales: their product is about ``inputs``."""
    scale = inputs.abs().amax(dim=-1, keepdim=True).float() / _LARGEST
    scale = scale.clamp_min(torch.finfo(torch.float32).tiny)
    return (inputs.float() / scale).round().to(torch.int8), scale


# torch.compile takes an operator of one's own as it is.
@torch.library.custom_op("slant::round_tokens", mutates_args=())
def _round_apart(inputs: Tensor) -> tuple[Tensor, Tensor]:
    return _round_tokens(inputs)


@_round_apart.register_fake
def _(inputs: Tensor) -> tuple[Tensor, Tensor]:
    scale = inputs.new_empty((*inputs.shape[:-1], 1), dtype=torch.float32)
    return inputs.new_empty(inputs.shape, dtype=torch.int8), scale


def _integer_product(rows_MK: Tensor, weight_KN: Tensor) -> Tensor:
    """``(M, N)`` int32."""
    num_rows = rows_MK.shape[0]
    if rows_MK.is_cuda and num_rows < _LEAST_ROWS:
        rows_MK = nn.functional.pad(rows_MK, (0, 0, 0, _LEAST_ROWS - num_rows))
    return torch._int_mm(rows_MK, weight_KN)[:num_rows]


def quantize_layers(model: PreTrainedModel, scheme: str) -> None:
    """Round the linear layers of ``model``'s decoder, in place; the LM head stays as it is.

    Args:
        model: a Hugging Face causal LM, on the device that it will run on.
        scheme: ``none``, ``int8`` or ``nf4``.

    Raises:
        ModelError: there is no such scheme, no linear layer, no bitsandbytes, or this device does
            not multiply 8-bit integers.
    """
    if scheme == "none":
        return
    if scheme not in QUANTIZE:
        raise ModelError(
            f"there is no quantisation {scheme!r}{did_you_mean(scheme, QUANTIZE)}",
            hint=f"Choose one of {', '.join(QUANTIZE)}.",
        )
    decoder = model.get_decoder()
    names = _linear_names(decoder)
    if not names:
        raise ModelError(
            f"{type(model).__name__}: has no linear layers to quantise",
            hint="Score it with quantize: none.",
        )
    if scheme == "int8":
        _check_int8(decoder.device, [decoder.get_submodule(name).weight for name in names])
    for name in names:
        linear = cast("nn.Linear", decoder.get_submodule(name))
        if scheme == "int8":
            apart = name.rpartition(".")[2] not in _AFTER_ELEMENTWISE
            rounded: nn.Module = Int8Linear(linear, apart=apart)
        else:
            rounded = _nf4_linear(linear)
        decoder.set_submodule(name, rounded)


def _check_int8(device: torch.device, weights: Iterable[Tensor]) -> None:
    if device.type not in ("cpu", "cuda"):
        raise ModelError(
            f"PyTorch multiplies no 8-bit integers on {device.type}",
            hint="Score with quantize: none, or on a CPU or a CUDA device.",
        )
    odd = [tuple(w.shape) for w in weights if any(size % _MULTIPLE for size in w.shape)]
    if device.type == "cuda" and odd:
        raise ModelError(
            f"a linear layer is {odd[0]}; a GPU multiplies 8-bit integers in multiples of "
            f"{_MULTIPLE}",
            hint="Score it with quantize: none.",
        )


@torch.no_grad()
def round_to_nf4(model: PreTrainedModel) -> None:
    """Give the decoder's linear layers the weights that 4 bits hold of them, in place.

    They are then what an adapter was trained beside where ``model.quantize`` is ``nf4`` (QLoRA), in
    the dtype that they have now: base and adapter can be added.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    bnb, decoder = _bitsandbytes(), model.get_decoder()
    for name in _linear_names(decoder):
        weight = cast("nn.Linear", decoder.get_submodule(name)).weight
        packed, state = bnb.functional.quantize_4bit(
            weight.detach().contiguous(), compress_statistics=True, quant_type="nf4"
        )
        weight.copy_(bnb.functional.dequantize_4bit(packed, state))


def _linear_names(decoder: nn.Module) -> list[str]:
    return [name for name, part in decoder.named_modules() if isinstance(part, nn.Linear)]


def _bitsandbytes() -> Any:
    try:
        with quiet_transformers():
            import bitsandbytes as bnb
    except ImportError as error:
        raise ModelError(
            "quantize: nf4 needs bitsandbytes, which is not installed",
            hint="pip install 'slant[nf4]'",
        ) from error
    return bnb


def _nf4_linear(linear: nn.Linear) -> nn.Module:
    bnb = _bitsandbytes()
    weight = linear.weight.detach()
    rounded = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=weight.dtype,
        quant_type="nf4",
    )
    rounded.weight = bnb.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4")
    if linear.bias is not None:
        rounded.bias = linear.bias
    on_device: nn.Module = rounded.to(weight.device)  # this is when bitsandbytes rounds it
    return on_device
