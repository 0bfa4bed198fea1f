"""Writing models as plain Hugging Face folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slant.disk import write_atomically
from slant.model.base import TOKENIZER_FILES, quiet_transformers
from slant.model.license import copy_license

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["copy_tokenizer", "save_causal_lm", "save_weights"]

SHARD_BYTES = 4 << 30
"""Largest file of weights: what a kill costs an upload, and what old file systems hold."""


def save_causal_lm(
    causal_lm: PreTrainedModel,
    tokenizer_folder: Path,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a causal language model, with the tokenizer and the licence of ``tokenizer_folder``.

    Args:
        causal_lm: stays as it is.
        tokenizer_folder: its tokenizer files are copied, its licence and its card.
        out: is made if it is not there.
        dtype: the weights are rounded to it; None: each is written as it is.
    """
    state = None if dtype is None else _cast(causal_lm, dtype)
    # Training and scoring need no cache, so it is off; who generates text wants it on.
    use_cache, causal_lm.config.use_cache = causal_lm.config.use_cache, True
    try:
        save_weights(causal_lm, out, state)
    finally:
        causal_lm.config.use_cache = use_cache
    if dtype is not None:
        _name_dtype(out / "config.json", str(dtype).removeprefix("torch."))
    copy_tokenizer(tokenizer_folder, out)
    copy_license(tokenizer_folder, out)


def save_weights(
    model: PreTrainedModel, out: Path, state: Mapping[str, Tensor] | None = None
) -> None:
    """Write a model as safetensors with its configuration, readable as other files are.

    Args:
        model: of any head.
        out: is made if it is not there.
        state: weights to write in place of the model's own.
    """
    with quiet_transformers():
        model.save_pretrained(out, state_dict=state, max_shard_size=SHARD_BYTES)
    for file in out.glob("*.safetensors"):
        file.chmod((out / "config.json").stat().st_mode)  # safetensors keeps them to the owner


def _cast(causal_lm: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor]:
    state = causal_lm.state_dict()
    # transformers knows tied weights by their sharing one memory, which a cast ends.
    for name in causal_lm.all_tied_weights_keys:
        state.pop(name, None)
    return {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in state.items()
    }


def _name_dtype(path: Path, dtype: str) -> None:
    """transformers writes the dtype of the model in memory, and loads in the one it wrote."""
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for section in (config, *(value for value in config.values() if isinstance(value, dict))):
        if "dtype" in section:
            section["dtype"] = dtype
    write_atomically(path, json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def copy_tokenizer(source: Path, out: Path) -> None:
    """Byte for byte: a tokenizer that is loaded and saved again may come out changed."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
