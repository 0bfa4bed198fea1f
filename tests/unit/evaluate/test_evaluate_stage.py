"""The whole stage on a tiny model: its report against the schema, other systems, kills."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from chat_server import ChatServer
from slant.artifacts import Artifact, load
from slant.corpus import Corpus
from slant.errors import ArtifactError, InputError
from slant.evaluate.stage import Subject, evaluate_recipe, run_evaluate
from slant.export import parity
from slant.export.consumer import answer
from slant.export.stage import run_export
from slant.labels import LabelSet
from slant.model.base import BaseModel
from slant.progress import SilentProgress
from slant.records import Document, Example, Narrative, Pair, Prediction
from slant.score.decision import decide
from slant.score.scorer import Scorer
from slant.task.spec import TaskSpec
from slant.task.verbalizer import Verbalizer
from tiny_stages import (
    LABELS,
    documents_and_examples,
    prepare,
    run_stage,
    save_base,
    tiny_settings,
    write_ingest,
)

SCHEMA = Path(__file__).parents[3] / "docs" / "report-schema.md"
Records = tuple[list[Document], list[Narrative], list[Example]]
# So little is asked for that a handful of calibration examples proves it.
LAX = {"max_error": 0.95, "confidence": 0.5, "by": "language"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned tiny model, and the folder ``start`` that relative paths start from."""
    folder = tmp_path_factory.mktemp("evaluated")
    prepare(folder)
    for stage in ("adapt", "tune"):
        run_stage(stage, folder, folder / stage)
    (folder / "start").mkdir()
    save_base(folder / "base")
    return folder


def base_of(root: Path) -> BaseModel:
    name, digest = json.loads((root / "base.json").read_text("utf-8"))
    return BaseModel(name, root / "base", digest)


def subject_of(root: Path) -> Subject:
    base = base_of(root)
    return Subject(load(root / "tune", "tune"), base, base, load(root / "adapt", "adapt"))


def evaluate(root: Path, work: str, ingest: Artifact | None = None, **fields: Any) -> Artifact:
    """Run the stage in a work folder of its own; ``fields`` are those of ``evaluate``."""
    (root / work).mkdir(exist_ok=True)
    return run_evaluate(
        tiny_settings(evaluate={"baselines": [], **fields}),
        ingest=ingest or load(root / "ingest", "ingest"),
        subject=subject_of(root),
        out=root / work / "evaluate",
        progress=SilentProgress(),
        start=root / "start",
    )


