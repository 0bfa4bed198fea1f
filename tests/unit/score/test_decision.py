from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slant.score.decision import decide, probabilities

LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.integers(2, 6)),
    elements=st.floats(-500, 500, width=32),
)


@given(logits=LOGITS, temperature=st.floats(0.05, 20))
def test_rows_are_probabilities_in_the_order_of_the_logits(logits, temperature):
    found = probabilities(logits, temperature)
    assert found.shape == logits.shape
    assert found.dtype == np.float64
    assert np.all((found >= 0) & (found <= 1))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    for row, logit_row in zip(found, logits, strict=True):
        assert row[logit_row.argmax()] == row.max()


def test_the_logits_are_divided_by_the_temperature():
    logits = np.array([[0.0, np.log(2), np.log(5)]], np.float32)
    np.testing.assert_allclose(probabilities(logits, 1.0), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6)
    roots = np.sqrt([1, 2, 5])
    np.testing.assert_allclose(probabilities(logits, 2.0)[0], roots / roots.sum(), rtol=1e-6)


@given(logits=LOGITS, data=st.data())
def test_rows_may_have_a_temperature_each(logits, data):
    temperature = data.draw(hnp.arrays(np.float64, len(logits), elements=st.floats(0.05, 20)))
    found = probabilities(logits, temperature)
    assert found.shape == logits.shape
    for row, logit_row, one in zip(found, logits, temperature.tolist(), strict=True):
        np.testing.assert_array_equal(row, probabilities(logit_row[None], one)[0])


@given(logits=LOGITS, shift=st.floats(-100, 100, width=32))
def test_adding_the_same_to_all_logits_changes_nothing(logits, shift):
    shifted = (logits + np.float32(shift)).astype(np.float64)
    exact = logits.astype(np.float64) + shift
    # Where float32 itself lost digits there is nothing to compare.
    if np.abs(shifted - exact).max(initial=0) < 1e-4:
        np.testing.assert_allclose(
            probabilities(shifted.astype(np.float32), 1.0), probabilities(logits, 1.0), atol=1e-3
        )


def test_large_logits_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        found = probabilities(np.array([[3e38, -3e38, 0]], np.float32), 0.5)
    assert found.tolist() == [[1, 0, 0]]


def test_what_went_in_stays_as_it_was():
    logits = np.ones((2, 3), np.float32)
    probabilities(logits, 2.0)
    assert np.all(logits == 1)


@pytest.mark.parametrize("labels", [2, 3])
def test_no_logits_give_no_rows_of_the_same_width(labels):
    assert probabilities(np.empty((0, labels), np.float32), 1.0).shape == (0, labels)


@pytest.mark.parametrize("lang", [None, "", "tl", "pt-BR"])
def test_nothing_is_decided_without_thresholds(lang):
    assert decide(0.99, lang, {}) is None


def test_a_confidence_at_the_threshold_is_accepted_and_one_below_is_for_review():
    assert decide(0.8, "en", {"*": 0.8}) == "accept"
    assert decide(0.7999, "en", {"*": 0.8}) == "review"


def test_a_language_goes_by_its_own_threshold_then_by_its_first_part_then_by_that_of_all():
    thresholds = {"tl": 0.9, "pt": 0.6, "pt-PT": 0.5, "*": 0.8}
    decided = {lang: decide(0.7, lang, thresholds) for lang in ("tl", "pt-BR", "pt-PT", "en", None)}
    assert decided == {
        "tl": "review",
        "pt-BR": "accept",
        "pt-PT": "accept",
        "en": "review",
        None: "review",
    }


@pytest.mark.parametrize("lang", ["TL", "pt_br", "PT-BR", "pt"])
def test_a_language_is_decided_alike_however_it_is_written(lang):
    assert decide(0.7, lang, {"tl": 0.6, "pt": 0.6, "*": 0.9}) == "accept"


def test_a_threshold_that_no_confidence_reaches_leaves_all_to_people():
    assert decide(1.0, "ru", {"ru": 2.0, "*": 0.5}) == "review"


def test_a_language_without_any_threshold_is_for_review():
    assert decide(1.0, "zh", {"en": 0.1}) == "review"
