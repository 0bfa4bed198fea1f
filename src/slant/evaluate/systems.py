"""All that the tuned model is compared with, measured on the same test examples.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slant.artifacts import digest_json
from slant.config.evaluate_settings import EndpointSettings
from slant.config.settings import ProjectSettings
from slant.corpus import Corpus, LabelledDocument
from slant.errors import InputError, UsageError
from slant.evaluate import baselines
from slant.evaluate.bench import Bench
from slant.evaluate.endpoint.ask import Answers, Endpoint, Question, Shot, ask
from slant.evaluate.predictions import read_predictions
from slant.evaluate.report import Measured
from slant.labels import LabelSet
from slant.progress import Progress
from slant.records import Pair
from slant.score.scorer import Refusal, Scorer
from slant.storage import is_url
from slant.task.spec import TaskSpec

__all__ = ["Others", "Trial", "check_named", "measure_others"]

_MOST_EMBEDDED = 4000  # training examples that a classifier on hidden states learns from
_SHOT_POOL = 2000


@final
@dataclass(frozen=True)
class Trial:
    """What all systems are measured with.

    Attributes:
        settings: the project.
        bench: scores with the base model.
        corpus: its training and validation splits teach the baselines.
        test: N test examples.
        start: folder that relative paths start from.
        work: answers of endpoints are kept there.
        progress: told what happens.
    """

    settings: ProjectSettings
    bench: Bench
    corpus: Corpus
    test: Sequence[LabelledDocument]
    start: Path
    work: Path
    progress: Progress

    @property
    def labels(self) -> LabelSet:
        """The task's labels."""
        return self.bench.spec.labels

    def cost(self, seconds: float) -> dict[str, Any] | None:
        """What a system on this machine costs; None where the machine's price is not known."""
        usd_per_hour, num = self.settings.evaluate.usd_per_hour, len(self.test)
        if usd_per_hour is None or not num:
            return None
        usd = seconds / 3600 * usd_per_hour
        pace = num / max(seconds, 1e-9)
        return {
            "usd": round(usd, 6),
            "usd_per_1000": round(1000 * usd / num, 6),
            "basis": f"{pace:.3g} documents a second at ${usd_per_hour:g} an hour",
        }


@final
@dataclass
class Others:
    """The systems beside the tuned one, and the endpoints that could not be asked to the end."""

    measured: list[Measured] = field(default_factory=list)
    unfinished: list[dict[str, Any]] = field(default_factory=list)

    @property
    def num_failed(self) -> int:
        """Answers that endpoints failed to give; another run may get them."""
        return sum(system.missing.get("failed", 0) for system in self.measured)


def check_named(settings: ProjectSettings, start: Path) -> None:
    """Whether what ``evaluate`` names is there: before an hour is spent on other systems.

    Raises:
        UsageError: a file of predictions is not there.
        ArtifactError, InputError: a bundle is not there, or has other labels.
    """
    for folder in settings.evaluate.bundles.values():
        _bundle_spec(start / folder, settings.labels)
    for name, file in settings.evaluate.predictions.items():
        if not is_url(file) and not (start / file).is_file():
            raise UsageError(
                f"evaluate.predictions: {name}: there is no file {start / file}",
                hint="Paths are relative to slant.yaml.",
            )


def measure_others(trial: Trial) -> Others:
    """The systems that ``evaluate`` names: baselines, endpoints, bundles, files of predictions.

    Raises:
        UsageError, InputError, ArtifactError, ModelError: a system that is named cannot be used.
    """
    named = trial.settings.evaluate
    others = Others(list(_baselines(trial)))
    for endpoint in named.endpoints:
        _add_endpoint(others, endpoint, _ask(trial, endpoint), trial)
    others.measured += [_bundle(trial, *item) for item in named.bundles.items()]
    others.measured += [_predictions(trial, *item) for item in named.predictions.items()]
    return others


