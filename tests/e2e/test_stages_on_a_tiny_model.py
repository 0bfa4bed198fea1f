"""Every stage from shards to predictions, one after another, on tiny models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from slant.artifacts import Artifact
from slant.corpus import Corpus, LabelledDocument
from slant.evaluate.stage import Subject, evaluate_recipe, run_evaluate
from slant.export.consumer import answer
from slant.export.stage import export_recipe, run_export
from slant.model.base import BaseModel
from slant.progress import SilentProgress
from slant.records import Pair, Prediction
from slant.score.scorer import Refusal, Scorer
from slant.task.spec import TaskSpec
from slant.train.adapt import adapt_recipe, adapted_model, run_adapt
from slant.train.shard import run_shard, shard_recipe
from slant.train.tune import run_tune, tune_recipe
from tiny_stages import LABELS, save_base, tiny_settings, write_ingest

SETTINGS = tiny_settings(tune={"epochs": 8, "learning_rate": 0.01})


@dataclass
class Work:
    """What every stage left."""

    base: BaseModel
    ingest: Artifact
    shards: Artifact
    adapt: Artifact
    tune: Artifact
    evaluate: Artifact
    bundle: Artifact

    @property
    def adapted(self) -> BaseModel:
        return adapted_model(self.base, self.adapt)

    @property
    def subject(self) -> Subject:
        return Subject(self.tune, self.base, self.adapted, self.adapt)

    @property
    def test(self) -> list[LabelledDocument]:
        return Corpus(self.ingest).split("test")


@pytest.fixture(scope="module", params=["mistral-sliding", "gemma3"])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Work:
    root = tmp_path_factory.mktemp(request.param)
    progress = SilentProgress()
    ingest, base = write_ingest(root / "ingest"), save_base(root / "base", request.param)
    shards = run_shard(SETTINGS, ingest=ingest, base=base, out=root / "shard", progress=progress)
    adapt = run_adapt(SETTINGS, shards=shards, base=base, out=root / "adapt", progress=progress)
    adapted = adapted_model(base, adapt)
    tune = run_tune(SETTINGS, shards=shards, base=adapted, out=root / "tune", progress=progress)
    evaluate = run_evaluate(
        SETTINGS,
        ingest=ingest,
        subject=Subject(tune, base, adapted, adapt),
        out=root / "evaluate",
        start=root,
        progress=progress,
    )
    bundle = run_export(
        SETTINGS,
        ingest=ingest,
        evaluate=evaluate,
        tune=tune,
        base=adapted,
        out=root / "bundle",
        progress=progress,
        ask=answer,
    )
    return Work(base, ingest, shards, adapt, tune, evaluate, bundle)


def predictions(work: Work) -> list[dict[str, Any]]:
    return pq.read_table(work.evaluate.file("predictions.parquet")).to_pylist()


def test_the_scorer_gives_the_probabilities_that_were_measured(work: Work) -> None:
    scorer = Scorer.load(work.bundle.path, dtype="float32")
    texts, narratives = zip(*(item.text for item in work.test), strict=True)
    langs = [item.document.lang for item in work.test]
    found = scorer.predict_proba(list(texts), list(narratives), langs)
    rows = predictions(work)
    measured = np.array([[row[f"p_{label}"] for label in LABELS] for row in rows])
    assert found.shape == measured.shape == (len(work.test), 3)
    assert np.abs(found - measured).max() < 1e-4
    assert np.ptp(measured, axis=0).max() > 0.05  # not one and the same answer to everything
    assert {row["fingerprint"] for row in rows} == {scorer.fingerprint}
    answers = scorer.predict(list(texts), list(narratives), langs)
    assert [answer.label for answer in answers] == [row["label"] for row in rows]


def test_predictions_name_the_examples_of_the_test_split_in_their_order(work: Work) -> None:
    assert [
        (row["document_id"], row["narrative_id"], row["lang"], row["gold"])
        for row in predictions(work)
    ] == [
        (e.document_id, e.narrative_id, item.document.lang, e.label)
        for item in work.test
        for e in [item.example]
    ]


def test_the_report_is_that_of_the_predictions(work: Work) -> None:
    report = json.loads(work.evaluate.file("report.json").read_text("utf-8"))
    rows = predictions(work)
    hits = np.mean([row["gold"] == row["label"] for row in rows])
    assert report["systems"][0]["overall"]["accuracy"]["value"] == pytest.approx(hits, abs=1e-5)
    assert report["training"]["adapt"]["perplexity"].keys() == work.adapt.facts["perplexity"].keys()
    assert report["training"]["tune"]["steps"] == work.tune.facts["steps"]
    assert report["task"]["fingerprint"] == TaskSpec.load(work.bundle.path).fingerprint
    page = work.evaluate.file("report.html").read_text("utf-8")
    assert page.lstrip().lower().startswith("<!doctype html")


def test_tuning_learnt_and_adaptation_lowered_perplexity(work: Work) -> None:
    losses = [loss for _, loss in work.tune.facts["losses"]]
    tenth = len(losses) // 10
    assert np.mean(losses[-tenth:]) < 0.8 * np.mean(losses[:tenth])
    assert len(work.tune.facts["validation"]) == SETTINGS.tune.epochs
    found = work.adapt.facts["perplexity"].values()
    assert all(figures["after"] < figures["before"] for figures in found)


def test_a_stream_with_a_pair_that_cannot_be_scored_goes_on_after_it(work: Work) -> None:
    scorer = Scorer.load(work.bundle.path, dtype="float32")
    pairs = [
        Pair("the new bridge is a joy", "the new bridge", id="a"),
        Pair("a long text " * 50, "a very long narrative " * 20, id="b"),
        Pair("新桥" * 200, None, id="c"),
    ]
    first, second, third = scorer.stream(pairs)
    assert isinstance(second, Refusal)
    assert second.id == "b"
    for answered in (first, third):
        assert isinstance(answered, Prediction)
        assert sum(answered.probabilities) == pytest.approx(1)


def test_every_artifact_is_whole_and_has_the_key_of_its_recipe(work: Work) -> None:
    recipes = {
        work.shards.path: shard_recipe(SETTINGS, work.ingest, work.base),
        work.adapt.path: adapt_recipe(SETTINGS, work.shards, work.base),
        work.tune.path: tune_recipe(SETTINGS, work.shards, work.adapted),
        work.evaluate.path: evaluate_recipe(
            SETTINGS, work.ingest, work.subject, work.evaluate.path.parent
        ),
        work.bundle.path: export_recipe(SETTINGS, work.evaluate, work.tune),
    }
    for artifact in (work.shards, work.adapt, work.tune, work.evaluate, work.bundle):
        artifact.verify()
        assert artifact.key == recipes[artifact.path].key
    assert set(work.adapt.manifest["files"]) >= {"events.jsonl", "model/config.json"}
    assert not any(name.startswith("scratch") for name in work.tune.manifest["files"])
