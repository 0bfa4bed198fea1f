"""Models that other programs made: what they are, and whether they can be imported.

    adapter          a PEFT LoRA adapter beside its base: of a causal LM, or of a classifier
    causal-lm        a Hugging Face causal language model
    classifier       a decoder's ``…ForSequenceClassification``: one linear layer, named ``score``,
                     reads the last token; its rows become those of label words in an LM head

Only safetensors are read, and no code of theirs is run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from slant.artifacts import digest_json
from slant.errors import ModelError, UsageError
from slant.model.adapter import check_adapter_folder, digest_adapter
from slant.model.base import BaseModel, find_model_folder, quiet_transformers, resolve_base
from slant.model.embedded import EMBEDDED
from slant.progress import Progress

__all__ = ["HEAD", "PREDICTIONS", "ForeignModel", "find_foreign"]

_ADAPTER_CONFIG = "adapter_config.json"
HEAD = "score"
"""Name of a classifier's one linear layer."""
PREDICTIONS = (
    "To compare with it, write its answers to a file and name that in evaluate.predictions."
)
"""What to do about a model that cannot be imported."""


@dataclass(frozen=True)
class ForeignModel:
    """A model that someone else made.

    Attributes:
        name: as it was asked for.
        folder: where it lies.
        digest: of its weights and configuration; of an adapter, with its base's.
        answers: ``words``: the logits of words after a prompt; ``head``: those of a classifier.
        base: the whole model; of an adapter, its base.
        adapter: whether ``folder`` holds an adapter.
        head_labels: of a classifier, in the order of its head; empty where it does not name them.
        num_labels: rows of a classifier's head; 0 for others.
    """

    name: str
    folder: Path
    digest: str
    answers: Literal["words", "head"]
    base: BaseModel
    adapter: bool
    head_labels: tuple[str, ...] = ()
    num_labels: int = 0

    @property
    def kind(self) -> str:
        """What it is, for people."""
        kind = "sequence classifier" if self.answers == "head" else "causal language model"
        return f"LoRA adapter of a {kind} on {self.base.name}" if self.adapter else kind


def find_foreign(
    name: str, *, base: str | None, revision: str | None, start: Path, progress: Progress
) -> ForeignModel:
    """Bring a model onto this machine and find out what it is.

    Args:
        name: a folder (relative to ``start``) or a hub id.
        base: the base of an adapter; None: the one that it names.
        revision: commit or tag of a hub id.
        start: folder that a relative path starts from.
        progress: told of downloads.

    Raises:
        UsageError: there is no such folder or hub id.
        ModelError: it is none of the kinds that can be imported.
    """
    is_hub_id = "/" in name and not name.startswith((".", "/", "~"))
    if not (start / name).is_dir() and not is_hub_id and name not in EMBEDDED:
        raise UsageError(
            f"{name}: there is no such folder", hint="Name a folder, or a hub id such as org/model."
        )
    folder = find_model_folder(
        name, revision=revision, start=start, progress=progress, where="slant import"
    )
    if (folder / _ADAPTER_CONFIG).is_file():
        return _find_adapter(name, folder, base, start, progress)
    whole = resolve_base(
        name, revision=revision, start=start, progress=progress, where="slant import"
    )
    config = _read_json(folder / "config.json")
    _check_is_not_quantised(folder, config, "Import it as it was before that.")
    kinds = config.get("architectures")
    names = [str(kind) for kind in kinds] if isinstance(kinds, list) else []
    if any(kind.endswith("ForSequenceClassification") for kind in names):
        _check_is_decoder(name, folder)
        labels = _labels_of(folder / "config.json", config)
        _check_single_label(folder, config, len(labels))
        found = ForeignModel(name, folder, whole.digest, "head", whole, adapter=False)
        return replace(found, head_labels=_telling(labels), num_labels=len(labels))
    if any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in names):
        return ForeignModel(name, folder, whole.digest, "words", whole, adapter=False)
    raise ModelError(
        f"{folder}: holds {' and '.join(names) or 'a model of no named architecture'}; a causal "
        "language model, a decoder's sequence classifier or a LoRA adapter can be imported",
        hint=PREDICTIONS,
    )


