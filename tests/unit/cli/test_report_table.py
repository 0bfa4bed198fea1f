"""The report as the terminal shows it."""

from __future__ import annotations

import pytest

from slant.cli.table import points, print_report
from unit.evaluate.sample_report import sample_report


def shown(report: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    print_report(report)
    return " ".join(capsys.readouterr().out.split())


def test_the_terminal_shows_systems_comparisons_decisions_and_the_gate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown(sample_report(), capsys)
    assert "│ gpt-4 │ 67.8 % [65–70] │ 65.8 % [63–68] │ +13.2 [+10, +16] │" in text
    assert "against gpt-4: better overall and in es, ru, zh, tl; no evidence" in text
    assert "gpt-4.1 was not asked to the end" in text
    assert "cost of 1,000 answers: Tuned model $0.014, gpt-4 $10.42" in text
    assert "decisions: Accept 50 % of the answers without a look" in text
    assert "│ macro_f1 │ tl │ at least 0.7 │ 0.6800 │ ✗ not met │" in text


def test_what_was_not_asked_for_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    report = sample_report()
    report.update(decisions=None, gate=[], unfinished=[], comparisons=[])
    report["systems"] = report["systems"][:1]
    report["systems"][0]["cost"] = None
    text = shown(report, capsys)
    assert not any(word in text for word in ("decisions", "gate", "against", "cost"))


def test_square_brackets_in_a_name_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    report = sample_report()
    report["systems"][1]["name"] = "gpt [/red] [bold]"
    report["comparisons"][0]["sentence"] = "better in [/blue]"
    text = shown(report, capsys)
    assert "gpt [/red] [bold] │ 67.8 %" in text
    assert "against gpt [/red] [bold]: better in [/blue]" in text


def test_a_difference_without_bounds_is_shown_alone() -> None:
    assert points({"value": 0.132, "low": None, "high": None}) == "+13.2"
