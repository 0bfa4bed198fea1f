"""What several commands share: options, opening a project, showing a result."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slant.progress import BarProgress, JsonProgress, LineProgress, Progress, SilentProgress
from slant.train.environment import rank

if TYPE_CHECKING:
    from slant.pipeline import StageResult
    from slant.project import Project

__all__ = [
    "ConfigArgument",
    "JsonOption",
    "SetOption",
    "make_progress",
    "open_project",
    "relative",
    "show_result",
]

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="SLANT_YAML", help="The project's configuration.")
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a setting, e.g. tune.lora.rank=32. Repeatable."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Progress and result as JSON, one object a line.")
]


def make_progress(*, as_json: bool) -> Progress:
    """A bar on a terminal, a line every ten seconds elsewhere, JSON if asked for.

    Of several processes that train together only the first one reports.
    """
    if rank() > 0:
        return SilentProgress()
    if as_json:
        return JsonProgress()
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def open_project(config: Path, overrides: Sequence[str], *, as_json: bool) -> Project:
    """The project of a configuration."""
    from slant.project import Project

    return Project(config, overrides=overrides, progress=make_progress(as_json=as_json))


def show_result(result: StageResult, *, as_json: bool) -> None:
    """Say what became of a stage."""
    if rank() > 0:
        return
    if as_json:
        record = {"stage": result.stage, "made": result.made, "seconds": round(result.seconds, 1)}
        typer.echo(json.dumps({**record, "folder": str(result.artifact.path)}))
        return
    state = f"done in {result.seconds:.0f} s" if result.made else "up to date"
    typer.echo(f"{result.stage:<9} {state:<14} {relative(result.artifact.path)}")
    if rejected := result.artifact.facts.get("rejected"):
        where = relative(result.artifact.path / "rejected.parquet")
        typer.echo(f"{'':<9} {rejected} rows set aside, each with its reason: {where}")


def relative(path: Path) -> str:
    """A path as seen from the current folder, where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
