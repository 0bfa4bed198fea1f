from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from slant.evaluate.comparison import compare_systems, sentence
from slant.evaluate.gold import Gold, Slices
from slant.evaluate.metrics import NO_ANSWER, accuracy, confusion, macro_f1
from slant.evaluate.resampling import Resamples
from slant.evaluate.significance import holm
from slant.labels import LabelSet

LABELS = LabelSet(("negative", "neutral", "positive"))


def gold_of(langs: list[str], document: np.ndarray | None = None, seed: int = 0) -> Gold:
    """Examples with random gold labels in these languages, a document each if not told else."""
    num = len(langs)
    return Gold(
        labels=LABELS,
        gold_N=np.random.default_rng(seed).integers(0, 3, num),
        document_N=np.arange(num) if document is None else document,
        slices={"lang": Slices.of(langs)},
        show=lambda row: {},
    )


def answers(gold: Gold, right: np.ndarray) -> np.ndarray:
    """Labels that are right in these rows, and otherwise the next one."""
    return np.where(right, gold.gold_N, (gold.gold_N + 1) % 3)


def compared(
    gold: Gold, first: np.ndarray, second: np.ndarray, confidence: float = 0.95
) -> dict[str, Any]:
    return compare_systems(
        gold,
        first,
        second,
        resamples=lambda rows: Resamples(gold.document_N[rows], 500, 3),
        confidence=confidence,
    )


