from __future__ import annotations

import numpy as np
import pytest

from slant.evaluate.calibration import Temperatures, fit_temperature, fit_temperatures
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


def test_a_language_of_three_thousand_examples_finds_its_own_temperature() -> None:
    parts = {"en": 1.0, "ru": 2.5, "zh": 0.5}
    made = {lang: simulated(t, 3000, seed) for seed, (lang, t) in enumerate(parts.items())}
    found = fit_temperatures(
        np.concatenate([logits for logits, _ in made.values()]),
        np.concatenate([gold for _, gold in made.values()]),
        [lang for lang in made for _ in range(3000)],
    )
    for lang, temperature in parts.items():
        assert found.by_language[lang] == pytest.approx(temperature, rel=0.08)
    assert found.pooled not in found.by_language.values()


def of_two_languages(num: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """3,000 calibrated examples in ``en``, and some in ``tl`` with logits four times too large."""
    logits, gold = simulated(1.0, 3000)
    more_logits, more_gold = simulated(4.0, num, seed)
    langs = ["en"] * 3000 + ["tl"] * num
    return np.concatenate([logits, more_logits]), np.concatenate([gold, more_gold]), langs


def test_three_examples_leave_a_language_near_the_pooled_temperature() -> None:
    alone, drawn = [], []
    for seed in range(40):
        logits, gold, langs = of_two_languages(3, seed)
        found = fit_temperatures(logits, gold, langs)
        drawn.append(found.by_language["tl"] / found.pooled)
        alone.append(fit_temperature(logits[-3:], gold[-3:]))
    assert min(drawn) > 0.6
    assert max(drawn) < 1.8
    # The control: on their own they say anything.
    assert min(alone) < 0.1
    assert max(alone) > 10


def test_the_more_examples_a_language_has_the_nearer_it_comes_to_its_own_temperature() -> None:
    errors = []
    for num in (3, 30, 300, 3000):
        found = [fit_temperatures(*of_two_languages(num, seed)) for seed in range(5)]
        errors.append(np.mean([abs(np.log(each.by_language["tl"] / 4)) for each in found]))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.8
    assert errors[-1] < 0.05


def test_a_language_whose_examples_say_nothing_has_the_pooled_temperature() -> None:
    logits, gold = simulated(2.0, 500)
    silent = np.zeros((5, 3), np.float32)
    found = fit_temperatures(
        np.concatenate([logits, silent]),
        np.concatenate([gold, np.zeros(5, np.int64)]),
        ["en"] * 500 + ["tl"] * 5,
    )
    assert found.by_language["tl"] == found.pooled


def test_shrinkage_makes_temperatures_of_small_languages_more_right_than_their_own_or_one() -> None:
    """Five times twelve languages around 2, of forty examples each; loss on fresh ones."""
    losses = {"shrunk": 0.0, "own": 0.0, "pooled": 0.0}
    for turn in range(5):
        random = np.random.default_rng(turn)
        true = {f"l{i}": float(2 * np.exp(random.normal(0, 0.25))) for i in range(12)}
        made = {lang: simulated(t, 40, 20 * turn + i) for i, (lang, t) in enumerate(true.items())}
        found = fit_temperatures(
            np.concatenate([logits for logits, _ in made.values()]),
            np.concatenate([gold for _, gold in made.values()]),
            [lang for lang in made for _ in range(40)],
        )
        for i, (lang, temperature) in enumerate(true.items(), 1000):
            fresh = simulated(temperature, 2000, 20 * turn + i)
            losses["shrunk"] += loss(*fresh, found.by_language[lang])
            losses["own"] += loss(*fresh, fit_temperature(*made[lang]))
            losses["pooled"] += loss(*fresh, found.pooled)
    assert losses["shrunk"] < losses["own"]
    assert losses["shrunk"] < losses["pooled"]


def test_documents_of_no_known_language_go_by_the_pooled_temperature() -> None:
    logits, gold = simulated(3.0, 400)
    other_logits, other_gold = simulated(1.0, 400, seed=1)
    langs: list[str | None] = [None, ""] * 200 + ["en"] * 400
    found = fit_temperatures(
        np.concatenate([logits, other_logits]), np.concatenate([gold, other_gold]), langs
    )
    assert set(found.by_language) == {"en"}
    # They have a part in it all the same.
    assert found.pooled > fit_temperature(other_logits, other_gold) * 1.2
    assert found.of([None, "", "de"]).tolist() == [found.pooled] * 3


def test_a_variant_of_a_language_goes_by_its_own_temperature_or_else_by_that_of_the_language() -> (
    None
):
    temperatures = Temperatures(1.5, {"pt": 2.0, "zh-tw": 3.0})
    langs = ["pt", "pt-BR", "zh-TW", "zh", "en", None]
    assert temperatures.of(langs).tolist() == [2.0, 2.0, 3.0, 1.5, 1.5, 1.5]
    assert temperatures.of([]).shape == (0,)


def test_no_temperature_changes_which_label_is_the_most_probable() -> None:
    logits, gold = simulated(3.0, 600)
    langs = [("en", "ru", "tl", None)[i % 4] for i in range(600)]
    found = fit_temperatures(logits, gold, langs)
    assert len(set(found.of(langs).tolist())) == 4
    before = logits.argmax(axis=1)
    after = probabilities(logits, found.of(langs)).argmax(axis=1)
    assert np.array_equal(before, after)


def test_without_examples_no_language_has_a_temperature() -> None:
    found = fit_temperatures(np.empty((0, 3), np.float32), np.empty(0, np.int64), [])
    assert found == Temperatures(1.0, {})
