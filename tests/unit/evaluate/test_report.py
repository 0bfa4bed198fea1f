from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slant.artifacts import Artifact, load
from slant.config.settings import EvaluateSettings
from slant.corpus import Corpus, LabelledDocument
from slant.errors import InputError
from slant.evaluate.metrics import accuracy, confusion, macro_f1
from slant.evaluate.report import Measured, Measurement, compare
from slant.evaluate.stage import Subject, run_evaluate, unmet_bounds
from slant.labels import LabelSet
from slant.progress import SilentProgress
from slant.records import OVERALL, Document, Example, Narrative
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
NARRATIVES = (Narrative("n-1", "the bridge"), Narrative("n-2", "新桥"), None)


def items(num: int = 60) -> list[LabelledDocument]:
    """Two examples a document; ``tl`` is a small slice, every seventh document has no language."""
    made = []
    for row in range(num):
        number = row // 2
        lang = "tl" if number in (1, 2) else None if number % 7 == 6 else ("en", "zh")[number % 2]
        document = Document(
            f"d-{number}",
            f"text {number} " + "x" * (900 if number == 3 else 5),
            lang=lang,
            source=("news", None)[number % 2],
            digest=f"{number:064}",
        )
        narrative = NARRATIVES[row % 3]
        example = Example(
            document.id, narrative.id if narrative else None, LABELS[row % 3], "test", "d", "f", row
        )
        made.append(LabelledDocument(example, document, narrative))
    return made


def measurement(of: list[LabelledDocument] | None = None) -> Measurement:
    return Measurement(of or items(), LabelSet(LABELS), bootstrap=200, confidence=0.9, seed=1)


def system(id_: str, num: int = 60, skill: float = 1.0, **more: Any) -> Measured:
    random = np.random.default_rng(len(id_))
    logits = random.normal(0, 1, (num, 3))
    logits[np.arange(num), np.arange(num) % 3] += skill
    shares = np.exp(logits)
    return Measured(id_, id_, "about", shares / shares.sum(axis=1, keepdims=True), 1.234, **more)


def test_figures_are_those_of_the_metrics() -> None:
    measured = system("tuned")
    found = measurement().system(measured)
    gold, predicted = np.arange(60) % 3, measured.probabilities_NL.argmax(axis=1)
    matrix = confusion(gold, predicted, 3)
    assert found["confusion"] == matrix.tolist()
    overall = found["overall"]
    assert overall["count"] == 60
    assert overall["accuracy"]["value"] == pytest.approx(float(accuracy(matrix)), abs=1e-5)
    assert overall["macro_f1"]["value"] == pytest.approx(float(macro_f1(matrix)), abs=1e-5)
    for name in ("accuracy", "macro_f1"):
        assert overall[name]["low"] < overall[name]["value"] < overall[name]["high"]
    assert list(overall["f1"]) == list(LABELS)
    assert found["seconds"] == 1.23


def test_slices_divide_the_test_split_and_name_what_is_missing() -> None:
    slices = measurement().system(system("tuned"))["slices"]
    assert {name: sum(m["count"] for m in of.values()) for name, of in slices.items()} == {
        "lang": 60,
        "source": 60,
        "narrative": 60,
    }
    assert set(slices["lang"]) == {"en", "tl", "und", "zh"}
    assert set(slices["source"]) == {"news", "other"}
    assert set(slices["narrative"]) == {"the bridge", "新桥", OVERALL}


def test_slices_under_ten_have_null_intervals() -> None:
    langs = measurement().system(system("tuned"))["slices"]["lang"]
    assert (langs["tl"]["count"], langs["und"]["count"]) == (4, 8)
    for metrics in langs.values():
        for name in ("accuracy", "macro_f1"):
            is_null = [metrics[name][end] is None for end in ("low", "high")]
            assert is_null == [metrics["count"] < 10] * 2


@pytest.mark.parametrize(("num", "has_interval"), [(9, False), (10, True)])
def test_ten_examples_are_enough_for_an_interval_and_nine_are_not(
    num: int, has_interval: bool
) -> None:
    overall = measurement(items(num)).system(system("tuned", num))["overall"]
    assert (overall["accuracy"]["low"] is not None) == has_interval


def test_reliability_has_ten_bins_and_is_null_for_a_system_without_beliefs() -> None:
    found = measurement().system(system("tuned"))["reliability"]
    assert [(b["low"], b["high"]) for b in found["bins"]] == [
        (i / 10, (i + 1) / 10) for i in range(10)
    ]
    assert sum(b["count"] for b in found["bins"]) == 60
    for one in found["bins"]:
        assert (one["confidence"] is None) == (one["accuracy"] is None) == (one["count"] == 0)
        if one["count"]:
            assert one["low"] <= one["confidence"] <= one["high"]
    assert measurement().system(system("majority", confident=False))["reliability"] is None


def test_the_difference_of_a_system_to_itself_is_nothing() -> None:
    measured = system("tuned")
    assert measurement().difference(measured, replace(measured, id="copy")) == {
        "value": 0,
        "low": 0,
        "high": 0,
    }


