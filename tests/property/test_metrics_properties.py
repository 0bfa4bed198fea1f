"""Metrics against scikit-learn and plain loops, resamples against a plain bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    roc_auc_score,
)

from slant.evaluate.metrics import (
    NO_ANSWER,
    accuracy,
    auroc,
    brier_scores,
    confusion,
    f1_per_label,
    macro_f1,
    mcc,
    mean_f1_of,
    predicted_labels,
    reliability,
)
from slant.evaluate.resampling import Resamples

pytestmark = pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")

MANY = settings(max_examples=1000, deadline=None)
SOME = settings(max_examples=60, deadline=None)
FEW = settings(max_examples=12, deadline=None)


@st.composite
def answers(draw: st.DrawFn, most: int = 60) -> tuple[np.ndarray, np.ndarray, int]:
    """Gold labels and predicted ones, NO_ANSWER among them; often a label is never used."""
    seed, size, num_labels = draw(
        st.tuples(st.integers(0, 2**31), st.integers(1, most), st.integers(2, 5))
    )
    random = np.random.default_rng(seed)
    shares = random.dirichlet([draw(st.sampled_from([0.2, 1.0, 10.0]))] * num_labels)
    gold = random.choice(num_labels, size, p=shares)
    chance = random.integers(0, num_labels, size)
    predicted = np.where(random.random(size) < draw(st.sampled_from([0, 0.5, 1])), gold, chance)
    missing = random.random(size) < draw(st.sampled_from([0, 0.1, 1]))
    return gold, np.where(missing, NO_ANSWER, predicted), num_labels


@st.composite
def beliefs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, rounded in some cases so that there are ties, and gold labels."""
    seed, size, num_labels = draw(
        st.tuples(st.integers(0, 2**31), st.integers(1, 80), st.integers(2, 5))
    )
    random = np.random.default_rng(seed)
    sharpness = draw(st.sampled_from([0.05, 0.5, 1.0, 20.0]))
    probabilities = random.dirichlet([sharpness] * num_labels, size=size)
    if draw(st.booleans()):
        probabilities = probabilities.round(1) + 0.01
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    shares = random.dirichlet([draw(st.sampled_from([0.1, 1.0]))] * num_labels)
    return probabilities, random.choice(num_labels, size, p=shares)


@MANY
@given(answers())
def test_figures_of_labels_are_those_of_scikit_learn(
    found: tuple[np.ndarray, np.ndarray, int],
) -> None:
    gold, predicted, num_labels = found
    labels = list(range(num_labels))
    matrix = confusion(gold, predicted, num_labels)
    # To scikit-learn no answer is one more label, that is never right.
    theirs = np.where(predicted == NO_ANSWER, num_labels, predicted)
    expected = confusion_matrix(gold, theirs, labels=[*labels, num_labels])
    assert np.array_equal(matrix, expected[:num_labels])
    assert accuracy(matrix) == pytest.approx(accuracy_score(gold, theirs))
    each = f1_score(gold, theirs, labels=labels, average=None, zero_division=0)
    assert f1_per_label(matrix) == pytest.approx(each)
    assert macro_f1(matrix) == pytest.approx(each.mean())
    ends = [0, num_labels - 1]
    mean = f1_score(gold, theirs, labels=ends, average="macro", zero_division=0)
    assert mean_f1_of(matrix, ends) == pytest.approx(mean)
    assert mcc(matrix) == pytest.approx(matthews_corrcoef(gold, theirs), abs=1e-12)


@MANY
@given(beliefs())
def test_brier_scores_calibration_error_and_bins_are_those_of_a_plain_loop(
    found: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, gold = found
    distances = []
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities.tolist(), gold.tolist(), strict=True):
        distances.append(sum((p - (i == label)) ** 2 for i, p in enumerate(row)))
        number = min(9, int(max(row) * 10))
        bins.setdefault(number, []).append((max(row), row.index(max(row)) == label))
    assert brier_scores(probabilities, gold) == pytest.approx(distances)
    result = reliability(probabilities, gold)
    error = 0.0
    for number in range(10):
        members = bins.get(number, [])
        assert result.counts[number] == len(members)
        if not members:
            assert np.isnan(result.confidence[number])
            assert np.isnan(result.accuracy[number])
            continue
        confidence = sum(c for c, _ in members) / len(members)
        right = sum(r for _, r in members) / len(members)
        assert result.confidence[number] == pytest.approx(confidence)
        assert result.accuracy[number] == pytest.approx(right)
        error += len(members) / len(gold) * abs(confidence - right)
    assert result.ece == pytest.approx(error, abs=1e-12)


