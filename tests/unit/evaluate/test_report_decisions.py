"""Decisions in words, tables and curves."""

from __future__ import annotations

from typing import Any

import pytest

from parsed_page import Page
from slant.evaluate.report_decisions import (
    accepted_tile,
    curves,
    decision_sentences,
    group_rows,
)
from slant.evaluate.report_html import render_report
from slant.page.languages import language
from unit.evaluate.sample_report import LANGUAGES, sample_report


@pytest.fixture
def report() -> dict[str, Any]:
    return sample_report()


@pytest.fixture
def decisions(report: dict[str, Any]) -> dict[str, Any]:
    return report["decisions"]


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def words(decisions: dict[str, Any]) -> str:
    return plain(" ".join(decision_sentences(decisions)))


def close(decisions: dict[str, Any]) -> None:
    """Nothing is accepted anywhere."""
    for group in (*decisions["groups"], decisions["pooled"]):
        group.update(threshold=None, reason="too few answers are confident enough")
        group["test"].update(accepted=0, wrong=0, error=None)
    decisions["test"].update(accepted=0, wrong=0, error=None)
    decisions["review_usd_per_1000"] = 250.0


def test_the_sentence_says_what_to_do_what_it_risks_and_what_it_costs(
    decisions: dict[str, Any],
) -> None:
    decisions["test"].update(count=1000, accepted=710, wrong=56)
    decisions["test"]["error"] = {"value": 0.0789, "low": 0.066, "high": 0.093}
    decisions["review_usd_per_1000"] = 72.5
    assert words(decisions) == (
        "Accept 71 % of the answers without a look: with 95 % confidence at most 10 % of those are "
        "wrong, in each group of languages by itself; on the test split 7.9 % [6.6, 9.3] were. "
        "The rest, 29 %, goes to people: $72.50 per 1,000 answers instead of $250 for all. "
        "Nothing is accepted in Tagalog."
    )


def test_what_is_counted_of_large_documents_is_said_where_the_promise_is(
    report: dict[str, Any], decisions: dict[str, Any]
) -> None:
    decisions["counted"] = "counting every document once"
    said = "by itself, counting every document once; on the test split"
    assert said in words(decisions)
    close(decisions)
    assert "what it accepts is wrong, counting every document once." in words(decisions)


def test_one_threshold_for_all_languages_is_promised_as_a_whole(decisions: dict[str, Any]) -> None:
    decisions.update(by="all", groups=[decisions["pooled"]])
    assert "by itself" not in words(decisions)
    assert "Nothing is accepted" not in words(decisions)
    (row,) = group_rows(decisions)
    assert row.name == "all languages"
    assert len(curves({**sample_report(), "decisions": decisions})[0].points) == 1


def test_where_no_threshold_keeps_the_promise_the_page_says_so_and_why(
    report: dict[str, Any], decisions: dict[str, Any]
) -> None:
    close(decisions)
    text = Page(render_report(report)).text
    assert (
        "Nothing can be accepted without a look: no threshold shows with 95 % confidence that at "
        "most 10 % of what it accepts is wrong." in text
    )
    assert "Spanish: too few answers are confident enough; Russian:" in text
    assert "Everything goes to people: $250 per 1,000 answers." in text
    assert plain(" ".join(accepted_tile(decisions))) == (
        "Accepted without a look 0 % no threshold keeps the error at 10 %"
    )
    assert all(not chart.points for chart in curves(report))


def test_without_decisions_their_section_is_left_out(report: dict[str, Any]) -> None:
    report["decisions"] = None
    page = Page(render_report(report))
    assert page.problems == []
    assert "accepted" not in page.text.lower()
    assert "#decisions" not in {a["href"] for a in page.all("a")}


@pytest.mark.parametrize(
    ("low", "says"), [(0.11, "more than chance explains"), (0.08, "it may be chance")]
)
def test_an_error_above_the_promise_is_not_passed_over(
    decisions: dict[str, Any], low: float, says: str
) -> None:
    decisions["test"]["error"].update(value=0.12, low=low, high=0.14)
    assert says in words(decisions)
    assert group_rows(decisions)[-2].is_above


def test_everything_can_be_accepted(decisions: dict[str, Any]) -> None:
    decisions["groups"] = decisions["groups"][:3]
    decisions["test"].update(count=10, accepted=10)
    decisions["review_usd_per_1000"] = 0.0
    assert "Accept 100 % of the answers" in words(decisions)
    assert "Nothing is left for people." in words(decisions)


def test_a_share_is_not_rounded_to_nothing_or_to_all(decisions: dict[str, Any]) -> None:
    decisions["test"].update(count=1000, accepted=4)
    assert plain(accepted_tile(decisions)[1]) == "0.4 %"
    decisions["test"].update(accepted=998)
    assert plain(accepted_tile(decisions)[1]) == "99.8 %"


def test_every_group_has_its_row_and_the_pooled_threshold_is_for_comparison(
    decisions: dict[str, Any],
) -> None:
    rows = group_rows(decisions)
    assert [row.kind for row in rows] == [*["group"] * 5, "total", "pooled"]
    tagalog, others = rows[3], rows[4]
    assert tagalog.reason == "too many of the most confident answers are wrong"
    assert tagalog.calibration == "43 of 101, 5 wrong"
    assert (others.name, others.languages) == ("all other languages", "English, Catalan")


def test_the_curves_mark_what_is_allowed_and_what_was_accepted(report: dict[str, Any]) -> None:
    everything, *languages = curves(report)
    assert everything.name == "All languages"
    # Six Catalan answers make no curve; Tagalog has one, but nothing is accepted on it.
    assert [chart.name for chart in languages] == [language(code) for code in list(LANGUAGES)[:5]]
    assert [len(chart.points) for chart in languages] == [1, 1, 1, 0, 1]
    x, y, _, what = everything.points[0]
    test = report["decisions"]["test"]
    assert x == pytest.approx(100 * test["accepted"] / test["count"], abs=0.01)
    assert y == pytest.approx(100 - 100 * test["error"]["value"] / everything.top, abs=0.01)
    assert plain(what) == "accepted: 50 %, 7.1 % wrong"
    assert everything.limit == pytest.approx(100 - 100 * 0.1 / everything.top, abs=0.01)


def test_a_language_among_others_is_marked_where_their_threshold_lies(
    report: dict[str, Any],
) -> None:
    english = curves(report)[5]
    threshold = report["decisions"]["groups"][-1]["threshold"]
    reached = [point for point in report["decisions"]["curve"]["en"] if point[2] >= threshold]
    assert english.points[0][0] == pytest.approx(100 * reached[-1][0], abs=0.01)