def shares(sizes: dict[str, int], right: dict[str, float], seed: int) -> np.ndarray:
    """In each language, this share of the examples, drawn at random."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.random(num) < right[lang] for lang, num in sizes.items()])


SIZES = {"en": 120, "ru": 100, "tl": 60, "zh": 3}


def mixed() -> tuple[Gold, np.ndarray, np.ndarray]:
    """The first is much better in ru and tl, much worse in en; zh has three examples."""
    gold = gold_of([lang for lang, num in SIZES.items() for _ in range(num)])
    first = shares(SIZES, {"en": 0.5, "ru": 0.95, "tl": 0.95, "zh": 1.0}, 1)
    second = shares(SIZES, {"en": 0.9, "ru": 0.4, "tl": 0.4, "zh": 0.0}, 2)
    return gold, answers(gold, first), answers(gold, second)


def test_figures_are_differences_of_the_metrics_and_lie_in_their_intervals() -> None:
    gold, first, second = mixed()
    found = compared(gold, first, second)
    matrices = [confusion(gold.gold_N, answers, 3) for answers in (first, second)]
    for name, metric in (("macro_f1", macro_f1), ("accuracy", accuracy)):
        expected = float(metric(matrices[0]) - metric(matrices[1]))
        assert found[name]["value"] == pytest.approx(expected, abs=1e-5)
        assert -1 <= found[name]["low"] < found[name]["value"] < found[name]["high"] <= 1
    assert set(found) == {
        "macro_f1",
        "accuracy",
        "p_value",
        "mcnemar",
        "outcome",
        "languages",
        "sentence",
    }


def test_a_language_is_compared_on_its_own_rows() -> None:
    gold, first, second = mixed()
    found = compared(gold, first, second)["languages"]
    assert {lang: each["count"] for lang, each in found.items()} == SIZES
    for lang, each in found.items():
        rows = np.flatnonzero(gold.slices["lang"].code_N == gold.slices["lang"].values.index(lang))
        values = [
            float(macro_f1(confusion(gold.gold_N[rows], answers[rows], 3)))
            for answers in (first, second)
        ]
        assert each["macro_f1"]["value"] == pytest.approx(values[0] - values[1], abs=1e-5)
        right = [answers[rows] == gold.gold_N[rows] for answers in (first, second)]
        only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        assert (each["mcnemar"]["only_tuned"], each["mcnemar"]["only_other"]) == only
        expected = binomtest(only[0], sum(only)).pvalue
        assert each["mcnemar"]["p_value"] == pytest.approx(expected)
        assert set(each) == {"count", "macro_f1", "p_value", "p_adjusted", "mcnemar", "outcome"}


def test_p_values_of_languages_are_adjusted_over_those_that_have_one() -> None:
    gold, first, second = mixed()
    found = compared(gold, first, second)["languages"]
    tested = ["en", "ru", "tl"]
    for of in (lambda lang: found[lang], lambda lang: found[lang]["mcnemar"]):
        expected = holm([of(lang)["p_value"] for lang in tested])
        assert [of(lang)["p_adjusted"] for lang in tested] == expected
        assert all(of(lang)["p_adjusted"] > of(lang)["p_value"] for lang in tested[:1])


def test_a_language_of_three_examples_is_unclear_whatever_they_say() -> None:
    gold, first, second = mixed()
    zh = compared(gold, first, second)["languages"]["zh"]
    # All three are right in the one and wrong in the other.
    assert zh["mcnemar"] == {
        "only_tuned": 3,
        "only_other": 0,
        "p_value": pytest.approx(0.25),
        "p_adjusted": None,
    }
    assert zh["macro_f1"]["value"] > 0
    assert zh["macro_f1"]["low"] is zh["macro_f1"]["high"] is None
    assert zh["p_value"] is zh["p_adjusted"] is None
    assert zh["outcome"] == "unclear"


def test_many_examples_of_few_documents_are_unclear() -> None:
    """Nine documents of twenty examples each: examples are many, and say little."""
    gold = gold_of(["en"] * 180, document=np.repeat(np.arange(9), 20))
    everything, nothing = np.ones(180, bool), np.zeros(180, bool)
    found = compared(gold, answers(gold, everything), answers(gold, nothing))
    assert found["p_value"] is None
    assert found["outcome"] == found["languages"]["en"]["outcome"] == "unclear"
    assert found["macro_f1"] == {"value": 1.0, "low": None, "high": None}


def test_outcomes_and_the_sentence_say_where_the_first_is_better_and_worse() -> None:
    found = compared(*mixed())
    outcomes = {lang: each["outcome"] for lang, each in found["languages"].items()}
    assert outcomes == {"en": "worse", "ru": "better", "tl": "better", "zh": "unclear"}
    assert found["outcome"] == "better"
    assert found["sentence"] == (
        "better overall and in ru and tl; worse in en; no evidence either way in zh"
    )


def test_the_other_way_round_everything_has_the_other_sign() -> None:
    gold, first, second = mixed()
    one, other = compared(gold, first, second), compared(gold, second, first)
    opposite = {"better": "worse", "worse": "better", "unclear": "unclear"}
    assert other["outcome"] == opposite[one["outcome"]]
    assert other["macro_f1"]["value"] == -one["macro_f1"]["value"]
    assert other["mcnemar"]["only_tuned"] == one["mcnemar"]["only_other"]
    for lang, each in one["languages"].items():
        assert other["languages"][lang]["outcome"] == opposite[each["outcome"]]


def test_the_difference_of_a_system_to_itself_is_nothing_and_unclear() -> None:
    gold, first, _ = mixed()
    found = compared(gold, first, first.copy())
    for name in ("macro_f1", "accuracy"):
        # It does not vary, so that documents tell no interval.
        assert found[name] == {"value": 0, "low": None, "high": None}
    assert found["p_value"] == 1
    assert found["mcnemar"] == {"only_tuned": 0, "only_other": 0, "p_value": 1}
    assert found["outcome"] == "unclear"
    assert found["sentence"] == "no evidence either way overall and in en, ru, tl and zh"


def test_an_example_that_neither_answers_is_right_in_neither() -> None:
    gold = gold_of(["en"] * 40)
    right = np.arange(40) % 2 == 0
    first, second = answers(gold, right), answers(gold, right)
    first[0], second[2] = NO_ANSWER, NO_ANSWER
    found = compared(gold, first, second)
    assert found["mcnemar"]["only_tuned"] == found["mcnemar"]["only_other"] == 1
    assert found["accuracy"]["value"] == 0


@pytest.mark.parametrize(("confidence", "outcome"), [(0.5, "better"), (0.999, "unclear")])
def test_the_outcome_goes_by_the_confidence_that_is_asked_for(
    confidence: float, outcome: str
) -> None:
    gold = gold_of(["en"] * 60)
    right = np.arange(60) % 2 == 0
    more = right.copy()
    more[[1, 3, 5]] = True
    found = compared(gold, answers(gold, more), answers(gold, right), confidence)
    assert found["outcome"] == outcome
    assert 0.001 < found["p_value"] < 0.5


def test_equal_systems_are_called_different_in_few_languages_of_many() -> None:
    """Twenty languages in which both are equally good: Holm lets none through as a rule."""
    sizes = {f"l{i:02}": 40 for i in range(20)}
    called = plain = 0
    for seed in range(6):
        gold = gold_of([lang for lang, num in sizes.items() for _ in range(num)], seed=seed)
        first, second = (
            answers(gold, shares(sizes, dict.fromkeys(sizes, 0.7), 2 * seed + i)) for i in range(2)
        )
        found = compared(gold, first, second)["languages"].values()
        called += sum(each["outcome"] != "unclear" for each in found)
        plain += sum(each["p_value"] <= 0.05 for each in found)
    assert called <= 1
    assert plain > called


def outcomes(**langs: str) -> dict[str, dict[str, str]]:
    return {lang: {"outcome": outcome} for lang, outcome in langs.items()}


@pytest.mark.parametrize(
    ("overall", "langs", "expected"),
    [
        ("better", {}, "better overall"),
        ("worse", {}, "worse overall"),
        ("unclear", {}, "no evidence either way overall"),
        # One language alone says what the whole says.
        ("better", {"en": "better"}, "better overall"),
        ("unclear", {"en": "better"}, "no evidence either way overall"),
        ("better", {"en": "better", "ru": "better"}, "better overall and in en and ru"),
        ("worse", {"en": "worse", "ru": "unclear"}, "worse overall and in en; no evidence either "
         "way in ru"),
        ("better", {"en": "unclear", "ru": "unclear"}, "better overall; no evidence either way in "
         "en and ru"),
        ("unclear", {"en": "better", "ru": "worse", "tl": "unclear", "zh": "better"},
         "better in en and zh; worse in ru; no evidence either way overall and in tl"),
        ("unclear", {"en": "better", "ru": "worse"}, "better in en; worse in ru; no evidence "
         "either way overall"),
        ("worse", {"en": "better", "ru": "worse", "tl": "worse"},
         "better in en; worse overall and in ru and tl"),
    ],
)  # fmt: skip
def test_the_sentence_names_every_language_once(
    overall: str, langs: dict[str, str], expected: str
) -> None:
    assert sentence(overall, outcomes(**langs)) == expected
