"""report.json: what is made of arrays, without a model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from slant.corpus import LabelledDocument
from slant.evaluate.gold import gold_of
from slant.evaluate.metrics import accuracy, brier_scores, confusion, f1_per_label, macro_f1
from slant.evaluate.report import REPORT_SCHEMA, Measured, Measurement, compare
from slant.labels import LabelSet
from slant.records import OVERALL, Document, Example, Narrative
from tiny_stages import LABELS

BRIDGE, TRAM = Narrative("n-1", "the bridge"), Narrative("n-2", "新桥")
NARRATIVES = (BRIDGE, TRAM, None)
TRAINED = frozenset({"n-1"})


def items(num: int = 60) -> list[LabelledDocument]:
    """Two examples a document; ``tl`` is a small slice, every seventh document has no language."""
    made = []
    for row in range(num):
        number = row // 2
        lang = "tl" if number in (1, 2) else None if number % 7 == 6 else ("en", "zh")[number % 2]
        document = Document(
            f"d-{number}",
            f"text {number} " + "x" * (900 if number == 3 else 150 if number % 5 == 4 else 5),
            lang=lang,
            source=("news", None)[number % 2],
            published_at=datetime(2026, 1 + number % 3, 9, tzinfo=UTC) if number % 4 else None,
            digest=f"{number:064}",
        )
        narrative = NARRATIVES[row % 3]
        example = Example(
            document.id, narrative.id if narrative else None, LABELS[row % 3], "test", "d", "f", row
        )
        made.append(LabelledDocument(example, document, narrative))
    return made


def measurement(
    of: list[LabelledDocument] | None = None,
    labels: tuple[str, ...] = LABELS,
    confidence: float = 0.9,
) -> Measurement:
    gold = gold_of(items() if of is None else of, LabelSet(labels), TRAINED)
    return Measurement(gold, bootstrap=200, confidence=confidence, seed=1)


def shares(num: int = 60, skill: float = 1.0, seed: int = 5) -> np.ndarray:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1, (num, 3))
    logits[np.arange(num), np.arange(num) % 3] += skill
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def system(kind: str = "tuned", num: int = 60, skill: float = 1.0, **more: Any) -> Measured:
    found = shares(num, skill, len(kind))
    return replace(Measured(kind, f"The {kind}", "about", found, 1.23456), **more)


def is_null(figure: dict[str, Any]) -> list[bool]:
    return [figure[end] is None for end in ("low", "high")]


# One system


def test_figures_are_those_of_the_metrics_and_lie_in_their_intervals() -> None:
    measured = system()
    found = measurement().system(measured)
    gold, predicted = np.arange(60) % 3, measured.probabilities_NL.argmax(axis=1)
    matrix = confusion(gold, predicted, 3)
    overall = found["overall"]
    expected = {
        "accuracy": float(accuracy(matrix)),
        "macro_f1": float(macro_f1(matrix)),
        "mcc": matthews_corrcoef(gold, predicted),
        "f1_polar": float(f1_per_label(matrix)[[0, 2]].mean()),
        "brier": brier_scores(measured.probabilities_NL, gold).mean(),
        "auroc": np.mean(
            [roc_auc_score(gold == i, measured.probabilities_NL[:, i]) for i in range(3)]
        ),
    }
    for name, value in expected.items():
        assert overall[name]["value"] == pytest.approx(value, abs=1e-5)
    for name in ("accuracy", "macro_f1", "mcc", "f1_polar"):
        assert overall[name]["low"] < overall[name]["value"] < overall[name]["high"]
    assert (overall["count"], overall["documents"]) == (60, 30)
    assert list(overall["f1"]) == list(LABELS)
    assert [f["value"] for f in overall["f1"].values()] == pytest.approx(
        f1_per_label(matrix).tolist(), abs=1e-5
    )
    assert found["confusion"] == matrix.tolist()
    assert found["seconds"] == 1.23
    assert found["answers"] == {"answered": 60, "unreadable": 0, "refused": 0, "failed": 0}


def test_beliefs_of_a_hundred_documents_have_intervals() -> None:
    overall = measurement(items(200)).system(system(num=200))["overall"]
    for name in ("auroc", "ece", "brier"):
        assert overall[name]["low"] <= overall[name]["value"] <= overall[name]["high"]
        assert overall[name]["low"] < overall[name]["high"]
    few = measurement(items(198)).system(system(num=198))["overall"]
    assert few["documents"] == 99
    for name in ("auroc", "ece", "brier"):
        assert is_null(few[name]) == [True, True], name


@pytest.mark.parametrize(("num", "has_interval"), [(18, False), (20, True)])
def test_ten_documents_are_enough_for_an_interval_and_nine_are_not(
    num: int, has_interval: bool
) -> None:
    overall = measurement(items(num)).system(system(num=num))["overall"]
    for name in ("accuracy", "macro_f1", "mcc"):
        assert is_null(overall[name]) == [not has_interval] * 2


@pytest.mark.parametrize(("skill", "value"), [(50.0, 1.0), (-50.0, 0.0)])
def test_an_accuracy_of_all_or_nothing_on_twelve_documents_has_an_exact_interval(
    skill: float, value: float
) -> None:
    found = measurement(items(24), confidence=0.95).system(system(num=24, skill=skill))
    figure = found["overall"]["accuracy"]
    theirs = binomtest(12 * int(value), 12).proportion_ci(0.95, "exact")
    assert figure["value"] == value
    # Of twelve documents, though there are 24 examples.
    assert (figure["low"], figure["high"]) == pytest.approx((theirs.low, theirs.high), abs=1e-5)
    # Of the others nothing is known, as no resample differs from any other.
    assert is_null(found["overall"]["macro_f1"]) == [True, True]
    nine = measurement(items(18)).system(system(num=18, skill=skill))["overall"]["accuracy"]
    assert is_null(nine) == [True, True]


def test_a_task_without_neutral_or_with_too_few_others_has_no_polar_f1() -> None:
    for labels in (("against", "so-so", "for"), ("negative", "neutral"), ("negative", "positive")):
        of = [
            replace(item, example=replace(item.example, label=labels[row % len(labels)]))
            for row, item in enumerate(items())
        ]
        probabilities = shares()[:, : len(labels)]
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        found = measurement(of, labels).system(replace(system(), probabilities_NL=probabilities))
        assert found["overall"]["f1_polar"] is None
        assert found["overall"]["macro_f1"]["low"] is not None


def test_slices_divide_the_test_split_and_name_what_is_missing() -> None:
    slices = measurement().system(system())["slices"]
    assert list(slices) == ["lang", "source", "narrative", "month", "length", "narrative_seen"]
    for of in slices.values():
        assert sum(metrics["count"] for metrics in of.values()) == 60
    assert set(slices["lang"]) == {"en", "tl", "und", "zh"}
    assert set(slices["source"]) == {"news", "other"}
    assert set(slices["narrative"]) == {"the bridge", "新桥", OVERALL}
    assert set(slices["month"]) == {"2026-01", "2026-02", "2026-03", "unknown"}
    assert {length: m["documents"] for length, m in slices["length"].items()} == {
        "under 140": 23, "140 to 499": 6, "500 to 1,999": 1,
    }  # fmt: skip
    assert {seen: m["count"] for seen, m in slices["narrative_seen"].items()} == {
        "seen": 20, "unseen": 20, OVERALL: 20,
    }  # fmt: skip


def test_a_slice_is_measured_on_its_own_examples() -> None:
    measured, of = system(), items()
    rows = np.array([row for row, item in enumerate(of) if item.document.lang == "en"])
    alone = measurement([of[row] for row in rows])
    expected = alone.system(replace(measured, probabilities_NL=measured.probabilities_NL[rows]))
    assert measurement(of).system(measured)["slices"]["lang"]["en"] == expected["overall"]


def test_slices_of_fewer_than_ten_documents_have_null_intervals() -> None:
    langs = measurement(items(120)).system(system(num=120))["slices"]["lang"]
    documents = {lang: metrics["documents"] for lang, metrics in langs.items()}
    assert documents == {"en": 25, "tl": 2, "und": 8, "zh": 25}
    assert langs["und"]["count"] == 16  # examples are no documents
    for lang, metrics in langs.items():
        for name in ("accuracy", "macro_f1", "mcc"):
            assert is_null(metrics[name]) == [documents[lang] < 10] * 2


def test_there_are_at_most_two_hundred_slices_the_largest_ones() -> None:
    """As many narratives as documents, but for one that five documents are about."""
    of = []
    for number in range(300):
        narrative = Narrative(f"n-{number}", f"narrative {min(number, 295)}")
        document = Document(f"d-{number}", f"text {number}", digest=f"{number:064}")
        example = Example(document.id, narrative.id, LABELS[number % 3], "test", "d", "f", number)
        of.append(LabelledDocument(example, document, narrative))
    gold = gold_of(of, LabelSet(LABELS), TRAINED)
    few = Measurement(gold, bootstrap=100, confidence=0.9, seed=1)
    found = few.system(system(num=300))["slices"]["narrative"]
    assert len(found) == 200
    assert found["narrative 295"]["count"] == 5
    assert list(found) == sorted(found)


def test_reliability_has_ten_bins_and_is_null_for_a_system_without_beliefs() -> None:
    found = measurement().system(system())["reliability"]
    assert [(b["low"], b["high"]) for b in found["bins"]] == [
        (i / 10, (i + 1) / 10) for i in range(10)
    ]
    assert sum(b["count"] for b in found["bins"]) == 60
    for one in found["bins"]:
        assert (one["confidence"] is None) == (one["accuracy"] is None) == (one["count"] == 0)
        if one["count"]:
            assert one["low"] <= one["confidence"] <= one["high"]
    certain = measurement().system(system("majority", confident=False))
    assert certain["reliability"] is None
    for name in ("auroc", "ece", "brier"):
        assert certain["overall"][name] is None
        assert certain["slices"]["lang"]["en"][name] is None


def without_answers(rows: list[int], **more: Any) -> Measured:
    probabilities = shares()
    probabilities[rows] = np.nan
    return system("predictions", probabilities_NL=probabilities, **more)


def test_an_example_without_an_answer_is_wrong_and_has_a_column_of_its_own() -> None:
    rows = [0, 7, 8, 31]
    found = measurement().system(without_answers(rows))
    right = shares().argmax(axis=1) == np.arange(60) % 3
    right[rows] = False
    assert found["overall"]["count"] == 60
    assert found["overall"]["accuracy"]["value"] == pytest.approx(right.mean(), abs=1e-5)
    gold = Counter(row % 3 for row in rows)
    assert [counts[3] for counts in found["confusion"]] == [gold[0], gold[1], gold[2]]
    assert np.sum(found["confusion"]) == 60
    # Figures of beliefs are over what was answered.
    answered = np.setdiff1d(np.arange(60), rows)
    expected = brier_scores(shares()[answered], answered % 3).mean()
    assert found["overall"]["brier"]["value"] == pytest.approx(expected, abs=1e-5)
    assert sum(one["count"] for one in found["reliability"]["bins"]) == 56


def test_answers_add_up_to_the_test_split_whatever_is_known_of_the_missing_ones() -> None:
    rows = [0, 7, 8, 31]
    for missing, expected in (
        ({}, {"unreadable": 4, "refused": 0, "failed": 0}),
        ({"refused": 3}, {"unreadable": 1, "refused": 3, "failed": 0}),
        (
            {"unreadable": 1, "refused": 1, "failed": 2},
            {"unreadable": 1, "refused": 1, "failed": 2},
        ),
    ):
        answers = measurement().system(without_answers(rows, missing=missing))["answers"]
        assert answers == {"answered": 56, **expected}


def test_a_system_that_answers_nothing_is_measured_all_the_same() -> None:
    found = measurement().system(without_answers(list(range(60))))
    assert found["answers"]["answered"] == 0
    assert found["overall"]["accuracy"]["value"] == 0
    assert found["overall"]["ece"] is None
    assert [one["count"] for one in found["reliability"]["bins"]] == [0] * 10
    json.dumps(found, allow_nan=False)


def test_examples_of_one_text_are_one_document_whatever_their_ids() -> None:
    of = items()
    of[4] = replace(of[4], document=replace(of[4].document, id="d-again"))
    assert measurement(of).gold.num_documents == 30


def test_documents_without_a_digest_are_told_apart_by_their_ids() -> None:
    of = [replace(item, document=replace(item.document, digest=None)) for item in items()]
    assert measurement(of).gold.num_documents == 30


def test_a_test_split_of_one_label_is_measured_without_a_warning() -> None:
    of = [replace(item, example=replace(item.example, label="neutral")) for item in items()]
    with np.errstate(all="raise", under="ignore"):
        found = compare(measurement(of), [system(), system("tfidf")])
    overall = found["systems"][0]["overall"]
    assert overall["auroc"] is None
    assert overall["mcc"] == {"value": 0.0, "low": None, "high": None}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_a_handful_of_examples_is_measured_without_a_warning(num: int) -> None:
    with np.errstate(all="raise", under="ignore"):
        found = compare(measurement(items(num)), [system(num=num), system("tfidf", num=num)])
    assert found["systems"][0]["overall"]["count"] == num
    json.dumps(found, allow_nan=False)


def test_names_tell_endpoints_bundles_and_files_apart() -> None:
    nothing = np.empty((0, 3))
    ids = {
        Measured(kind, name, "", nothing).id
        for kind, name in [
            ("tuned", "Tuned model"), ("prompted", "x"), ("tfidf", "x"), ("embedding", "x"),
            ("majority", "x"), ("endpoint", "gpt-4"), ("endpoint", "gpt-5"), ("bundle", "last"),
            ("predictions", "vendor"),
        ]
    }  # fmt: skip
    assert ids == {
        "tuned", "prompted", "tfidf", "embedding", "majority",
        "endpoint:gpt-4", "endpoint:gpt-5", "bundle:last", "predictions:vendor",
    }  # fmt: skip


# Several systems


def test_the_first_system_is_compared_with_all_others() -> None:
    found = compare(measurement(), [system(), system("tfidf"), system("majority")])
    assert [s["id"] for s in found["systems"]] == ["tuned", "tfidf", "majority"]
    assert [c["system"] for c in found["comparisons"]] == ["tfidf", "majority"]
    assert compare(measurement(), [system()])["comparisons"] == []


def test_a_comparison_is_the_difference_of_the_figures_of_the_systems() -> None:
    found = compare(measurement(), [system(skill=3.0), system("tfidf", skill=0.0)])
    (comparison,) = found["comparisons"]
    first, second = (each["overall"] for each in found["systems"])
    for name in ("macro_f1", "accuracy"):
        difference = first[name]["value"] - second[name]["value"]
        assert comparison[name]["value"] == pytest.approx(difference, abs=2e-5)
        assert 0 < comparison[name]["low"] < comparison[name]["value"] < comparison[name]["high"]
    assert comparison["outcome"] == "better"
    assert set(comparison["languages"]) == {"en", "tl", "und", "zh"}


# Mistakes


def test_mistakes_of_one_language_are_sorted_by_confidence() -> None:
    of = [replace(item, document=replace(item.document, lang="en")) for item in items()]
    measured = system(skill=-2.0)
    found = measurement(of).mistakes(measured)
    confidences = [mistake["confidence"] for mistake in found["mistakes"]]
    gold = np.arange(60) % 3
    wrong = measured.probabilities_NL[measured.probabilities_NL.argmax(axis=1) != gold]
    assert confidences == pytest.approx(sorted(wrong.max(axis=1), reverse=True), abs=1e-5)
    assert found["num_mistakes"] == len(wrong) > 40


def of_languages(sizes: dict[str, int]) -> list[LabelledDocument]:
    made = []
    for lang, size in sizes.items():
        for number in range(size):
            document = Document(f"{lang}-{number}", "text", lang=lang, digest=f"{lang}{number}")
            example = Example(document.id, None, "negative", "test", "d", "f", number)
            made.append(LabelledDocument(example, document, None))
    return made


def test_of_many_mistakes_every_language_has_its_most_confident_ones_among_four_hundred() -> None:
    sizes = {"en": 1000, "ru": 300, "tl": 20}
    of = of_languages(sizes)
    random = np.random.default_rng(0)
    # English is wrong with the most confidence, Tagalog with the least.
    confidence = np.concatenate(
        [
            random.uniform(low, low + 0.1, size)
            for low, size in zip((0.9, 0.7, 0.5), sizes.values(), strict=True)
        ]
    )
    probabilities = np.stack([1 - confidence, confidence, 0 * confidence], axis=1)
    found = measurement(of).mistakes(Measured("tuned", "", "", probabilities))
    assert found["num_mistakes"] == 1320
    assert len(found["mistakes"]) == 400
    counts = Counter(mistake["lang"] for mistake in found["mistakes"])
    assert counts == {"en": 190, "ru": 190, "tl": 20}
    confidences = [mistake["confidence"] for mistake in found["mistakes"]]
    assert confidences == sorted(confidences, reverse=True)
    for lang in sizes:
        shown = [m["confidence"] for m in found["mistakes"] if m["lang"] == lang]
        mine = confidence[[item.document.lang == lang for item in of]]
        assert shown == pytest.approx(sorted(mine, reverse=True)[: len(shown)], abs=1e-5)


def test_a_missing_answer_is_no_mistake_to_look_at() -> None:
    probabilities = shares(skill=-50.0)
    probabilities[:5] = np.nan
    found = measurement().mistakes(system(probabilities_NL=probabilities))
    assert found["num_mistakes"] == len(found["mistakes"]) == 55


def test_a_mistake_says_what_was_read_and_what_was_answered() -> None:
    measured = system(skill=-2.0)
    of = items()
    by_id = {(item.document.id, item.example.narrative_id): item for item in of}
    names = {narrative.text: narrative.id for narrative in NARRATIVES if narrative}
    for mistake in measurement(of).mistakes(measured)["mistakes"]:
        narrative_id = names[mistake["narrative"]] if mistake["narrative"] else None
        item = by_id[mistake["document_id"], narrative_id]
        assert mistake["gold"] == item.example.label != mistake["predicted"]
        assert mistake["lang"] == item.document.lang
        assert mistake["source"] == item.document.source
        assert mistake["probabilities"][mistake["predicted"]] == mistake["confidence"]
        assert sum(mistake["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert mistake["text"].removesuffix("…") in item.document.text
        assert len(mistake["text"]) == min(len(item.document.text), 601)


def test_a_perfect_system_makes_no_mistakes() -> None:
    assert measurement().mistakes(system(skill=50.0)) == {"mistakes": [], "num_mistakes": 0}


def test_the_schema_has_a_version() -> None:
    assert REPORT_SCHEMA == "slant.report/2"
