"""The classifier in 8 bits, for servers: W8A8 in the format of compressed-tensors.

Every linear layer of the decoder holds int8 weights with a float32 scale for each output channel;
activations are rounded as they come, with a scale for each token. Embeddings, norms and the label
head stay as they are. vLLM multiplies in 8 bits with such a folder (an A10 has 8-bit integers and
no 8-bit floats); transformers loads it where compressed-tensors is installed, and computes what it
stands for without being faster.

Format: https://github.com/vllm-project/compressed-tensors ("int-quantized").

Shape letters: K inputs, N outputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from slant.errors import ModelError
from slant.model.folder import save_weights

__all__ = ["check_int8", "write_int8"]

_FORMAT = "int-quantized"
_SCHEME = "W8A8"  # int8, symmetric: weights by channel, activations by token
_HEAD = "score"


def check_int8() -> None:
    """Raises ModelError where compressed-tensors is not installed."""
    try:
        import compressed_tensors  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "the format int8 needs compressed-tensors, which is not installed",
            hint="pip install 'slant[int8]', or take int8 out of export.formats.",
        ) from error


def write_int8(classifier: Any, out: Path) -> None:
    """Round a sequence classifier and write it, without its tokenizer.

    Args:
        classifier: with a linear head named ``score``; it is changed and of no further use.
        out: the folder.

    Raises:
        ModelError: compressed-tensors is not installed.
    """
    check_int8()
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.compressors.base import compress_module
    from compressed_tensors.quantization import (
        QuantizationConfig,
        QuantizationStatus,
        apply_quantization_config,
        preset_name_to_scheme,
    )
    from compressed_tensors.quantization.utils import calculate_qparams

    config = QuantizationConfig(
        config_groups={"group_0": preset_name_to_scheme(_SCHEME, ["Linear"])},
        ignore=[_HEAD],
        format=_FORMAT,
    )
    apply_quantization_config(classifier, config, show_progress=False)
    for module in classifier.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None:
            weight_NK = module.weight.detach().float()
            least, most = (
                pick(weight_NK, dim=1, keepdim=True) for pick in (torch.amin, torch.amax)
            )
            scale_N1, _ = calculate_qparams(least, most, scheme.weights)
            module.weight_scale = nn.Parameter(scale_N1.float(), requires_grad=False)
            compress_module(module, _FORMAT)
    compressor = ModelCompressor.from_pretrained_model(classifier, quantization_format=_FORMAT)
    compressor.quantization_config.quantization_status = QuantizationStatus.COMPRESSED
    save_weights(classifier, out)
    compressor.update_config(out)
