from __future__ import annotations

import math

import numpy as np
import pytest

from slant.evaluate.proofs import Answered
from slant.evaluate.selective import find_threshold, least_examples, risk_coverage

NOTHING = Answered(np.empty(0), np.empty(0, bool), np.empty(0, np.int64))


def answered(*groups: tuple[int, float, int]) -> Answered:
    """Groups of answers: how many, how confident, and how many of them are wrong."""
    confidence = [level for num, level, _ in groups for _ in range(num)]
    right = [i >= wrong for num, _, wrong in groups for i in range(num)]
    return Answered(np.array(confidence), np.array(right, dtype=bool), np.arange(len(right)))


def test_it_takes_twenty_nine_right_answers_to_promise_a_tenth() -> None:
    assert least_examples(0.10, 0.95) == 29
    assert 0.9**29 <= 0.05 < 0.9**28
    assert least_examples(0.05, 0.95) == 59
    assert least_examples(0.5, 0.5) == 1


def test_a_system_that_is_always_right_has_everything_accepted() -> None:
    sure = answered((60, 0.9, 0), (40, 0.4, 0))
    found = find_threshold(sure, sure, max_error=0.1, confidence=0.95)
    assert found.value == 0
    assert (found.examples, found.accepted, found.wrong, found.reason) == (100, 100, 0, "")
    assert found.p_value == pytest.approx(0.9**100)


def test_a_system_that_is_always_wrong_has_nothing_accepted_and_is_told_why() -> None:
    lost = answered((60, 0.9, 60), (40, 0.4, 40))
    found = find_threshold(lost, lost, max_error=0.1, confidence=0.95)
    assert found.value is None
    assert found.reason == "too many of the most confident answers are wrong"
    assert found.p_value is not None
    assert found.p_value > 0.05


@pytest.mark.parametrize(("num", "value"), [(28, None), (29, 0.0)])
def test_one_example_too_few_is_not_enough_and_says_how_many_are(
    num: int, value: float | None
) -> None:
    right = answered((num, 0.9, 0))
    found = find_threshold(right, right, max_error=0.1, confidence=0.95)
    assert found.value == value
    assert found.reason == (
        "" if num == 29 else "28 calibration documents are left for the proof; it takes 29"
    )
    assert (found.p_value is None) == (num == 28)


def test_confident_answers_are_accepted_where_all_together_are_wrong_too_often() -> None:
    scout = answered((50, 0.9, 1), (50, 0.4, 25))
    proof = answered((100, 0.9, 2), (100, 0.4, 50))
    found = find_threshold(scout, proof, max_error=0.1, confidence=0.95)
    assert found.value is not None
    assert 0.4 < found.value <= 0.9
    assert (found.accepted, found.wrong) == (100, 2)


def test_what_follows_the_first_test_that_fails_is_not_tried() -> None:
    """At 0.8 the proofs fail; that they would pass again at 0.5 may not be used."""
    scout = answered((20, 0.9, 0), (20, 0.8, 2), (20, 0.5, 12))
    proof = answered((60, 0.9, 0), (60, 0.8, 20), (600, 0.5, 0))
    found = find_threshold(scout, proof, max_error=0.1, confidence=0.95)
    assert found.value is not None
    assert 0.8 < found.value <= 0.9
    assert (found.accepted, found.wrong) == (60, 0)
    # The control: over all that are at least 0.5 sure the proofs are good enough.
    assert proof.accepted(0.5) == (720, 20)
    everything = find_threshold(NOTHING, proof, max_error=0.1, confidence=0.95)
    assert everything.value == 0


def test_the_surest_few_that_are_wrong_do_not_spoil_what_follows_them() -> None:
    """The scouts say where to begin: not at the surest, of which nothing can be proved."""
    scout = answered((3, 0.99, 2), (97, 0.9, 1), (100, 0.4, 60))
    proof = answered((3, 0.99, 2), (97, 0.9, 1), (100, 0.4, 60))
    found = find_threshold(scout, proof, max_error=0.1, confidence=0.95)
    assert found.value is not None
    assert 0.4 < found.value <= 0.9
    assert (found.accepted, found.wrong) == (100, 3)


