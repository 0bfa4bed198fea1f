"""What the tests of pages in a real browser share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.chromium import CHROMIUM, Page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no chromium binary on this machine")
    page = Page(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()
