"""The sizes of the base model that slant.yaml names, without its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slant.errors import ModelError, UsageError, did_you_mean
from slant.model.embedded import EMBEDDED
from slant.model.flops import Shape

__all__ = ["PUBLISHED", "find_shape", "read_shape"]

_MISTRAL = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32768,
    "sliding_window": None,
    "tie_word_embeddings": False,
}
_QWEN = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
_GEMMA_270M = {
    "model_type": "gemma3_text",
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 262144,
    "sliding_window": 512,
    "tie_word_embeddings": True,
}
_LLAMA = {**_MISTRAL, "model_type": "llama", "vocab_size": 128256}

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen2.5-7B": _QWEN,
    "Qwen/Qwen2.5-7B-Instruct": _QWEN,
    "gemma-3-270m": _GEMMA_270M,
    "google/gemma-3-270m": _GEMMA_270M,
    "meta-llama/Llama-3.1-8B": _LLAMA,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA,
    "mistralai/Mistral-7B-Instruct-v0.3": _MISTRAL,
    "mistralai/Mistral-7B-v0.1": {**_MISTRAL, "vocab_size": 32000, "sliding_window": 4096},
    "mistralai/Mistral-7B-v0.3": _MISTRAL,
}
"""The part of config.json that tells a model's sizes, so that a plan can be made before anything
is downloaded. Source: the config.json of each repository on huggingface.co (those of Mistral and
Qwen also in litgpt/config.py of Lightning-AI/litgpt, which cites them); of the embedded model, its
own. The counts of parameters that follow are the published ones (7.248, 7.242, 7.616, 8.030 and
0.268 thousand million)."""


def find_shape(name: str, *, revision: str | None, start: Path) -> tuple[Shape, str]:
    """The shape of a base model, from the nearest place that tells it.

    Looked at in this order: a folder, the hub's local cache, ``PUBLISHED``, and only then the hub,
    for config.json alone.

    Args:
        name: ``model.base``.
        revision: ``model.revision``.
        start: folder that a relative path starts from.

    Returns:
        The shape, and where it was found.

    Raises:
        UsageError: ``name`` is no embedded model, no folder and no hub id.
        ModelError: it is a hub id of which nothing is known here, and the hub does not answer; or
            its config.json cannot be used.
    """
    if name not in EMBEDDED and (start / name).is_dir():
        return read_shape(start / name), f"{name}/config.json"
    is_hub_id = "/" in name and not name.startswith((".", "/", "~"))
    if is_hub_id and (cached := _cached(name, revision)):
        return _parsed(cached), "config.json in the hub's cache"
    if name in PUBLISHED:
        return Shape.from_config(PUBLISHED[name]), "the published sizes"
    if not is_hub_id:
        raise UsageError(
            f"model.base: there is no base model {name!r}{did_you_mean(name, EMBEDDED)}",
            hint=f"Name an embedded model ({', '.join(EMBEDDED)}), an existing Hugging Face "
            "folder, or a hub id such as mistralai/Mistral-7B-v0.3.",
        )
    return _parsed(_fetched(name, revision)), "config.json from the hub"


def read_shape(folder: Path) -> Shape:
    """The shape of the model in a Hugging Face folder; raises ModelError if it cannot be told."""
    return _parsed(folder / "config.json")


def _parsed(path: Path) -> Shape:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: holds no settings of a model")
    return Shape.from_config(config)


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _fetched(name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, "config.json", revision=revision))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"model.base: the sizes of {name!r} are not known: its config.json is neither on this "
            f"machine nor to be had from the hub ({reason})",
            hint="A plan needs config.json alone: connect once, or put it in a folder and name "
            f"that as model.base. Known without it are {', '.join(PUBLISHED)}.",
        ) from error
