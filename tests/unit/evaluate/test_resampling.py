from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest

from slant.evaluate.metrics import (
    NO_ANSWER,
    Area,
    accuracy,
    auroc,
    brier_scores,
    ece,
    f1_per_label,
    macro_f1,
    reliability,
)
from slant.evaluate.resampling import (
    Draws,
    Resamples,
    area_interval,
    error_interval,
    figure,
    share_interval,
)


def simulated(
    random: np.random.Generator, num_documents: int, share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents of four examples that are all right or all wrong together."""
    document = np.repeat(np.arange(num_documents), 4)
    gold = np.zeros(len(document), np.int64)
    right = random.random(num_documents) < share
    return document, gold, (~right[document]).astype(np.int64)


def drawn_matrices(
    document: np.ndarray, gold: np.ndarray, predicted: np.ndarray, count: int, seed: int = 2
) -> np.ndarray:
    """Confusion matrices of one system with two labels, one of each resample."""
    return Resamples(document, count, seed).confusions(gold, predicted[None], 2).samples[:, 0]


# Draws


def test_resamples_draw_the_examples_of_a_document_together() -> None:
    document, gold, predicted = simulated(np.random.default_rng(1), 50, 0.6)
    drawn = drawn_matrices(document, gold, predicted, 300)
    assert drawn.shape == (300, 2, 3)
    assert (drawn % 4 == 0).all()
    assert (drawn.sum(axis=(1, 2)) == 200).all()
    # The control: were the examples drawn one by one, some counts would be odd.
    assert (drawn_matrices(np.arange(200), gold, predicted, 300) % 4 != 0).any()


def test_documents_of_different_sizes_change_the_size_of_a_resample() -> None:
    document = np.array([7, 7, 7, -2, 100])
    zeros = np.zeros(5, np.int64)
    sizes = set(drawn_matrices(document, zeros, zeros, 200).sum(axis=(1, 2)).tolist())
    assert sizes == {3, 5, 7, 9}


def test_documents_are_counted_once_each() -> None:
    resamples = Resamples(np.array([7, 7, 7, -2, 100]), 10, 0)
    assert resamples.num_documents == 3
    drawn = resamples.draw(np.arange(5), np.eye(5))
    assert drawn.num_documents == 3
    assert drawn.whole.tolist() == [1] * 5
    assert sorted(drawn.without.tolist()) == [[0, 0, 0, 1, 1], [1, 1, 1, 0, 1], [1, 1, 1, 1, 0]]


def test_the_same_seed_gives_the_same_draws_and_another_one_others() -> None:
    document, gold, predicted = simulated(np.random.default_rng(1), 50, 0.6)

    def draws(seed: int) -> np.ndarray:
        return drawn_matrices(document, gold, predicted, 250, seed)

    assert np.array_equal(draws(4), draws(4))
    assert not np.array_equal(draws(4), draws(5))


def test_two_systems_see_the_same_draws() -> None:
    """A system that is right on one document more is never worse in any resample."""
    document, gold, predicted = simulated(np.random.default_rng(1), 40, 0.5)
    better = predicted.copy()
    first_wrong = document == document[predicted == 1][0]
    better[first_wrong] = 0
    drawn = Resamples(document, 400, seed=9).confusions(gold, np.stack([better, predicted]), 2)

    def difference(matrices: np.ndarray) -> np.ndarray:
        values = accuracy(matrices)
        return values[..., 0] - values[..., 1]

    differences = difference(drawn.samples)
    assert (differences >= 0).all()
    assert 0.2 < (differences == 0).mean() < 0.55  # a document is missed by a resample in 1/e
    assert difference(drawn.whole) == pytest.approx(1 / 40)
    low, high = drawn.interval(difference, 0.95)
    assert 0 <= low <= 1 / 40 <= high < 0.15


def test_answers_that_are_missing_are_drawn_into_the_last_column() -> None:
    gold, first = np.array([0, 0, 1, 1]), np.array([0, NO_ANSWER, NO_ANSWER, 1])
    drawn = drawn_matrices(np.arange(4), gold, first, 200)
    assert set(drawn[:, 0, 2].tolist()) == {0, 1, 2, 3, 4}
    assert not drawn[:, [0, 1], [1, 0]].any()
    second = np.array([NO_ANSWER, 0, 1, 0])
    paired = Resamples(np.arange(4), 50, 0).confusions(gold, np.stack([first, second]), 2).samples
    # Where the first has no answer the second is right, and the other way round in part.
    assert np.array_equal(paired[:, 0, 0, 2], paired[:, 1, 0, 0])
    assert np.array_equal(paired[:, 0, 0, 0], paired[:, 1, 0, 2])
    assert np.array_equal(paired[:, 0, 1, 1], paired[:, 1, 1, 0])


def test_the_number_of_resamples_need_not_be_a_round_one() -> None:
    gold = np.zeros(3, np.int64)
    assert len(drawn_matrices(np.arange(3), gold, gold, 101)) == 101


def test_more_kinds_than_fit_into_memory_at_once_are_drawn_in_parts() -> None:
    """Part by part the counts are those of any resample: as many documents as there are."""
    size = 12_000
    code = np.arange(size)
    features = np.stack([np.ones(size), code % 2], axis=1)
    drawn = Resamples(np.arange(size), 700, 0).draw(code, features).samples
    assert drawn.shape == (700, 2)
    assert (drawn[:, 0] == size).all()
    assert len(set(drawn[:, 1].tolist())) > 200
    assert drawn[:, 1].mean() == pytest.approx(size / 2, abs=5 * np.sqrt(size / 4 / 700))


def test_no_examples_at_all_can_be_drawn_without_a_warning() -> None:
    nothing = np.empty(0, np.int64)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        resamples = Resamples(nothing, 5, 0)
        assert resamples.num_documents == 0
        drawn = resamples.confusions(nothing, nothing[None], 2)
        assert drawn.samples.tolist() == [[[[0] * 3] * 2]] * 5
        assert drawn.interval(lambda m: accuracy(m[..., 0, :, :]), 0.95) is None
        errors = resamples.calibrations(np.empty(0), np.empty(0, bool))
        assert not errors.samples.any()
        assert error_interval(errors, 0.95) is None
        assert not resamples.sums(np.empty(0), 2.0).samples.any()


def test_means_and_calibration_errors_of_clustered_documents_vary_as_a_plain_bootstrap_has_it() -> (
    None
):
    random = np.random.default_rng(3)
    document = np.sort(random.integers(0, 60, 150))
    probabilities = random.dirichlet([1, 1, 1], 150)
    gold = random.integers(0, 3, 150)
    scores = brier_scores(probabilities, gold)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == gold
    resamples = Resamples(document, 4000, 0)
    sums = resamples.sums(scores, top=2.0).samples
    means = sums[:, 0] / sums[:, 1]
    errors = ece(resamples.calibrations(confidence, right).samples)
    names = np.unique(document)
    members = [np.flatnonzero(document == name) for name in names]
    plain_means, plain_errors = [], []
    for _ in range(2000):
        rows = np.concatenate([members[i] for i in random.integers(0, len(names), len(names))])
        plain_means.append(scores[rows].mean())
        plain_errors.append(reliability(probabilities[rows], gold[rows]).ece)
    for ours, plain in ((means, plain_means), (errors, plain_errors)):
        assert ours.mean() == pytest.approx(np.mean(plain), abs=5 * np.std(plain) / 2000**0.5)
        assert ours.std() == pytest.approx(np.std(plain), rel=0.1)


# Intervals


def of_means(values: np.ndarray, count: int = 4000, seed: int = 0) -> Draws:
    """Draws of whole numbers from 0, one of each document, and how many they are."""
    features = np.stack([np.arange(values.max() + 1), np.ones(values.max() + 1)], axis=1)
    return Resamples(np.arange(len(values)), count, seed).draw(values, features)


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def test_the_interval_of_a_mean_of_many_documents_is_the_textbooks() -> None:
    values = np.random.default_rng(0).integers(0, 10, 900)
    low, high = of_means(values).interval(mean, 0.95)
    error = values.std(ddof=1) / 30
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error
    )


def test_an_interval_is_wider_for_few_documents_as_students_t_is_than_the_normal() -> None:
    values = np.tile([0, 1, 2, 3, 4], 2)
    low, high = of_means(values, 20_000).interval(mean, 0.95)
    # t with 9 degrees of freedom, times the standard error with n - 1.
    error = values.std(ddof=1) / 10**0.5
    assert high - low == pytest.approx(2 * 2.262 * error, rel=0.06)
    plain_low, plain_high = np.quantile(mean(of_means(values, 20_000).samples), [0.025, 0.975])
    assert high - low > 1.15 * (plain_high - plain_low)


def test_a_higher_confidence_has_a_wider_interval_around_the_narrower_one() -> None:
    values = np.random.default_rng(0).integers(0, 10, 50)
    drawn = of_means(values)
    bounds = [drawn.interval(mean, confidence) for confidence in (0.5, 0.9, 0.99)]
    for (inner_low, inner_high), (low, high) in pairwise(bounds):
        assert low < inner_low < values.mean() < inner_high < high


def test_an_interval_leans_to_the_side_on_which_the_figure_spreads() -> None:
    """Of a mean of exponential times: BC_a is not symmetric, and reaches further up."""
    values = np.random.default_rng(3).exponential(100, 60).astype(int)
    low, high = of_means(values).interval(mean, 0.95)
    assert high - values.mean() > 1.15 * (values.mean() - low)


def test_bounds_are_those_of_scipys_own_bias_corrected_and_accelerated_interval() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).exponential(100, 400).astype(int)
    drawn = of_means(values, 20_000)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", random_state=0)
    low, high = theirs.confidence_interval
    width = high - low
    # Ours is wider by t and sqrt(n / (n - 1)): for 400 documents by 0.4 %.
    assert drawn.interval(mean, 0.95) == pytest.approx((low, high), abs=0.025 * width)


def test_bounds_of_a_figure_that_resampling_makes_smaller_are_scipys_too() -> None:
    """A variance: its resamples lie below it more often than not, and the bounds move up."""
    from scipy.stats import bootstrap, norm, t

    values = np.random.default_rng(0).exponential(100, 60).astype(int)
    features = np.arange(values.max() + 1)[:, None] ** np.array([0, 1, 2])
    drawn = Resamples(np.arange(60), 20_000, 0).draw(values, features)

    def variance(sums: np.ndarray) -> np.ndarray:
        means = sums / sums[..., :1]
        return means[..., 2] - means[..., 1] ** 2

    assert (variance(drawn.samples) < values.var()).mean() > 0.55
    # Theirs at the confidence that the wider interval for 60 documents has.
    reach = (60 / 59) ** 0.5 * t.ppf(0.975, 59)
    theirs = bootstrap(
        (values,),
        np.var,
        n_resamples=20_000,
        confidence_level=2 * norm.cdf(reach) - 1,
        method="BCa",
        random_state=0,
    )
    plain = np.quantile(variance(drawn.samples), [0.025, 0.975])
    low, high = drawn.interval(variance, 0.95)
    bounds = theirs.confidence_interval
    width = bounds.high - bounds.low
    assert (low, high) == pytest.approx((bounds.low, bounds.high), abs=0.05 * width)
    assert plain[1] < bounds.high - 0.15 * width


def test_fewer_than_ten_documents_have_no_interval() -> None:
    for num in (1, 2, 9):
        assert of_means(np.arange(num)).interval(mean, 0.95) is None
    assert of_means(np.arange(10)).interval(mean, 0.95) is not None


def test_figures_that_do_not_vary_have_no_interval() -> None:
    assert of_means(np.full(50, 3)).interval(mean, 0.95) is None


def test_beliefs_of_fewer_than_a_hundred_documents_have_no_interval() -> None:
    random = np.random.default_rng(0)
    for num in (99, 100):
        probabilities, gold = random.dirichlet([1, 1], 2 * num), random.integers(0, 2, 2 * num)
        document = np.repeat(np.arange(num), 2)
        right = probabilities.argmax(axis=1) == gold
        errors = Resamples(document, 200, 0).calibrations(probabilities.max(axis=1), right)
        area = auroc(probabilities, gold)
        assert area is not None
        for bounds in (error_interval(errors, 0.95), area_interval(area, document, 0.95)):
            assert (bounds is None) == (num == 99)


def belief_errors(random: np.random.Generator, num: int, sharpness: float) -> tuple[float, Draws]:
    """The calibration error of a model that is right as often as it says, but for ``sharpness``."""
    probabilities = random.dirichlet([1, 1, 1], num)
    gold = (random.random((num, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    told = probabilities**sharpness
    told /= told.sum(axis=1, keepdims=True)
    right = told.argmax(axis=1) == gold
    drawn = Resamples(np.arange(num), 300, 0).calibrations(told.max(axis=1), right)
    return reliability(told, gold).ece, drawn


@pytest.mark.parametrize("sharpness", [1.0, 1.5, 4.0])
def test_the_interval_of_a_calibration_error_holds_the_value_and_does_not_go_below_nothing(
    sharpness: float,
) -> None:
    for seed in range(20):
        value, drawn = belief_errors(np.random.default_rng(seed), 200, sharpness)
        low, high = error_interval(drawn, 0.95)
        assert 0 <= low <= value + 5e-4  # sums see confidences in thousandths
        assert value - 5e-4 <= high < 1


def test_the_interval_of_a_calibrated_models_error_reaches_down_to_nothing() -> None:
    """Resampling makes the error larger: the plain percentiles lie above what was measured."""
    lows, plain = [], []
    for seed in range(60):
        _, drawn = belief_errors(np.random.default_rng(seed), 400, 1.0)
        lows.append(error_interval(drawn, 0.95)[0])
        plain.append(np.quantile(ece(drawn.samples), 0.025))
    assert np.mean(np.array(lows) < 0.01) > 0.8
    assert np.mean(np.array(plain) < 0.01) == 0


def test_the_interval_of_a_boastful_models_error_lies_above_nothing_and_covers_the_truth() -> None:
    truth, _ = belief_errors(np.random.default_rng(99), 100_000, 4.0)
    covered = 0
    for seed in range(100):
        _, drawn = belief_errors(np.random.default_rng(seed), 400, 4.0)
        low, high = error_interval(drawn, 0.95)
        assert low > 0.05
        covered += low <= truth <= high
    assert covered >= 88


def areas_of(
    random: np.random.Generator, num: int, examples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents of some examples with one gold label, which are equally easy."""
    document = np.repeat(np.arange(num), examples)
    gold = random.integers(0, 2, num)[document]
    ease = random.normal(1, 1.5, num)[document] * np.where(gold == 1, 1, -1)
    positive = 1 / (1 + np.exp(-(ease + random.normal(0, 0.3, len(document)))))
    return np.stack([1 - positive, positive], axis=1), gold, document


def test_the_variance_of_an_area_is_that_of_delong() -> None:
    """Against DeLong et al. (1988) as they write it: covariances of structural components."""
    random = np.random.default_rng(7)
    probabilities, gold, document = areas_of(random, 120, 1)
    scores = probabilities[:, 1].round(1)
    probabilities = np.stack([1 - scores, scores], axis=1)
    positive, negative = scores[gold == 1], scores[gold == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(axis=1).var(ddof=1) / len(positive)
    variance += wins.mean(axis=0).var(ddof=1) / len(negative)
    area = auroc(probabilities, gold)
    assert area is not None
    assert area.value == pytest.approx(wins.mean())
    assert (area.influence_N**2).sum() == pytest.approx(variance, rel=0.05)
    low, high = area_interval(area, document, 0.95)
    # On the logit scale, with Student's t for 120 documents.
    reach = 1.980 * np.sqrt(variance) / (area.value * (1 - area.value))
    centre = np.log(area.value / (1 - area.value))
    expected = 1 / (1 + np.exp(-np.array([centre - reach, centre + reach])))
    assert (low, high) == pytest.approx(tuple(expected), abs=0.002)
    assert 0 < low < area.value < high < 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_perfect_area_has_no_interval(value: float) -> None:
    assert area_interval(Area(value, np.zeros(200)), np.arange(200), 0.95) is None


def test_intervals_of_areas_cover_the_truth_where_examples_share_a_document() -> None:
    random = np.random.default_rng(11)
    probabilities, gold, _ = areas_of(random, 100_000, 1)
    truth = auroc(probabilities, gold).value
    clustered = ignored = 0
    for _ in range(200):
        probabilities, gold, document = areas_of(random, 120, 4)
        area = auroc(probabilities, gold)
        low, high = area_interval(area, document, 0.95)
        clustered += low <= truth <= high
        low, high = area_interval(area, np.arange(len(gold)), 0.95)
        ignored += low <= truth <= high
    assert 180 <= clustered <= 199
    # The control: treating the examples of a document as independent makes far too narrow ones.
    assert ignored < 165


def test_a_95_percent_interval_covers_the_truth_in_about_95_of_100_samples() -> None:
    random = np.random.default_rng(12)
    truth, clustered, ignored = 0.7, 0, 0
    for sample in range(200):
        document, gold, predicted = simulated(random, 120, truth)
        for units in (document, np.arange(len(document))):
            drawn = Resamples(units, 400, seed=sample).confusions(gold, predicted[None], 2)
            low, high = drawn.interval(lambda m: accuracy(m[..., 0, :, :]), 0.95)
            covered = low <= truth <= high
            if units is document:
                clustered += covered
            else:
                ignored += covered
    assert 180 <= clustered <= 198
    assert ignored < 170


def test_intervals_of_the_f1_of_a_rare_label_cover_more_often_than_plain_percentiles() -> None:
    """One example in ten of 60 has the label, which the model often misses."""
    random = np.random.default_rng(2)

    def sample(num: int) -> tuple[np.ndarray, np.ndarray]:
        gold = (random.random(num) < 0.1).astype(np.int64)
        return gold, np.where(random.random(num) < np.where(gold == 1, 0.6, 0.97), gold, 1 - gold)

    gold, predicted = sample(400_000)
    both = ((gold == 1) & (predicted == 1)).sum()
    truth = 2 * both / (gold.sum() + predicted.sum())
    covered = plain = 0
    for number in range(300):
        gold, predicted = sample(60)
        drawn = Resamples(np.arange(60), 400, number).confusions(gold, predicted[None], 2)
        bounds = drawn.interval(lambda m: f1_per_label(m[..., 0, :, :])[..., 1], 0.95)
        figures = f1_per_label(drawn.samples[:, 0])[:, 1]
        low, high = np.quantile(figures, [0.025, 0.975])
        covered += bounds is not None and bounds[0] <= truth <= bounds[1]
        plain += low <= truth <= high
    assert covered >= 270
    assert covered >= plain - 3


def test_intervals_of_macro_f1_of_few_documents_cover_the_truth_almost_as_often() -> None:
    random = np.random.default_rng(2)
    truth = 0.8  # both labels alike, each right in 4 of 5
    covered = plain = 0
    for number in range(300):
        gold = np.arange(20) % 2
        predicted = np.where(random.random(20) < truth, gold, 1 - gold)
        drawn = Resamples(np.arange(20), 400, number).confusions(gold, predicted[None], 2)
        bounds = drawn.interval(lambda m: macro_f1(m[..., 0, :, :]), 0.95)
        low, high = np.quantile(macro_f1(drawn.samples[:, 0]), [0.025, 0.975])
        covered += bounds is not None and bounds[0] <= truth <= bounds[1]
        plain += low <= truth <= high
    assert covered >= 268
    assert covered >= plain - 3


@pytest.mark.parametrize(
    ("hits", "count", "expected"),
    [
        (0, 0, (0, 1)),
        (0, 10, (0, 0.30850)),
        (10, 10, (0.69150, 1)),
        (5, 10, (0.18709, 0.81291)),
        (1, 20, (0.00127, 0.24873)),
    ],
)
def test_exact_intervals_of_shares_are_those_of_clopper_and_pearsons_tables(
    hits: int, count: int, expected: tuple[float, float]
) -> None:
    assert share_interval(hits, count, 0.95) == pytest.approx(expected, abs=1e-5)


def test_exact_intervals_of_shares_are_those_of_scipy() -> None:
    from scipy.stats import binomtest

    for count in (1, 7, 40):
        for hits in range(count + 1):
            theirs = binomtest(hits, count).proportion_ci(0.9, "exact")
            assert share_interval(hits, count, 0.9) == pytest.approx((theirs.low, theirs.high))


def test_a_figure_has_five_digits_and_null_bounds_without_an_interval() -> None:
    assert figure(1 / 3, (0.123456789, 2 / 3)) == {
        "value": 0.33333,
        "low": 0.12346,
        "high": 0.66667,
    }
    assert figure(0.5, None) == {"value": 0.5, "low": None, "high": None}
