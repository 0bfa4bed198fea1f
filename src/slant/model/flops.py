"""How large a decoder is and how much arithmetic a token costs, from its config.json alone.

Nothing here loads weights. Counts of parameters are exact for the families listed in ``FAMILIES``;
floating-point operations are those of matrix products (a multiplication and an addition are two),
as Kaplan et al. 2020 (arXiv 2001.08361, section 2.1) and Chowdhery et al. 2022 (PaLM, appendix B)
count them, and what a model needs, not what a kernel computes in vain behind a mask.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

from slant.errors import ModelError

if TYPE_CHECKING:
    import torch

__all__ = ["FAMILIES", "Flops", "Shape", "flops_per_token", "matmul_rate"]


@dataclass(frozen=True)
class _Family:
    """What config.json leaves to the architecture's code in transformers."""

    norms: int = 2
    qk_norms: bool = False
    qkv_bias: bool = False
    tied: bool = False


FAMILIES: Mapping[str, _Family] = {
    "gemma": _Family(tied=True),
    "gemma2": _Family(norms=4, tied=True),
    "gemma3_text": _Family(norms=4, qk_norms=True, tied=True),
    "llama": _Family(),
    "mistral": _Family(),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(qk_norms=True),
}
"""Model types whose shape is known: decoders with gated MLPs and RMSNorm, by their
``modeling_*.py`` in transformers 5."""


@final
@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder.

    Attributes:
        hidden: width of the residual stream.
        intermediate: width of the gated MLP.
        query: width of the queries, heads × head size.
        key: width of the keys (and of the values).
        num_heads: query heads.
        head_dim: their width.
        vocabulary: rows of the embedding.
        windows: for each layer, how many tokens back attention reaches; None: all.
        tied: whether embedding and LM head are one matrix.
        norms: RMSNorms over ``hidden`` in a layer.
        qk_norms: whether queries and keys are normalised.
        bias_per_layer: bias weights in a layer.
    """

    hidden: int
    intermediate: int
    query: int
    key: int
    num_heads: int
    head_dim: int
    vocabulary: int
    windows: tuple[int | None, ...]
    tied: bool
    norms: int
    qk_norms: bool
    bias_per_layer: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape:
        """The shape that a Hugging Face config.json tells.

        Raises:
            ModelError: it is of a family that is not known here, or lacks a size.
        """
        family = FAMILIES.get(str(config.get("model_type")))
        if family is None:
            raise ModelError(
                f"config.json: the sizes of model type {config.get('model_type')!r} are not known",
                hint=f"Known are {', '.join(FAMILIES)}.",
            )
        hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
        intermediate, num_layers = (
            _size(config, "intermediate_size"),
            _size(config, "num_hidden_layers"),
        )
        head_dim = config.get("head_dim") or hidden // heads
        query = heads * head_dim
        key = (config.get("num_key_value_heads") or heads) * head_dim
        bias = 0
        if family.qkv_bias or config.get("attention_bias"):
            bias += query + 2 * key
        if config.get("attention_bias"):
            bias += hidden
        if config.get("mlp_bias"):
            bias += 2 * intermediate + hidden
        return cls(
            hidden=hidden,
            intermediate=intermediate,
            query=query,
            key=key,
            num_heads=heads,
            head_dim=head_dim,
            vocabulary=_size(config, "vocab_size"),
            windows=_windows(config, num_layers),
            tied=bool(config.get("tie_word_embeddings", family.tied)),
            norms=family.norms,
            qk_norms=family.qk_norms,
            bias_per_layer=bias,
        )

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.windows)

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of a layer's linear maps: q, k, v, o, gate, up, down."""
        h, i, q, k = self.hidden, self.intermediate, self.query, self.key
        return ((h, q), (h, k), (h, k), (q, h), (h, i), (h, i), (i, h))

    @property
    def linear_params(self) -> int:
        """Weights of all layers' matrices, without biases."""
        return self.num_layers * sum(rows * columns for rows, columns in self.matrices)

    @property
    def layer_params(self) -> int:
        """All weights but those of the embedding and the LM head."""
        norms = self.norms * self.hidden + (2 * self.head_dim if self.qk_norms else 0)
        small = self.num_layers * (norms + self.bias_per_layer) + self.hidden
        return self.linear_params + small

    @property
    def embedding_params(self) -> int:
        """Weights of the embedding and, where it is a matrix of its own, of the LM head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def num_params(self) -> int:
        """All weights."""
        return self.layer_params + self.embedding_params

    def adapter_params(self, rank: int) -> int:
        """Weights of LoRA adapters of ``rank`` on every linear map of the layers."""
        return self.num_layers * rank * sum(rows + columns for rows, columns in self.matrices)

    @property
    def narrowed(self) -> tuple[tuple[int, int], ...]:
        """Those of ``matrices`` that ``last_layer`` applies to the last token of a prompt alone."""
        q, _, _, *others = self.matrices
        return (q, *others)


def _size(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise ModelError(f"config.json: {name} must be a positive number, got {value!r}")
    return value


def _windows(config: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    """Sliding windows by the rules of each family's configuration class in transformers."""
    window = config.get("sliding_window")
    if not window or ("use_sliding_window" in config and not config["use_sliding_window"]):
        return (None,) * num_layers
    kind = config["model_type"]
    if types := config.get("layer_types"):
        slides = [name == "sliding_attention" for name in types]
    elif kind in ("gemma2", "gemma3_text"):
        every = 2 if kind == "gemma2" else int(config.get("sliding_window_pattern") or 6)
        slides = [bool((layer + 1) % every) for layer in range(num_layers)]
    elif kind.startswith("qwen"):
        first = config.get("max_window_layers", num_layers)
        slides = [
            bool(config.get("use_sliding_window")) and layer >= first for layer in range(num_layers)
        ]
    else:
        slides = [True] * num_layers
    return tuple(window if slide else None for slide in slides)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one token."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Of one training pass, with nothing computed twice."""
        return self.forward + self.backward

    @property
    def recomputed(self) -> float:
        """Of one training pass with activation checkpointing: every layer forward twice."""
        return self.total + self.forward