def test_without_scouts_only_everything_together_is_tried() -> None:
    good, bad = answered((100, 0.9, 2)), answered((100, 0.9, 0), (100, 0.4, 50))
    assert find_threshold(NOTHING, good, max_error=0.1, confidence=0.95).value == 0
    assert find_threshold(NOTHING, bad, max_error=0.1, confidence=0.95).value is None


def test_no_answer_at_all_has_no_threshold() -> None:
    found = find_threshold(NOTHING, NOTHING, max_error=0.1, confidence=0.95)
    assert (found.value, found.examples) == (None, 0)
    assert found.reason == "0 calibration documents are left for the proof; it takes 29"


def test_confident_answers_that_are_too_few_are_told_from_those_that_are_wrong() -> None:
    """Of a hundred proofs only ten are as sure as the scouts, and all others are lost."""
    scout = answered((50, 0.9, 0), (50, 0.8, 50))
    proof = answered((10, 0.9, 0), (90, 0.1, 90))
    found = find_threshold(scout, proof, max_error=0.1, confidence=0.95)
    assert found.value is None
    assert (found.accepted, found.wrong) == (10, 0)
    assert found.reason == "too few answers are confident enough"
    assert found.p_value == pytest.approx(0.9**10)


def test_a_threshold_is_rounded_as_it_is_written_and_tested_as_rounded() -> None:
    third = answered((100, 1 / 3 + 1e-9, 0), (50, 0.1, 50))
    found = find_threshold(third, third, max_error=0.1, confidence=0.95)
    assert found.value == round(1 / 3, 6)
    assert found.accepted == 100
    assert (found.accepted, found.wrong) == third.accepted(found.value)


def test_a_threshold_between_two_ways_to_write_it_accepts_those_who_are_exactly_as_sure() -> None:
    sure = answered((100, 0.99999995, 0), (50, 0.1, 50))
    found = find_threshold(sure, sure, max_error=0.1, confidence=0.95)
    assert found.value == 0.999999
    assert found.accepted == 100


def test_confidences_of_about_one_do_not_round_away_what_could_be_accepted() -> None:
    sure = answered((100, 1 - 1e-9, 0))
    assert find_threshold(sure, sure, max_error=0.1, confidence=0.95).value == 0


def test_the_curve_accepts_equal_confidences_together() -> None:
    found = risk_coverage(answered((4, 0.9, 0), (4, 0.5, 2), (2, 0.2, 2)))
    assert found == [(0.4, 0, 0.9), (0.8, 0.25, 0.5), (1.0, 0.4, 0.2)]


def test_the_curve_has_no_more_points_than_are_asked_for_and_both_ends() -> None:
    random = np.random.default_rng(0)
    many = Answered(random.random(5000), random.random(5000) < 0.7, np.arange(5000))
    found = risk_coverage(many, most=100)
    assert len(found) == 100
    assert found[0][0] == pytest.approx(1 / 5000)
    assert found[-1][0] == 1
    gaps = np.diff([coverage for coverage, _, _ in found])
    assert gaps.max() < 0.011


def test_no_answers_make_an_empty_curve() -> None:
    assert risk_coverage(NOTHING) == []


def test_thresholds_are_plain_numbers_that_json_can_hold() -> None:
    found = find_threshold(
        answered((50, 0.9, 1), (50, 0.4, 25)),
        answered((100, 0.9, 2), (100, 0.4, 50)),
        max_error=0.1,
        confidence=0.95,
    )
    assert type(found.value) is float
    assert type(found.p_value) is float
    assert type(found.accepted) is type(found.wrong) is int
    for point in risk_coverage(answered((4, 0.9, 1))):
        assert all(math.isfinite(x) for x in point)