@MANY
@given(beliefs())
def test_the_area_is_the_mean_of_scikit_learns_of_the_labels_that_have_one(
    found: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, gold = found
    labels = range(probabilities.shape[1])
    theirs = [
        roc_auc_score(gold == label, probabilities[:, label])
        for label in labels
        if 0 < (gold == label).sum() < len(gold)
    ]
    area = auroc(probabilities, gold)
    if not theirs:
        assert area is None
        return
    assert area is not None
    assert area.value == pytest.approx(np.mean(theirs))
    assert area.influence_N.sum() == pytest.approx(0, abs=1e-9)


@SOME
@given(beliefs(), st.integers(0, 2**31))
def test_rows_that_hold_something_that_is_no_number_have_no_answer(
    found: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    probabilities, _ = found
    random = np.random.default_rng(seed)
    spoilt = random.random(len(probabilities)) < 0.5
    column = random.integers(0, probabilities.shape[1], len(probabilities))
    value = random.choice([np.nan, np.inf, -np.inf], len(probabilities))
    broken = probabilities.copy()
    broken[np.flatnonzero(spoilt), column[spoilt]] = value[spoilt]
    predicted = predicted_labels(broken)
    assert (predicted[spoilt] == NO_ANSWER).all()
    assert np.array_equal(predicted[~spoilt], probabilities[~spoilt].argmax(axis=1))


def documents_of(size: int, seed: int, num: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num, size)


def with_ones_own_code(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every example is like no other, so that sums tell how often each was drawn."""
    return np.arange(size), np.eye(size)


@SOME
@given(answers(), st.integers(0, 1000), st.integers(1, 12))
def test_resamples_do_not_depend_on_how_documents_are_numbered(
    found: tuple[np.ndarray, np.ndarray, int], seed: int, num: int
) -> None:
    gold, predicted, num_labels = found
    document = documents_of(len(gold), seed, num)
    plain, renumbered = (
        Resamples(names, 30, seed).confusions(gold, predicted[None], num_labels)
        for names in (document, document * 1000 - 7)
    )
    assert np.array_equal(plain.samples, renumbered.samples)
    assert (plain.samples >= 0).all()
    # What never happened is never drawn.
    never = confusion(gold, predicted, num_labels) == 0
    assert not plain.samples[:, 0, never].any()


@SOME
@given(st.integers(1, 50), st.integers(0, 1000), st.integers(1, 12))
def test_examples_of_a_document_are_drawn_together_and_as_many_documents_as_there_are(
    size: int, seed: int, num: int
) -> None:
    document = documents_of(size, seed, num)
    drawn = Resamples(document, 20, seed).draw(*with_ones_own_code(size)).samples
    assert drawn.shape == (20, size)
    assert np.array_equal(drawn, drawn.round())
    names = np.unique(document)
    times = np.empty((20, len(names)))
    for place, name in enumerate(names):
        mine = drawn[:, document == name]
        assert (mine == mine[:, :1]).all()
        times[:, place] = mine[:, 0]
    assert (times.sum(axis=1) == len(names)).all()


@SOME
@given(st.integers(1, 50), st.integers(0, 1000), st.integers(1, 12), st.integers(1, 8))
def test_sums_are_the_features_of_what_was_drawn_whole_and_without_one_document(
    size: int, seed: int, num: int, num_codes: int
) -> None:
    random = np.random.default_rng(seed)
    document, code = documents_of(size, seed, num), random.integers(0, num_codes, size)
    features = random.normal(size=(num_codes, 3, 2))
    drawn = Resamples(document, 25, seed).draw(code, features)
    # The same draws, seen through one feature for each code.
    counted = Resamples(document, 25, seed).draw(code, np.eye(num_codes))
    assert drawn.samples == pytest.approx(np.tensordot(counted.samples, features, axes=1))
    assert drawn.whole == pytest.approx(features[code].sum(axis=0))
    assert np.array_equal(counted.whole, np.bincount(code, minlength=num_codes))
    # Kinds are documents in which the same codes occur equally often.
    names = np.unique(document)
    each = [np.bincount(code[document == d], minlength=num_codes) for d in names]
    kinds = {tuple(kind.tolist()) for kind in each}
    assert drawn.num_documents == counted.num_documents == len(names)
    assert len(counted.counts_K) == len(kinds)
    found = {
        tuple((counted.whole - without).tolist()): int(count)
        for without, count in zip(counted.without, counted.counts_K, strict=True)
    }
    plain = [tuple(kind.tolist()) for kind in each]
    assert found == {kind: plain.count(kind) for kind in kinds}
    # And every resample is made of as many of them as there are documents.
    sizes = np.array([sum(kind) for kind in kinds])
    totals = counted.samples.sum(axis=1)
    assert (totals >= len(names) * sizes.min()).all()
    assert (totals <= len(names) * sizes.max()).all()


@SOME
@given(answers(), st.integers(0, 1000), st.integers(1, 12))
def test_paired_draws_are_the_same_documents_for_both_systems(
    found: tuple[np.ndarray, np.ndarray, int], seed: int, num: int
) -> None:
    gold, first, num_labels = found
    second = np.random.default_rng(seed).integers(NO_ANSWER, num_labels, len(gold))
    resamples = Resamples(documents_of(len(gold), seed, num), 20, seed)
    drawn = resamples.confusions(gold, np.stack([first, second]), num_labels)
    assert drawn.samples.shape == (20, 2, num_labels, num_labels + 1)
    # Which gold labels are drawn does not depend on the system.
    rows = drawn.samples.sum(axis=-1)
    assert np.array_equal(rows[:, 0], rows[:, 1])
    for place, predicted in enumerate((first, second)):
        assert np.array_equal(drawn.whole[place], confusion(gold, predicted, num_labels))
    # A system beside itself is equal in every resample.
    same = resamples.confusions(gold, np.stack([first, first]), num_labels).samples
    assert np.array_equal(same[:, 0], same[:, 1])


@FEW
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([12, 90]))
def test_the_distribution_is_that_of_a_plain_bootstrap_of_documents(
    seed: int, one_each: bool, num: int
) -> None:
    """Few kinds are drawn by counts (multinomial), many one by one: both in mean and variance."""
    random = np.random.default_rng(seed)
    size = num if one_each else 2 * num
    document = random.permutation(num) if one_each else random.integers(0, num, size)
    gold, predicted = random.integers(0, 2, size), random.integers(NO_ANSWER, 2, size)
    count = 6000
    ours = Resamples(document, count, seed).confusions(gold, predicted[None], 2).samples[:, 0]
    names = np.unique(document)
    per_document = np.stack(
        [confusion(gold[document == d], predicted[document == d], 2) for d in names]
    )
    draws = random.integers(0, len(names), (count, len(names)))
    plain = np.stack([per_document[row].sum(axis=0) for row in draws])
    # Both against what can be said exactly, and against each other.
    mean, variance = per_document.sum(axis=0), per_document.var(axis=0) * len(names)
    for drawn in (ours, plain):
        error = np.sqrt(variance / count)
        assert (np.abs(drawn.mean(axis=0) - mean) <= 5 * error + 1e-9).all()
        assert drawn.var(axis=0) == pytest.approx(variance, rel=0.15, abs=1e-9)
    assert accuracy(ours).var() == pytest.approx(accuracy(plain).var(), rel=0.15)
    assert np.cov(ours.reshape(count, -1).T) == pytest.approx(
        np.cov(plain.reshape(count, -1).T), abs=0.15 * variance.max()
    )


@SOME
@given(beliefs(), st.integers(0, 1000))
def test_sums_behind_the_calibration_error_and_brier_scores_are_right_to_a_thousandth(
    found: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    probabilities, gold = found
    resamples = Resamples(np.random.default_rng(seed).permutation(len(gold)), 15, seed)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == gold
    steps = np.rint(confidence * 1000).astype(int)
    # Codes in the same order divide the documents into the same kinds, which are drawn alike.
    codes, code = np.unique(2 * steps + right, return_inverse=True)
    times = resamples.draw(code, np.eye(len(codes))).samples
    drawn = resamples.calibrations(confidence, right).samples
    assert drawn.shape == (15, 10, 3)
    for number in range(10):
        inside = np.minimum(codes // 2 // 100, 9) == number
        sums = times[:, inside].sum(axis=1)
        assert np.array_equal(drawn[:, number, 0], sums)
        assert drawn[:, number, 1] == pytest.approx(times[:, inside] @ (codes[inside] // 2 / 1000))
        assert np.array_equal(drawn[:, number, 2], times[:, inside] @ (codes[inside] % 2))
    scores = brier_scores(probabilities, gold)
    steps, code = np.unique(np.rint(scores * 500).astype(int), return_inverse=True)
    times = resamples.draw(code, np.eye(len(steps))).samples
    sums = resamples.sums(scores, top=2.0)
    assert sums.samples[:, 0] == pytest.approx(times @ (steps / 500))
    assert (sums.samples[:, 1] == len(gold)).all()
    assert sums.whole[0] == pytest.approx(scores.sum(), abs=1e-3 * len(gold))


@SOME
@given(answers(most=120), st.integers(0, 1000), st.integers(10, 60))
def test_an_interval_lies_within_what_a_figure_can_be_and_holds_the_value(
    found: tuple[np.ndarray, np.ndarray, int], seed: int, num: int
) -> None:
    gold, predicted, num_labels = found
    drawn = Resamples(documents_of(len(gold), seed, num), 200, seed).confusions(
        gold, predicted[None], num_labels
    )
    for metric, least in ((accuracy, 0), (macro_f1, 0), (mcc, -1)):
        bounds = drawn.interval(lambda m, metric=metric: metric(m[..., 0, :, :]), 0.95)
        value = metric(confusion(gold, predicted, num_labels))
        if bounds is not None:
            assert least <= bounds[0] <= value <= bounds[1] <= 1
