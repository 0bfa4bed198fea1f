"""Make a bundle of a model that another program trained; see ``foreign`` for the kinds.

It is a bundle like any other, but for what is not known of it: there is no report, no calibration
and no threshold. Its proof holds it against the model as its maker runs it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from slant.artifacts import Artifact, Builder, Recipe, build, find, load
from slant.config.settings import TaskSettings
from slant.disk import write_atomically
from slant.errors import ModelError, TaskError, UsageError
from slant.export.card import render_imported_card
from slant.export.foreign import PREDICTIONS, ForeignModel, find_foreign
from slant.export.foreign_tokenizer import check_foreign_tokenizer
from slant.export.foreign_weights import load_foreign, load_foreign_logits
from slant.export.formats import write_causal_lm, write_classifier
from slant.export.head_labels import label_columns, row_names
from slant.export.parity import Ask, answer_in_fresh_process, prove_folders
from slant.export.probes import Probe, choose_probes, probe_lines
from slant.labels import LabelSet
from slant.memory import release_memory
from slant.model.base import find_pad_id, load_tokenizer, resolve_dtype
from slant.model.label_head import LabelModel, check_label_head
from slant.model.license import copy_adapter_license, read_license
from slant.progress import Progress, SilentProgress, Task
from slant.score.decision import probabilities
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec, tokenizer_digest
from slant.task.template import Template
from slant.task.verbalizer import Verbalizer, encode_text, find_bos

__all__ = ["import_model"]

_LABELS = ("negative", "neutral", "positive")
_CLASSIFIER_PROMPTS = ("{document}\n{narrative}", "{document}")
"""A classifier reads the text as it is, unless its maker says otherwise."""
_STEPS = 4


def import_model(
    source: str | Path,
    bundle: str | Path,
    *,
    base: str | None = None,
    revision: str | None = None,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    label_words: Mapping[str, str] | None = None,
    prompt: str | None = None,
    prompt_overall: str | None = None,
    token_limit: int = 512,
    dtype: str | None = None,
    parity_examples: int = 256,
    start: Path | None = None,
    progress: Progress | None = None,
    ask: Ask | None = None,
) -> Artifact:
    """Make a bundle of a LoRA adapter, a causal language model or a decoder's classifier.

    Args:
        source: a folder or a hub id.
        bundle: the folder that is written.
        base: the base of an adapter, a folder or a hub id; None: the one that it names.
        revision: commit or tag of a hub id in ``source``.
        labels: in the order of every column. Of a classifier: its own names in any order, or new
            names → its own; where it does not name them, new ones in the order of its head; None:
            its own. Of others None is negative, neutral, positive.
        label_words: word that stands for a label after the prompt; a label that is not named
            stands for itself.
        prompt: wording for a document and a narrative, as ``task.prompt``; None: slant's own, and
            for a classifier the text, then the narrative on a line of its own.
        prompt_overall: wording without a narrative; None: likewise, for a classifier the text.
        token_limit: longest prompt in tokens.
        dtype: of the weights that are written; None: as they are stored.
        parity_examples: built-in texts that model and bundle are asked, beside the edge cases.
        start: folder that relative paths of ``source`` and ``base`` start from; None: the present.
        progress: told of the steps.
        ask: who reads the written folders for the proof; None: a fresh process.

    Returns:
        The bundle. A second call with the same arguments returns it as it is.

    Raises:
        UsageError: there is no such folder or hub id, labels and words do not fit together, or
            ``bundle`` holds the model or a bundle that was not imported.
        ModelError: the model cannot be loaded, or is of no kind that can be imported.
        TaskError: the labels are not the model's, label words cannot be told apart, slant reads
            texts otherwise than the model's tokenizer does, or no prompt fits the token limit.
        GateError: the bundle does not reproduce the model; nothing is left of it.
        ArtifactError: ``bundle`` holds files that slant did not write, or another artifact.
    """
    told = progress or SilentProgress()
    _check_characters(str(source), base, prompt, prompt_overall)
    _check_characters(*(labels or ()), *(label_words or {}).values())
    model = find_foreign(
        str(source), base=base, revision=revision, start=start or Path(), progress=told
    )
    made = _check_place(Path(bundle), model)
    names = _labels_of(model, labels)
    own_names = labels if isinstance(labels, Mapping) else {}
    words = label_words or {}
    if unknown := [label for label in words if label not in names]:
        raise UsageError(
            f"a word is given for {unknown[0]!r}, which is not among the labels {', '.join(names)}",
            hint="Labels are named with --labels (in Python: labels=…).",
        )
    columns = label_columns(model, names, own_names) if model.answers == "head" else []
    template = _template_of(model, prompt, prompt_overall)
    tokenizer = load_tokenizer(model.base.folder)
    spec = _make_spec(model, tokenizer, template, names, words, token_limit)
    kept = _dtype_of(model, dtype)
    recipe = Recipe(
        "export",
        {"source": model.digest},
        {"import": {"spec": spec.fingerprint, "columns": columns, "dtype": str(kept)}},
        0,
    )
    if made is not None and made.key == recipe.key:
        return made
    encoder = Encoder(tokenizer, spec)
    probes = choose_probes(encoder, spec, parity_examples)
    check_foreign_tokenizer(model, encoder, probes)
    with build(Path(bundle), recipe) as builder, told.task("import", _STEPS, "steps") as task:
        _fill(builder, model, spec, (encoder, probes), columns, dtype=kept, task=task, ask=ask)
    return load(Path(bundle), "export")


def _fill(
    builder: Builder,
    model: ForeignModel,
    spec: TaskSpec,
    probing: tuple[Encoder, Sequence[Probe]],
    columns: Sequence[int],
    *,
    dtype: torch.dtype,
    task: Task,
    ask: Ask | None,
) -> None:
    """Write the bundle's files; ``probing`` is what makes the probes' prompts, and the probes."""
    out, label_ids, probes = builder.path, spec.verbalizer.token_ids, probing[1]
    (out / "slant.json").unlink(missing_ok=True)
    wanted = columns if model.answers == "head" else label_ids
    expected = _ask(load_foreign_logits(model), *probing, wanted)
    release_memory()
    task.advance()
    causal_lm = load_foreign(model, label_ids, columns, dtype=dtype)
    check_label_head(LabelModel(causal_lm, label_ids), causal_lm.config.vocab_size)
    write_causal_lm(causal_lm, spec, model.base.folder, out / "causal-lm")
    try:
        write_classifier(causal_lm, spec, model.base.folder, out / "classifier")
    except ModelError as error:  # its hint is a setting, which an import has none of
        raise ModelError(error.message, hint=PREDICTIONS) from error
    del causal_lm
    release_memory()
    task.advance()
    folders = {name: out / name for name in ("causal-lm", "classifier")}
    if model.adapter:
        for folder in folders.values():
            copy_adapter_license(model.folder, folder)
    ask = ask or partial(answer_in_fresh_process, scratch=builder.scratch)
    proof = prove_folders(folders, spec, probes, expected, ask=ask)
    proof["source"] = {"name": model.name, "kind": model.kind, "digest": model.digest}
    if model.answers == "head":
        rows = row_names(model)
        proof["source"]["labels"] = {
            label: rows[column] for label, column in zip(spec.labels, columns, strict=True)
        }
    task.advance()
    write_atomically(out / "parity.json", json.dumps(proof, ensure_ascii=False, indent=1) + "\n")
    write_atomically(out / "probes.jsonl", probe_lines(probes, expected))
    card = render_imported_card(
        spec,
        proof,
        read_license(model.base.name, model.base.folder),
        read_license(model.name, model.folder) if model.adapter else None,
        base_is_local=model.base.is_local,
    )
    write_atomically(out / "README.md", card)
    spec.save(out)
    builder.facts.update(parity=proof, fingerprint=spec.fingerprint)
    task.advance()


@torch.inference_mode()
def _ask(
    model: nn.Module, encoder: Encoder, probes: Sequence[Probe], columns: Sequence[int]
) -> NDArray[np.float64]:
    """``(N, L)``: what the model answers, through its own forward pass, one probe at a time."""
    rows = []
    for probe in probes:
        ids = torch.tensor([encoder.encode(*probe.source)])
        found: Any = model(input_ids=ids, use_cache=False)
        logits = found.logits[0] if found.logits.dim() == 2 else found.logits[0, -1]
        rows.append(logits[list(columns)].float().numpy())
    return probabilities(np.stack(rows), 1.0)


def _check_characters(*texts: str | None) -> None:
    for text in texts:
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{text!r} holds {error.object[error.start]!r}, half of a surrogate pair, which is "
                "not a character"
            ) from None


def _check_place(bundle: Path, model: ForeignModel) -> Artifact | None:
    """The earlier import in ``bundle``, if there is one; nothing else is ever removed."""
    place = bundle.resolve()
    for folder in (model.folder, model.base.folder):
        source = folder.resolve()
        if source.is_relative_to(place) or place.is_relative_to(source):
            raise UsageError(
                f"{bundle}: the model lies there ({folder}), or around it, and would be removed",
                hint="Name an empty folder.",
            )
    made = find(bundle, "export")
    if made is not None and "import" not in made.manifest.get("settings", {}):
        raise UsageError(
            f"{bundle}: holds a bundle that `slant export` made, which would be removed",
            hint="Name an empty folder.",
        )
    return made


def _labels_of(model: ForeignModel, labels: Iterable[str] | None) -> LabelSet:
    if isinstance(labels, Mapping) and model.answers == "words":
        raise UsageError(
            f"{model.name}: a {model.kind} has no labels of its own that could be named",
            hint="Name words with --label-word LABEL=WORD (in Python: label_words={…}).",
        )
    if labels is not None:
        return LabelSet(labels)
    if model.answers == "words":
        return LabelSet(_LABELS)
    if not model.head_labels:
        raise TaskError(
            f"{model.name} does not name its {model.num_labels} labels",
            hint="Name them in the order of its head: --labels negative,neutral,positive (in "
            "Python: labels=[…]).",
        )
    return LabelSet(model.head_labels)


def _template_of(model: ForeignModel, prompt: str | None, overall: str | None) -> Template:
    task = TaskSettings()
    usual = _CLASSIFIER_PROMPTS if model.answers == "head" else (task.prompt, task.prompt_overall)
    return Template(
        usual[0] if prompt is None else prompt, usual[1] if overall is None else overall
    )


def _make_spec(  # noqa: PLR0917 - what import_model has worked out
    model: ForeignModel,
    tokenizer: Tokenizer,
    template: Template,
    labels: LabelSet,
    words: Mapping[str, str],
    token_limit: int,
) -> TaskSpec:
    _check_plain(tokenizer, template)
    pad_token_id = find_pad_id(tokenizer, model.base.folder)
    if model.answers == "head" and _config(model).get("pad_token_id") not in (None, pad_token_id):
        raise ModelError(
            f"{model.base.folder}: pads with a token that a text may end in; its classifier would "
            "pass over the end of such a text",
            hint=f"Set pad_token_id to {pad_token_id} in its config.json. {PREDICTIONS}",
        )
    return TaskSpec(
        template=template,
        labels=labels,
        verbalizer=(
            _names_of_rows(tokenizer, labels, words)
            if model.answers == "head"
            else _words(tokenizer, template, labels, words)
        ),
        bos_token_id=find_bos(tokenizer),
        pad_token_id=pad_token_id,
        token_limit=token_limit,
        base=model.base.name,
        base_digest=model.base.digest,
        tokenizer_digest=tokenizer_digest(tokenizer),
        weights=model.digest,
    )


def _words(
    tokenizer: Tokenizer, template: Template, labels: LabelSet, words: Mapping[str, str]
) -> Verbalizer:
    try:
        return Verbalizer.from_tokenizer(tokenizer, template, labels, words)
    except TaskError as error:
        raise TaskError(
            error.message,
            hint="Name another word with --label-word LABEL=WORD (in Python: label_words={…}), or "
            "end the prompt with ':'.",
        ) from error


def _names_of_rows(tokenizer: Tokenizer, labels: LabelSet, words: Mapping[str, str]) -> Verbalizer:
    """A token for each label: it only names a row of the head, and nothing is asked for it.

    So it may be any token of the label's word, or failing that of the vocabulary.
    """
    chosen = tuple(words.get(label, label).strip() for label in labels)
    special = tokenizer.get_added_tokens_decoder().keys()
    others = [i for i in reversed(range(tokenizer.get_vocab_size())) if i not in special]
    ids: list[int] = []
    for word in chosen:
        own = encode_text(tokenizer, f" {word}")
        ids.append(next(token_id for token_id in (*own, *others) if token_id not in ids))
    return Verbalizer(chosen, tuple(ids))


def _check_plain(tokenizer: Tokenizer, template: Template) -> None:
    """slant reads special tokens in a prompt as plain text, which is not what others do."""
    special = [
        token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special
    ]
    for token in special:
        if token in template.prompt or token in template.prompt_overall:
            raise TaskError(
                f"the prompt holds {token!r}, a special token of the model; slant reads prompts as "
                "plain text",
                hint="A model that was trained with special tokens in its prompt cannot be "
                "imported; its answers can be compared with evaluate.predictions.",
            )


def _dtype_of(model: ForeignModel, dtype: str | None) -> torch.dtype:
    if dtype is not None:
        return resolve_dtype(dtype)
    config = _config(model)
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    return resolve_dtype(str(stored))


def _config(model: ForeignModel) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((model.base.folder / "config.json").read_text("utf-8"))
    return content
