from __future__ import annotations

import numpy as np
import pytest

from slant.evaluate.metrics import (
    Resamples,
    accuracy,
    brier,
    confusion,
    f1_per_label,
    interval,
    macro_f1,
    reliability,
)


def matrix(gold: list[int], predicted: list[int], num_labels: int = 3) -> np.ndarray:
    return confusion(np.array(gold), np.array(predicted), num_labels)


def test_a_confusion_matrix_has_gold_labels_in_rows() -> None:
    found = matrix([0, 0, 0, 2, 1], [0, 1, 1, 2, 2])
    assert found.tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 1]]


def test_figures_of_a_matrix_worked_out_by_hand() -> None:
    found = matrix([0, 0, 0, 2, 1], [0, 1, 1, 2, 2])
    assert accuracy(found) == pytest.approx(2 / 5)
    # negative: 1 hit of 3 gold and 1 predicted; neutral: none; positive: 1 of 1 and 2.
    assert f1_per_label(found) == pytest.approx([2 / 4, 0, 2 / 3])
    assert macro_f1(found) == pytest.approx((1 / 2 + 0 + 2 / 3) / 3)


def test_a_label_that_is_neither_gold_nor_predicted_counts_as_zero() -> None:
    found = matrix([0, 1], [0, 1])
    assert f1_per_label(found).tolist() == [1, 1, 0]
    assert macro_f1(found) == pytest.approx(2 / 3)


def test_no_examples_make_zeros_and_no_warning() -> None:
    found = confusion(np.empty(0, np.int64), np.empty(0, np.int64), 3)
    assert found.tolist() == [[0] * 3] * 3
    assert accuracy(found) == 0
    assert macro_f1(found) == 0


def test_figures_of_many_matrices_at_once_are_those_of_each() -> None:
    matrices = np.random.default_rng(0).integers(0, 9, (5, 4, 3, 3))
    for metric in (accuracy, macro_f1):
        assert metric(matrices).shape == (5, 4)
        assert metric(matrices)[3, 2] == metric(matrices[3, 2])
    assert f1_per_label(matrices).shape == (5, 4, 3)


def test_the_brier_score_of_certainty_is_zero_or_two() -> None:
    certain = np.eye(3)
    assert brier(certain, np.array([0, 1, 2])) == 0
    assert brier(certain, np.array([1, 2, 0])) == 2
    assert brier(np.full((4, 3), 1 / 3), np.array([0, 1, 2, 2])) == pytest.approx(2 / 3)


def test_reliability_of_an_example_worked_out_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.4, 0.6], [0.62, 0.38]])
    found = reliability(probabilities, np.array([0, 1, 1, 1]))
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert found.confidence[9] == pytest.approx(0.93)
    assert found.accuracy[[6, 9]].tolist() == [0.5, 0.5]
    assert np.isnan(found.accuracy[0])
    assert found.ece == pytest.approx((2 * (0.61 - 0.5) + 2 * (0.93 - 0.5)) / 4)


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


def simulated(
    random: np.random.Generator, num_documents: int, share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents of four examples that are all right or all wrong together."""
    document = np.repeat(np.arange(num_documents), 4)
    gold = np.zeros(len(document), np.int64)
    right = random.random(num_documents) < share
    return document, gold, (~right[document]).astype(np.int64)


def test_resamples_draw_the_examples_of_a_document_together() -> None:
    document, gold, predicted = simulated(np.random.default_rng(1), 50, 0.6)
    drawn = Resamples(document, 300, seed=2).confusions(gold, predicted, 2)
    assert drawn.shape == (300, 2, 2)
    assert (drawn % 4 == 0).all()
    assert (drawn.sum(axis=(1, 2)) == 200).all()
    # The control: were the examples drawn one by one, some counts would be odd.
    singly = Resamples(np.arange(200), 300, seed=2).confusions(gold, predicted, 2)
    assert (singly % 4 != 0).any()


def test_documents_of_different_sizes_change_the_size_of_a_resample() -> None:
    document = np.array([7, 7, 7, -2, 100])
    drawn = Resamples(document, 200, seed=0).confusions(
        np.zeros(5, np.int64), np.zeros(5, np.int64), 2
    )
    sizes = set(drawn.sum(axis=(1, 2)).tolist())
    assert sizes == {3, 5, 7, 9}


def test_the_same_seed_gives_the_same_draws_and_another_one_others() -> None:
    document, gold, predicted = simulated(np.random.default_rng(1), 50, 0.6)

    def draws(seed: int) -> np.ndarray:
        return Resamples(document, 250, seed).confusions(gold, predicted, 2)

    assert np.array_equal(draws(4), draws(4))
    assert not np.array_equal(draws(4), draws(5))


def test_two_systems_see_the_same_draws() -> None:
    """A system that is right on one document more is never worse in any resample."""
    document, gold, predicted = simulated(np.random.default_rng(1), 40, 0.5)
    better = predicted.copy()
    first_wrong = document == document[predicted == 1][0]
    better[first_wrong] = 0
    resamples = Resamples(document, 400, seed=9)
    difference = accuracy(resamples.confusions(gold, better, 2)) - accuracy(
        resamples.confusions(gold, predicted, 2)
    )
    assert (difference >= 0).all()
    assert 0.2 < (difference == 0).mean() < 0.55  # a document is missed by a resample in 1/e
    _, high = interval(difference, 0.95)
    assert high < 0.12


def test_the_number_of_resamples_need_not_be_a_multiple_of_a_hundred() -> None:
    gold = np.zeros(3, np.int64)
    assert len(Resamples(np.arange(3), 101, 0).confusions(gold, gold, 2)) == 101


def test_an_interval_cuts_off_equal_tails() -> None:
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5, 95))


def test_a_95_percent_interval_covers_the_truth_in_about_95_of_100_samples() -> None:
    random = np.random.default_rng(12)
    truth, clustered, ignored = 0.7, 0, 0
    for sample in range(200):
        document, gold, predicted = simulated(random, 120, truth)
        for units in (document, np.arange(len(document))):
            drawn = Resamples(units, 400, seed=sample).confusions(gold, predicted, 2)
            low, high = interval(accuracy(drawn), 0.95)
            covered = low <= truth <= high
            if units is document:
                clustered += covered
            else:
                ignored += covered
    assert 180 <= clustered <= 198
    # The control: treating the examples of a document as independent makes far too narrow ones.
    assert ignored < 170
