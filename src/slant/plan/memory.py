"""What a training keeps in memory, byte by byte, from the sizes of the model.

The terms of ``_layer_bytes`` are the tensors that PyTorch saves for the backward pass of a decoder
layer as transformers and PEFT compute it, counted with ``torch.autograd.graph.saved_tensors_hooks``
on every family of ``slant.model.flops``; a test counts them again. Bytes of an NF4 weight follow
Dettmers et al. 2023 (QLoRA, section 3): 4 bits, a byte a block of 64, and 4 bytes a block of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, final

from slant.model.attention import MOST_TOKENS
from slant.model.flops import Shape

__all__ = ["CHUNK_TOKENS", "Load", "Memory", "host_bytes", "training_memory"]

CHUNK_TOKENS = 256
"""Tokens whose full logits adapt holds at once (``train.objective``)."""

_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_MIB = 1 << 20
_BUCKET_BYTES = 128 * _MIB  # gradients that processes sum at once (``train.parallel``)
# A CUDA context with its libraries, and what the caching allocator loses to gaps: assumed.
_CUDA_PROCESS_BYTES = 600 * _MIB
_CUDA_GAPS = 0.05
# Python with torch, transformers and PEFT; and the gaps between blocks that the C library does not
# give back: measured, see benchmarks/results/plan.md.
_CPU_PROCESS_BYTES = 650 * _MIB
_CPU_GAPS = 0.65
# With activations computed again, blocks of all sizes come and go in every layer.
_CPU_GAPS_AGAIN = 3.3


@final
@dataclass(frozen=True)
class Load:
    """All that decides how much memory a training takes.

    Attributes:
        shape: of the model.
        stage: what is trained for.
        method: ``lora`` or ``full``.
        rank: of the adapters.
        has_dropout: whether their input is dropped out.
        has_average: whether a running average of the trained weights is kept.
        half: whether arithmetic is in 16 bits; else in 32.
        quantized: whether the base's linear weights are NF4.
        checkpointing: whether activations are computed again in the backward pass.
        pass_tokens: most tokens that go through the model at once, padding included.
        row_tokens: width of the longest row.
        devices: that train together.
        sharded: whether they split the weights (``fsdp``).
        cuda: whether they are GPUs.
    """

    shape: Shape
    stage: Literal["adapt", "tune"]
    method: Literal["lora", "full"] = "lora"
    rank: int = 16
    has_dropout: bool = False
    has_average: bool = False
    half: bool = True
    quantized: bool = False
    checkpointing: bool = False
    pass_tokens: int = 2048
    row_tokens: int = 512
    devices: int = 1
    sharded: bool = False
    cuda: bool = True

    @property
    def smallest(self) -> Load:
        """The same with one row a pass, which is the least that training can do."""
        return replace(self, pass_tokens=self.row_tokens)


@final
@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the worst moment, by component."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All components together."""
        return sum(self.parts.values())


def training_memory(load: Load) -> Memory:
    """The peak of a training on each of its devices.

    What the method keeps (weights, gradients, AdamW's moments) stays for the whole training. The
    worst moment is the beginning of the backward pass, when all activations are there, or the
    optimizer's step, or, in main memory, putting the adapters into the base at the end of adapt.
    """
    is_full, split = load.method == "full", load.devices if load.sharded else 1
    trained = load.shape.layer_params if is_full else load.shape.adapter_params(load.rank)
    trained_split = trained // split
    passing = {
        "16-bit copies of trained weights": 2 * trained_split if load.half else 0,
        "activations": _activations(load),
        "logits of a chunk": _logits(load),
        "workspace": _workspace(load),
    }
    on_pass = sum(passing.values())
    # AdamW on a GPU works on all weights at once and holds one copy of them meanwhile.
    on_step = 4 * trained_split if load.cuda else 0
    at_end = 0 if load.cuda or load.stage == "tune" else _merge_bytes(load)
    parts = {
        "weights, frozen": _frozen_bytes(load) // split,
        "weights, trained": 4 * trained_split,
        "gradients": 4 * trained_split,
        "AdamW moments": 8 * trained_split,
        # While it is measured in their place, the weights are kept too.
        "average of the weights": 8 * trained_split if load.has_average else 0,
        "gathered weights and gradients": _shared_bytes(load, trained),
        **passing,
        "more at the update": max(0, on_step - on_pass),
        "more at the merge": max(0, at_end - on_pass),
        "process and allocator": _process_bytes(load, on_pass),
    }
    return Memory({name: int(size) for name, size in parts.items() if size})