def test_the_difference_to_a_worse_system_is_positive_and_lies_in_its_interval() -> None:
    found = measurement().difference(system("tuned", skill=3.0), system("weak", skill=0.0))
    assert 0 < found["low"] < found["value"] < found["high"] <= 1


def test_examples_of_one_text_are_one_document_whatever_their_ids() -> None:
    of = items()
    twin = replace(of[4].document, id="d-again")
    of[4] = replace(of[4], document=twin)
    assert measurement(of).num_documents == 30


def test_documents_without_a_digest_are_told_apart_by_their_ids() -> None:
    of = [replace(item, document=replace(item.document, digest=None)) for item in items()]
    assert measurement(of).num_documents == 30


def test_mistakes_are_sorted_by_confidence_and_at_most_fifty() -> None:
    measured = system("tuned", skill=-2.0)
    found = measurement().mistakes(measured)
    confidences = [mistake["confidence"] for mistake in found]
    assert confidences == sorted(confidences, reverse=True)
    assert len(found) == 50
    gold = np.arange(60) % 3
    wrong = measured.probabilities_NL[measured.probabilities_NL.argmax(axis=1) != gold]
    assert confidences == pytest.approx(sorted(wrong.max(axis=1), reverse=True)[:50], abs=1e-5)


def test_a_mistake_says_what_was_read_and_what_was_answered() -> None:
    measured = system("tuned", skill=-2.0)
    of = items()
    by_id = {(item.document.id, item.example.narrative_id): item for item in of}
    names = {narrative.text: narrative.id for narrative in NARRATIVES if narrative}
    for mistake in measurement(of).mistakes(measured):
        narrative_id = names[mistake["narrative"]] if mistake["narrative"] else None
        item = by_id[mistake["document_id"], narrative_id]
        assert mistake["gold"] == item.example.label != mistake["predicted"]
        assert mistake["lang"] == item.document.lang
        assert mistake["probabilities"][mistake["predicted"]] == mistake["confidence"]
        assert sum(mistake["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert len(mistake["text"]) <= 601
        assert mistake["text"].removesuffix("…") in item.document.text


def test_a_perfect_system_makes_no_mistakes() -> None:
    assert measurement().mistakes(system("tuned", skill=50.0)) == []


def test_the_first_system_is_compared_with_all_others() -> None:
    found = compare(measurement(), [system("tuned"), system("tfidf"), system("majority")])
    assert [s["id"] for s in found["systems"]] == ["tuned", "tfidf", "majority"]
    assert [d["system"] for d in found["differences"]] == ["tfidf", "majority"]


def test_bounds_that_are_not_met_are_named() -> None:
    report = {"systems": [{"overall": {"accuracy": {"value": 0.7}, "macro_f1": {"value": 0.59}}}]}
    settings = EvaluateSettings.model_validate(
        {"gate": {"accuracy": {"min": 0.7}, "macro_f1": {"min": 0.6}}}
    )
    (sentence,) = unmet_bounds(report, settings)
    assert sentence == "macro_f1 is 0.5900, the gate asks for at least 0.6"
    assert unmet_bounds(report, EvaluateSettings()) == []


# The whole report, as the stage writes it, against docs/report-schema.md.

GROUPS = {
    "interval": {"value", "low", "high"},
    "metrics": {"count", "accuracy", "macro_f1", "f1", "value", "low", "high"},
}
# Under these keys stand labels, languages or other values, not fields.
MAPPINGS = {"f1", "probabilities", "perplexity"}


def documented() -> list[dict[str, set[str]]]:
    """Fields of the two tables of the schema → every key that may stand below them."""
    tables: list[dict[str, set[str]]] = []
    for line in SCHEMA.read_text("utf-8").splitlines():
        if line.startswith("| field |"):
            tables.append({})
        elif tables and line.startswith("| `"):
            cells = re.split(r"(?<!\\)\|", line.strip("|"), maxsplit=1)
            keys = set(re.findall(r'"([a-z_0-9]+)"(?!\))', cells[1]))
            for name, members in GROUPS.items():
                if re.search(rf"\b{name}\b", cells[1]):
                    keys |= members
            for field in re.findall(r"`([a-z_]+)`", cells[0]):
                tables[-1][field] = keys
    return tables


def keys_below(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from keys_below(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if name not in MAPPINGS:
                yield key
            yield from keys_below(each, key)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluated")
    prepare(root)
    for stage in ("adapt", "tune"):
        run_stage(stage, root, root / stage)
    return root


def evaluate(root: Path, ingest: Artifact, name: str, **sections: Any) -> Artifact:
    adapt = load(root / "adapt", "adapt")
    base = save_base(root / "base")
    return run_evaluate(
        tiny_settings(**sections),
        ingest=ingest,
        subject=Subject(load(root / "tune", "tune"), base, base, adapt),
        out=root / name,
        progress=SilentProgress(),
    )


@pytest.fixture(scope="module")
def evaluated(prepared: Path) -> Artifact:
    return evaluate(prepared, load(prepared / "ingest", "ingest"), "evaluate")


@pytest.fixture(scope="module")
def report(evaluated: Artifact) -> dict[str, Any]:
    return json.loads(evaluated.file("report.json").read_text("utf-8"))


def test_the_report_has_every_field_of_the_schema_and_no_other(report: dict[str, Any]) -> None:
    fields, of_a_system = documented()
    assert len(fields) > 12
    assert set(report) == set(fields)
    for measured in report["systems"]:
        assert set(measured) == set(of_a_system)
    for field, keys in fields.items():
        if field not in ("schema", "systems"):
            assert set(keys_below(report[field])) == keys, field
    for field, keys in of_a_system.items():
        if field == "slices":
            found = {key for measured in report["systems"] for key in measured[field]}
            metrics = {
                key
                for measured in report["systems"]
                for of in measured[field].values()
                for each in of.values()
                for key in keys_below(each)
            }
            assert found | metrics == keys
        elif field not in ("id", "name", "description"):
            found = {k for measured in report["systems"] for k in keys_below(measured[field])}
            assert found == keys, field


def test_the_report_says_of_the_data_what_the_corpus_holds(
    report: dict[str, Any], prepared: Path
) -> None:
    corpus = Corpus(load(prepared / "ingest", "ingest"))
    for split in ("train", "validation", "calibration", "test"):
        assert report["data"][split] == len(corpus.split(split))
    assert report["data"]["languages"] == ["en", "es", "ru", "tl", "und", "zh"]
    assert report["systems"][0]["overall"]["count"] == len(corpus.split("test"))
    assert [s["id"] for s in report["systems"]] == ["tuned", "prompted", "tfidf", "majority"]
    assert report["latency"]["documents"] == 2


def test_a_document_that_cannot_be_asked_about_is_set_aside_and_counted(prepared: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    narratives.append(Narrative("n-long", "a very long narrative " * 20))
    for split in ("test", "calibration"):
        known = next(e for e in examples if e.split == split)
        examples.append(Example(known.document_id, "n-long", "neutral", split, "d", "f", 9))
    plain = sum(e.split == "test" for e in examples) - 1
    ingest = write_ingest(prepared / "ingest-long", (documents, narratives, examples))
    evaluated = evaluate(prepared, ingest, "evaluate-long", evaluate={"baselines": ["tfidf"]})
    found = json.loads(evaluated.file("report.json").read_text("utf-8"))
    assert found["systems"][0]["overall"]["count"] == plain
    assert found["data"]["test"] == plain
    assert found["data"]["rejected"] == 2
    assert evaluated.facts["refused"] == 2


def test_a_narrative_that_just_fits_the_tuned_prompt_does_not_end_the_prompted_baseline(
    prepared: Path,
) -> None:
    documents, narratives, examples = documents_and_examples()
    narratives.append(Narrative("n-wide", "w" * 138))
    known = next(e for e in examples if e.split == "test")
    examples.append(Example(known.document_id, "n-wide", "neutral", "test", "d", "f", 9))
    ingest = write_ingest(prepared / "ingest-wide", (documents, narratives, examples))
    evaluated = evaluate(prepared, ingest, "evaluate-wide", evaluate={"baselines": ["prompted"]})
    assert evaluated.facts["refused"] == 0


def test_an_empty_test_split_is_an_input_error(prepared: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    kept = [e for e in examples if e.split != "test"]
    ingest = write_ingest(prepared / "ingest-untested", (documents, narratives, kept))
    with pytest.raises(InputError, match="test split"):
        evaluate(prepared, ingest, "evaluate-untested")


def test_an_empty_calibration_split_leaves_the_temperature_at_one(prepared: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    kept = [e for e in examples if e.split != "calibration"]
    ingest = write_ingest(prepared / "ingest-raw", (documents, narratives, kept))
    evaluated = evaluate(prepared, ingest, "evaluate-raw", evaluate={"baselines": []})
    assert json.loads(evaluated.file("calibration.json").read_text())["temperature"] == 1.0


def test_a_killed_evaluation_does_not_score_again_what_it_has_scored(prepared: Path) -> None:
    ingest = load(prepared / "ingest", "ingest")
    first = evaluate(prepared, ingest, "evaluate-killed", evaluate={"baselines": []})
    manifest = json.loads((first.path / "manifest.json").read_text())
    (first.path / "manifest.json").unlink()
    (first.path / "building.json").write_text(json.dumps({"key": manifest["key"]}))
    kept = {p.name: p.stat().st_mtime_ns for p in (first.path / "scores").iterdir()}
    again = evaluate(prepared, ingest, "evaluate-killed", evaluate={"baselines": []})
    assert {p.name: p.stat().st_mtime_ns for p in (again.path / "scores").iterdir()} == kept
    assert set(kept) == {"calibration.npz", "tuned.npz"}
