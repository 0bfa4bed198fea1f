"""Stage ``export``: the bundle, published only with its proof.

It writes
    causal-lm/    merged Hugging Face causal language model; slant scores with it
    classifier/   …ForSequenceClassification with the calibrated label rows as its head
    parity.json   the trained model and both folders, asked the same
    report.json   figures of the evaluation
    README.md     model card
    slant.json    the task contract; written last of these: without it nothing loads the bundle
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slant.artifacts import Artifact, Recipe, build, load, write_atomically
from slant.config.settings import ProjectSettings
from slant.corpus import Corpus, LabelledDocument
from slant.errors import GateError, TaskError
from slant.export.card import render_card
from slant.export.formats import write_classifier
from slant.export.parity import (
    BOUNDS,
    classifier_probabilities,
    exported_causal_lm_probabilities,
    label_probabilities,
    prove,
)
from slant.model.base import BaseModel, load_tokenizer, resolve_dtype
from slant.model.folder import save_causal_lm
from slant.model.tuned import load_tuned_adapted, load_tuned_merged
from slant.progress import Progress
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec

__all__ = ["export_recipe", "run_export"]


def export_recipe(settings: ProjectSettings, evaluate: Artifact, tune: Artifact) -> Recipe:
    """What the bundle is made from."""
    return Recipe(
        "export",
        {"evaluate": evaluate.digest, "tune": tune.digest},
        {"export": settings.export.model_dump(), "model": settings.model.model_dump()},
        settings.seed,
    )


def run_export(
    settings: ProjectSettings,
    *,
    ingest: Artifact,
    evaluate: Artifact,
    tune: Artifact,
    base: BaseModel,
    out: Path,
    progress: Progress,
) -> Artifact:
    """Write the bundle.

    Args:
        settings: the project; ``export`` and ``model.dtype`` are used.
        ingest: examples for the parity check are taken from its test split.
        evaluate: the calibrated contract and the report.
        tune: the tuned checkpoint.
        base: the model that it was tuned on (adapted, if there was adaptation).
        out: the bundle's folder.
        progress: told of the steps.

    Raises:
        GateError: the evaluation's gate was not met, or an exported format does not reproduce the
            trained model. Nothing is published.
    """
    if unmet := evaluate.facts["gate_unmet"]:
        raise GateError(
            "nothing is exported: " + "; ".join(unmet),
            hint="Train further, or change evaluate.gate if the bound was wrong.",
        )
    dtype = resolve_dtype(settings.model.dtype)
    spec = TaskSpec.load(evaluate.path)
    label_ids = spec.verbalizer.token_ids
    with build(out, export_recipe(settings, evaluate, tune)) as builder:
        (out / "slant.json").unlink(missing_ok=True)
        with progress.task("export", 3 + len(settings.export.formats), "steps") as task:
            merged = load_tuned_merged(base.folder, tune.path, label_ids, dtype=dtype)
            save_causal_lm(merged, base.folder, out / "causal-lm")
            task.advance()
            if "classifier" in settings.export.formats:
                write_classifier(merged, spec, base.folder, out / "classifier")
                task.advance()
            del merged
            encoder = Encoder(load_tokenizer(base.folder), spec)
            test = Corpus(ingest).split("test")
            probes = _probes(encoder, test, settings.export.parity_examples)
            trained = base.folder, tune.path, BOUNDS[dtype]
            proof = _parity(out, spec, encoder, probes, trained)
            task.advance(2)
            report = json.loads(evaluate.file("report.json").read_text("utf-8"))
            write_atomically(out / "parity.json", json.dumps(proof, indent=1) + "\n")
            write_atomically(
                out / "report.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n"
            )
            write_atomically(out / "README.md", render_card(report, spec, proof))
            spec.save(out)
            builder.facts.update(parity=proof, fingerprint=spec.fingerprint)
            task.advance()
    return load(out, "export")


def _probes(encoder: Encoder, items: Sequence[LabelledDocument], count: int) -> list[str]:
    """Prompts of ``count`` items over all languages, from the shortest to the longest document.

    Items that the token limit leaves no room for are passed over, as they were in evaluation.
    """
    ordered = sorted(items, key=lambda item: (item.document.lang or "", len(item.document.text)))
    prompts = []
    for item in ordered:
        try:
            prompts.append(encoder.prompt(*item.text))
        except TaskError:
            continue
    if len(prompts) <= count:
        return prompts
    step = (len(prompts) - 1) / max(1, count - 1)
    return [prompts[round(i * step)] for i in range(count)]


def _parity(
    out: Path,
    spec: TaskSpec,
    encoder: Encoder,
    probes: Sequence[str],
    trained: tuple[Path, Path, float],
) -> dict[str, Any]:
    """Score the probes with the checkpoint as it was trained, and with each exported folder.

    All in float32: what is compared is the weights, not the rounding of the arithmetic.
    """
    base, checkpoint, bound = trained
    prompts = [encoder.encode_prompt(prompt) for prompt in probes]
    label_ids = spec.verbalizer.token_ids
    adapted = load_tuned_adapted(base, checkpoint, label_ids, dtype=torch.float32)
    expected = label_probabilities(adapted, spec, prompts)
    del adapted
    exported = {"causal-lm": exported_causal_lm_probabilities(out / "causal-lm", spec, prompts)}
    if (out / "classifier").is_dir():
        exported["classifier"] = classifier_probabilities(out / "classifier", probes)
    try:
        return prove(expected, exported, bound)
    except GateError:
        # transformers would load these folders without asking for a manifest.
        for name in exported:
            shutil.rmtree(out / name, ignore_errors=True)
        raise
