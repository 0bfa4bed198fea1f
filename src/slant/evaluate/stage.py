"""Stage ``evaluate``: measure the tuned model and its baselines on the held-out test split.

Writes ``report.json``, ``report.html``, ``calibration.json``, ``predictions.parquet`` and
``slant.json`` (the task contract, calibrated). What the models answered is kept in ``scores/``
as it comes, so that a killed evaluation goes on with the next system.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slant.artifacts import Artifact, Recipe, build, load, write_atomically
from slant.config.settings import EvaluateSettings, ProjectSettings
from slant.corpus import Corpus, LabelledDocument
from slant.errors import InputError
from slant.evaluate import baselines
from slant.evaluate.bench import Bench, Subject, Tuned
from slant.evaluate.metrics import reliability
from slant.evaluate.report import REPORT_SCHEMA, Measured, Measurement, compare
from slant.evaluate.report_html import render_report
from slant.model.base import resolve_dtype
from slant.progress import Progress
from slant.score.decision import probabilities
from slant.task.spec import TaskSpec
from slant.track.trackers import log_report
from slant.version import __version__

__all__ = ["Subject", "evaluate_recipe", "run_evaluate", "unmet_bounds"]

_SCORES = "scores"


def evaluate_recipe(settings: ProjectSettings, ingest: Artifact, subject: Subject) -> Recipe:
    """What the report is made from."""
    return Recipe(
        "evaluate",
        {"corpus": Corpus(ingest).digest, "tune": subject.tune.digest, "base": subject.base.digest},
        {
            "evaluate": settings.evaluate.model_dump(),
            "model": settings.model.model_dump(),
            "score": settings.score.model_dump(),
        },
        settings.seed,
    )


def run_evaluate(
    settings: ProjectSettings,
    *,
    ingest: Artifact,
    subject: Subject,
    out: Path,
    progress: Progress,
) -> Artifact:
    """Measure; see the module's text for what is written.

    Raises:
        InputError: the test split is empty.
    """
    corpus = Corpus(ingest)
    if not corpus.split("test"):
        raise InputError("the test split is empty", hint="Change ingest.split or the sizes.")
    with build(out, evaluate_recipe(settings, ingest, subject)) as builder:
        (out / _SCORES).mkdir(exist_ok=True)
        bench = Bench(settings, subject, out / _SCORES, progress)
        test, calibration = _usable(bench, corpus, progress)
        tuned = bench.tuned(calibration, test)
        measurement = Measurement(
            test,
            bench.spec.labels,
            bootstrap=settings.evaluate.bootstrap,
            confidence=settings.evaluate.confidence,
            seed=settings.seed,
        )
        systems = [
            tuned.measured,
            *_baselines(settings, bench, corpus, test, progress),
        ]
        progress.say("evaluate: intervals and report")
        spec = bench.spec.with_temperature(tuned.temperature)
        report = {
            "schema": REPORT_SCHEMA,
            "slant_version": __version__,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": settings.seed,
            "confidence": settings.evaluate.confidence,
            "bootstrap": settings.evaluate.bootstrap,
            "task": _describe_task(spec),
            "data": _describe_data(
                corpus, ingest, measurement.num_documents, (len(calibration), len(test))
            ),
            **compare(measurement, systems),
            "latency": tuned.latency,
            "calibration": _describe_calibration(tuned, measurement.gold_N),
            "training": _describe_training(subject),
            "machine": _describe_machine(settings),
        }
        _write(out, report, spec)
        _write_predictions(out / "predictions.parquet", test, systems[0], spec)
        unmet = unmet_bounds(report, settings.evaluate)
        builder.facts.update(
            gate_unmet=unmet,
            temperature=tuned.temperature,
            refused=report["data"]["rejected"] - ingest.facts.get("rejected", 0),
        )
    log_report(
        settings.track,
        folder=out.parent / "track" / "tune",
        work=out.parent,
        report=report,
        html=out / "report.html",
        progress=progress,
    )
    return load(out, "evaluate")


def _write(out: Path, report: dict[str, Any], spec: TaskSpec) -> None:
    calibration = json.dumps(report["calibration"], indent=1)
    write_atomically(out / "calibration.json", calibration + "\n")
    content = json.dumps(report, ensure_ascii=False, indent=1)
    write_atomically(out / "report.json", content + "\n")
    write_atomically(out / "report.html", render_report(report))
    spec.save(out)


def _usable(
    bench: Bench, corpus: Corpus, progress: Progress
) -> tuple[list[LabelledDocument], list[LabelledDocument]]:
    """Test and calibration examples, without those that the token limit leaves no room for."""
    kept = []
    for split in ("test", "calibration"):
        items = corpus.split(split)
        kept.append(bench.usable(items))
        if refused := len(items) - len(kept[-1]):
            progress.say(
                f"evaluate: {refused} {split} examples set aside: their narrative leaves no room "
                "for the document (task.token_limit)"
            )
    test, calibration = kept
    if not test:
        raise InputError("no test example fits the token limit", hint="Raise task.token_limit.")
    return test, calibration


def _baselines(
    settings: ProjectSettings,
    bench: Bench,
    corpus: Corpus,
    test: Sequence[LabelledDocument],
    progress: Progress,
) -> list[Measured]:
    """The systems that ``evaluate.baselines`` names, in its order."""
    labels = bench.spec.labels

    def with_gold(
        split: str,
    ) -> tuple[list[tuple[str, str | None]], NDArray[np.int64]]:
        items = corpus.split(split)
        gold = np.array([labels.index(item.example.label) for item in items], dtype=np.int64)
        return [item.text for item in items], gold

    measured = []
    for name in settings.evaluate.baselines:
        started = time.perf_counter()
        if name == "prompted":
            measured.append(bench.prompted(test))
            continue
        progress.say(f"evaluate: baseline {name}")
        train = with_gold("train")
        if name == "tfidf":
            scores = baselines.tfidf(
                train,
                with_gold("validation"),
                [item.text for item in test],
                len(labels),
                settings.seed,
            )
            title = "TF-IDF + logistic regression"
            about = (
                "character 1- to 5-grams of document and narrative; fitted on the training split"
            )
        else:
            scores = baselines.majority(train[1], len(test), len(labels))
            title, about = "Majority class", "always the most frequent label of the training split"
        seconds = time.perf_counter() - started
        measured.append(Measured(name, title, about, scores, seconds, confident=name != "majority"))
    return measured


def _describe_task(spec: TaskSpec) -> dict[str, Any]:
    return {
        "labels": list(spec.labels),
        "base": spec.base,
        "fingerprint": spec.fingerprint,
        "prompt": spec.template.prompt,
        "prompt_overall": spec.template.prompt_overall,
        "token_limit": spec.token_limit,
        "long_documents": spec.long_documents,
        "quantize": spec.quantize,
    }


def _describe_data(
    corpus: Corpus, ingest: Artifact, test_documents: int, usable: tuple[int, int]
) -> dict[str, Any]:
    """Sizes; ``usable`` is the number of calibration and of test examples that were asked about."""
    sizes = {
        split: sum(example.split == split for example in corpus.examples)
        for split in ("train", "validation", "calibration", "test")
    }
    refused = sizes["calibration"] + sizes["test"] - sum(usable)
    sizes["calibration"], sizes["test"] = usable
    documents = corpus.labelled_documents
    langs = {documents[example.document_id].lang or "und" for example in corpus.examples}
    return {
        **sizes,
        "test_documents": test_documents,
        "languages": sorted(langs),
        "narratives": len(corpus.narratives),
        "rejected": ingest.facts.get("rejected", 0) + refused,
    }


def _describe_calibration(tuned: Tuned, gold_N: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "temperature": tuned.temperature,
        "examples": tuned.num_calibration,
        "ece_before": round(reliability(probabilities(tuned.logits_NL, 1.0), gold_N).ece, 5),
        "ece_after": round(reliability(tuned.measured.probabilities_NL, gold_N).ece, 5),
    }


def _describe_training(subject: Subject) -> dict[str, Any]:
    adapt = None
    if subject.adapt is not None:
        facts = subject.adapt.facts
        adapt = {name: facts[name] for name in ("tokens", "seconds", "perplexity")}
    names = ("examples", "steps", "tokens", "seconds", "losses", "validation")
    return {"adapt": adapt, "tune": {name: subject.tune.facts[name] for name in names}}


def _describe_machine(settings: ProjectSettings) -> dict[str, Any]:
    import torch
    import transformers

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "dtype": str(resolve_dtype(settings.model.dtype)).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _write_predictions(
    path: Path, test: Sequence[LabelledDocument], tuned: Measured, spec: TaskSpec
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "document_id": [item.document.id for item in test],
        "narrative_id": [item.example.narrative_id for item in test],
        "lang": [item.document.lang for item in test],
        "gold": [item.example.label for item in test],
        "label": [spec.labels[int(i)] for i in tuned.probabilities_NL.argmax(axis=1)],
    }
    for column, label in enumerate(spec.labels):
        columns[f"p_{label}"] = tuned.probabilities_NL[:, column]
    columns["fingerprint"] = [spec.fingerprint] * len(test)
    pq.write_table(pa.table(columns), path, compression="zstd")


def unmet_bounds(report: dict[str, Any], settings: EvaluateSettings) -> list[str]:
    """The gate's bounds that the tuned model does not meet, each as a sentence."""
    overall = report["systems"][0]["overall"]
    return [
        f"{metric} is {overall[metric]['value']:.4f}, the gate asks for at least {bound.min:g}"
        for metric, bound in settings.gate.items()
        if overall[metric]["value"] < bound.min
    ]
