"""report.html in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.chromium import Page
from slant.evaluate.report_html import render_report
from unit.evaluate.sample_report import sample_report


@pytest.fixture(scope="module")
def report_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(sample_report()), "utf-8")
    return path


def test_the_page_loads_without_an_error_or_a_request(page: Page, report_path: Path) -> None:
    page.open(report_path, 1280)
    page.evaluate("document.fonts.ready.then(() => 1)")
    assert page.requests() == [report_path.as_uri()]
    assert page.complaints() == []


@pytest.mark.parametrize("width", [320, 380, 700, 1280])
def test_the_page_never_scrolls_sideways(page: Page, report_path: Path, width: int) -> None:
    page.open(report_path, width)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_unbroken_text_and_long_names_do_not_widen_the_page(page: Page, tmp_path: Path) -> None:
    report = sample_report(labels=("strongly-negative-toward-it", "b", "c", "d", "e", "f"))
    report["mistakes"][0]["text"] = "x" * 600
    report["mistakes"][0]["document_id"] = "i" * 200
    report["task"]["base"] = "models/" + "a" * 120
    for system in report["systems"]:
        system["name"] += "y" * 60
        system["slices"]["narrative"]["z" * 200] = system["slices"]["narrative"].pop(
            "5G damages health"
        )
    path = tmp_path / "wide.html"
    path.write_text(render_report(report), "utf-8")
    page.open(path, 380)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_hostile_text_does_not_run_even_where_it_gets_into_the_page(
    page: Page, report_path: Path, tmp_path: Path
) -> None:
    # Escaping is tested elsewhere; this asks the second wall, the content security policy.
    broken = report_path.read_text("utf-8").replace(
        "</main>", "<script>document.title = 'owned'</script></main>"
    )
    path = tmp_path / "broken.html"
    path.write_text(broken, "utf-8")
    page.open(path, 1280)
    assert page.evaluate("document.title") != "owned"


def test_a_click_on_a_column_sorts_the_table(page: Page, report_path: Path) -> None:
    page.open(report_path, 1280)
    first = "document.querySelector('#slices table').tBodies[0].rows[0].cells[1].innerText"
    button = "document.querySelectorAll('#slices table')[0].tHead.rows[0].cells[1].firstChild"
    assert page.evaluate(first) == "96"
    page.evaluate(f"{button}.click()")
    assert page.evaluate(first) == "few 9"
    assert page.evaluate(f"{button}.parentNode.ariaSort") == "ascending"


def test_the_filters_leave_the_matching_mistakes(page: Page, report_path: Path) -> None:
    page.open(report_path, 1280)
    page.evaluate(
        "(() => { const s = document.querySelector('select[data-key=lang]'); s.value = 'zh';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    shown = "[...document.querySelectorAll('.card')].filter((c) => c.offsetParent)"
    assert page.evaluate(f"{shown}.map((c) => c.dataset.lang).join()") == "zh,zh,zh,zh"
    assert page.evaluate("document.querySelector('output').textContent") == "4 of 18 mistakes"


def test_the_theme_button_overrides_what_the_system_prefers(page: Page, report_path: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page.open(report_path, 1280, scheme="dark")
    page.evaluate("localStorage.clear()")
    page.open(report_path, 1280, scheme="dark")
    dark = page.evaluate(background)
    page.evaluate("document.getElementById('theme').click()")
    assert page.evaluate(background) != dark
    page.open(report_path, 1280, scheme="dark")  # the choice outlives the page
    assert page.evaluate(background) != dark
    page.evaluate("localStorage.clear()")


def test_a_long_text_folds_and_unfolds(page: Page, report_path: Path) -> None:
    page.open(report_path, 380)
    height = "document.querySelector('.card blockquote').clientHeight"
    folded = page.evaluate(height)
    page.evaluate("document.querySelector('.card .unfold').click()")
    assert page.evaluate(height) > folded


def test_the_first_mistakes_are_shown_and_the_rest_on_demand(page: Page, report_path: Path) -> None:
    cards = "[...document.querySelectorAll('.card')]"
    shown = f"{cards}.filter((c) => c.offsetParent).length"
    page.open(report_path, 1280)
    assert page.evaluate(shown) == 12
    page.evaluate("document.getElementById('more').click()")
    assert page.evaluate(shown) == 18
    # The keyboard goes on where the new ones begin.
    assert page.evaluate(f"{cards}.indexOf(document.activeElement)") == 12


def test_all_mistakes_are_printed(page: Page, report_path: Path) -> None:
    page.open(report_path, 700)
    page.send("Emulation.setEmulatedMedia", media="print")
    shown = "[...document.querySelectorAll('.card')].filter((c) => c.offsetParent).length"
    assert page.evaluate(shown) == 18
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
