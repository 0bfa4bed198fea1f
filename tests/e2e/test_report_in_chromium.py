"""report.html in a real browser: Chromium over its DevTools pipe (file descriptors 3 and 4).

The pipe needs no port, no web socket and no package, and it sees what a screenshot does not: errors
on the console, requests, the true width of the page.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import pytest

from slant.evaluate.report_html import render_report
from unit.evaluate.sample_report import sample_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary on this machine")

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-dev-shm-usage --disable-background-networking --disable-component-update "
    "--remote-debugging-pipe"
)
TIMEOUT_S = 60.0


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are neither 3 nor 4, which the shell is about to replace."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


@final
class Page:
    """One tab of a headless Chromium; ``events`` holds all that the browser reported."""

    def __init__(self, profile: Path) -> None:
        commands_read, self._commands = _pipe()
        self._answers, answers_write = _pipe()
        # The shell puts the pipes where Chromium looks for them, and is then replaced by it.
        command = (
            f"exec {shlex.quote(CHROMIUM or '')} {FLAGS} "
            f"--user-data-dir={shlex.quote(str(profile))} about:blank "
            f"3<&{commands_read} 4>&{answers_write}"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(commands_read, answers_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_read)
        os.close(answers_write)
        self._buffer = b""
        self._last_id = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._last_id:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            chunk = os.read(self._answers, 1 << 16) if ready else b""
            assert chunk, "chromium ended or did not answer in time"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int, height: int = 900, scheme: str = "light") -> None:
        """Load a file in a window of ``width`` CSS pixels and wait until it is complete."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media="", features=features)
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        # The debugger is not bound by the page's content security policy; the page's script is.
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write the whole page, not only the window, as PNG."""
        image = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(image["data"]))

    def close(self) -> None:
        """End this browser."""
        os.close(self._commands)  # Chromium leaves when its pipe closes
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


@pytest.fixture(scope="module")
def report_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(sample_report()), "utf-8")
    return path


def test_the_page_loads_without_an_error_or_a_request(page: Page, report_path: Path) -> None:
    page.open(report_path, 1280)
    page.evaluate("document.fonts.ready.then(() => 1)")
    methods = [event["method"] for event in page.events]
    urls = [
        event["params"]["request"]["url"]
        for event in page.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert urls == [report_path.as_uri()]
    assert "Runtime.exceptionThrown" not in methods
    assert "Log.entryAdded" not in methods
    assert "Runtime.consoleAPICalled" not in methods


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