def _process_bytes(load: Load, on_pass: int) -> float:
    if load.cuda:
        return _CUDA_PROCESS_BYTES + _CUDA_GAPS * on_pass
    return _CPU_PROCESS_BYTES + (_CPU_GAPS_AGAIN if load.checkpointing else _CPU_GAPS) * on_pass


def host_bytes(load: Load) -> int:
    """Main memory that putting the adapters into the base takes at the end (adapt, evaluate,
    export): the sum is taken in float32, beside the rounded copy; on a GPU too."""
    return _CPU_PROCESS_BYTES + _merge_bytes(load)


def _merge_bytes(load: Load) -> int:
    """The base with adapters in float32 and, where arithmetic is in 16 bits, rounded."""
    in_float32 = 0 if load.method == "full" else 4
    return load.shape.num_params * (in_float32 + (2 if load.half else 0))


def _width(load: Load) -> int:
    return 2 if load.half else 4


def _frozen_bytes(load: Load) -> int:
    shape = load.shape
    if load.method == "full":  # all weights are float32; those of the layers are trained
        return 4 * shape.embedding_params
    small = shape.num_params - shape.linear_params
    linear = shape.linear_params * (_NF4_BYTES if load.quantized else _width(load))
    return int(linear) + small * _width(load)


def _shared_bytes(load: Load, trained: int) -> int:
    """What several devices hold for one another: whole weights for a moment, sums of gradients."""
    if load.devices == 1:
        return 0
    if not load.sharded:
        return min(_BUCKET_BYTES, 4 * trained)
    shape = load.shape
    width = 4 if load.method == "full" else _width(load)
    # The layer at work and the next one; what is outside the layers stays whole through a pass.
    return width * (shape.embedding_params + 2 * shape.layer_params // shape.num_layers)


def _logits(load: Load) -> int:
    """Of a chunk in adapt: logits, their gradient, and one more while they are worked on; and the
    gradient of the hidden states, which is taken in the forward pass."""
    if load.stage == "tune":
        return 0
    shape = load.shape
    chunk = 3 * CHUNK_TOKENS * shape.vocabulary
    return (chunk + 2 * load.pass_tokens * shape.hidden) * _width(load)


def _activations(load: Load) -> int:
    shape = load.shape
    layer = _layer_bytes(load)
    # The last norm works in float32; the embedding's output is the first layer's input.
    outside = shape.hidden * (4 + 2 * _width(load))
    if not load.checkpointing:
        return load.pass_tokens * (shape.num_layers * layer + outside)
    inputs = shape.num_layers * shape.hidden * (4 if load.method == "full" else _width(load))
    return load.pass_tokens * (inputs + layer + outside)


def _layer_bytes(load: Load) -> int:
    """Bytes that a layer keeps for the backward pass, for a token."""
    shape, width = load.shape, _width(load)
    h, i, q, k = shape.hidden, shape.intermediate, shape.query, shape.key
    num_keys = k // shape.head_dim
    # In float32: the input of a norm and, for the gradient of its weight, what it is scaled to.
    times = 8 if load.method == "full" else 4
    norms = shape.norms * (times * h + 4)
    if shape.qk_norms:
        norms += times * (q + k) + 4 * (shape.num_heads + num_keys)
    if not load.cuda and load.row_tokens <= MOST_TOKENS:  # in whole products
        attention = 2 * k + 2 * q
        seen = width * shape.num_heads * load.row_tokens  # probabilities
    else:
        # With a mask, keys and values are repeated for every query head; one head needs no copies.
        attention = 2 * (q if num_keys > 1 else k) + 2 * q
        seen = width * load.row_tokens  # the mask
    mlp = 4 * i
    # Adapters take their input in float32 (and whole layers have it so): in 16-bit arithmetic each
    # matrix rounds a copy of its own.
    copies = 5 * h + q if load.half else 2 * h
    elements = attention + mlp + copies
    total = norms + seen + 4 * shape.num_heads + width * elements
    if load.method == "lora":
        total += width * 7 * load.rank
        if load.has_dropout:
            # What is left in: a byte on a GPU, a float on a CPU; no input is shared any more.
            total += (1 if load.cuda else 4) * (5 * h + q + i)
            total += 0 if load.half else 4 * 3 * h
    return total


def _workspace(load: Load) -> int:
    """What comes and goes within a layer: gradients on the way, a weight taken out of NF4."""
    shape, width = load.shape, _width(load)
    passing = 4 * shape.intermediate * width * load.pass_tokens
    weight = max(rows * columns for rows, columns in shape.matrices) * width
    return passing + (weight if load.quantized else 0)
