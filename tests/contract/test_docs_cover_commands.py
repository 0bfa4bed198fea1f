"""docs/commands.md describes every command with every option."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from repository import ROOT, section

from slant.cli.main import app

PAGE = (ROOT / "docs" / "commands.md").read_text("utf-8")


def commands(command: Any = None, name: str = "slant") -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(app)
    yield name, command
    for child, found in getattr(command, "commands", {}).items():
        yield from commands(found, f"{name} {child}")


COMMANDS = dict(commands())


def heading(name: str) -> str:
    words = len(name.split())
    return "## Options of every command" if words == 1 else "#" * words + " " + name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_all_of_its_options(name: str) -> None:
    text = section(PAGE, heading(name))
    for param in COMMANDS[name].params:
        if param.param_type_name == "option":
            missing = [option for option in param.opts if f"`{option}" not in text]
            # Help is described once, for all.
            assert not missing or param.name == "help", (name, missing)
        else:
            assert f"`{param.metavar or param.name}`" in text, (name, param.name)


@pytest.mark.parametrize("name", [name for name in COMMANDS if " " in name])
def test_every_command_has_its_help_text_and_an_example(name: str) -> None:
    text = section(PAGE, heading(name))
    help_text = COMMANDS[name].help
    assert help_text in " ".join(text.replace("`", "").split()), name
    is_group = hasattr(COMMANDS[name], "commands")
    assert is_group or f"\n{name}" in text, name


def test_no_section_describes_a_command_that_does_not_exist() -> None:
    found = [line.strip("# ") for line in PAGE.splitlines() if line.startswith(("## ", "### "))]
    assert [name for name in found if name.startswith("slant")] == [
        name for name in COMMANDS if " " in name
    ]


def test_every_exit_code_is_described() -> None:
    text = section(PAGE, "## Exit codes")
    assert [code for code in (0, 1, 2, 3, 130) if f"| {code} |" not in text] == []
