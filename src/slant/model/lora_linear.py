"""LoRA's linear layer in as few products and copies as it needs.

PEFT casts each layer's input to the float32 of the adapter, where autocast casts it back, and keeps
what lies between for the backward pass. Here input, base weight and adapter meet in the dtype of
the arithmetic once: y = x Wᵀ + (x (sA)ᵀ) Bᵀ, of which x and the rank-wide middle are kept.
Parameters stay PEFT's own, so that everything else, saving included, is as it was.

Shape letters: N tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

from typing import Any, final

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

__all__ = ["use_own_lora"]


def use_own_lora(model: nn.Module) -> int:
    """Give the LoRA layers of a PEFT model this forward pass, in place, for training.

    Left to PEFT are layers with dropout or DoRA, biases of the adapter, several adapters, and base
    weights that are not a plain ``nn.Linear`` (4 bits).

    Returns:
        How many layers were changed.
    """
    changed = 0
    for layer in model.modules():
        if type(layer) is Linear and _is_plain(layer):
            layer.__class__ = _OwnLinear
            changed += 1
    return changed


def _is_plain(layer: Any) -> bool:
    adapters = list(layer.lora_A)
    return (
        type(layer.base_layer) is nn.Linear
        and len(adapters) == 1
        and layer.active_adapters == adapters
        and isinstance(layer.lora_dropout[adapters[0]], nn.Identity)
        and not layer.lora_variant
        and layer.lora_A[adapters[0]].bias is None
        and layer.lora_B[adapters[0]].bias is None
    )


@final
class _OwnLinear(Linear):  # type: ignore[misc]
    """PEFT's layer with another forward pass; a class, so that ``torch.compile`` sees one code."""

    def forward(self, x: Tensor) -> Tensor:
        base = self.base_layer
        if self.disable_adapters or self.merged:
            merged: Tensor = base(x)
            return merged
        (name,) = self.lora_A
        kind = x.device.type
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else base.weight.dtype
        with torch.autocast(kind, enabled=False):
            out: Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
                x.to(dtype),
                base.weight.to(dtype),
                None if base.bias is None else base.bias.to(dtype),
                self.lora_A[name].weight,
                self.lora_B[name].weight,
                self.scaling[name],
            )
        return out


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, *adapter: Any
    ) -> Tensor:
        a_RI, b_OR, scale = adapter
        x_NI = x.reshape(-1, x.shape[-1])
        scaled_RI, b = (a_RI * scale).to(x.dtype), b_OR.to(x.dtype)
        middle_NR = F.linear(x_NI, scaled_RI)
        y_NO = F.linear(x_NI, weight_OI, bias_O).addmm_(middle_NR, b.T)
        ctx.save_for_backward(x_NI, middle_NR, weight_OI, scaled_RI, b)
        ctx.scale, ctx.shape = scale, x.shape
        return y_NO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, middle_NR, weight_OI, scaled_RI, b_OR = ctx.saved_tensors
        grad_NO = grad_outputs[0].reshape(-1, len(weight_OI))
        grad_middle_NR = grad_NO @ b_OR
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_NO @ weight_OI).addmm_(grad_middle_NR, scaled_RI).view(ctx.shape)
        grad_a = (grad_middle_NR.T @ x_NI).float() * ctx.scale
        grad_b = (grad_NO.T @ middle_NR).float()
        return grad_x, None, None, grad_a, grad_b, None
