from __future__ import annotations

from typing import Any

import pytest

from slant.config.evaluate_settings import EvaluateSettings
from slant.evaluate.gates import check_gate, unmet

HIGHER = ("accuracy", "macro_f1", "f1_polar", "mcc", "auroc")
LOWER = ("ece", "brier")


def figure(value: float, has_interval: bool = True) -> dict[str, Any]:
    bounds = (value - 0.05, value + 0.05) if has_interval else (None, None)
    return {"value": value, "low": bounds[0], "high": bounds[1]}


def system(metric: str, overall: Any, **langs: Any) -> dict[str, Any]:
    """A system of the report, as far as a gate looks at it."""
    return {
        "overall": {metric: overall},
        "slices": {"lang": {lang: {metric: found} for lang, found in langs.items()}},
    }


def checked(measured: dict[str, Any], **gate: dict[str, float]) -> list[dict[str, Any]]:
    settings = EvaluateSettings.model_validate({"gate": gate})
    return check_gate(measured, settings.gate)


@pytest.mark.parametrize("metric", HIGHER)
@pytest.mark.parametrize(("value", "met"), [(0.71, True), (0.7, True), (0.69, False)])
def test_most_metrics_must_be_at_least_their_bound(metric: str, value: float, met: bool) -> None:
    assert checked(system(metric, figure(value)), **{metric: {"min": 0.7}}) == [
        {"metric": metric, "where": "overall", "bound": 0.7, "value": value, "met": met}
    ]


@pytest.mark.parametrize("metric", LOWER)
@pytest.mark.parametrize(("value", "met"), [(0.04, True), (0.05, True), (0.06, False)])
def test_errors_must_be_at_most_their_bound(metric: str, value: float, met: bool) -> None:
    assert checked(system(metric, figure(value)), **{metric: {"max": 0.05}}) == [
        {"metric": metric, "where": "overall", "bound": 0.05, "value": value, "met": met}
    ]


def test_a_bound_of_nothing_is_a_bound() -> None:
    (found,) = checked(system("mcc", figure(-0.1)), mcc={"min": 0})
    assert not found["met"]
    (found,) = checked(system("mcc", figure(-0.1)), mcc={"min": -0.2})
    assert found["met"]


def test_every_gate_metric_is_one_of_these() -> None:
    every = {metric: {"min": 0.5} for metric in HIGHER} | {metric: {"max": 0.5} for metric in LOWER}
    assert len(EvaluateSettings.model_validate({"gate": every}).gate) == 7


def test_the_worst_language_is_the_one_with_the_least_value() -> None:
    measured = system("macro_f1", figure(0.8), en=figure(0.9), ru=figure(0.55), tl=figure(0.6))
    assert checked(measured, macro_f1={"min": 0.7, "worst_language": 0.6}) == [
        {"metric": "macro_f1", "where": "overall", "bound": 0.7, "value": 0.8, "met": True},
        {"metric": "macro_f1", "where": "ru", "bound": 0.6, "value": 0.55, "met": False},
    ]


def test_the_worst_language_of_an_error_is_the_one_with_the_largest() -> None:
    measured = system("ece", figure(0.04), en=figure(0.02), ru=figure(0.2), tl=figure(0.06))
    (found,) = checked(measured, ece={"worst_language": 0.1})
    assert (found["where"], found["value"], found["met"]) == ("ru", 0.2, False)
    (found,) = checked(measured, ece={"worst_language": 0.2})
    assert found["met"]


def test_a_language_without_an_interval_is_too_small_to_be_the_worst() -> None:
    measured = system("accuracy", figure(0.8), en=figure(0.9), tl=figure(0.2, has_interval=False))
    (found,) = checked(measured, accuracy={"worst_language": 0.5})
    assert (found["where"], found["value"], found["met"]) == ("en", 0.9, True)


def test_where_no_language_has_an_interval_the_worst_of_all_counts() -> None:
    small = {lang: figure(value, has_interval=False) for lang, value in (("en", 0.9), ("tl", 0.2))}
    (found,) = checked(system("accuracy", figure(0.8), **small), accuracy={"worst_language": 0.5})
    assert (found["where"], found["value"], found["met"]) == ("tl", 0.2, False)


@pytest.mark.parametrize(
    ("metric", "bound"),
    [("auroc", {"min": 0.0, "worst_language": 0.0}), ("ece", {"max": 1.0, "worst_language": 1.0})],
)
def test_a_metric_that_was_not_measured_does_not_meet_its_bound(
    metric: str, bound: dict[str, float]
) -> None:
    found = checked(system(metric, None, en=None, ru=None), **{metric: bound})
    assert [(one["where"], one["value"], one["met"]) for one in found] == [
        ("overall", None, False),
        ("every language", None, False),
    ]


def test_a_language_in_which_a_metric_is_not_measured_is_no_worst_one() -> None:
    measured = system("auroc", figure(0.8), en=figure(0.7), zh=None)
    (found,) = checked(measured, auroc={"worst_language": 0.6})
    assert (found["where"], found["met"]) == ("en", True)


def test_nothing_is_checked_without_a_gate() -> None:
    assert checked(system("accuracy", figure(0.1))) == []


def test_bounds_that_are_not_met_are_sentences_and_the_others_are_not() -> None:
    def check(metric: str, where: str, bound: float, value: float | None, met: bool) -> Any:
        return {"metric": metric, "where": where, "bound": bound, "value": value, "met": met}

    assert unmet(
        [
            check("accuracy", "overall", 0.7, 0.71234, True),
            check("macro_f1", "overall", 0.6, 0.59004, False),
            check("macro_f1", "tl", 0.5, 0.41, False),
            check("ece", "overall", 0.05, 0.0812, False),
            check("brier", "ru", 0.4, 0.5, False),
            check("auroc", "overall", 0.8, None, False),
            check("auroc", "every language", 0.75, None, False),
        ]
    ) == [
        "macro_f1 is 0.5900, the gate asks for at least 0.6",
        "macro_f1 in tl is 0.4100, the gate asks for at least 0.5",
        "ece is 0.0812, the gate asks for at most 0.05",
        "brier in ru is 0.5000, the gate asks for at most 0.4",
        "auroc is not measured, the gate asks for at least 0.8",
        "auroc in every language is not measured, the gate asks for at least 0.75",
    ]
