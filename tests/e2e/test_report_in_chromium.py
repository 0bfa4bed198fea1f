"""report.html in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.chromium import Page
from slant.evaluate.report_html import render_report
from unit.evaluate.sample_report import sample_report

# The least contrast of a text with the page or the panel behind it.
CONTRAST = """(() => {
  const channels = (color) => {
    const context = document.createElement('canvas').getContext('2d');
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((c) => c / 255);
  };
  const luminance = (color) => channels(color)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let e = node; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!color.endsWith(', 0)') && color !== 'transparent') return color;
    }
    return 'white';
  };
  const seen = new Map();
  for (const e of document.querySelectorAll('main *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility() || e.closest('svg')) continue;
    const pair = [getComputedStyle(e).color, behind(e)];
    if (!seen.has(pair.join())) {
      const [a, b] = pair.map(luminance).sort((x, y) => y - x);
      seen.set(pair.join(), (a + 0.05) / (b + 0.05));
    }
  }
  return Math.min(...seen.values());
})()"""


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
        narratives = system["slices"]["narrative"]
        narratives["z" * 200] = narratives.pop("5G damages health")
    report["comparisons"][0]["sentence"] = report["unfinished"][0]["reason"] = "s" * 200
    report["mistakes"][1]["narrative"] = "n" * 200
    report["decisions"]["groups"][3]["reason"] = "r" * 200
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
    assert page.evaluate(first) == "520"
    page.evaluate(f"{button}.click()")
    assert page.evaluate(first) == "few 9"
    assert page.evaluate(f"{button}.parentNode.ariaSort") == "ascending"


SHOWN = "[...document.querySelectorAll('.card')].filter((c) => c.offsetParent)"
TOLD = "document.querySelector('output').textContent"


def choose(page: Page, key: str, value: str) -> None:
    page.evaluate(
        f"(() => {{ const s = document.querySelector('select[data-key={key}]');"
        f" s.value = {value!r}; s.dispatchEvent(new Event('change')); }})()"
    )


def press(page: Page, key: str, code: int) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)


def test_the_filters_leave_the_matching_mistakes(page: Page, report_path: Path) -> None:
    page.open(report_path, 1280)
    choose(page, "lang", "zh")
    assert page.evaluate(f"{SHOWN}.map((c) => c.dataset.lang).join()") == "zh,zh,zh,zh"
    assert page.evaluate(TOLD) == "4 of 18 mistakes"
    choose(page, "predicted", "positive")
    assert page.evaluate(f"{SHOWN}.map((c) => c.dataset.predicted).join()") == "positive"
    choose(page, "gold", "positive")
    assert page.evaluate("document.querySelector('.none').offsetParent !== null")
    page.evaluate("document.querySelector('.clear').click()")
    assert page.evaluate(TOLD) == "18 of 18 mistakes"
    assert page.evaluate("document.activeElement.dataset.key") == "lang"


@pytest.mark.parametrize(
    ("narrative", "count"), [("(overall sentiment)", 3), ("外国势力操纵抗议活动", 3)]
)
def test_mistakes_are_filtered_by_narrative(
    page: Page, report_path: Path, narrative: str, count: int
) -> None:
    page.open(report_path, 1280)
    choose(page, "narrative", narrative)
    assert page.evaluate(TOLD) == f"{count} of 18 mistakes"
    told = page.evaluate(f"{SHOWN}.map((c) => c.querySelector('.narrative').innerText).join('|')")
    expected = "overall sentiment" if narrative.startswith("(") else f"toward {narrative}"
    assert set(told.split("|")) == {expected}


def test_the_least_confidence_moves_by_the_keyboard(page: Page, report_path: Path) -> None:
    page.open(report_path, 1280)
    page.evaluate("document.querySelector('.filters input').focus()")
    press(page, "End", 35)
    assert page.evaluate(TOLD) == "1 of 18 mistakes"
    assert page.evaluate("document.querySelector('.least').textContent") == "98\N{NO-BREAK SPACE}%"
    assert page.evaluate("document.querySelector('.filters input').ariaValueText") == "98 percent"
    press(page, "ArrowLeft", 37)
    press(page, "ArrowLeft", 37)
    assert page.evaluate(TOLD) == "2 of 18 mistakes"
    press(page, "Home", 36)
    assert page.evaluate(TOLD) == "18 of 18 mistakes"


def test_what_is_folded_away_opens_by_the_keyboard(page: Page, report_path: Path) -> None:
    page.open(report_path, 1280)
    page.evaluate("document.querySelector('#labels summary').focus()")
    table = "document.querySelector('#labels details table')"
    assert not page.evaluate(f"{table}.checkVisibility()")
    page.send("Input.dispatchKeyEvent", type="char", text=" ", key=" ", windowsVirtualKeyCode=32)
    press(page, " ", 32)
    assert page.evaluate(f"{table}.checkVisibility()")


def test_four_hundred_mistakes_are_filtered_in_no_time(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "many.html"
    path.write_text(render_report(sample_report(num_mistakes=400)), "utf-8")
    page.open(path, 1280)
    assert page.evaluate(f"{SHOWN}.length") == 12
    took_ms = page.evaluate(
        "(() => { const r = document.querySelector('.filters input'); const t = performance.now();"
        " for (let i = 0; i < 20; i += 1) { r.value = 40 + i; r.dispatchEvent(new Event('input'));"
        " document.body.offsetHeight; } return (performance.now() - t) / 20; })()"
    )
    assert took_ms < 250
    page.evaluate("document.querySelector('.clear').click()")
    # Paper takes some, and says how many.
    page.send("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate(f"{SHOWN}.length") == 48
    assert page.evaluate("document.querySelector('.on-paper').innerText") == "Printed: 48 of 400."


def test_without_its_script_everything_is_there_to_read(page: Page, report_path: Path) -> None:
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(report_path, 700)
        assert page.evaluate(f"{SHOWN}.length") == 18
        assert page.evaluate("document.querySelector('.filters').offsetParent === null")
        assert page.evaluate("document.querySelector('#more').offsetParent === null")
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(
    page: Page, report_path: Path, scheme: str
) -> None:
    page.open(report_path, 1280, scheme=scheme)
    # WCAG 2.2, 1.4.3: at least 4.5 to 1 for small text.
    assert page.evaluate(CONTRAST) >= 4.5


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
