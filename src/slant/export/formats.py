"""The sequence classifier of a bundle: a Hugging Face folder that is loaded without slant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from slant.artifacts import write_atomically
from slant.errors import ModelError
from slant.model.base import load_tokenizer, quiet_transformers
from slant.model.folder import copy_tokenizer
from slant.task.spec import TaskSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["write_classifier"]


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
        with quiet_transformers():
            classifier = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"transformers has no sequence classifier for {config.model_type}",
            hint="Set export.formats to [causal-lm].",
        ) from error
    if not isinstance(getattr(classifier, "score", None), torch.nn.Linear):
        raise ModelError(
            f"{type(classifier).__name__} has another head than a linear layer named score",
            hint="Set export.formats to [causal-lm].",
        )
    head = causal_lm.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise ModelError(f"{type(causal_lm).__name__} has a bias in its LM head: not supported")
    setattr(classifier, classifier.base_model_prefix, causal_lm.get_decoder())
    with torch.no_grad():
        rows = head.weight[list(spec.verbalizer.token_ids)].float() / spec.temperature
        classifier.score.weight = torch.nn.Parameter(rows.clone())
    with quiet_transformers():
        classifier.save_pretrained(out)
    copy_tokenizer(tokenizer_folder, out)
    _configure_tokenizer(out, spec.pad_token_id)


def _configure_tokenizer(folder: Path, pad_token_id: int) -> None:
    """Make a plain AutoTokenizer pad and read as slant does; ``tokenizer.json`` stays as it is."""
    changes = {
        "tokenizer_config.json": {
            "pad_token": load_tokenizer(folder).id_to_token(pad_token_id),
            "split_special_tokens": True,
        }
    }
    changes["special_tokens_map.json"] = {
        "pad_token": changes["tokenizer_config.json"]["pad_token"]
    }
    for name, values in changes.items():
        path = folder / name
        if path.is_file():
            content = json.loads(path.read_text("utf-8")) | values
        elif name == "tokenizer_config.json":
            content = {"tokenizer_class": "PreTrainedTokenizerFast", **values}
        else:
            continue
        write_atomically(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
