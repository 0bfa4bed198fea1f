"""The section `evaluate`: bounds with a direction, prices, and names that tell systems apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from slant.config.evaluate_settings import DecisionSettings, EvaluateSettings
from slant.config.load import load_settings
from slant.errors import ConfigError

ENDPOINT = {"url": "http://localhost:11434/v1", "model": "gpt-4"}


def evaluate(**fields: Any) -> EvaluateSettings:
    return EvaluateSettings.model_validate(fields)


@pytest.mark.parametrize(
    "bound",
    [
        {"macro_f1": {"min": 0.7}},
        {"macro_f1": {"min": 0.7, "worst_language": 0.6}},
        {"f1_polar": {"worst_language": 0.6}},
        {"mcc": {"min": -0.1}},
        {"auroc": {"min": 0}},
        {"ece": {"max": 0.05}},
        {"brier": {"max": 0.5, "worst_language": 0.7}},
        {"ece": {"worst_language": 0.1}},
    ],
)
def test_a_bound_in_the_direction_of_its_metric_is_accepted(bound: dict[str, Any]) -> None:
    settings = evaluate(gate=bound)
    given = {m: b.model_dump(exclude_none=True) for m, b in settings.gate.items()}
    assert given == bound


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "f1_polar", "mcc", "auroc"])
@pytest.mark.parametrize(
    "bound", [{"max": 0.7}, {"min": 0.5, "max": 0.7}, {"max": 0.7, "worst_language": 0.5}, {}]
)
def test_a_metric_that_should_be_high_takes_min(metric: str, bound: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=rf"gate\.{metric} takes min, worst_language or both"):
        evaluate(gate={metric: bound})


@pytest.mark.parametrize("metric", ["ece", "brier"])
@pytest.mark.parametrize(
    "bound", [{"min": 0.1}, {"min": 0.0, "max": 0.1}, {"min": 0.1, "worst_language": 0.2}, {}]
)
def test_an_error_takes_max(metric: str, bound: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=rf"gate\.{metric} takes max, worst_language or both"):
        evaluate(gate={metric: bound})


def test_a_metric_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError):
        evaluate(gate={"f1": {"min": 0.7}})


@pytest.mark.parametrize("budget", [0.0, 5.0])
def test_a_budget_needs_a_price(budget: float) -> None:
    with pytest.raises(ValidationError, match="budget_usd needs usd_per_million_input"):
        evaluate(endpoints=[{**ENDPOINT, "budget_usd": budget}])
    for price in ("usd_per_million_input", "usd_per_million_output"):
        (endpoint,) = evaluate(endpoints=[{**ENDPOINT, "budget_usd": budget, price: 2.5}]).endpoints
        assert endpoint.budget_usd == budget


@pytest.mark.parametrize("field", ["usd_per_million_input", "usd_per_million_output", "budget_usd"])
def test_no_price_is_below_nothing(field: str) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        evaluate(endpoints=[{**ENDPOINT, "usd_per_million_input": 1.0, field: -0.01}])
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        evaluate(usd_per_hour=-1.0)


@pytest.mark.parametrize(
    "systems",
    [
        {"endpoints": [ENDPOINT, ENDPOINT]},
        {"endpoints": [ENDPOINT, {**ENDPOINT, "model": "other", "name": "gpt-4"}]},
        {"endpoints": [ENDPOINT], "bundles": {"gpt-4": "old"}},
        {"endpoints": [ENDPOINT], "predictions": {"gpt-4": "gpt.csv"}},
        {"bundles": {"gpt-4": "old"}, "predictions": {"gpt-4": "gpt.csv"}},
    ],
)
def test_two_systems_of_one_name_are_refused(systems: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="two systems are called 'gpt-4'"):
        evaluate(**systems)


def test_one_model_may_be_asked_twice_under_two_names() -> None:
    shots = {**ENDPOINT, "name": "gpt-4, with examples", "shots": 3}
    settings = evaluate(endpoints=[ENDPOINT, shots], bundles={"last": "b"}, predictions={"x": "p"})
    assert [e.name or e.model for e in settings.endpoints] == ["gpt-4", "gpt-4, with examples"]


@pytest.mark.parametrize("field", ["max_error", "confidence"])
@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5])
def test_a_promise_of_nothing_or_all_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError):
        DecisionSettings.model_validate({field: value})


def test_decisions_are_made_unless_they_are_left_out() -> None:
    assert evaluate().decisions == DecisionSettings()
    assert evaluate(decisions=None).decisions is None


def test_an_embedding_baseline_can_be_asked_for_and_is_not_by_default() -> None:
    assert "embedding" not in evaluate().baselines
    assert evaluate(baselines=["embedding"]).baselines == ["embedding"]


def test_credentials_in_the_address_of_a_file_are_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        evaluate(predictions={"vendor": "s3://key:hunter2@bucket/file.csv"})
    assert "hunter2" not in str(caught.value.errors(include_input=False))


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ("gate: {ece: {min: 0.1}}", "3: evaluate.gate.ece", "takes max, worst_language or both"),
        ("gate: {macro_f1: {at_least: 0.7}}", "3: evaluate.gate.macro_f1.at_least",
         "is not a known key"),
        ("gate: {macro: {min: 0.7}}", "3: evaluate.gate.macro", "is not a known key"),
        ("bundles: {a: x}\n  predictions: {a: y}", "2: evaluate", "two systems are called 'a'"),
        ("endpoints: [{url: http://u, model: m, budget_usd: 3}]",
         "3: evaluate.endpoints[0].budget_usd", "needs usd_per_million_input"),
        ("endpoints: [{url: http://u}]", "3: evaluate.endpoints[0].model", "is missing"),
        ("endpoints: [{url: u, model: m}]", "3: evaluate.endpoints[0].url", "must begin with http"),
        ("endpoints: [{url: 'http://a:b@h', model: m}]", "3: evaluate.endpoints[0].url",
         "must hold no password"),
        ("decisions: {max_error: 0}", "3: evaluate.decisions.max_error", "at least 0.001"),
        ("decisions: {by: narrative}", "3: evaluate.decisions.by",
         "must be one of language, all"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, place: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("slant.yaml").write_text(f"ingest: {{examples: [{{path: a.csv}}]}}\nevaluate:\n  {line}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(Path("slant.yaml"))
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"slant.yaml:{place}: ")
    assert words in str(problem)
