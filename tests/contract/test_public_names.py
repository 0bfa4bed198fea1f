"""What ``import slant`` gives, and how little it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import slant

HEAVY = ("torch", "transformers", "peft", "sklearn", "scipy", "pyarrow", "tokenizers", "pydantic")
PROBE = """
import json, sys
{code}
print(json.dumps(sorted(set(sys.modules) & set({heavy}))), file=sys.stderr)
"""
CLI = """
from slant.cli.main import app
try:
    app({arguments}, prog_name="slant")
except SystemExit as end:
    assert not end.code, end.code
"""


def heavy_modules_after(code: str, cwd: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code, heavy=HEAVY)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded: list[str] = json.loads(done.stderr.splitlines()[-1])
    return loaded


def test_the_public_names_are_sorted_and_each_can_be_imported() -> None:
    assert list(slant.__all__) == sorted(slant.__all__)
    assert all(getattr(slant, name) is not None for name in slant.__all__)
    assert dir(slant) == list(slant.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Scorers'"):
        _ = slant.Scorers


def test_importing_slant_loads_no_heavy_library(tmp_path: Path) -> None:
    assert heavy_modules_after("import slant", tmp_path) == []
    assert heavy_modules_after("from slant import Pair, Prediction, SlantError", tmp_path) == []


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["score", "--help"]])
def test_help_loads_no_model_library(arguments: list[str], tmp_path: Path) -> None:
    # typer brings pydantic.
    loaded = heavy_modules_after(CLI.format(arguments=arguments), tmp_path)
    assert set(loaded) <= {"pydantic"}


def test_checking_a_configuration_loads_no_model_library(tmp_path: Path) -> None:
    (tmp_path / "slant.yaml").write_text("ingest: {examples: [{path: a.csv}]}", encoding="utf-8")
    code = CLI.format(arguments=["config", "check", "slant.yaml"])
    assert set(heavy_modules_after(code, tmp_path)) <= {"pydantic"}
