"""ingest.html in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.chromium import Page
from slant.ingest.report_html import render_report
from unit.ingest.sample_ingest_report import sample_ingest_report


@pytest.fixture(scope="module")
def report_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "ingest.html"
    path.write_text(render_report(sample_ingest_report()), "utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_loads_without_an_error_or_a_request(
    page: Page, report_path: Path, scheme: str
) -> None:
    page.open(report_path, 1400, scheme=scheme)
    page.evaluate("document.fonts.ready.then(() => 1)")
    assert page.requests() == [report_path.as_uri()]
    assert page.complaints() == []


@pytest.mark.parametrize("width", [320, 400, 700, 1400])
def test_the_page_never_scrolls_sideways(page: Page, report_path: Path, width: int) -> None:
    page.open(report_path, width)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_unbroken_text_and_long_names_do_not_widen_the_page(page: Page, tmp_path: Path) -> None:
    report = sample_ingest_report()
    long = "x" * 300
    for source in report["sources"]:
        source["file"] += long
    for entry in report["breakdown"]["narrative"]:
        entry["value"] += long
    for sample in report["rejected_samples"]:
        sample.update(file=long, start=long)
    report["duplicates"]["contradictions"][0].update(places=[long, long], narrative=long)
    report["languages"]["disagreements"][0]["samples"][0].update(id=long, start=long)
    report["reasons"][long] = report["notes"][long] = report["cleaning"]["kinds"][long] = 9
    report["warnings"] = [long]
    report["examples"]["train"]["es"]["label" + long] = 40
    path = tmp_path / "wide.html"
    path.write_text(render_report(report), "utf-8")
    page.open(path, 400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_single_row_of_a_million_is_seen(page: Page, tmp_path: Path) -> None:
    report = sample_ingest_report()
    report["sources"] = report["sources"][:1]
    report["sources"][0].update(rows=10**6, kept=10**6 - 1, duplicates=0, rejected=1)
    path = tmp_path / "million.html"
    path.write_text(render_report(report), "utf-8")
    page.open(path, 400)
    assert page.evaluate("document.querySelector('.flows .stack .rejected').offsetWidth") >= 3


def test_a_percentage_is_shown_only_where_it_fits(page: Page, report_path: Path) -> None:
    part = "document.querySelectorAll('.label-mix .stack')[2].lastElementChild.firstElementChild"
    page.open(report_path, 1400)
    assert page.evaluate(f"{part}.textContent") == "8.0\N{NO-BREAK SPACE}%"
    assert page.evaluate(f"{part}.offsetWidth") > 0
    page.open(report_path, 400)
    assert page.evaluate(f"{part}.offsetWidth") == 0
    clipped = (
        "[...document.querySelectorAll('.stack b')]"
        ".filter((b) => b.offsetWidth > b.parentNode.clientWidth).length"
    )
    assert page.evaluate(clipped) == 0


def test_a_click_on_a_column_sorts_the_narratives(page: Page, report_path: Path) -> None:
    page.open(report_path, 1400)
    table = "[...document.querySelectorAll('#content table')].at(-1)"
    first = f"{table}.tBodies[0].rows[0].cells[0].innerText"
    assert page.evaluate(first) == "La transición energética destruye empleo"
    page.evaluate(f"{table}.tHead.rows[0].cells[1].firstChild.click()")
    assert page.evaluate(first) == "The new tram line"


def test_text_that_runs_from_the_right_moves_nothing_around_it(
    page: Page, report_path: Path
) -> None:
    page.open(report_path, 1400)
    start = "[...document.querySelectorAll('.card .start')].at(-1)"
    assert page.evaluate(f"getComputedStyle({start}).direction") == "rtl"
    assert page.evaluate(f"getComputedStyle({start}.parentNode).direction") == "ltr"


def test_all_is_printed(page: Page, report_path: Path) -> None:
    page.open(report_path, 700)
    page.send("Emulation.setEmulatedMedia", media="print")
    table = "document.querySelector('.by-label').closest('.box')"
    assert page.evaluate(f"{table}.scrollHeight - {table}.clientHeight") <= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
