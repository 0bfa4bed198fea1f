"""docs/dependencies.md has a line for each dependency, and CONTRIBUTING.md the layers."""

from __future__ import annotations

import re
import tomllib

import pytest
from repository import ROOT, section

PAGE = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
GROUPS = {
    "## Needed to run": PYPROJECT["project"]["dependencies"],
    **{
        f"## Extra `{extra}`": needed
        for extra, needed in PYPROJECT["project"]["optional-dependencies"].items()
    },
}


@pytest.mark.parametrize("heading", GROUPS)
def test_every_dependency_has_a_line_that_says_why(heading: str) -> None:
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in GROUPS[heading]]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section(PAGE, heading), re.MULTILINE)
    assert [name for name, _ in rows] == names
    assert all(reason.endswith(".") for _, reason in rows)


def test_the_page_names_no_other_group() -> None:
    assert re.findall(r"^## .*$", PAGE, re.MULTILINE) == list(GROUPS)


def test_contributing_shows_the_layers_that_import_linter_holds() -> None:
    (contract,) = PYPROJECT["tool"]["importlinter"]["contracts"]
    text = section((ROOT / "CONTRIBUTING.md").read_text("utf-8"), "## How the code is laid out")
    assert "```text\n" + "\n".join(contract["layers"]) + "\n```" in text
