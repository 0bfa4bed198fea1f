from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from slant.train.interfaces import SCORE
from slant.train.validation import validation_metrics


def test_the_figures_are_those_of_scikit_learn_overall_and_per_language() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(200, 3)).astype(np.float32)
    gold = rng.integers(0, 3, 200)
    langs = np.array(["en", "ru", "tl", "zh"])[rng.integers(0, 4, 200)]
    found = validation_metrics(logits, gold, langs)
    predicted = logits.argmax(axis=1)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["validation_loss"] == pytest.approx(log_loss(gold, shares), rel=1e-5)
    assert found[SCORE] == pytest.approx(f1_score(gold, predicted, average="macro"))
    for lang in ("en", "ru", "tl", "zh"):
        of = langs == lang
        expected = f1_score(gold[of], predicted[of], average="macro")
        assert found[f"{SCORE}/{lang}"] == pytest.approx(expected)


def test_a_label_that_never_occurs_counts_overall_and_not_within_a_language() -> None:
    logits = np.array([[9.0, 0, 0], [0, 9.0, 0]], dtype=np.float32)
    found = validation_metrics(logits, np.array([0, 1]), np.array(["en", "ru"]))
    assert found[SCORE] == pytest.approx(2 / 3)
    assert found[f"{SCORE}/en"] == found[f"{SCORE}/ru"] == 1.0
