from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from slant.evaluate.metrics import (
    NO_ANSWER,
    accuracy,
    auroc,
    brier_scores,
    confusion,
    ece,
    f1_per_label,
    macro_f1,
    mcc,
    mean_f1_of,
    predicted_labels,
    reliability,
)

NO_ROWS, NO_LABELS = np.empty((0, 3)), np.empty(0, np.int64)


def matrix(gold: list[int], predicted: list[int], num_labels: int = 3) -> np.ndarray:
    return confusion(np.array(gold), np.array(predicted), num_labels)


# Ten examples, worked out by hand: two of them without an answer.
GOLD = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
PREDICTED = [0, 0, 1, NO_ANSWER, 1, 1, 0, 2, 0, NO_ANSWER]


def test_a_confusion_matrix_has_gold_labels_in_rows_and_missing_answers_in_its_last_column() -> (
    None
):
    assert matrix(GOLD, PREDICTED).tolist() == [[2, 1, 0, 1], [1, 2, 0, 0], [1, 0, 1, 1]]


def test_figures_of_a_matrix_worked_out_by_hand() -> None:
    found = matrix(GOLD, PREDICTED)
    assert accuracy(found) == pytest.approx(5 / 10)
    # Hits twice, by gold and predicted ones; a missing answer is among the gold ones only.
    each = [4 / (4 + 4), 4 / (3 + 3), 2 / (3 + 1)]
    assert f1_per_label(found) == pytest.approx(each)
    assert macro_f1(found) == pytest.approx(sum(each) / 3)
    assert mean_f1_of(found, [0, 2]) == pytest.approx((each[0] + each[2]) / 2)
    # Gold 4, 3, 3; predicted 4, 3, 1 and 2 missing: R_K of Gorodkin.
    covariance = 5 * 10 - (4 * 4 + 3 * 3 + 3 * 1)
    spread = (100 - (16 + 9 + 9)) * (100 - (16 + 9 + 1 + 4))
    assert mcc(found) == pytest.approx(covariance / spread**0.5)


def test_matthews_coefficient_is_one_minus_one_or_nothing() -> None:
    assert mcc(matrix([0, 1, 2, 1], [0, 1, 2, 1])) == pytest.approx(1)
    assert mcc(matrix([0, 1, 0, 1], [1, 0, 1, 0], 2)) == pytest.approx(-1)
    for gold, predicted in (([0, 1], [1, 1]), ([1, 1], [0, 1]), ([0, 1], [NO_ANSWER] * 2)):
        assert mcc(matrix(gold, predicted, 2)) == 0


def test_matthews_coefficient_of_many_examples_does_not_overflow() -> None:
    large = np.array([[4_000_000, 1, 0], [1, 4_000_000, 0]])
    assert mcc(large) == pytest.approx(1, abs=1e-5)


def test_an_example_without_an_answer_is_a_wrong_one() -> None:
    answered, missing = matrix([0, 1, 0], [0, 1, 1]), matrix([0, 1, 0], [0, 1, NO_ANSWER])
    assert accuracy(answered) == accuracy(missing) == pytest.approx(2 / 3)
    # But it is no wrong answer to another label's account.
    assert f1_per_label(missing) == pytest.approx([2 / 3, 1, 0])
    assert f1_per_label(answered) == pytest.approx([2 / 3, 2 / 3, 0])


def test_a_row_with_nan_or_infinity_is_no_answer() -> None:
    rows = np.array([[0.2, 0.8], [np.nan, np.nan], [0.9, np.nan], [np.inf, 0], [0.6, 0.4]])
    assert predicted_labels(rows).tolist() == [1, NO_ANSWER, NO_ANSWER, NO_ANSWER, 0]


def test_the_first_of_equally_probable_labels_is_the_answer() -> None:
    assert predicted_labels(np.full((1, 3), 1 / 3)).tolist() == [0]


def test_a_label_that_is_neither_gold_nor_predicted_counts_as_zero() -> None:
    found = matrix([0, 1], [0, 1])
    assert f1_per_label(found).tolist() == [1, 1, 0]
    assert macro_f1(found) == pytest.approx(2 / 3)


def test_no_examples_make_zeros_and_no_warning() -> None:
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        found = confusion(NO_LABELS, predicted_labels(NO_ROWS), 3)
        assert found.tolist() == [[0] * 4] * 3
        for metric in (accuracy, macro_f1, mcc):
            assert metric(found) == 0
        assert mean_f1_of(found, [0, 2]) == 0
        assert brier_scores(NO_ROWS, NO_LABELS).tolist() == []
        assert auroc(NO_ROWS, NO_LABELS) is None
        nothing = reliability(NO_ROWS, NO_LABELS)
        assert nothing.counts.tolist() == [0] * 10
        assert np.isnan(nothing.confidence).all()
        assert nothing.ece == 0