def _baselines(trial: Trial) -> Iterator[Measured]:
    """The systems that ``evaluate.baselines`` names, in its order."""
    bench, labels, seed = trial.bench, trial.labels, trial.settings.seed

    def gold_of(items: Sequence[LabelledDocument]) -> NDArray[np.int64]:
        return np.array([labels.index(item.example.label) for item in items], dtype=np.int64)

    def texts_of(items: Sequence[LabelledDocument]) -> list[tuple[str, str | None]]:
        return [item.text for item in items]

    train, held, test = trial.corpus.split("train"), trial.corpus.split("validation"), trial.test
    for name in trial.settings.evaluate.baselines:
        started = time.perf_counter()
        if name == "prompted":
            found, seconds = bench.prompted(test)
            title, about = "Same base, prompted", bench.about_prompted()
        elif name == "tfidf":
            trial.progress.say("evaluate: baseline tfidf")
            found = baselines.tfidf(
                (texts_of(train), gold_of(train)),
                (texts_of(held), gold_of(held)),
                texts_of(test),
                len(labels),
                seed,
            )
            title = "TF-IDF + logistic regression"
            about = (
                "character 1- to 5-grams of document and narrative; fitted on the training split"
            )
        elif name == "embedding":
            found, about, seconds = _on_embeddings(bench, (train, held, test), labels, seed)
            title = "Embeddings + logistic regression"
        else:
            found = baselines.majority(gold_of(train), len(test), len(labels))
            title, about = "Majority class", "always the most frequent label of the training split"
        if name in ("tfidf", "majority"):
            seconds = time.perf_counter() - started
        yield Measured(
            name,
            title,
            about,
            found,
            seconds,
            confident=name != "majority",
            cost=trial.cost(seconds),
        )


def _on_embeddings(
    bench: Bench,
    splits: tuple[Sequence[LabelledDocument], ...],
    labels: LabelSet,
    seed: int,
) -> tuple[NDArray[np.float64], str, float]:
    """Logistic regression on the base model's hidden states; with the seconds of the test split."""
    from sklearn.preprocessing import StandardScaler

    train, held, test = splits
    usable = bench.usable(train)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(usable))[:_MOST_EMBEDDED])
    parts = {
        "train": [usable[i] for i in chosen],
        "validation": bench.usable(held),
        "test": list(test),
    }
    made = {name: bench.embeddings(items, name) for name, items in parts.items()}
    features = {name: values for name, (values, _) in made.items()}
    scaler = StandardScaler().fit(features["train"])
    x = {name: scaler.transform(values) for name, values in features.items() if len(values)}
    y = {
        name: np.array([labels.index(item.example.label) for item in items], dtype=np.int64)
        for name, items in parts.items()
    }
    held_out = (x["validation"], y["validation"]) if "validation" in x else None
    found = baselines.on_features((x["train"], y["train"]), held_out, x["test"], len(labels), seed)
    about = (
        f"mean of the last hidden states of {bench.spec.base} as it comes; fitted on "
        f"{len(chosen):,} training examples"
    )
    return found, about, made["test"][1]


def _ask(trial: Trial, settings: EndpointSettings) -> Answers:
    key = None
    if settings.key_env is not None:
        key = os.environ.get(settings.key_env)
        if not key:
            raise UsageError(
                f"evaluate.endpoints: {settings.model}: the environment variable "
                f"{settings.key_env} is not set",
                hint="Put the endpoint's key into it.",
            )
    fields = settings.model_dump(exclude={"key_env"})
    seed, shots = trial.settings.seed, []
    if settings.shots:
        train = trial.corpus.split("train")
        order = np.random.default_rng(seed).permutation(len(train))[:_SHOT_POOL]
        chosen = [train[int(place)] for place in order]
        shots = [Shot(*item.text, item.document.lang, item.example.label) for item in chosen]
    return ask(
        Endpoint(**fields, key=key),
        [Question(*item.text, item.document.lang) for item in trial.test],
        tuple(trial.labels),
        shots=shots,
        cache=trial.work / "answers.sqlite",
        progress=trial.progress,
        seed=seed,
    )


