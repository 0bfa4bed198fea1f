"""Models that other programs made, as causal language models with label rows.

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
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from slant.artifacts import digest_json
from slant.errors import ModelError, TaskError, UsageError
from slant.labels import LabelSet
from slant.model.adapter import check_adapter_folder, digest_adapter, load_merged, put_adapter
from slant.model.base import (
    BaseModel,
    find_model_folder,
    load_causal_lm,
    quiet_transformers,
    resolve_base,
)
from slant.model.embedded import EMBEDDED
from slant.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "ForeignModel",
    "find_foreign",
    "label_columns",
    "load_foreign",
    "load_foreign_logits",
    "with_label_rows",
]

_ADAPTER_CONFIG = "adapter_config.json"
_HEAD = "score"
_PREDICTIONS = (
    "To compare with it, write its answers to a file and name that in evaluate.predictions."
)


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
    names = [str(kind) for kind in config.get("architectures") or ()]
    if any(kind.endswith("ForSequenceClassification") for kind in names):
        _check_is_decoder(name, folder)
        labels = _labels_of(config)
        _check_single_label(folder, config, len(labels))
        found = ForeignModel(name, folder, whole.digest, "head", whole, adapter=False)
        return replace(found, head_labels=_telling(labels), num_labels=len(labels))
    if any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in names):
        return ForeignModel(name, folder, whole.digest, "words", whole, adapter=False)
    raise ModelError(
        f"{folder}: holds {' and '.join(names) or 'a model of no named architecture'}; a causal "
        "language model, a decoder's sequence classifier or a LoRA adapter can be imported",
        hint=_PREDICTIONS,
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
        revision=None if base else config.get("revision"),
        start=start,
        progress=progress,
        where=f"the base of {name}",
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
            hint=_PREDICTIONS,
        )
    return ForeignModel(name, folder, digest, "words", found, adapter=True)


def label_columns(model: ForeignModel, labels: LabelSet) -> list[int]:
    """For each of the wanted labels, the row of a classifier's head that stands for it.

    Names that the head has too are found by name, whatever their case; otherwise the labels are
    new names, in the order of the head.

    Raises:
        TaskError: some are names of the head and others are not, or their number is another.
    """
    known = [label.casefold() for label in model.head_labels]
    wanted = [label.casefold() for label in labels]
    shared = [label for label in wanted if label in known]
    if len(labels) == model.num_labels and len(shared) in (0, len(wanted)):
        return [known.index(label) for label in wanted] if shared else [*range(len(labels))]
    named = ", ".join(model.head_labels) or f"LABEL_0 … LABEL_{model.num_labels - 1}"
    raise TaskError(
        f"the labels {', '.join(labels)} are not those of {model.name}: {named}",
        hint="Name all of its labels with --labels: its own names in any order, or new ones in its "
        "order.",
    )


def load_foreign(
    model: ForeignModel, label_ids: Sequence[int], columns: Sequence[int], *, dtype: torch.dtype
) -> PreTrainedModel:
    """The model as one causal language model, in evaluation mode.

    Args:
        model: of ``find_foreign``.
        label_ids: ``(L,)`` token ids of the label words.
        columns: ``(L,)`` rows of a classifier's head that go there; not used for others.
        dtype: of the weights.

    Raises:
        ModelError: it cannot be loaded, or has no form as a causal language model.
    """
    if model.answers == "words":
        if model.adapter:
            return load_merged(model.base.folder, model.folder, dtype=dtype)
        return load_causal_lm(model.folder, dtype=dtype)
    classifier = _load_classifier(model, torch.float32 if model.adapter else dtype)
    if model.adapter:
        classifier = put_adapter(classifier, model.folder).merge_and_unload().to(dtype)
        classifier.requires_grad_(True)
    return with_label_rows(classifier, label_ids, columns)


def load_foreign_logits(model: ForeignModel) -> nn.Module:
    """The model as its maker runs it, in float32: an adapter stays beside its base."""
    plain: PreTrainedModel
    if model.answers == "words":
        plain = load_causal_lm(model.base.folder, dtype=torch.float32)
    else:
        plain = _load_classifier(model, torch.float32)
    return cast("nn.Module", put_adapter(plain, model.folder) if model.adapter else plain)


def with_label_rows(
    classifier: PreTrainedModel, label_ids: Sequence[int], columns: Sequence[int]
) -> PreTrainedModel:
    """A causal language model with the layers of a classifier.

    Its LM head is a matrix of its own: the rows of the label words are those of the classifier's
    head, and all others are zero, since a classifier has no other words.

    Raises:
        ModelError: the architecture has no causal language model in transformers.
    """
    from transformers import AutoModelForCausalLM

    config = type(classifier.config).from_dict(classifier.config.to_dict())
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = False
        if getattr(part, "final_logit_softcapping", None):
            part.final_logit_softcapping = None  # a classifier does not cap what it answers
    for name in ("id2label", "label2id", "problem_type"):
        if hasattr(config, name):
            delattr(config, name)
    try:
        # Without memory: its layers are about to be those of the classifier.
        with quiet_transformers(), torch.device("meta"):
            causal_lm = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"transformers has no causal language model for {config.model_type}",
            hint=_PREDICTIONS,
        ) from error
    setattr(causal_lm, causal_lm.base_model_prefix, classifier.base_model)
    rows = cast("nn.Linear", getattr(classifier, _HEAD)).weight.detach()
    vocabulary = causal_lm.get_input_embeddings().weight.shape[0]
    head = nn.Linear(rows.shape[1], vocabulary, bias=False, dtype=rows.dtype)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[list(label_ids)] = rows[list(columns)]
    causal_lm.set_output_embeddings(head)
    if empty := [name for name, param in causal_lm.named_parameters() if param.is_meta]:
        raise ModelError(
            f"{type(classifier).__name__} lacks weights of {type(causal_lm).__name__} "
            f"({', '.join(empty[:3])})",
            hint=_PREDICTIONS,
        )
    causal_lm.config.use_cache = False
    return cast("PreTrainedModel", causal_lm.eval())


def _load_classifier(model: ForeignModel, dtype: torch.dtype) -> PreTrainedModel:
    """The classifier; of an adapter, one with a fresh head that the adapter brings its own for."""
    from transformers import AutoModelForSequenceClassification

    changes = {"num_labels": model.num_labels} if model.adapter else {}
    try:
        with quiet_transformers():
            loaded, info = AutoModelForSequenceClassification.from_pretrained(
                model.base.folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **changes,
            )
    except Exception as error:  # transformers, safetensors and the hub's library raise their own
        raise ModelError(
            f"{model.base.folder}: cannot be loaded as a sequence classifier: {error}"
        ) from error
    brought = {f"{_HEAD}.weight"} if model.adapter else set()
    # transformers fills what is missing with random numbers and goes on.
    if missing := sorted(set(info["missing_keys"]) - brought):
        raise ModelError(
            f"{model.base.folder}: lacks weights of a sequence classifier "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''})",
            hint="Is it half downloaded?",
        )
    loaded.config.use_cache = False
    return cast("PreTrainedModel", loaded.eval())


def _check_is_decoder(name: str, folder: Path) -> None:
    """Look at the architecture alone, before weights are read."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            classifier = AutoModelForSequenceClassification.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{folder}: transformers has no sequence classifier for it ({reason})",
            hint=_PREDICTIONS,
        ) from error
    head = getattr(classifier, _HEAD, None)
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise ModelError(
            f"{name}: {type(classifier).__name__} is no decoder whose last token is read by one "
            f"linear layer named {_HEAD}, so it cannot be made a causal language model",
            hint=_PREDICTIONS,
        )


def _stored_rows(folder: Path) -> int:
    """Rows of the head in a classifier's adapter."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - a file of tensors is no mapping
            if key.endswith(f".{_HEAD}.weight"):
                return int(file.get_slice(key).get_shape()[0])
    raise ModelError(
        f"{folder}: holds no {_HEAD}.weight: the head of the classifier was not saved with it",
        hint="Train with modules_to_save=['score'], or save the merged model and import that.",
    )


def _labels_of(config: dict[str, Any]) -> list[str]:
    """Names of a classifier's labels in the order of its head; transformers' own if it has none."""
    named = config.get("id2label") or {}
    count = len(named) or int(config.get("num_labels") or 2)
    return [str(named.get(str(row), f"LABEL_{row}")) for row in range(count)]


def _telling(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels, or none where they are but numbers."""
    numbered = all(label == f"LABEL_{row}" for row, label in enumerate(labels))
    return () if numbered else tuple(labels)


def _check_single_label(folder: Path, config: dict[str, Any], count: int) -> None:
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification") or count < 2:
        raise ModelError(
            f"{folder}: answers {problem or 'a number'}, not one label of several",
            hint=_PREDICTIONS,
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: is no JSON object")
    return content
