"""Where dots and bars of report.html lie, and how figures are written."""

from __future__ import annotations

from itertools import pairwise

import pytest

from slant.evaluate import report_words as words
from slant.evaluate.report_charts import by_numbers, slice_rows
from slant.evaluate.report_plots import cost_plot, month_plot
from unit.evaluate.sample_report import sample_report


def test_ten_times_the_cost_is_as_far_anywhere_on_the_axis() -> None:
    report = sample_report()
    for system, price in zip(report["systems"], (0.01, 1.0, 0.1, 10.0, None), strict=True):
        system["cost"] = price and {"usd": price, "usd_per_1000": price, "basis": ""}
    plot = cost_plot(report)
    assert plot is not None
    places = sorted(dot.x for dot in plot.dots)
    steps = [right - left for left, right in pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.02)
    assert [text for _, text in plot.ticks] == ["$0.01", "$0.1", "$1", "$10"]
    assert [x for x, _ in plot.ticks] == pytest.approx(places, abs=0.02)


def test_labels_of_close_dots_do_not_cover_each_other() -> None:
    report = sample_report()
    for system in report["systems"]:
        system["cost"] = {"usd": 1.0, "usd_per_1000": 1.0, "basis": ""}
        system["overall"]["macro_f1"] = {"value": 0.7, "low": 0.6, "high": 0.8}
    plot = cost_plot(report)
    assert plot is not None
    heights = sorted(dot.label_y for dot in plot.dots)
    assert all(lower - upper >= 7 for upper, lower in pairwise(heights))


def test_a_long_name_is_shortened_in_the_drawing() -> None:
    report = sample_report()
    report["systems"][1]["name"] = "a very long name of a model, dated 2025-04-14"
    plot = cost_plot(report)
    assert plot is not None
    assert "a very long name of a…" in {dot.label for dot in plot.dots}


def test_months_are_drawn_from_three_on_and_unknown_ones_are_not() -> None:
    report = sample_report()
    plot = month_plot(report)
    assert plot is not None
    assert len(plot.dots) == 2 * 6  # of the tuned model and of the one behind the endpoint
    assert plot.ticks[0][1] == "2025-05"
    assert "unknown" not in plot.summary
    for system in report["systems"]:
        months = system["slices"]["month"]
        system["slices"]["month"] = {key: months[key] for key in ("2025-05", "2025-06", "unknown")}
    assert month_plot(report) is None


def test_ten_years_of_months_have_room() -> None:
    report = sample_report()
    for system in report["systems"]:
        one = system["slices"]["month"]["2025-05"]
        system["slices"]["month"] = {
            f"{year}-{month:02}": one for year in range(2016, 2026) for month in range(1, 13)
        }
    plot = month_plot(report)
    assert plot is not None
    assert len(plot.ticks) <= 6
    assert all(0 <= dot.x <= 100 for dot in plot.dots)


def test_lengths_are_in_the_order_of_their_numbers() -> None:
    systems = sample_report()["systems"]
    for system in systems:
        system["slices"]["length"] = dict(sorted(system["slices"]["length"].items()))
    rows = slice_rows(systems, "length", str, by_numbers)
    assert [row.name for row in rows] == [
        "under 140",
        "140 to 499",
        "500 to 1,999",
        "2,000 and more",
    ]


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0"),
        (0.00000042, "$0.00000042"),
        (0.0006, "$0.00060"),
        (0.0136, "$0.014"),
        (0.25, "$0.25"),
        (10.42, "$10.42"),
        (125.8, "$126"),
        (1240, "$1,240"),
    ],
)
def test_money_has_the_digits_that_say_something(usd: float, text: str) -> None:
    assert words.money(usd) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0, "<0.001"), (0.0312, "0.031"), (1.0, "1.000")]
)
def test_a_small_p_value_is_not_nought(value: float | None, text: str) -> None:
    assert words.probability(value) == text