def _add_endpoint(
    others: Others, settings: EndpointSettings, answers: Answers, trial: Trial
) -> None:
    name, num = settings.name or settings.model, len(trial.test)
    if answers.unfinished is not None:
        trial.progress.say(f"evaluate: {name} is left out: {answers.unfinished}")
        others.unfinished.append(
            {
                "name": name,
                "reason": answers.unfinished,
                "answered": answers.answered,
                "of": num,
                "usd": answers.usd,
            }
        )
        return
    how = f"{settings.shots} examples of each label" if settings.shots else "zero-shot"
    english = settings.instructions == "english"
    cost = None
    if answers.usd is not None:
        cost = {
            "usd": round(answers.usd, 6),
            "usd_per_1000": round(1000 * answers.usd / num, 6),
            "basis": f"tokens at ${settings.usd_per_million_input:g} in and "
            f"${settings.usd_per_million_output:g} out a million",
        }
    latency = None
    if answers.latency_p50_ms is not None and answers.latency_p95_ms is not None:
        latency = {
            "p50": round(answers.latency_p50_ms, 1),
            "p95": round(answers.latency_p95_ms, 1),
        }
    others.measured.append(
        Measured(
            "endpoint",
            name,
            f"{settings.model}, prompted over HTTP, {how}, instructions in "
            f"{'English' if english else 'the language of the document'}",
            answers.probabilities_NL,
            confident=answers.confident,
            missing={
                "unreadable": answers.unreadable,
                "refused": answers.refused,
                "failed": answers.failed,
            },
            latency=latency,
            cost=cost,
            tokens={"input": answers.input_tokens, "output": answers.output_tokens},
        )
    )


def _predictions(trial: Trial, name: str, file: str) -> Measured:
    location = file if is_url(file) else str(trial.start / file)
    found_NL, confident, notes = read_predictions(location, trial.test, trial.labels)
    for note in notes:
        trial.progress.say(f"evaluate: {file}: {note}")
    about = "; ".join(["predictions of another system, read from a file", *notes])
    return Measured("predictions", name, about, found_NL, confident=confident)


def _bundle_spec(folder: Path, labels: Iterable[str]) -> TaskSpec:
    """The contract of another bundle; raises InputError where it has other labels."""
    spec = TaskSpec.load(folder)
    if set(spec.labels) != set(labels):
        raise InputError(
            f"{folder}: has the labels {', '.join(spec.labels)}, the project {', '.join(labels)}",
            hint="Only systems with the same labels can be compared.",
        )
    return spec


def _bundle(trial: Trial, name: str, path: str) -> Measured:
    """Another bundle on the same examples, with its own prompt and calibration."""
    folder, test, labels = trial.start / path, trial.test, trial.labels
    spec = _bundle_spec(folder, labels)
    columns = [spec.labels.index(label) for label in labels]

    def prepare() -> Callable[[], NDArray[np.float64]]:
        scorer = Scorer.load(folder, dtype=trial.settings.evaluate_dtype)

        def compute() -> NDArray[np.float64]:
            found_NL = np.full((len(test), len(labels)), np.nan)
            with trial.progress.task(f"score {name}", len(test), "documents") as task:
                pairs = (Pair(*item.text, item.document.id, item.document.lang) for item in test)
                for row, outcome in enumerate(scorer.stream(pairs)):
                    if not isinstance(outcome, Refusal):
                        found_NL[row] = np.array(outcome.probabilities)[columns]
                    task.advance()
            return found_NL

        return compute

    model = {"fingerprint": spec.fingerprint, "labels": ",".join(labels)}
    found_NL, seconds = trial.bench.kept(f"bundle-{digest_json(name)[:8]}", model, test, prepare)
    return Measured(
        "bundle",
        name,
        f"the bundle {folder.name} with the fingerprint {spec.fingerprint[:12]}, as it decides",
        found_NL,
        seconds,
        missing={"refused": int(np.isnan(found_NL).any(axis=1).sum())},
        cost=trial.cost(seconds),
    )