def _find_adapter(
    name: str, folder: Path, base: str | None, start: Path, progress: Progress
) -> ForeignModel:
    check_adapter_folder(folder)
    config = _read_json(folder / _ADAPTER_CONFIG)
    base_name = base or config.get("base_model_name_or_path")
    if not base_name:
        raise ModelError(
            f"{folder / _ADAPTER_CONFIG}: names no base model",
            hint="Name it with --base (in Python: base=…).",
        )
    found = resolve_base(
        str(base_name),
        revision=None if base else _text(config.get("revision")),
        start=start,
        progress=progress,
        where=f"the base of {name}",
    )
    _check_is_not_quantised(
        found.folder,
        _read_json(found.folder / "config.json"),
        "Name the base as it was before that with --base (in Python: base=…).",
    )
    digest = digest_json([digest_adapter(folder), found.digest])
    task = config.get("task_type")
    if task == "SEQ_CLS":
        _check_is_decoder(name, found.folder)
        model = ForeignModel(name, folder, digest, "head", found, adapter=True)
        return replace(model, num_labels=_stored_rows(folder))
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(
            f"{folder / _ADAPTER_CONFIG}: its task_type is {task}; CAUSAL_LM and SEQ_CLS can be "
            "imported",
            hint=PREDICTIONS,
        )
    return ForeignModel(name, folder, digest, "words", found, adapter=True)


def _check_is_decoder(name: str, folder: Path) -> None:
    """Look at the architecture alone, before weights are read."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            classifier = AutoModelForSequenceClassification.from_config(config)
    except Exception as error:  # transformers checks little of what it reads
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{folder}: transformers has no sequence classifier for it ({reason})",
            hint=PREDICTIONS,
        ) from error
    head = getattr(classifier, HEAD, None)
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise ModelError(
            f"{name}: {type(classifier).__name__} is no decoder whose last token is read by one "
            f"linear layer named {HEAD}, so it cannot be made a causal language model",
            hint=PREDICTIONS,
        )


def _stored_rows(folder: Path) -> int:
    """Rows of the head in a classifier's adapter."""
    from safetensors import SafetensorError, safe_open

    path = folder / "adapter_model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - a file of tensors is no mapping
                if key.endswith(f".{HEAD}.weight"):
                    return int(file.get_slice(key).get_shape()[0])
    except (OSError, IndexError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    raise ModelError(
        f"{folder}: holds no {HEAD}.weight: the head of the classifier was not saved with it",
        hint="Train with modules_to_save=['score'], or save the merged model and import that.",
    )


def _labels_of(path: Path, config: dict[str, Any]) -> list[str]:
    """Names of a classifier's labels in the order of its head; transformers' own if it has none."""
    named, count = config.get("id2label") or {}, config.get("num_labels") or 2
    if not named and isinstance(count, int):
        return [f"LABEL_{row}" for row in range(count)]
    rows = [str(row) for row in range(len(named) if isinstance(named, dict) else 0)]
    if not rows or set(rows) != set(named):
        raise ModelError(f"{path}: its id2label and num_labels do not name the rows of a head")
    return [str(named[row]) for row in rows]


def _telling(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels, or none where they are but numbers."""
    numbered = all(label == f"LABEL_{row}" for row, label in enumerate(labels))
    return () if numbered else tuple(labels)


def _check_is_not_quantised(folder: Path, config: dict[str, Any], hint: str) -> None:
    if kind := config.get("quantization_config"):
        method = kind.get("quant_method") if isinstance(kind, dict) else kind
        raise ModelError(
            f"{folder}: its weights are quantised ({method}), and cannot be read as they were",
            hint=hint,
        )


def _check_single_label(folder: Path, config: dict[str, Any], count: int) -> None:
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification") or count < 2:
        raise ModelError(
            f"{folder}: answers {problem or 'a number'}, not one label of several",
            hint=PREDICTIONS,
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: is no JSON object")
    return content
