"""docs/errors.md and the tree at the top of errors.py name every error with its exit code."""

from __future__ import annotations

import inspect
import re

import pytest
from repository import ROOT, section

from slant import errors
from slant.errors import SlantError

PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
CLASSES = {
    name: found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, SlantError)
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_has_a_section_with_its_exit_code(name: str) -> None:
    text = section(PAGE, f"## {name}")
    codes = re.findall(r"exit code (\d+)", text, re.IGNORECASE)
    assert codes == [str(CLASSES[name].exit_code)]
    if name != "SlantError":
        assert "```text\nerror: " in text, "an example is missing"


def test_the_table_lists_exactly_the_errors_with_their_exit_codes() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert {name: int(code) for name, _, code in rows} == {
        name: found.exit_code for name, found in CLASSES.items()
    }
    assert all(anchor == name.lower() for name, anchor, _ in rows)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert errors.__doc__
    above: list[tuple[int, str]] = []
    tree = {}
    for line in errors.__doc__.splitlines():
        if found := re.search(r"(\w+Error)\s+(\d+)\s", line):
            above = [entry for entry in above if entry[0] < found.start(1)]
            tree[found[1]] = (above[-1][1] if above else "Exception", int(found[2]))
            above.append((found.start(1), found[1]))
    assert tree == {
        name: (found.__base__.__name__, found.exit_code) for name, found in CLASSES.items()
    }


def test_every_error_is_public() -> None:
    assert set(CLASSES) <= set(errors.__all__)