def report_of(evaluated: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(evaluated.file("report.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def evaluated(root: Path) -> Artifact:
    return evaluate(root, "plain", baselines=["prompted", "tfidf", "majority"])


@pytest.fixture(scope="module")
def report(evaluated: Artifact) -> dict[str, Any]:
    return report_of(evaluated)


@pytest.fixture(scope="module")
def bundle(root: Path, evaluated: Artifact) -> Path:
    """The evaluated model as a bundle, in the folder that relative paths start from."""
    out = root / "start" / "last-month"
    run_export(
        tiny_settings(),
        ingest=load(root / "ingest", "ingest"),
        evaluate=evaluated,
        tune=load(root / "tune", "tune"),
        base=base_of(root),
        out=out,
        progress=SilentProgress(),
        ask=answer,
    )
    return out


@pytest.fixture(scope="module")
def rich(root: Path, evaluated: Artifact, bundle: Path) -> dict[str, Any]:
    """The report of an evaluation that measures all there is."""
    pytest.importorskip("httpx", reason="the extra endpoint is not installed")
    shutil.copy(evaluated.file("predictions.parquet"), root / "start" / "vendor.parquet")
    with ChatServer() as server:
        prices = {"usd_per_million_input": 1.0, "usd_per_million_output": 2.0}
        return report_of(
            evaluate(
                root,
                "rich",
                baselines=["prompted", "tfidf", "embedding", "majority"],
                endpoints=[
                    {"url": server.url, "model": "m", "name": "asked", **prices},
                    {"url": server.url, "model": "n", "name": "dear", "budget_usd": 0.0, **prices},
                ],
                bundles={"last month": bundle.name},
                predictions={"vendor": "vendor.parquet"},
                usd_per_hour=1.5,
                decisions=LAX,
                gate={"macro_f1": {"min": 0.0, "worst_language": 2.0}, "ece": {"max": 1.0}},
            )
        )


# The schema: tables of docs/report-schema.md, in this order.
TABLES = ("metrics", "report", "system", "comparison", "calibration", "decisions")
# Under these keys stand labels, languages or other values, not fields.
MAPPINGS = (
    "f1", "probabilities", "perplexity", "temperatures", "languages", "curve",
    "lang", "source", "narrative", "month", "length", "narrative_seen",
)  # fmt: skip
FIGURE = {"value", "low", "high"}


def described() -> dict[str, dict[str, str]]:
    """Table → field → what is said of it."""
    found: dict[str, dict[str, str]] = {}
    names = iter(TABLES)
    for line in SCHEMA.read_text("utf-8").splitlines():
        if line.startswith("| field |"):
            table = found.setdefault(next(names), {})
        elif found and line.startswith("| `"):
            fields, _, meaning = line.strip("|").partition("|")
            for name in re.findall(r"`([a-z_0-9]+)`", fields):
                table[name] = meaning
    assert list(found) == list(TABLES), "there is another table; say here what it is"
    return found


def quoted(meaning: str) -> set[str]:
    """The keys in a description: quoted words that are no values."""
    return set(re.findall(r'(?<![`:] )(?<!`)"([a-z_0-9]+)"', meaning))


def allowed(table: str, field: str) -> set[str]:
    """Every key that may stand anywhere below a field."""
    tables = described()
    meaning = tables[table][field]
    keys = quoted(meaning)
    for name in re.findall(r'"(\w+)": \{…', meaning):
        keys |= quoted(tables[table].get(name, ""))
    if re.search(r"\bfigures?\b", meaning):
        keys |= FIGURE
    if re.search(r"\bmetrics\b", meaning):
        keys |= {*tables["metrics"], *FIGURE}
    if re.search(r"\boutcome\b", meaning) and table == "decisions":
        text = SCHEMA.read_text("utf-8")
        keys |= quoted(text[text.index("An *outcome* on the test split") :]) | FIGURE
    if "the bins of `reliability`" in meaning:
        keys |= quoted(tables["system"]["reliability"]) - {"bins"}
    if "the same fields" in meaning:
        keys |= allowed(table, "groups")
    return keys


def keys_below(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from keys_below(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if name not in MAPPINGS:
                yield key
            yield from keys_below(each, key)


def parts(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Table → the objects of a report that it describes."""
    systems = report["systems"]
    slices = [of for s in systems for by in s["slices"].values() for of in by.values()]
    decisions = report["decisions"]
    return {
        "metrics": [s["overall"] for s in systems] + slices,
        "report": [report],
        "system": systems,
        "comparison": report["comparisons"],
        "calibration": [report["calibration"]],
        "decisions": [] if decisions is None else [decisions],
    }


def elsewhere(table: str, field: str) -> bool:
    """Whether another table describes what stands below this field."""
    return table == "report" and "see below" in described()["report"][field]


def test_the_schema_is_read_as_it_is_meant() -> None:
    """The parser itself, so that what it does not see cannot pass for agreement."""
    tables = described()
    assert {name: len(fields) for name, fields in tables.items()} == {
        "metrics": 10, "report": 19, "system": 13, "comparison": 8, "calibration": 7,
        "decisions": 12,
    }  # fmt: skip
    assert allowed("report", "gate") == {"metric", "where", "bound", "value", "met"}
    assert allowed("report", "schema") == set()
    assert allowed("system", "slices") >= {"month", "narrative_seen", "mcc", "low"}
    assert "unknown" not in allowed("system", "slices")
    assert allowed("comparison", "languages") >= {"only_tuned", "p_adjusted", "high"}
    assert allowed("decisions", "pooled") >= {"threshold", "reason", "wrong", "error", "low"}
    assert allowed("calibration", "bins_before") == {
        "low", "high", "count", "confidence", "accuracy",
    }  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_a_report_of_everything_has_every_field_of_the_schema_and_no_other(
    rich: dict[str, Any], table: str
) -> None:
    objects = parts(rich)[table]
    assert objects
    for each in objects:
        assert set(each) == set(described()[table])
    for field in described()[table]:
        found = {key for each in objects for key in keys_below(each[field], field)}
        if not elsewhere(table, field) and field != "curve":
            assert found == allowed(table, field), (table, field)


def test_a_small_report_has_no_field_that_the_schema_has_not(report: dict[str, Any]) -> None:
    for table, objects in parts(report).items():
        for each in objects:
            assert set(each) == set(described()[table])
            for field in each:
                if not elsewhere(table, field):
                    assert set(keys_below(each[field], field)) <= allowed(table, field)


def test_curves_are_of_all_and_of_languages(rich: dict[str, Any]) -> None:
    langs = rich["systems"][0]["slices"]["lang"]
    assert set(rich["decisions"]["curve"]) == {"all", *langs}
    for points in rich["decisions"]["curve"].values():
        assert 0 < len(points) <= 100
        assert all(len(point) == 3 for point in points)


def test_a_report_is_json_that_every_reader_takes(evaluated: Artifact) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = evaluated.file("report.json").read_text("utf-8")
    json.loads(text, parse_constant=refuse)
    assert evaluated.file("report.html").read_text("utf-8").startswith("<!doctype html>")
    assert evaluated.file("report.md").read_text("utf-8").startswith("#")


# What it says


def test_the_report_says_of_the_data_what_the_corpus_holds(
    report: dict[str, Any], root: Path
) -> None:
    corpus = Corpus(load(root / "ingest", "ingest"))
    for split in ("train", "validation", "calibration", "test"):
        assert report["data"][split] == len(corpus.split(split))
    test = corpus.split("test")
    assert report["data"]["test_documents"] == len({item.document.id for item in test})
    assert report["data"]["languages"] == ["en", "es", "ru", "tl", "und", "zh"]
    assert report["data"]["narratives"] == 5
    assert report["systems"][0]["overall"]["count"] == len(test)
    assert [s["id"] for s in report["systems"]] == ["tuned", "prompted", "tfidf", "majority"]
    assert [c["system"] for c in report["comparisons"]] == ["prompted", "tfidf", "majority"]
    assert report["latency"]["documents"] == 2
    assert report["gate"] == report["unfinished"] == []


def test_every_answer_of_every_system_is_accounted_for(rich: dict[str, Any]) -> None:
    for measured in rich["systems"]:
        assert sum(measured["answers"].values()) == rich["data"]["test"]
        assert np.sum(measured["confusion"]) == rich["data"]["test"]
        num_missing = sum(row[-1] for row in measured["confusion"])
        assert num_missing == rich["data"]["test"] - measured["answers"]["answered"]


def test_systems_are_named_by_kind_and_come_in_the_order_of_the_settings(
    rich: dict[str, Any],
) -> None:
    assert [s["id"] for s in rich["systems"]] == [
        "tuned", "prompted", "tfidf", "embedding", "majority", "endpoint:asked",
        "bundle:last month", "predictions:vendor",
    ]  # fmt: skip
    assert [c["system"] for c in rich["comparisons"]] == [s["id"] for s in rich["systems"][1:]]
    (unfinished,) = rich["unfinished"]
    assert (unfinished["name"], unfinished["answered"]) == ("dear", 0)
    assert unfinished["of"] == rich["data"]["test"]


def test_costs_are_known_where_a_price_is(rich: dict[str, Any], report: dict[str, Any]) -> None:
    assert all(measured["cost"] is None for measured in report["systems"])
    for measured in rich["systems"]:
        if measured["kind"] == "predictions":
            assert measured["cost"] is measured["seconds"] is None
            continue
        per_document = measured["cost"]["usd"] / rich["data"]["test"]
        assert measured["cost"]["usd_per_1000"] == pytest.approx(1000 * per_document, abs=1e-2)
        if measured["seconds"] is not None and measured["kind"] != "endpoint":
            hourly = measured["seconds"] / 3600 * 1.5
            assert measured["cost"]["usd"] == pytest.approx(hourly, abs=5e-6)


def test_bounds_that_are_not_met_are_facts_of_the_artifact(
    root: Path, rich: dict[str, Any]
) -> None:
    facts = load(root / "rich" / "evaluate", "evaluate").facts
    assert [check["met"] for check in rich["gate"]] == [True, False, True]
    (sentence,) = facts["gate_unmet"]
    assert sentence.startswith("macro_f1 in ")
    assert sentence.endswith("the gate asks for at least 2")


# Decisions


def test_thresholds_in_the_contract_decide_as_the_report_says(
    root: Path, rich: dict[str, Any]
) -> None:
    folder = root / "rich" / "evaluate"
    spec = TaskSpec.load(folder)
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert {row["fingerprint"] for row in rows} == {spec.fingerprint}
    accepted = wrong = 0
    for row in rows:
        confidence = max(row[f"p_{label}"] for label in LABELS)
        if decide(confidence, row["lang"], dict(spec.thresholds)) == "accept":
            accepted += 1
            wrong += row["label"] != row["gold"]
    outcome = rich["decisions"]["test"]
    assert (outcome["count"], outcome["accepted"], outcome["wrong"]) == (len(rows), accepted, wrong)
    assert accepted > 0
    found = {group["name"]: group["threshold"] for group in rich["decisions"]["groups"]}
    assert {name: None if t == 2 else t for name, t in spec.thresholds} == found


def test_without_a_promise_nothing_is_decided_and_all_examples_calibrate(root: Path) -> None:
    evaluated = evaluate(root, "undecided", decisions=None)
    report, spec = report_of(evaluated), TaskSpec.load(evaluated.path)
    assert report["decisions"] is None
    assert spec.thresholds == ()
    assert report["calibration"]["examples"] == report["data"]["calibration"]
    kept = json.loads(evaluated.file("calibration.json").read_text("utf-8"))
    assert kept == {"calibration": report["calibration"], "decisions": None}
    assert dict(spec.temperatures) == report["calibration"]["temperatures"]
    assert spec.temperature == report["calibration"]["temperature"]
    assert "<!doctype html>" in evaluated.file("report.html").read_text("utf-8")


def test_an_empty_calibration_split_leaves_the_temperature_at_one(root: Path) -> None:
    ingest = changed(root, "raw", lambda e: None if e.split == "calibration" else e)
    evaluated = evaluate(root, "raw", ingest)
    report = report_of(evaluated)
    assert report["calibration"]["temperature"] == 1.0
    assert report["calibration"]["temperatures"] == {}
    (group,) = report["decisions"]["groups"]
    assert group["reason"] == "0 calibration documents are left for the proof; it takes 29"
    assert TaskSpec.load(evaluated.path).thresholds == (("*", 2.0),)


# Other systems


def test_the_bundle_of_the_same_model_answers_as_it_does(rich: dict[str, Any]) -> None:
    by_id = {measured["id"]: measured for measured in rich["systems"]}
    tuned, same = by_id["tuned"], by_id["bundle:last month"]
    assert same["confusion"] == tuned["confusion"]
    # Its temperatures are those of its own evaluation: of all examples, not of a third.
    assert same["overall"]["auroc"] is not None
    (comparison,) = [c for c in rich["comparisons"] if c["system"] == "bundle:last month"]
    assert comparison["macro_f1"]["value"] == 0
    assert comparison["p_value"] in (None, 1)
    assert comparison["outcome"] == "unclear"


def test_a_file_of_predictions_is_measured_as_the_system_that_wrote_it(
    rich: dict[str, Any], report: dict[str, Any]
) -> None:
    (vendor,) = [s for s in rich["systems"] if s["id"] == "predictions:vendor"]
    tuned = report["systems"][0]
    for field in ("overall", "slices", "confusion", "reliability"):
        assert vendor[field] == tuned[field]
    assert vendor["seconds"] is vendor["latency"] is vendor["tokens"] is None


def test_what_a_file_of_predictions_lacks_is_said_and_counts_as_wrong(
    root: Path, evaluated: Artifact
) -> None:
    table = pq.read_table(evaluated.file("predictions.parquet"))
    pq.write_table(table.slice(0, 5), root / "start" / "part.parquet")
    found = report_of(evaluate(root, "part", predictions={"part": "part.parquet"}))
    (measured,) = found["systems"][1:]
    assert measured["answers"]["answered"] == 5
    assert measured["answers"]["unreadable"] == found["data"]["test"] - 5
    assert f"{found['data']['test'] - 5} test examples are not in it" in measured["description"]


def seal(bundle: Path) -> None:
    """Make the manifest that of the contract that is there."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    content = (bundle / "slant.json").read_bytes()
    manifest["files"]["slant.json"] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def test_a_bundle_with_its_labels_in_another_order_is_measured_label_by_label(
    root: Path, bundle: Path, rich: dict[str, Any]
) -> None:
    turned = root / "start" / "turned"
    shutil.copytree(bundle, turned)
    spec = TaskSpec.load(bundle)
    order = (2, 0, 1)
    words, ids = spec.verbalizer.words, spec.verbalizer.token_ids
    replace(
        spec,
        labels=LabelSet(spec.labels[i] for i in order),
        verbalizer=Verbalizer(tuple(words[i] for i in order), tuple(ids[i] for i in order)),
    ).save(turned)
    seal(turned)
    found = report_of(evaluate(root, "turned", bundles={"turned": "turned"}))
    assert found["systems"][1]["confusion"] == rich["systems"][0]["confusion"]


def test_a_bundle_with_other_labels_cannot_be_compared(root: Path, bundle: Path) -> None:
    other = root / "start" / "other-labels"
    shutil.copytree(bundle, other)
    spec = TaskSpec.load(bundle)
    replace(spec, labels=LabelSet(("against", "neutral", "for"))).save(other)
    with pytest.raises(InputError, match="against, neutral, for") as raised:
        evaluate(root, "other-labels", bundles={"other": "other-labels"})
    assert raised.value.hint


def test_a_bundle_that_is_not_there_is_an_error_before_anything_is_asked(root: Path) -> None:
    with pytest.raises(ArtifactError, match="no-such-bundle"):
        evaluate(root, "no-bundle", bundles={"x": "no-such-bundle"})
    assert not list((root / "no-bundle").rglob("*.npz"))


def test_the_recipe_is_of_what_bundles_and_files_of_predictions_hold(
    root: Path, bundle: Path, evaluated: Artifact
) -> None:
    file = root / "start" / "changing.parquet"
    table = pq.read_table(evaluated.file("predictions.parquet"))
    folder = root / "start" / "changing"
    shutil.copytree(bundle, folder)

    def key() -> str:
        settings = tiny_settings(
            evaluate={"predictions": {"x": file.name}, "bundles": {"y": folder.name}}
        )
        ingest = load(root / "ingest", "ingest")
        return evaluate_recipe(settings, ingest, subject_of(root), root / "start").key

    pq.write_table(table, file)
    first = key()
    assert key() == first
    pq.write_table(table.slice(0, 3), file)
    second = key()
    TaskSpec.load(folder).with_temperature(3.0).save(folder)
    assert len({first, second, key()}) == 3


def test_hidden_states_of_the_base_tell_labels_apart(rich: dict[str, Any]) -> None:
    (measured,) = [s for s in rich["systems"] if s["id"] == "embedding"]
    assert measured["answers"]["answered"] == rich["data"]["test"]
    assert measured["reliability"] is not None
    assert f"{rich['data']['train']:,} training examples" in measured["description"]


def test_without_a_validation_split_the_baselines_still_answer(root: Path) -> None:
    ingest = changed(root, "unheld", lambda e: None if e.split == "validation" else e)
    # Fails: StandardScaler takes no empty array (systems._on_embeddings).
    found = report_of(evaluate(root, "unheld", ingest, baselines=["tfidf", "embedding"]))
    for measured in found["systems"]:
        assert measured["answers"]["answered"] == found["data"]["test"]


def test_a_second_evaluation_tells_the_same_seconds_of_what_it_did_not_ask_again(
    root: Path,
) -> None:
    fields: dict[str, Any] = {"baselines": ["prompted", "embedding"]}
    seconds = []
    for bootstrap in (100, 101):
        found = report_of(evaluate(root, "timed", bootstrap=bootstrap, **fields))
        seconds.append({s["id"]: s["seconds"] for s in found["systems"]})
    assert seconds[0]["tuned"] == seconds[1]["tuned"]
    assert seconds[0]["prompted"] == seconds[1]["prompted"]


# Killed, and run again


def kept_scores(root: Path, work: str) -> dict[str, int]:
    """The files of scores, and when each was written."""
    return {p.name: p.stat().st_mtime_ns for p in (root / work / "scores").iterdir()}


def test_scores_are_kept_beside_the_artifact_and_are_no_part_of_it(
    root: Path, evaluated: Artifact
) -> None:
    names = {name.rpartition("-")[0] for name in kept_scores(root, "plain")}
    assert names == {"validation", "calibration", "tuned", "prompted"}
    assert not any("scores" in name for name in evaluated.manifest["files"])
    assert set(evaluated.manifest["files"]) == {
        "calibration.json", "predictions.parquet", "report.html", "report.json", "report.md",
        "slant.json",
    }  # fmt: skip


def test_a_killed_evaluation_does_not_score_again_what_it_has_scored(root: Path) -> None:
    fields = {"baselines": ["prompted", "embedding"]}
    first = evaluate(root, "killed", **fields)
    report = report_of(first)
    manifest = json.loads((first.path / "manifest.json").read_text("utf-8"))
    (first.path / "manifest.json").unlink()
    (first.path / "building.json").write_text(json.dumps({"key": manifest["key"]}))
    kept = kept_scores(root, "killed")
    again = report_of(evaluate(root, "killed", **fields))
    assert kept_scores(root, "killed") == kept
    assert {name.rpartition("-")[0] for name in kept} == {
        "validation", "calibration", "tuned", "prompted", "embedding-train",
        "embedding-validation", "embedding-test",
    }  # fmt: skip
    for one, other in zip(report["systems"], again["systems"], strict=True):
        assert one["overall"] == other["overall"]


def test_another_gate_other_baselines_and_another_promise_score_nothing_again(root: Path) -> None:
    evaluate(root, "regated")
    kept = kept_scores(root, "regated")
    evaluate(root, "regated", gate={"accuracy": {"min": 0.99}}, baselines=["tfidf"], decisions=LAX)
    assert kept_scores(root, "regated") == kept
    facts = load(root / "regated" / "evaluate", "evaluate").facts
    assert len(facts["gate_unmet"]) == 1


def test_other_test_examples_are_scored_and_the_old_scores_go(root: Path) -> None:
    evaluate(root, "retested")
    kept = kept_scores(root, "retested")
    dropped = next(e for e in documents_and_examples()[2] if e.split == "test")
    ingest = changed(root, "retested", lambda e: None if e == dropped else e)
    evaluate(root, "retested", ingest)
    now = kept_scores(root, "retested")
    assert len(now) == len(kept) == 3
    again = {name.partition("-")[0] for name in set(now) - set(kept)}
    assert again == {"tuned"}
    assert all(now[name] == kept[name] for name in set(now) & set(kept))


def test_a_half_written_file_of_scores_is_not_taken_for_one(root: Path) -> None:
    evaluate(root, "halved")
    (whole,) = [p for p in (root / "halved" / "scores").iterdir() if p.name.startswith("tuned")]
    whole.rename(whole.with_suffix(".partial.npz"))
    found = report_of(evaluate(root, "halved", bootstrap=101))
    assert whole.exists()
    assert found["systems"][0]["answers"]["answered"] == found["data"]["test"]


# Test splits of every kind


def changed(root: Path, name: str, change: Callable[[Example], Example | None]) -> Artifact:
    """An ingest artifact whose examples are changed, or left out (None)."""
    documents, narratives, examples = documents_and_examples()
    kept = [new for new in map(change, examples) if new is not None]
    return write_ingest(root / f"ingest-{name}", (documents, narratives, kept))


def in_test(change: Callable[[Example], Example | None]) -> Callable[[Example], Example | None]:
    return lambda example: change(example) if example.split == "test" else example


def first_of_test(num: int) -> list[Example]:
    return [e for e in documents_and_examples()[2] if e.split == "test"][:num]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("one-label", in_test(lambda e: replace(e, label="neutral"))),
        ("one-example", in_test(lambda e: e if e in first_of_test(1) else None)),
        ("no-narrative", in_test(lambda e: replace(e, narrative_id=None))),
    ],
)
def test_a_test_split_of_one_kind_is_measured(
    root: Path, name: str, change: Callable[[Example], Example | None]
) -> None:
    ingest = changed(root, name, change)
    evaluated = evaluate(root, name, ingest, baselines=["prompted", "tfidf", "majority"])
    found = report_of(evaluated)
    assert len(found["systems"]) == 4
    assert found["data"]["test"] == found["systems"][0]["overall"]["count"] > 0


def test_a_document_that_is_labelled_twice_is_one_document(root: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    first = first_of_test(1)[0]
    text = next(d for d in documents if d.id == first.document_id)
    documents.append(replace(text, id="again"))
    examples.append(replace(first, document_id="again"))
    examples.append(replace(first, narrative_id="n-ru" if first.narrative_id != "n-ru" else "n-en"))
    ingest = write_ingest(root / "ingest-twice", (documents, narratives, examples))
    evaluated = evaluate(root, "twice", ingest)
    data = report_of(evaluated)["data"]
    plain = report_of(evaluate(root, "once"))["data"]
    assert data["test"] == plain["test"] + 2
    assert data["test_documents"] == plain["test_documents"]


def test_a_document_that_cannot_be_asked_about_is_set_aside_and_counted(root: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    narratives.append(Narrative("n-long", "a very long narrative " * 20))
    for split in ("test", "calibration"):
        known = next(e for e in examples if e.split == split)
        examples.append(Example(known.document_id, "n-long", "neutral", split, "d", "f", 9))
    plain = sum(e.split == "test" for e in examples) - 1
    ingest = write_ingest(root / "ingest-long", (documents, narratives, examples))
    evaluated = evaluate(root, "long", ingest, baselines=["tfidf"])
    found = report_of(evaluated)
    assert found["systems"][0]["overall"]["count"] == plain
    assert found["data"]["test"] == plain
    assert found["data"]["rejected"] == 2
    assert evaluated.facts["refused"] == 2


def test_a_narrative_that_just_fits_the_tuned_prompt_does_not_end_the_prompted_baseline(
    root: Path,
) -> None:
    documents, narratives, examples = documents_and_examples()
    narratives.append(Narrative("n-wide", "w" * 138))
    known = next(e for e in examples if e.split == "test")
    examples.append(Example(known.document_id, "n-wide", "neutral", "test", "d", "f", 9))
    ingest = write_ingest(root / "ingest-wide", (documents, narratives, examples))
    evaluated = evaluate(root, "wide", ingest, baselines=["prompted"])
    assert evaluated.facts["refused"] == 0


def test_an_empty_test_split_is_an_input_error(root: Path) -> None:
    ingest = changed(root, "untested", in_test(lambda e: None))
    with pytest.raises(InputError, match="test split"):
        evaluate(root, "untested", ingest)


def test_temperatures_and_thresholds_travel_with_the_bundle(
    root: Path, bundle: Path, evaluated: Artifact
) -> None:
    """What was measured is what is served, language by language."""
    spec = TaskSpec.load(bundle)
    assert spec == TaskSpec.load(evaluated.path)
    assert len(set(dict(spec.temperatures).values())) > 1
    test = Corpus(load(root / "ingest", "ingest")).split("test")
    measured = pq.read_table(evaluated.file("predictions.parquet")).to_pylist()
    scorer = Scorer.load(bundle, dtype="float32")
    pairs = [Pair(*item.text, item.document.id, item.document.lang) for item in test]
    for row, prediction in zip(measured, scorer.stream(pairs), strict=True):
        assert isinstance(prediction, Prediction)
        expected = [row[f"p_{label}"] for label in LABELS]
        assert prediction.probabilities == pytest.approx(expected, abs=1e-4)
        assert prediction.decision == decide(
            max(prediction.probabilities), row["lang"], dict(spec.thresholds)
        )


def test_an_evaluation_in_float32_has_the_answers_that_anybody_gets_from_the_exported_weights(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.BOUNDS, "bfloat16", 0.2)  # rounding moves a random model further
    settings = tiny_settings(model={"dtype": "bfloat16"}, evaluate={"dtype": "float32"})
    ingest, subject = load(root / "ingest", "ingest"), subject_of(root)
    (root / "arithmetic").mkdir()
    evaluated = run_evaluate(
        settings,
        ingest=ingest,
        subject=subject,
        out=root / "arithmetic" / "evaluate",
        progress=SilentProgress(),
        start=root / "start",
    )
    report = report_of(evaluated)
    assert report["machine"]["dtype"] == "float32"
    assert report["latency"]["dtype"] == "bfloat16"  # as served

    bundle = root / "arithmetic" / "bundle"
    run_export(
        settings,
        ingest=ingest,
        evaluate=evaluated,
        tune=subject.tune,
        base=subject.adapted,
        out=bundle,
        progress=SilentProgress(),
        ask=answer,
    )
    items = Corpus(ingest).split("test")
    pairs = [Pair(*item.text, item.document.id, item.document.lang) for item in items]
    found = [p.probabilities for p in Scorer.load(bundle, dtype="float32").stream(pairs)]
    rows = pq.read_table(evaluated.file("predictions.parquet")).to_pylist()
    measured = [[row[f"p_{label}"] for label in LABELS] for row in rows]
    assert np.abs(np.array(found) - measured).max() < 1e-5
