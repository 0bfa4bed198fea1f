"""Thresholds of what is accepted: what holds for any answers, and the promise in simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from slant.evaluate.proofs import Answered
from slant.evaluate.selective import (
    accepted_of,
    find_threshold,
    least_examples,
    risk_coverage,
)

MANY = settings(max_examples=200, deadline=None)


@st.composite
def answers(draw: st.DrawFn, least: int = 0, most: int = 150) -> Answered:
    """Any confidences, often tied, and right answers that may or may not go with them."""
    seed, size = draw(st.tuples(st.integers(0, 2**31), st.integers(least, most)))
    random = np.random.default_rng(seed)
    confidence = random.random(size) ** draw(st.sampled_from([0.2, 1.0, 3.0]))
    if draw(st.booleans()):
        confidence = confidence.round(1)
    skill = draw(st.sampled_from(["none", "some", "all", "inverse"]))
    chance = {"none": 0 * confidence, "some": 0.6 + 0.4 * confidence, "all": 1 + 0 * confidence}
    chance["inverse"] = 1 - confidence
    return Answered(confidence, random.random(size) < chance[skill], np.arange(size))


@MANY
@given(answers(), answers(), st.sampled_from([0.02, 0.1, 0.3]), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_threshold_passes_the_exact_test_that_it_says_it_passed(
    scout: Answered, proof: Answered, max_error: float, confidence: float
) -> None:
    found = find_threshold(scout, proof, max_error=max_error, confidence=confidence)
    assert found.examples == len(proof)
    if found.value is None:
        assert found.reason
        assert found.p_value is None or found.p_value > 1 - confidence
        return
    assert found.reason == ""
    assert (found.accepted, found.wrong) == proof.accepted(found.value)
    # The p-value that no more of the accepted ones are wrong, by scipy's own test.
    theirs = binomtest(found.wrong, found.accepted, max_error, alternative="less").pvalue
    assert found.p_value == pytest.approx(theirs)
    assert found.p_value <= 1 - confidence
    assert found.accepted >= least_examples(max_error, confidence)
    assert 0 <= found.value <= 1


@MANY
@given(answers(), answers(least=1))
def test_the_order_of_the_examples_decides_nothing(scout: Answered, proof: Answered) -> None:
    shuffled = [
        Answered(side.confidence_N[order], side.right_N[order], side.document_N[order])
        for side in (scout, proof)
        for order in [np.random.default_rng(0).permutation(len(side))]
    ]
    found = find_threshold(scout, proof, max_error=0.2, confidence=0.8)
    assert found == find_threshold(*shuffled, max_error=0.2, confidence=0.8)


@MANY
@given(answers())
def test_the_curve_of_risk_and_coverage_is_that_of_a_plain_loop(answered: Answered) -> None:
    curve = risk_coverage(answered, most=1000)
    levels = sorted(set(answered.confidence_N.tolist()), reverse=True)
    assert [threshold for _, _, threshold in curve] == levels
    for coverage, error, threshold in curve:
        accepted, wrong = answered.accepted(threshold)
        assert coverage == pytest.approx(accepted / len(answered))
        assert error == pytest.approx(wrong / accepted)


@MANY
@given(answers(least=1), st.integers(1, 30))
def test_a_shortened_curve_is_part_of_the_whole_one_and_keeps_its_end(
    answered: Answered, most: int
) -> None:
    short, whole = risk_coverage(answered, most), risk_coverage(answered, 1000)
    assert len(short) <= most
    assert set(short) <= set(whole)
    coverages = [coverage for coverage, _, _ in short]
    assert coverages == sorted(set(coverages))
    thresholds = [threshold for _, _, threshold in short]
    assert thresholds == sorted(set(thresholds), reverse=True)
    if most > 1:
        assert short[-1] == whole[-1]
        assert short[-1][:2] == (1, pytest.approx((~answered.right_N).mean()))


@MANY
@given(answers(), st.data())
def test_answers_are_accepted_at_their_own_threshold_and_never_without_one(
    answered: Answered, data: st.DataObject
) -> None:
    choices = st.sampled_from([None, 0.0, 0.3, 0.7, 1.0, 2.0])
    thresholds = data.draw(st.lists(choices, min_size=len(answered), max_size=len(answered)))
    found = accepted_of(answered, thresholds)
    for accepted, confidence, threshold in zip(
        found.tolist(), answered.confidence_N.tolist(), thresholds, strict=True
    ):
        assert accepted == (threshold is not None and confidence >= threshold)


# The promise: error of what is accepted, known exactly, against what was promised.

Chance = Callable[[np.ndarray], np.ndarray]
POPULATIONS: dict[str, Chance] = {
    # Everything is wrong a little too often: whatever is accepted breaks the promise.
    "no threshold is right": lambda c: 0 * c + 0.895,
    # The surer the better, over the border at a confidence of about 0.5.
    "the surer the better": lambda c: 0.6 + 0.4 * c,
    # The most confident ones are the worst.
    "the surest are worst": lambda c: np.where(c > 0.9, 0.75, 0.97),
    "a cliff": lambda c: np.where(c > 0.4, 0.95, 0.3),
}


def true_error(chance: Chance, threshold: float) -> float:
    confidence = np.linspace(min(threshold, 1), 1, 20_001)
    return float(1 - chance(confidence).mean())


@pytest.mark.parametrize("name", POPULATIONS)
def test_the_promise_is_broken_no_more_often_than_it_says(name: str) -> None:
    chance, samples, delta = POPULATIONS[name], 200, 0.1
    random = np.random.default_rng(17)

    def drawn(num: int) -> Answered:
        confidence = random.random(num)
        return Answered(confidence, random.random(num) < chance(confidence), np.arange(num))

    broken = found = 0
    for _ in range(samples):
        threshold = find_threshold(drawn(200), drawn(400), max_error=0.1, confidence=1 - delta)
        if threshold.value is None:
            continue
        found += 1
        broken += true_error(chance, threshold.value) > 0.1
    assert broken / samples <= delta + 3 * (delta * (1 - delta) / samples) ** 0.5
    if name in ("the surer the better", "a cliff"):
        assert found > 0.5 * samples


def test_a_threshold_that_only_looks_right_breaks_it_much_more_often() -> None:
    """The control: the least threshold at which the calibration examples err in a tenth."""
    chance, samples = POPULATIONS["no threshold is right"], 200
    random = np.random.default_rng(17)
    broken = 0
    for _ in range(samples):
        confidence = random.random(160)
        right = random.random(160) < chance(confidence)
        answered = Answered(confidence, right, np.arange(160))
        broken += any(error <= 0.1 for _, error, _ in risk_coverage(answered, 1000))
    assert broken / samples > 0.5
