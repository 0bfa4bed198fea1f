"""Stage ``evaluate``: measure the tuned model and its baselines on the held-out test split.

Writes ``report.json``, ``report.html``, ``report.md``, ``calibration.json``,
``predictions.parquet`` and ``slant.json`` (the task contract, calibrated, with thresholds). What
models answered is kept beside it, in ``scores/`` and ``answers.sqlite``.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slant.artifacts import Artifact, Recipe, build, digest_file, load
from slant.config.settings import ProjectSettings
from slant.corpus import Corpus, LabelledDocument
from slant.disk import write_atomically
from slant.errors import InputError
from slant.evaluate.bench import Bench, Subject, Tuned
from slant.evaluate.calibration import Temperatures
from slant.evaluate.decisions import (
    Promise,
    calibrate,
    describe_calibration,
    find_decisions,
)
from slant.evaluate.gates import check_gate, unmet
from slant.evaluate.gold import gold_of
from slant.evaluate.predictions import write_predictions
from slant.evaluate.report import REPORT_SCHEMA, Measured, Measurement, compare
from slant.evaluate.report_html import render_report
from slant.evaluate.report_markdown import render_markdown
from slant.evaluate.systems import Trial, check_named, measure_others
from slant.model.base import resolve_dtype
from slant.model.processor import processor_name
from slant.progress import Progress
from slant.score.decision import probabilities
from slant.storage import is_url
from slant.task.languages import UNKNOWN_LANGUAGE
from slant.task.spec import TaskSpec
from slant.track.trackers import log_report
from slant.version import __version__

__all__ = ["Subject", "evaluate_recipe", "run_evaluate"]

_SCORES = "scores"


def evaluate_recipe(
    settings: ProjectSettings, ingest: Artifact, subject: Subject, start: Path
) -> Recipe:
    """What the report is made from; bundles and predictions count by what is in them."""
    others = {
        f"bundle {name}": TaskSpec.load(start / folder).fingerprint
        for name, folder in settings.evaluate.bundles.items()
    }
    for name, file in settings.evaluate.predictions.items():
        if not is_url(file) and (start / file).is_file():
            others[f"predictions {name}"] = digest_file(start / file)
    return Recipe(
        "evaluate",
        {
            "corpus": Corpus(ingest).digest,
            "tune": subject.tune.digest,
            "base": subject.base.digest,
            **others,
        },
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
    start: Path,
) -> Artifact:
    """Measure; see the module's text for what is written.

    Raises:
        InputError: the test split is empty.
    """
    corpus = Corpus(ingest)
    if not corpus.split("test"):
        raise InputError("the test split is empty", hint="Change ingest.split or the sizes.")
    check_named(settings, start)
    work = out.parent
    with build(out, evaluate_recipe(settings, ingest, subject, start)) as builder:
        scores = work / _SCORES
        scores.mkdir(exist_ok=True)
        bench = Bench(settings, subject, scores, progress)
        test, calibration = _usable(bench, corpus, progress)
        chosen = settings.evaluate.decisions
        promise = None if chosen is None else Promise(**chosen.model_dump())
        validation = [] if promise is None else bench.usable(corpus.split("validation"))
        answered = bench.tuned(validation, calibration, test)
        temperatures, fitted, proofs = calibrate(answered.calibration, promise, settings.seed)
        trial = Trial(settings, bench, corpus, test, start, work, progress)
        tuned = _tuned(trial, answered, temperatures)
        others = measure_others(trial)
        progress.say("evaluate: intervals and report")
        spec = bench.spec.with_temperature(temperatures.pooled, temperatures.by_language)
        decisions = None
        if promise is not None:
            decisions = find_decisions(
                fitted + answered.validation, proofs, answered.test, temperatures, promise
            )
            spec = spec.with_thresholds(decisions.thresholds)
        trained = frozenset(item.narrative.id for item in corpus.split("train") if item.narrative)
        gold = gold_of(test, spec.labels, trained)
        measurement = Measurement(
            gold,
            bootstrap=settings.evaluate.bootstrap,
            confidence=settings.evaluate.confidence,
            seed=settings.seed,
        )
        found = compare(measurement, [tuned, *others.measured])
        report = {
            "schema": REPORT_SCHEMA,
            "slant_version": __version__,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": settings.seed,
            "confidence": settings.evaluate.confidence,
            "bootstrap": settings.evaluate.bootstrap,
            "task": _describe_task(spec),
            "data": _describe_data(
                corpus, ingest, gold.num_documents, (len(calibration), len(test))
            ),
            **found,
            "unfinished": others.unfinished,
            "latency": answered.latency,
            "calibration": describe_calibration(fitted, answered.test, temperatures),
            "decisions": None if decisions is None else decisions.report,
            "gate": check_gate(found["systems"][0], settings.evaluate.gate),
            "training": _describe_training(subject),
            "machine": _describe_machine(settings),
        }
        _write(out, report, spec)
        write_predictions(out / "predictions.parquet", test, tuned.probabilities_NL, spec)
        builder.facts.update(
            gate_unmet=unmet(report["gate"]),
            temperature=temperatures.pooled,
            ask_again=bool(others.unfinished) or others.num_failed > 0,
            refused=report["data"]["rejected"] - ingest.facts.get("rejected", 0),
        )
    log_report(
        settings.track,
        folder=work / "track" / "tune",
        work=work,
        report=report,
        html=out / "report.html",
        progress=progress,
    )
    return load(out, "evaluate")


def _tuned(trial: Trial, answered: Tuned, temperatures: Temperatures) -> Measured:
    return Measured(
        "tuned",
        "Tuned model",
        f"{trial.bench.spec.base}, fine-tuned on the training split; label logits at the last "
        "prompt token, temperatures fitted on the calibration split",
        probabilities(answered.test.logits_NL, temperatures.of(answered.test.langs)),
        answered.seconds,
        latency=answered.latency["label_scoring"],
        cost=trial.cost(answered.seconds),
    )


def _write(out: Path, report: dict[str, Any], spec: TaskSpec) -> None:
    kept = {key: report[key] for key in ("calibration", "decisions")}
    calibration = json.dumps(kept, indent=1)
    write_atomically(out / "calibration.json", calibration + "\n")
    content = json.dumps(report, ensure_ascii=False, indent=1)
    write_atomically(out / "report.json", content + "\n")
    write_atomically(out / "report.html", render_report(report))
    write_atomically(out / "report.md", render_markdown(report))
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
    langs = {documents[example.document_id].lang or UNKNOWN_LANGUAGE for example in corpus.examples}
    return {
        **sizes,
        "test_documents": test_documents,
        "languages": sorted(langs),
        "narratives": len(corpus.narratives),
        "rejected": ingest.facts.get("rejected", 0) + refused,
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
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "dtype": str(resolve_dtype(settings.evaluate_dtype)).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
