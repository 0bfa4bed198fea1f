"""The changelog begins with what the package is."""

from __future__ import annotations

import re

from repository import ROOT

from slant.version import __version__

HEADINGS = re.findall(
    r"^## \[?([^\]\s]+)\]?", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
)


def test_the_top_version_is_that_of_the_package_or_unreleased() -> None:
    assert HEADINGS
    assert HEADINGS[0] in ("Unreleased", __version__)


def test_no_version_is_listed_twice() -> None:
    assert len(set(HEADINGS)) == len(HEADINGS)
