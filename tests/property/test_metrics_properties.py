from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from slant.evaluate.metrics import (
    Resamples,
    accuracy,
    brier,
    confusion,
    f1_per_label,
    macro_f1,
    reliability,
)

FEW = settings(max_examples=40, deadline=None)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    num_labels = draw(st.integers(2, 5))
    label = st.integers(0, num_labels - 1)
    rows = draw(st.lists(st.tuples(label, label), min_size=1, max_size=60))
    gold, predicted = np.array(rows, dtype=np.int64).T
    return gold, predicted, num_labels


@st.composite
def beliefs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    seed, size, num_labels = draw(
        st.tuples(st.integers(0, 2**31), st.integers(1, 80), st.integers(2, 5))
    )
    random = np.random.default_rng(seed)
    sharpness = draw(st.sampled_from([0.05, 0.5, 1.0, 20.0]))
    probabilities = random.dirichlet([sharpness] * num_labels, size=size)
    return probabilities, random.integers(0, num_labels, size)


@FEW
@given(answers())
def test_figures_are_those_of_scikit_learn(found: tuple[np.ndarray, np.ndarray, int]) -> None:
    gold, predicted, num_labels = found
    labels = list(range(num_labels))
    matrix = confusion(gold, predicted, num_labels)
    assert np.array_equal(matrix, confusion_matrix(gold, predicted, labels=labels))
    assert accuracy(matrix) == pytest.approx(accuracy_score(gold, predicted))
    each = f1_score(gold, predicted, labels=labels, average=None, zero_division=0)
    assert f1_per_label(matrix) == pytest.approx(each)
    mean = f1_score(gold, predicted, labels=labels, average="macro", zero_division=0)
    assert macro_f1(matrix) == pytest.approx(mean)


@FEW
@given(beliefs())
def test_brier_and_ece_are_those_of_a_plain_loop(found: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, gold = found
    distances = []
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities, gold, strict=True):
        distances.append(sum((p - (i == label)) ** 2 for i, p in enumerate(row)))
        number = min(9, int(max(row) * 10))
        bins.setdefault(number, []).append((max(row), int(np.argmax(row)) == label))
    assert brier(probabilities, gold) == pytest.approx(np.mean(distances))
    ece = sum(
        len(members)
        / len(gold)
        * abs(np.mean([c for c, _ in members]) - np.mean([r for _, r in members]))
        for members in bins.values()
    )
    result = reliability(probabilities, gold)
    assert result.ece == pytest.approx(ece)
    assert result.counts.sum() == len(gold)
    assert 0 <= result.ece <= 1


@FEW
@given(answers(), st.integers(0, 1000), st.data())
def test_resamples_do_not_depend_on_how_documents_are_numbered(
    found: tuple[np.ndarray, np.ndarray, int], seed: int, data: st.DataObject
) -> None:
    gold, predicted, num_labels = found
    document = np.array(
        data.draw(st.lists(st.integers(0, 9), min_size=len(gold), max_size=len(gold)))
    )
    plain = Resamples(document, 30, seed).confusions(gold, predicted, num_labels)
    renumbered = Resamples(document * 1000 - 7, 30, seed).confusions(gold, predicted, num_labels)
    assert np.array_equal(plain, renumbered)
    assert (plain >= 0).all()
    # What never happened is never drawn.
    never = confusion(gold, predicted, num_labels) == 0
    assert not plain[:, never].any()
