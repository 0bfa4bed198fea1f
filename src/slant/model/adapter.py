"""Low-rank adapters (LoRA, Hu et al. 2021), through PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from slant.artifacts import write_atomically
from slant.errors import ModelError
from slant.model.base import load_causal_lm, quiet_transformers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["attach_lora", "load_adapted", "load_merged", "save_adapter"]


def attach_lora(
    model: PreTrainedModel, *, rank: int, alpha: int, dropout: float, seed: int
) -> PeftModel:
    """Put a fresh adapter on every linear layer but the LM head; only it is trainable.

    The adapter's weights are float32 whatever the base is kept in, and depend on ``seed`` alone.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        return get_peft_model(
            model,
            LoraConfig(
                r=rank,
                lora_alpha=alpha,
                lora_dropout=dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )


def save_adapter(model: PeftModel, folder: Path, base_name: str) -> None:
    """Write the adapter as a PEFT folder that names its base by ``base_name``, not by a path."""
    with quiet_transformers():
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    config_path = folder / "adapter_config.json"
    config = json.loads(config_path.read_text("utf-8"))
    config["base_model_name_or_path"] = base_name
    # PEFT keeps them as a set, whose order differs from process to process.
    for name in ("target_modules", "modules_to_save"):
        if isinstance(config.get(name), list):
            config[name].sort()
    write_atomically(config_path, json.dumps(config, indent=2))
    # PEFT's stub model card repeats the path of the base; slant writes its own card on export.
    (folder / "README.md").unlink(missing_ok=True)


def load_adapted(
    base: Path, adapter: Path, *, dtype: torch.dtype, device: str = "cpu"
) -> PeftModel:
    """Base and adapter side by side, as they were trained, in evaluation mode.

    Raises:
        ModelError: one of the folders cannot be loaded, or they do not belong together.
    """
    from peft import PeftModel
    from safetensors import SafetensorError, safe_open

    for name in ("adapter_config.json", "adapter_model.safetensors"):
        # PEFT would look for them on the hub, or for pickled weights.
        if not (adapter / name).is_file():
            raise ModelError(f"{adapter}: holds no {name}")
    model = load_causal_lm(base, dtype=dtype, device=device)
    try:
        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
            stored = set(file.keys())
        with quiet_transformers():
            adapted = PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{adapter}: cannot be put on {base}: {error}") from error
    # PEFT leaves out what finds no place, and leaves as drawn what is missing.
    if odd := sorted(stored ^ _weight_names(adapted)):
        raise ModelError(f"{adapter}: cannot be put on {base}: {odd[0]} is only in one of them")
    return adapted.eval()


def _weight_names(adapted: PeftModel) -> set[str]:
    from peft import get_peft_model_state_dict

    # Asked about embedding layers, PEFT would look the base up on the hub by its name.
    return set(get_peft_model_state_dict(adapted, save_embedding_layers=False))


def load_merged(
    base: Path, adapter: Path, *, dtype: torch.dtype, device: str = "cpu"
) -> PreTrainedModel:
    """The base with the adapter's update added to its weights.

    The sum is taken in float32 and rounded to ``dtype`` once. What is evaluated and what is
    exported both come from here, so they are the same weights.

    Raises:
        ModelError: as ``load_adapted``.
    """
    import torch

    merged: PreTrainedModel = load_adapted(base, adapter, dtype=torch.float32).merge_and_unload()
    # As a loaded model comes. PEFT froze it, and PyTorch multiplies a sliced hidden state with a
    # frozen head by copying the whole head: generating took five times as long.
    merged.requires_grad_(True)
    return merged.to(device=device, dtype=dtype).eval()
