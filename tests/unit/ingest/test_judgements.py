from __future__ import annotations

import json

import pytest

from slant.errors import TaskError
from slant.ingest.judgements import adjudicate, agreement, krippendorff_alpha
from slant.labels import LabelSet

LABELS = LabelSet(("negative", "neutral", "positive"))

# Four observers, twelve units, five values, with gaps: the worked example of Krippendorff (2011).
OBSERVERS = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]


def units_of(observers: list[str]) -> list[list[int]]:
    columns = zip(*(line.split() for line in observers), strict=True)
    return [[int(value) - 1 for value in column if value != "."] for column in columns]


def judged(*labels: str) -> list[tuple[str, str]]:
    """One judgement each of annotators a, b, c …"""
    return [(chr(ord("a") + i), label) for i, label in enumerate(labels)]


def verdict(judgements, rule="majority", least=1):
    return adjudicate(judgements, labels=LABELS, rule=rule, min_annotators=least)


def test_the_label_that_more_annotators_gave_than_any_other_stands_and_the_shares_are_kept():
    found = verdict(judged("positive", "neutral", "positive", "negative"))
    assert (found.label, found.problem, found.num_judgements) == ("positive", None, 4)
    assert found.shares == (0.25, 0.25, 0.5)


def test_a_tie_gives_no_label():
    found = verdict(judged("positive", "neutral", "positive", "neutral", "negative"))
    assert found.label is None
    assert found.problem == "annotators disagree: no majority"
    assert found.shares == (0.2, 0.4, 0.4)


def test_a_tie_of_three_shares_that_no_float_can_hold_is_a_tie():
    thirds = [(name, label) for name in "abc" for label in LABELS]
    assert verdict(thirds).problem == "annotators disagree: no majority"
    assert verdict(thirds).num_judgements == 3


def test_an_annotator_who_repeats_a_label_counts_once():
    found = verdict([("a", "positive"), ("a", "positive"), ("b", "neutral"), ("a", "positive")])
    assert (found.label, found.num_judgements) == (None, 2)
    assert found.shares == (0, 0.5, 0.5)


def test_an_annotator_who_gave_two_labels_has_given_each_half_a_vote():
    found = verdict([("a", "positive"), ("a", "neutral"), ("b", "positive")])
    assert (found.label, found.num_judgements) == ("positive", 2)
    assert found.shares == (0, 0.25, 0.75)
    assert verdict([("a", "positive"), ("a", "neutral")]).label is None


def test_unanimous_asks_for_every_vote():
    assert verdict(judged("neutral", "neutral"), "unanimous").label == "neutral"
    problem = "annotators disagree: not unanimous"
    assert verdict(judged("neutral", "neutral", "positive"), "unanimous").problem == problem
    own = [("a", "neutral"), ("b", "neutral"), ("b", "positive")]
    assert verdict(own, "unanimous").problem == problem


@pytest.mark.parametrize("rule", ["majority", "unanimous"])
def test_too_few_annotators_give_no_label_however_often_they_judged(rule):
    twice = [("a", "neutral"), ("a", "neutral")]
    found = verdict(twice, rule, least=2)
    assert (found.label, found.num_judgements) == (None, 1)
    assert found.problem == "fewer annotators than min_annotators (2)"
    assert verdict(judged("neutral", "neutral"), rule, least=2).label == "neutral"


def test_no_judgement_is_a_problem_and_no_crash():
    found = verdict([])
    assert (found.label, found.shares) == (None, (0, 0, 0))
    assert found.problem == "fewer annotators than min_annotators (1)"


def test_a_label_that_there_is_not_is_an_error():
    with pytest.raises(TaskError, match="positve"):
        verdict([("a", "positve")])


def test_alpha_is_what_the_published_examples_say():
    units = units_of(OBSERVERS)
    assert krippendorff_alpha(units, 5) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(units, 5, metric="ordinal") == pytest.approx(0.815, abs=5e-4)
    two_observers_binary = units_of(["1 2 1 1 1 1 1 1 2 1", "2 2 2 1 1 2 1 1 1 1"])
    assert krippendorff_alpha(two_observers_binary, 2) == pytest.approx(0.095, abs=5e-4)
    two_observers_five_values = units_of(["1 1 2 2 4 3 3 3 5 4 4 1", "2 1 2 2 2 3 3 3 5 4 4 4"])
    assert krippendorff_alpha(two_observers_five_values, 5) == pytest.approx(0.692, abs=5e-4)


def test_alpha_is_one_in_perfect_agreement_and_below_zero_when_all_contradict():
    assert krippendorff_alpha([[0, 0], [1, 1], [2, 2, 2]], 3) == pytest.approx(1)
    against = krippendorff_alpha([[0, 1]] * 10, 2)
    assert against is not None
    assert against < 0


@pytest.mark.parametrize("metric", ["nominal", "ordinal"])
@pytest.mark.parametrize("units", [[], [[0], [1], []], [[0, 1]][:0], [[1, 1], [1, 1, 1], [0]]])
def test_alpha_is_none_where_it_is_nought_by_nought(units, metric):
    assert krippendorff_alpha(units, 3, metric=metric) is None


def test_a_label_index_out_of_range_is_refused():
    with pytest.raises(ValueError, match="got 3"):
        krippendorff_alpha([[0, 3]], 3)


def test_agreement_is_given_for_all_each_language_and_each_annotator_as_json():
    units = [
        ("en", judged("positive", "positive", "positive")),
        ("en", judged("positive", "positive", "negative")),
        ("en", judged("neutral", "neutral", "neutral")),
        ("tl", judged("neutral", "positive")),
        ("tl", [("a", "neutral"), ("d", "neutral"), ("d", "positive")]),
        ("tl", judged("neutral")),
        ("ru", judged("neutral")),
    ]
    found = json.loads(json.dumps(agreement(units, LABELS)))
    assert found["all"]["units"] == 5
    assert found["all"]["judgements"] == 13
    assert found["all"]["annotators"] == 4
    assert found["all"]["contradictions"] == 1
    indices = [[2, 2, 2], [2, 2, 0], [1, 1, 1]]
    assert set(found["languages"]) == {"en", "tl"}
    assert found["languages"]["en"]["alpha"] == krippendorff_alpha(indices, 3)
    ordinal = krippendorff_alpha(indices, 3, metric="ordinal")
    assert found["languages"]["en"]["alpha_ordinal"] == ordinal
    # Of b's four units, the others have a majority in three ("positive" against "negative" is
    # none): all but the Tagalog one agree.
    assert found["annotators"]["b"] == {"units": 4, "compared": 3, "agreement": 2 / 3}
    assert found["annotators"]["c"] == {"units": 3, "compared": 3, "agreement": 2 / 3}
    assert found["annotators"]["d"] == {"units": 1, "compared": 1, "agreement": 0.5}


def test_agreement_of_single_judgements_is_empty_and_undefined():
    found = agreement([("en", judged("neutral"))], LABELS)
    assert found["languages"] == found["annotators"] == {}
    assert found["all"]["alpha"] is None
    assert found["all"]["units"] == 0
