from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional as F  # noqa: N812

from slant.errors import ArtifactError, UsageError
from slant.train.targets import class_weight_vector, target_distribution

LABELS = ("negative", "neutral", "positive")
SMOOTHING = st.floats(0, 0.9)
WEIGHTS = st.lists(st.floats(0.05, 20), min_size=3, max_size=3)
GOLD = st.lists(st.integers(0, 2), min_size=1, max_size=20)
SHARES = st.lists(
    st.one_of(st.none(), arrays.arrays(np.float32, 3, elements=st.floats(0, 1, width=32))),
    min_size=20,
    max_size=20,
)


def our_losses(logits_NL: torch.Tensor, targets: np.ndarray, weights: np.ndarray) -> torch.Tensor:
    """As the objective computes them, before they are divided by the number of examples."""
    logs_NL = F.log_softmax(logits_NL, dim=1)
    return -(torch.from_numpy(targets) * logs_NL).sum(dim=1) * torch.from_numpy(weights)


def some_logits(count: int) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(count)) * 3


@given(gold=GOLD, smoothing=SMOOTHING, weights=WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_hard_labels_give_the_cross_entropy_of_pytorch(gold, smoothing, weights):
    targets, found = target_distribution(gold, 3, smoothing=smoothing, class_weights=weights)
    logits_NL = some_logits(len(gold))
    ours = our_losses(logits_NL, targets, found)
    theirs = {
        reduction: F.cross_entropy(
            logits_NL,
            torch.tensor(gold),
            weight=torch.tensor(weights),
            label_smoothing=smoothing,
            reduction=reduction,
        )
        for reduction in ("none", "mean")
    }
    torch.testing.assert_close(ours, theirs["none"], rtol=1e-4, atol=1e-5)
    # The mean is where the two part: PyTorch divides by the weights of the gold labels.
    by_gold = torch.tensor(weights)[gold].sum()
    torch.testing.assert_close(ours.sum() / by_gold, theirs["mean"], rtol=1e-4, atol=1e-5)


@given(gold=GOLD, shares=SHARES, smoothing=SMOOTHING, weights=WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_soft_labels_give_the_cross_entropy_of_pytorch_mean_included(
    gold, shares, smoothing, weights
):
    shares = shares[: len(gold)]
    assume(all(s is None or s.sum() > 0.01 for s in shares))
    targets, found = target_distribution(
        gold, 3, shares=shares, soft=True, smoothing=smoothing, class_weights=weights
    )
    soft = torch.stack(
        [
            torch.eye(3)[g] if s is None else torch.from_numpy(s / s.sum())
            for g, s in zip(gold, shares, strict=True)
        ]
    )
    logits_NL = some_logits(len(gold))
    theirs = F.cross_entropy(
        logits_NL, soft, weight=torch.tensor(weights), label_smoothing=smoothing
    )
    ours = our_losses(logits_NL, targets, found).sum() / len(gold)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@given(gold=GOLD, shares=SHARES, soft=st.booleans(), smoothing=SMOOTHING, weights=WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_every_target_is_a_distribution_and_every_weight_above_zero(
    gold, shares, soft, smoothing, weights
):
    shares = shares[: len(gold)]
    assume(all(s is None or s.sum() > 0 for s in shares))
    targets, found = target_distribution(
        gold, 3, shares=shares, soft=soft, smoothing=smoothing, class_weights=weights
    )
    assert targets.shape == (len(gold), 3)
    assert targets.dtype == found.dtype == np.float32
    assert (targets >= 0).all()
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
    assert (found > 0).all()


def test_plain_labels_are_one_hot_and_weigh_one():
    targets, weights = target_distribution([2, 0], 3)
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert weights.tolist() == [1, 1]


def test_shares_count_only_where_soft_labels_are_asked_for_and_there_are_several_judgements():
    shares = [(0.25, 0.0, 0.75), None, np.array([], dtype=np.float32)]
    hard, _ = target_distribution([2, 1, 0], 3, shares=shares)
    assert hard.tolist() == np.eye(3)[[2, 1, 0]].tolist()
    soft, weights = target_distribution([2, 1, 0], 3, shares=shares, soft=True)
    assert soft.tolist() == [[0.25, 0, 0.75], [0, 1, 0], [1, 0, 0]]
    assert weights.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5), (0.0, 0.0, 0.0), (-0.5, 0.5, 1.0), (np.nan, 0.5, 0.5), (np.inf, 0, 0)]
)
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ArtifactError, match="3 numbers are wanted"):
        target_distribution([0], 3, shares=[shares], soft=True)


def test_no_examples_have_no_targets():
    targets, weights = target_distribution([], 3, smoothing=0.1)
    assert targets.shape == (0, 3)
    assert weights.shape == (0,)


@given(counts=st.lists(st.integers(1, 10_000), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_balanced_weights_are_those_of_scikit_learn(counts):
    from sklearn.utils.class_weight import compute_class_weight

    gold = np.repeat(np.arange(3), np.minimum(counts, 300))
    found = class_weight_vector("balanced", LABELS, np.bincount(gold, minlength=3))
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=gold)
    np.testing.assert_allclose(found, theirs, rtol=1e-5)


@given(
    counts=st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(any),
    setting=st.one_of(
        st.sampled_from(["none", "balanced"]),
        st.dictionaries(st.sampled_from(LABELS), st.floats(0.01, 100)),
    ),
)
@settings(max_examples=80, deadline=None)
def test_the_training_examples_weigh_one_on_the_average(counts, setting):
    weights = class_weight_vector(setting, LABELS, counts)
    gold = np.repeat(np.arange(3), counts)
    _, found = target_distribution(gold, 3, class_weights=weights)
    assert found.astype(np.float64).mean() == pytest.approx(1, rel=1e-4)


def test_a_label_without_examples_weighs_one_when_balanced():
    np.testing.assert_allclose(
        class_weight_vector("balanced", LABELS, [30, 0, 10]), [40 / 60, 1, 40 / 20], rtol=1e-6
    )


def test_labels_that_are_not_named_weigh_one_before_the_average_is_taken():
    found = class_weight_vector({"neutral": 0.5}, LABELS, [10, 20, 10])
    np.testing.assert_allclose(found, np.array([1, 0.5, 1]) * 40 / 30, rtol=1e-6)


def test_a_weight_for_no_label_of_the_set_is_refused():
    with pytest.raises(
        UsageError, match=r"names 'neutrl', which is not among labels .*did you mean 'neutral'"
    ):
        class_weight_vector({"neutrl": 2.0}, LABELS, [1, 1, 1])