def flops_per_token(
    shape: Shape,
    *,
    row_tokens: float,
    head: Literal["labels", "vocabulary"],
    method: Literal["lora", "full"],
    rank: int = 0,
    num_labels: int = 3,
    narrowed: bool = True,
) -> Flops:
    """What training costs per token.

    A matrix costs 2 operations a weight forward, 2 backward for the gradient of its input and, if
    it is trained, 2 for its own. Attention has no weights: 4 operations a layer, a unit of query
    width and a token that is seen, twice that backward. The embedding is a look-up. For label
    logits the last layer needs queries and MLP of the last token alone (see ``last_layer``).

    Args:
        shape: of the model.
        row_tokens: what a token's attention can reach: the length of its prompt, or of its document
            where several are packed into a row.
        head: ``labels`` for tune, which computes the label logits of the last token; ``vocabulary``
            for adapt, all logits of every token. The head itself is not trained in either.
        method: ``lora`` or ``full`` (all weights of the layers).
        rank: of the adapters.
        num_labels: of the task.
        narrowed: whether the last layer is, for label logits; not with activation checkpointing.
    """
    linear, attention = 2.0 * shape.linear_params, _attention(shape, row_tokens)
    adapters = 2.0 * shape.adapter_params(rank)
    if head == "vocabulary":
        logits = 2.0 * shape.vocabulary * shape.hidden
    else:
        logits = 2.0 * num_labels * shape.hidden / max(1.0, row_tokens)
        unread = 1 - 1 / max(1.0, row_tokens) if narrowed else 0.0
        linear -= 2.0 * unread * sum(rows * columns for rows, columns in shape.narrowed)
        adapters -= 2.0 * unread * rank * sum(rows + columns for rows, columns in shape.narrowed)
    if method == "full":
        return Flops(linear + attention + logits, 2 * linear + 2 * attention + logits)
    return Flops(
        linear + adapters + attention + logits, linear + 2 * adapters + 2 * attention + logits
    )


def _attention(shape: Shape, row_tokens: float) -> float:
    """Operations of a token's scores and of their sum over values, averaged over a causal row."""
    seen = 0.0
    for window in shape.windows:
        reach = row_tokens if window is None else min(row_tokens, window)
        # The first `reach` tokens see 1, 2, … of them, the others `reach` each.
        rest = row_tokens - reach
        seen += (reach * (reach + 1) / 2 + rest * reach) / max(1.0, row_tokens)
    return 4.0 * shape.query * seen


def matmul_rate(device: str, dtype: torch.dtype, *, seconds: float = 0.5) -> float:
    """The rate, in operations a second, at which ``device`` goes on multiplying square matrices.

    This is the ceiling that training is measured against. It is the mean of a while, not the best
    product: processors and containers run faster for a moment than they can for long. Matrices are
    2048² on a CPU and 8192² on a GPU, smaller where that would take too long; other work on the
    machine lowers what is found.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        dtype: of the matrices.
        seconds: about how long to measure, warming up included; at least two products are timed.
    """
    import torch

    largest, size = (8192 if device.startswith("cuda") else 2048), 512
    started = time.perf_counter()
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    _products(matrix, device)  # sets the library up
    took = _products(matrix, device)
    while size < largest and 8 * took < seconds / 4:
        size *= 2
        matrix = torch.randn(size, size, device=device, dtype=dtype)
        took = _products(matrix, device)
    left = seconds - (time.perf_counter() - started)
    number = max(2, round(left / max(took, 1e-6)))
    return float(2 * size**3 * number / _products(matrix, device, number))


def _products(matrix: torch.Tensor, device: str, number: int = 1) -> float:
    """Seconds that ``number`` products take."""
    import torch

    _wait(device)
    started = time.perf_counter()
    for _ in range(number):
        torch.nn.functional.linear(matrix, matrix)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