def test_figures_of_many_matrices_at_once_are_those_of_each() -> None:
    matrices = np.random.default_rng(0).integers(0, 9, (5, 4, 3, 4))
    matrices[3, 2] = 0
    for metric in (accuracy, macro_f1, mcc, lambda m: mean_f1_of(m, [0, 2])):
        assert metric(matrices).shape == (5, 4)
        for place in np.ndindex(5, 4):
            assert metric(matrices)[place] == metric(matrices[place])
    assert f1_per_label(matrices).shape == (5, 4, 3)


def test_the_brier_score_of_certainty_is_zero_or_two() -> None:
    certain = np.eye(3)
    assert brier_scores(certain, np.array([0, 1, 2])).tolist() == [0, 0, 0]
    assert brier_scores(certain, np.array([1, 2, 0])).tolist() == [2, 2, 2]
    assert brier_scores(np.full((1, 3), 1 / 3), np.array([2])) == pytest.approx([2 / 3])


def test_reliability_of_an_example_worked_out_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.4, 0.6], [0.62, 0.38]])
    found = reliability(probabilities, np.array([0, 1, 1, 1]))
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert found.confidence[9] == pytest.approx(0.93)
    assert found.accuracy[[6, 9]].tolist() == [0.5, 0.5]
    assert np.isnan(found.accuracy[0])
    assert found.ece == pytest.approx((2 * (0.61 - 0.5) + 2 * (0.93 - 0.5)) / 4)


def test_the_calibration_error_from_sums_of_bins() -> None:
    sums = np.array([[2, 1.22, 1], [0, 0, 0], [2, 1.86, 1]])
    assert ece(sums) == pytest.approx((0.22 + 0.86) / 4)
    assert ece(np.stack([sums, sums * 0])) == pytest.approx([0.27, 0])


def test_gaps_within_a_bin_cancel_out_and_between_bins_do_not() -> None:
    gold = np.array([0, 1, 0, 1])
    within = np.array([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.25, 0.75]])
    assert reliability(within, gold).ece == pytest.approx(0)
    between = np.array([[0.65, 0.35], [0.85, 0.15], [0.65, 0.35], [0.15, 0.85]])
    assert reliability(between, gold).ece == pytest.approx((0.7 + 0.7) / 4)


def test_a_confidence_of_one_falls_into_the_last_bin() -> None:
    assert reliability(np.array([[1.0, 0.0]]), np.array([0])).counts[9] == 1


def test_ece_of_a_calibrated_model_is_small_and_of_a_boastful_one_large() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], size=20_000)
    gold = np.array([random.choice(3, p=p) for p in probabilities])
    assert reliability(probabilities, gold).ece < 0.02
    sharp = probabilities**4
    sharp /= sharp.sum(axis=1, keepdims=True)
    assert reliability(sharp, gold).ece > 0.15


def test_the_area_worked_out_by_hand_counts_ties_half() -> None:
    # Positive: 0.9, 0.5; negative: 0.5, 0.1. Of four pairs three are right, one is tied.
    positive = np.array([0.9, 0.5, 0.5, 0.1])
    area = auroc(np.stack([1 - positive, positive], axis=1), np.array([1, 1, 0, 0]))
    assert area is not None
    assert area.value == pytest.approx(3.5 / 4)


def test_a_label_that_does_not_occur_has_no_part_in_the_area() -> None:
    random = np.random.default_rng(0)
    probabilities, gold = random.dirichlet([1, 1, 1], 30), random.integers(0, 2, 30)
    area = auroc(probabilities, gold)
    assert area is not None
    assert area.value == pytest.approx(
        np.mean([roc_auc_score(gold == label, probabilities[:, label]) for label in (0, 1)])
    )


def test_a_label_that_is_alone_has_no_area() -> None:
    assert auroc(np.full((5, 3), 1 / 3), np.full(5, 2)) is None


def test_beliefs_that_say_nothing_have_an_area_of_a_half() -> None:
    area = auroc(np.full((6, 3), 1 / 3), np.array([0, 1, 2, 0, 1, 2]))
    assert area is not None
    assert area.value == 0.5
    assert area.influence_N.tolist() == [0] * 6
