"""The folder of a tuned checkpoint: what it may hold, and how it becomes a model again.

    adapter/                  what was trained of the layers: a PEFT adapter (tune.method: lora), or
    model/                    the whole model in float32, with the base's tokenizer files (full)
    label_head.safetensors    ``rows`` (L, H), and ``bias`` (L,) where the LM head has one, float32,
                              if the label rows were trained too

Shape letters: L labels, H hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from slant.artifacts import digest_file, digest_json
from slant.disk import write_atomically
from slant.errors import ModelError
from slant.model.adapter import load_adapted, load_merged, save_adapter
from slant.model.base import BaseModel, cast_weights, load_causal_lm
from slant.model.folder import save_causal_lm
from slant.model.label_head import LabelModel, plain_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "ADAPTER_FOLDER",
    "LABEL_HEAD_FILE",
    "MODEL_FOLDER",
    "digest_tuned",
    "load_tuned_adapted",
    "load_tuned_merged",
    "save_tuned",
    "with_label_rows",
]

ADAPTER_FOLDER = "adapter"
MODEL_FOLDER = "model"
LABEL_HEAD_FILE = "label_head.safetensors"
_ADAPTER_FILE = f"{ADAPTER_FOLDER}/adapter_model.safetensors"
_LABEL_HEAD = {"rows": "rows", "rows_bias": "bias"}
"""Parameter of a LabelModel → its name in the file."""


def save_tuned(out: Path, model: LabelModel, base: BaseModel) -> None:
    """Write what was trained: the adapter, or else the whole model, and the label rows.

    Args:
        out: the checkpoint's folder.
        model: as it was trained, with whole weights.
        base: what it was trained on.
    """
    if hasattr(model.causal_lm, "peft_config"):
        save_adapter(model.causal_lm, out / ADAPTER_FOLDER, base.name)
    else:
        whole = plain_model(model.causal_lm)
        save_causal_lm(whole, base.folder, out / MODEL_FOLDER, dtype=torch.float32)
    params = dict(model.named_parameters())
    trained = {name: params[own] for own, name in _LABEL_HEAD.items() if own in params}
    if trained:
        _save_label_head(trained, out / LABEL_HEAD_FILE)


def load_tuned_adapted(
    base: Path,
    checkpoint: Path,
    label_ids: Sequence[int],
    *,
    dtype: torch.dtype,
    quantize: str = "none",
    device: str = "cpu",
) -> LabelModel:
    """The tuned model as it was trained, in evaluation mode.

    The adapter stays beside the base, and trained label rows beside the LM head.

    Args:
        base: folder of the model it was tuned on.
        checkpoint: folder of the tuned checkpoint.
        label_ids: ``(L,)`` token ids of the label words, in label order.
        dtype: of the weights; an adapter and label rows stay float32.
        quantize: of the base while an adapter was tuned, as for ``load_adapted``.
        device: as for ``load_causal_lm``.

    Raises:
        ModelError: something is missing or damaged, or does not belong together.
    """
    causal_lm: nn.Module
    if _is_whole(checkpoint):
        causal_lm = load_causal_lm(checkpoint / MODEL_FOLDER, dtype=dtype, device=device)
    else:
        causal_lm = load_adapted(
            base, checkpoint / ADAPTER_FOLDER, dtype=dtype, quantize=quantize, device=device
        )
    return with_label_rows(causal_lm, checkpoint, label_ids).to(device).eval()


def with_label_rows(causal_lm: nn.Module, checkpoint: Path, label_ids: Sequence[int]) -> LabelModel:
    """A causal language model that answers with the label rows of a tuned checkpoint.

    Where none were trained they are those of its own LM head.

    Args:
        causal_lm: with or without a PEFT adapter.
        checkpoint: folder of the tuned checkpoint.
        label_ids: ``(L,)`` token ids of the label words, in label order.

    Raises:
        ModelError: the stored rows are damaged or do not fit the model.
    """
    path = checkpoint / LABEL_HEAD_FILE
    trained = _load_label_head(path, plain_model(causal_lm), len(label_ids))
    model = LabelModel(causal_lm, tuple(label_ids), train_rows=bool(trained))
    with torch.no_grad():
        for own, name in _LABEL_HEAD.items():
            if name in trained:
                model.get_parameter(own).copy_(trained[name])
    return model


def load_tuned_merged(
    base: Path,
    checkpoint: Path,
    label_ids: Sequence[int],
    *,
    dtype: torch.dtype,
    quantize: str = "none",
    device: str = "cpu",
) -> PreTrainedModel:
    """The tuned model as a plain causal language model, in evaluation mode.

    Every weight is rounded to ``dtype`` once. Trained label rows stand in the LM head in place of
    the base's; a head that was one matrix with the input embeddings is its own from then on, since
    what the model reads must not change with what it answers.

    Args:
        base: folder of the model it was tuned on.
        checkpoint: folder of the tuned checkpoint.
        label_ids: ``(L,)`` token ids of the label words, in label order.
        dtype: of the weights.
        quantize: of the base while an adapter was tuned, as for ``load_adapted``.
        device: as for ``load_causal_lm``.

    Raises:
        ModelError: as ``load_tuned_adapted``.
    """
    if _is_whole(checkpoint):
        # Loaded in ``dtype``, Gemma would keep what it multiplies embeddings by rounded to it.
        merged = load_causal_lm(checkpoint / MODEL_FOLDER, dtype=torch.float32)
        merged = cast_weights(merged, dtype).to(device)
    else:
        merged = load_merged(
            base, checkpoint / ADAPTER_FOLDER, dtype=dtype, quantize=quantize, device=device
        )
    trained = _load_label_head(checkpoint / LABEL_HEAD_FILE, merged, len(label_ids))
    if trained:
        _untie(merged)
        head = cast("nn.Linear", merged.get_output_embeddings())
        with torch.no_grad():
            head.weight[list(label_ids)] = trained["rows"].to(head.weight)
            if "bias" in trained:
                head.bias[list(label_ids)] = trained["bias"].to(head.bias)
    return merged


def digest_tuned(checkpoint: Path) -> str:
    """sha256 of the weights of a tuned checkpoint, in hex: of its one file, or of all their sha256.

    Raises:
        ModelError: it holds no weights, or an adapter as well as a whole model.
    """
    folder = MODEL_FOLDER if _is_whole(checkpoint) else ADAPTER_FOLDER
    files = sorted([*checkpoint.glob(f"{folder}/*.safetensors"), checkpoint / LABEL_HEAD_FILE])
    digests = {
        file.relative_to(checkpoint).as_posix(): digest_file(file)
        for file in files
        if file.is_file()
    }
    return digests[_ADAPTER_FILE] if [*digests] == [_ADAPTER_FILE] else digest_json(digests)


def _is_whole(checkpoint: Path) -> bool:
    """Whether it holds the whole model and not an adapter."""
    whole = (checkpoint / MODEL_FOLDER).is_dir()
    if whole == (checkpoint / ADAPTER_FOLDER).is_dir():
        words = ("both", "and") if whole else ("neither", "nor")
        raise ModelError(
            f"{checkpoint}: holds {words[0]} {ADAPTER_FOLDER}/ {words[1]} {MODEL_FOLDER}/",
            hint="Name the folder of a tune artifact; run `slant tune` to make one.",
        )
    return whole


def _save_label_head(trained: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save

    stored = {
        name: value.detach().to(device="cpu", dtype=torch.float32).contiguous()
        for name, value in trained.items()
    }
    write_atomically(path, save(stored, metadata={"format": "pt"}))


def _load_label_head(path: Path, causal_lm: PreTrainedModel, num_labels: int) -> dict[str, Tensor]:
    """Trained label rows, by their names in the file; nothing if there are none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        return {}
    try:
        stored = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    head = cast("nn.Linear", causal_lm.get_output_embeddings())
    wanted: dict[str, tuple[int, ...]] = {"rows": (num_labels, head.weight.shape[1])}
    if getattr(head, "bias", None) is not None:
        wanted["bias"] = (num_labels,)
    found = {name: tuple(value.shape) for name, value in stored.items()}
    dtypes = {value.dtype for value in stored.values()}
    if found != wanted or dtypes != {torch.float32}:
        raise ModelError(
            f"{path}: holds {_listed(found)} ({', '.join(sorted(map(str, dtypes)))}); the model "
            f"and its {num_labels} labels want {_listed(wanted)} (torch.float32)",
            hint="It belongs to another model or to another set of labels.",
        )
    return stored


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items())) or "nothing"


def _untie(causal_lm: PreTrainedModel) -> None:
    """Give the LM head a matrix of its own, for good: the folder that is saved says so too."""
    head = cast("nn.Linear", causal_lm.get_output_embeddings())
    embeddings = cast("nn.Embedding", causal_lm.get_input_embeddings())
    if head.weight is embeddings.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
    for config in (causal_lm.config, causal_lm.config.get_text_config()):
        config.tie_word_embeddings = False
    # What transformers leaves out when it saves; it was worked out when the model was made.
    causal_lm.all_tied_weights_keys = causal_lm.get_expanded_tied_weights_keys(all_submodels=True)
