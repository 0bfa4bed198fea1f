"""The weights of another program's model: as its maker runs them, and as one causal language model.

Only safetensors are read, and no code of theirs is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from slant.errors import ModelError
from slant.export.foreign import HEAD, PREDICTIONS, ForeignModel
from slant.model.adapter import load_merged, merge_adapter, put_adapter
from slant.model.base import load_causal_lm, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_foreign", "load_foreign_logits"]


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
        classifier = merge_adapter(put_adapter(classifier, model.folder), dtype)
    return _with_label_rows(classifier, label_ids, columns)


def load_foreign_logits(model: ForeignModel) -> nn.Module:
    """The model as its maker runs it, in float32: an adapter stays beside its base."""
    plain: PreTrainedModel
    if model.answers == "words":
        plain = load_causal_lm(model.base.folder, dtype=torch.float32)
    else:
        plain = _load_classifier(model, torch.float32)
    return cast("nn.Module", put_adapter(plain, model.folder) if model.adapter else plain)


def _with_label_rows(
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
            hint=PREDICTIONS,
        ) from error
    setattr(causal_lm, causal_lm.base_model_prefix, classifier.base_model)
    rows = cast("nn.Linear", getattr(classifier, HEAD)).weight.detach()
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
            hint=PREDICTIONS,
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
    brought = {f"{HEAD}.weight"} if model.adapter else set()
    # transformers fills what is missing with random numbers and goes on.
    if missing := sorted(set(info["missing_keys"]) - brought):
        raise ModelError(
            f"{model.base.folder}: lacks weights of a sequence classifier "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''})",
            hint="Is it half downloaded?",
        )
    # It also leaves out what finds no place.
    if dropped := sorted(name for name in info["unexpected_keys"] if name.startswith(f"{HEAD}.")):
        raise ModelError(
            f"{model.base.folder}: holds {dropped[0]}, which {type(loaded).__name__} does not read",
            hint=PREDICTIONS,
        )
    loaded.config.use_cache = False
    return cast("PreTrainedModel", loaded.eval())
