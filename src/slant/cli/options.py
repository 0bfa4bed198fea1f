"""What several commands share: options, opening a project, showing a result."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slant.progress import (
    BarProgress,
    JsonProgress,
    LineProgress,
    Progress,
    SilentProgress,
    format_bytes,
)
from slant.train.environment import rank

if TYPE_CHECKING:
    from slant.pipeline import StageResult
    from slant.project import Project
    from slant.publish.release import Published

__all__ = [
    "ConfigArgument",
    "JsonOption",
    "SetOption",
    "describe_published",
    "make_progress",
    "open_project",
    "published_line",
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
        if result.published is not None:
            typer.echo(json.dumps(describe_published(result.published), ensure_ascii=False))
        return
    state = f"done in {result.seconds:.0f} s" if result.made else "up to date"
    typer.echo(f"{result.stage:<9} {state:<14} {relative(result.artifact.path)}")
    if rejected := result.artifact.facts.get("rejected"):
        where = relative(result.artifact.path / "rejected.parquet")
        typer.echo(f"{'':<9} {rejected} rows set aside, each with its reason: {where}")
    if result.published is not None:
        typer.echo(published_line(result.published))


def describe_published(published: Published, *, dry_run: bool = False) -> dict[str, Any]:
    """What became of a release, for ``--json``."""
    return {
        "version": published.version,
        "url": published.url,
        "dry_run": dry_run,
        "was_there": published.was_there,
        "sent_bytes": published.sent_bytes,
        "kept_bytes": published.kept_bytes,
        "files": [vars(file) for file in published.files],
    }


def published_line(published: Published, *, dry_run: bool = False) -> str:
    """The same, for a person."""
    sent = format_bytes(published.sent_bytes)
    state = f"would send {sent}" if dry_run else f"sent {sent}"
    if published.was_there:
        state = "is there"
    return f"{'publish':<9} {state:<14} {published.url}"


def relative(path: Path) -> str:
    """A path as seen from the current folder, where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
