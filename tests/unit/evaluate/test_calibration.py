from __future__ import annotations

import numpy as np
import pytest

from slant.evaluate.calibration import fit_temperature
from slant.evaluate.metrics import reliability
from slant.score.decision import probabilities


def simulated(temperature: float, num: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``temperature`` times too large, and labels drawn from the true shares."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (num, 3)).astype(np.float32)
    true = probabilities(logits, 1.0)
    gold = (random.random((num, 1)) > true.cumsum(axis=1)).sum(axis=1)
    return logits * np.float32(temperature), np.minimum(gold, 2).astype(np.int64)


def loss(logits: np.ndarray, gold: np.ndarray, temperature: float) -> float:
    """Negative log-likelihood, exact for logits of any size."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    log_shares = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return float(-log_shares[np.arange(len(gold)), gold].mean())


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    logits, gold = simulated(temperature)
    assert fit_temperature(logits, gold) == pytest.approx(temperature, rel=0.06)


def test_calibration_brings_confidence_to_accuracy() -> None:
    logits, gold = simulated(4.0)
    before = reliability(probabilities(logits, 1.0), gold).ece
    fitted = fit_temperature(logits, gold)
    held_logits, held_gold = simulated(4.0, seed=1)
    after = reliability(probabilities(held_logits, fitted), held_gold).ece
    assert before > 0.15
    assert after < 0.03


@pytest.mark.parametrize("scale", [0.01, 1, 30, 300])
@pytest.mark.parametrize("seed", range(6))
def test_the_likelihood_of_its_own_data_is_never_worse_than_without(
    seed: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(1, 40))
    logits = (random.normal(0, scale, (size, 3))).astype(np.float32)
    gold = random.integers(0, 3, size)
    fitted = fit_temperature(logits, gold)
    assert loss(logits, gold, fitted) <= loss(logits, gold, 1.0) + 1e-9


@pytest.mark.parametrize("size", [30.0, 100.0, 400.0])
def test_very_confident_wrong_answers_are_not_written_off(size: float) -> None:
    """Right in 70 of 100 and certain of all: only a high temperature tells the truth."""
    gold = np.zeros(100, np.int64)
    logits = np.zeros((100, 3), np.float32)
    logits[:70, 0] = size
    logits[70:, 1] = size
    best = min(loss(logits, gold, t) for t in np.geomspace(0.05, 20, 400))
    assert loss(logits, gold, fit_temperature(logits, gold)) == pytest.approx(best, rel=1e-3)


def test_a_model_that_is_always_right_gets_a_very_low_temperature() -> None:
    logits = np.eye(3, dtype=np.float32) * 2
    assert 0.05 <= fit_temperature(logits, np.arange(3)) < 0.07


def test_a_model_that_is_always_wrong_gets_the_highest_temperature() -> None:
    logits = np.eye(3, dtype=np.float32) * 5
    assert fit_temperature(logits, np.array([1, 2, 0])) == pytest.approx(20, rel=0.01)


def test_without_examples_the_temperature_is_one() -> None:
    assert fit_temperature(np.empty((0, 3), np.float32), np.empty(0, np.int64)) == 1.0


def test_logits_that_say_nothing_leave_the_temperature_at_one() -> None:
    assert fit_temperature(np.zeros((5, 3), np.float32), np.array([0, 1, 2, 0, 1])) == 1.0
