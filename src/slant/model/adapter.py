"""What is trained of a causal language model: low-rank adapters, through PEFT, or whole layers.

LoRA is of Hu et al. 2021, its scaling by the root of the rank (rsLoRA) of Kalajdzievski 2023, the
training of magnitude and direction apart (DoRA) of Liu et al. 2024.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from slant.artifacts import digest_file, digest_json
from slant.disk import write_atomically
from slant.errors import ModelError
from slant.model.base import cast_weights, load_causal_lm, quiet_transformers
from slant.model.quantize import round_to_nf4

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = [
    "attach_adapter",
    "attach_lora",
    "check_adapter_folder",
    "digest_adapter",
    "load_adapted",
    "load_merged",
    "merge_adapter",
    "put_adapter",
    "save_adapter",
    "unfreeze_layers",
]

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def attach_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: int,
    dropout: float,
    seed: int,
    rank_stabilized: bool = False,
    dora: bool = False,
) -> PeftModel:
    """Put a fresh adapter on every linear layer but the LM head; only it is trainable.

    The adapter's weights are float32 whatever the base is kept in, and depend on ``seed`` alone
    (DoRA's magnitudes begin as the norms of the base's weights).

    Args:
        model: the base, which is changed in place.
        rank: of the update.
        alpha: the update is multiplied by alpha / rank.
        dropout: on the adapters' input, 0…1.
        seed: of the first weights.
        rank_stabilized: multiply by alpha / √rank instead (rsLoRA).
        dora: train magnitude and direction apart (DoRA).
    """
    import torch

    _keep_packed_as_is(model)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            use_rslora=rank_stabilized,
            use_dora=dora,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def attach_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a stored LoRA adapter on ``model`` to go on training it; only it is trainable.

    Its rank, scale, layers and dropout are those it was stored with; its weights become float32.

    Raises:
        ModelError: it cannot be read, does not fit, is no LoRA adapter, or changes the LM head or
            the embeddings, which label logits are read from as they are.
    """
    _keep_packed_as_is(model)
    heads = model.get_input_embeddings(), model.get_output_embeddings()
    adapted = _put_on(model, folder, trainable=True)
    plain = adapted.get_base_model()
    if (plain.get_input_embeddings(), plain.get_output_embeddings()) != heads:
        raise ModelError(
            f"{folder}: this adapter changes the LM head or the embeddings",
            hint="Name an adapter of other layers; tune.label_head: trained trains label rows.",
        )
    for param in adapted.parameters():
        if param.requires_grad:
            param.data = param.data.float()
    return adapted


def unfreeze_layers(model: PreTrainedModel) -> PreTrainedModel:
    """Make all weights of the layers trainable, in place: full fine-tuning.

    Input embeddings and LM head stay as they are. With a vocabulary of 262k words they are most of
    a small model's parameters, and the optimizer's state for them would double its memory; where
    the two are one matrix, training it for the input would move what the label rows read.

    All weights become float32, the frozen ones too: an update is often less than half a unit in
    the last place of bfloat16, and layers that meet in one dtype need no casts between them, nor
    does FSDP, which shards the weights of one dtype together. Load the base in float32 to begin
    with, so that nothing is rounded.
    """
    model.float().requires_grad_(True)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if module is not None:
            module.requires_grad_(False)
    return model


def _keep_packed_as_is(model: PreTrainedModel) -> None:
    """Leave 4-bit weights in the layout that they were loaded in.

    On a CPU with AVX512-BF16, bitsandbytes packs them anew at the first pass in evaluation mode. It
    rounds their scales on the way, so that a validation would change what is trained on, and fails
    where a layer's width is no multiple of 64.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


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


def digest_adapter(folder: Path) -> str:
    """sha256 of an adapter folder: of its weights, and of its scale and layers.

    Raises:
        ModelError: it holds no LoRA adapter.
    """
    check_adapter_folder(folder)
    return digest_json({name: digest_file(folder / name) for name in _ADAPTER_FILES})


def load_adapted(
    base: Path,
    adapter: Path,
    *,
    dtype: torch.dtype,
    quantize: str = "none",
    device: str = "cpu",
) -> PeftModel:
    """Base and adapter side by side, as they were trained, in evaluation mode.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter.
        dtype: of the base's weights.
        quantize: of the base while the adapter was trained: ``none``, or ``nf4``: the base's
            weights become those that 4 bits hold of them.
        device: as for ``load_causal_lm``.

    Raises:
        ModelError: one of the folders cannot be loaded, they do not belong together, or
            bitsandbytes is missing.
    """
    check_adapter_folder(adapter)  # before the base is loaded for nothing
    model = load_causal_lm(base, dtype=dtype, device=device)
    if quantize == "nf4":
        round_to_nf4(model)
    return _put_on(model, adapter, trainable=False).eval()


def put_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A stored LoRA adapter beside ``model``, of whatever task, in evaluation mode.

    Raises:
        ModelError: it cannot be read, is no LoRA adapter or does not fit.
    """
    return _put_on(model, folder, trainable=False).eval()


def check_adapter_folder(folder: Path) -> None:
    """Raises ModelError if ``folder`` holds no LoRA adapter as PEFT writes it, in safetensors."""
    for name in _ADAPTER_FILES:
        # PEFT would look for them on the hub, or for pickled weights.
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: holds no {name}")
    path = folder / "adapter_config.json"
    try:
        kind = json.loads(path.read_text("utf-8"))["peft_type"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read: {error!r}") from error
    if kind != "LORA":
        raise ModelError(f"{path}: holds an adapter of type {kind!r}, not LORA")


def _put_on(model: PreTrainedModel, folder: Path, *, trainable: bool) -> PeftModel:
    """Put a stored adapter on ``model``; every weight must find its place, and every place one."""
    from safetensors import SafetensorError, safe_open

    check_adapter_folder(folder)
    base = model.name_or_path
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            stored = set(file.keys())
        with quiet_transformers():
            from peft import PeftModel

            adapted = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be put on {base}: {error}") from error
    # PEFT leaves out what finds no place, and leaves as drawn what is missing.
    if odd := sorted(stored ^ _weight_names(adapted)):
        raise ModelError(f"{folder}: cannot be put on {base}: {odd[0]} is only in one of them")
    return adapted


def _weight_names(adapted: PeftModel) -> set[str]:
    from peft import get_peft_model_state_dict

    # Asked about embedding layers, PEFT would look the base up on the hub by its name.
    return set(get_peft_model_state_dict(adapted, save_embedding_layers=False))


def load_merged(
    base: Path,
    adapter: Path,
    *,
    dtype: torch.dtype,
    quantize: str = "none",
    device: str = "cpu",
) -> PreTrainedModel:
    """The base with the adapter's update added to its weights; arguments as of ``load_adapted``.

    The sum is taken in float32 and rounded to ``dtype`` once. What is evaluated and what is
    exported both come from here, so they are the same weights.

    Raises:
        ModelError: as ``load_adapted``.
    """
    import torch

    adapted = load_adapted(base, adapter, dtype=torch.float32, quantize=quantize)
    return merge_adapter(adapted, dtype).to(device=device).eval()


def merge_adapter(adapted: PeftModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model with the adapter's update added to its weights, which are then rounded."""
    merged: PreTrainedModel = adapted.merge_and_unload()
    # As a loaded model comes. PEFT froze it, and PyTorch multiplies a sliced hidden state with a
    # frozen head by copying the whole head: generating took five times as long.
    return cast_weights(merged.requires_grad_(True), dtype)
