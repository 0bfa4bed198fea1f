"""The Hugging Face folders of a bundle, each loaded without slant.

causal-lm/    …ForCausalLM, the tuned weights in one; slant scores with it
classifier/   …ForSequenceClassification with the calibrated label rows as its head
int8/         the same in 8 bits (see ``int8``)
adapter/      what was trained, for those who keep the base (see ``adapter_format``)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from slant.disk import write_atomically
from slant.errors import ModelError
from slant.export.adapter_format import write_adapter
from slant.export.chat_template import write_chat_template
from slant.export.int8 import write_int8
from slant.model.base import BaseModel, load_tokenizer, quiet_transformers
from slant.model.folder import copy_tokenizer, save_causal_lm, save_weights
from slant.model.license import copy_license
from slant.model.tuned import load_tuned_merged
from slant.task.spec import TaskSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["write_causal_lm", "write_classifier", "write_formats"]

_HEAD = "score"


def write_formats(
    formats: Sequence[str],
    spec: TaskSpec,
    checkpoint: Path,
    base: BaseModel,
    out: Path,
    *,
    dtype: torch.dtype,
    quantize: str = "none",
    adapted: bool,
    on_done: Callable[[str], None],
) -> None:
    """Write a folder for each of ``formats`` into ``out``, in place of what is there.

    Args:
        formats: names, as ``export.formats`` has them.
        spec: the calibrated contract.
        checkpoint: the tuned checkpoint.
        base: what it was tuned on.
        out: the bundle's folder.
        dtype: of the weights.
        quantize: of the base while an adapter was tuned: ``none`` or ``nf4``.
        adapted: whether ``base`` is the result of domain adaptation.
        on_done: told the name of each format once it is written.

    Raises:
        ModelError: the architecture, the checkpoint or this installation does not allow a format.
    """
    for name in ("causal-lm", "classifier", "adapter", "int8"):
        shutil.rmtree(out / name, ignore_errors=True)
    if "adapter" in formats:
        write_adapter(checkpoint, base, out / "adapter", quantize=quantize, adapted=adapted)
        _carry_prompt(out / "adapter", spec)
        on_done("adapter")
    label_ids = spec.verbalizer.token_ids
    merged = load_tuned_merged(base.folder, checkpoint, label_ids, dtype=dtype, quantize=quantize)
    vars(merged.config).pop("auto_map", None)  # of code that the base came with and that is not run
    if "causal-lm" in formats:
        write_causal_lm(merged, spec, base.folder, out / "causal-lm")
        on_done("causal-lm")
    if "classifier" in formats:
        write_classifier(merged, spec, base.folder, out / "classifier")
        on_done("classifier")
    if "int8" in formats:  # the last: it rounds the layers of ``merged``
        write_int8(_classifier_of(merged, spec), out / "int8")
        copy_tokenizer(base.folder, out / "int8")
        copy_license(base.folder, out / "int8")
        _carry_prompt(out / "int8", spec)
        on_done("int8")


def write_causal_lm(
    causal_lm: PreTrainedModel, spec: TaskSpec, tokenizer_folder: Path, out: Path
) -> None:
    """Write the model as it is, with a tokenizer that reads as slant does and holds the prompt."""
    save_causal_lm(causal_lm, tokenizer_folder, out)
    _carry_prompt(out, spec)


def write_classifier(
    causal_lm: PreTrainedModel, spec: TaskSpec, tokenizer_folder: Path, out: Path
) -> None:
    """Write a ``…ForSequenceClassification`` whose head is the label rows of the LM head.

    The calibration temperature is divided into the head, which stays in float32: the softmax of
    this model's logits is the probability that slant reports. Its tokenizer pads with the token
    that the model takes for padding, and takes ``<s>`` in a document for plain text, as slant does.

    Raises:
        ModelError: the architecture has no sequence classifier in transformers, or changes its
            logits after the head.
    """
    save_weights(_classifier_of(causal_lm, spec), out)
    copy_tokenizer(tokenizer_folder, out)
    copy_license(tokenizer_folder, out)
    _carry_prompt(out, spec)


def _classifier_of(causal_lm: PreTrainedModel, spec: TaskSpec) -> Any:
    """A sequence classifier that shares the layers of ``causal_lm``."""
    from transformers import AutoModelForSequenceClassification

    config = type(causal_lm.config).from_dict(causal_lm.config.to_dict())
    if getattr(config, "final_logit_softcapping", None):
        raise ModelError(
            f"{type(causal_lm).__name__} caps its logits; a linear classifier cannot do that",
            hint="Set export.formats to [causal-lm].",
        )
    names = dict(enumerate(spec.labels))
    config.num_labels = len(names)
    config.id2label = names
    config.label2id = {label: i for i, label in names.items()}
    config.pad_token_id = spec.pad_token_id
    config.problem_type = "single_label_classification"
    try:
        # Without memory: its layers are about to be those of the causal language model.
        with quiet_transformers(), torch.device("meta"):
            classifier = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"transformers has no sequence classifier for {config.model_type}",
            hint="Set export.formats to [causal-lm].",
        ) from error
    if not isinstance(getattr(classifier, _HEAD, None), torch.nn.Linear):
        raise ModelError(
            f"{type(classifier).__name__} has another head than a linear layer named {_HEAD}",
            hint="Set export.formats to [causal-lm].",
        )
    head = causal_lm.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise ModelError(f"{type(causal_lm).__name__} has a bias in its LM head: not supported")
    setattr(classifier, classifier.base_model_prefix, causal_lm.get_decoder())
    with torch.no_grad():
        rows = head.weight[list(spec.verbalizer.token_ids)].float() / spec.temperature
        classifier.score = torch.nn.Linear(rows.shape[1], rows.shape[0], bias=False)
        classifier.score.weight = torch.nn.Parameter(rows.clone())
    if empty := [name for name, param in classifier.named_parameters() if param.is_meta]:
        raise ModelError(
            f"{type(classifier).__name__} has weights that {type(causal_lm).__name__} has not "
            f"({', '.join(empty[:3])})",
            hint="Set export.formats to [causal-lm].",
        )
    return classifier.eval()


def _carry_prompt(folder: Path, spec: TaskSpec) -> None:
    """Make a plain AutoTokenizer pad and read as slant does, and know the prompt.

    ``tokenizer.json`` stays as it is.
    """
    _configure_tokenizer(folder, spec.pad_token_id)
    write_chat_template(folder, spec)


def _configure_tokenizer(folder: Path, pad_token_id: int) -> None:
    pad_token = load_tokenizer(folder).id_to_token(pad_token_id)
    # Under the name of a model's own class, transformers makes the tokenizer anew from its
    # vocabulary, with rules of that class; under this name it takes tokenizer.json as it is.
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "split_special_tokens": True}
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    content.pop("auto_map", None)  # code of its own, which nobody is to run
    _write_json(path, content | own | {"pad_token": pad_token})
    path = folder / "special_tokens_map.json"
    if path.is_file():
        _write_json(path, json.loads(path.read_text("utf-8")) | {"pad_token": pad_token})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
