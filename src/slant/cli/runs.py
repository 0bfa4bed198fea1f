"""``slant run`` and a command for each stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from slant.cli.options import ConfigArgument, JsonOption, SetOption, make_progress
from slant.errors import GateError

if TYPE_CHECKING:
    from slant.pipeline import StageResult
    from slant.project import Project

__all__ = ["add_to"]

_STAGES = {
    "ingest": "Read documents and examples, check them, split them.",
    "shard": "Encode the corpus into MDS shards.",
    "adapt": "Adapt the base model to the unlabelled documents.",
    "tune": "Fine-tune on the labelled examples.",
    "evaluate": "Measure the tuned model against its baselines; write the report.",
    "export": "Write the bundle, with the proof that it is what was trained.",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands, in the order in which they are used."""
    app.command("run", help="Run every stage whose inputs changed, then show the report.")(_run_all)
    for stage, text in _STAGES.items():
        app.command(stage, help=text)(_stage_command(stage))


def _run_all(
    config: ConfigArgument,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    project = _open(config, overrides, as_json=as_json)
    try:
        results = project.run()
    except GateError:
        _show_report(project, as_json=as_json)
        raise
    for result in results:
        _show_result(result, as_json=as_json)
    if not any(result.made for result in results) and not as_json:
        typer.echo("Nothing to do: every stage is up to date.")
    _show_report(project, as_json=as_json)
    if not as_json:
        typer.echo(f"bundle  {_relative(project.folder('export'))}")


def _stage_command(stage: str):  # type: ignore[no-untyped-def]
    def command(
        config: ConfigArgument,
        overrides: SetOption = [],
        as_json: JsonOption = False,
    ) -> None:
        project = _open(config, overrides, as_json=as_json)
        try:
            result = project.run_stage(stage)
        except GateError:
            if stage == "evaluate":
                _show_report(project, as_json=as_json)
            raise
        _show_result(result, as_json=as_json)
        if stage == "evaluate":
            _show_report(project, as_json=as_json)

    return command


def _open(config: Path, overrides: Sequence[str], *, as_json: bool) -> Project:
    from slant.project import Project

    return Project(config, overrides=overrides, progress=make_progress(as_json=as_json))


def _show_result(result: StageResult, *, as_json: bool) -> None:
    if as_json:
        record = {"stage": result.stage, "made": result.made, "seconds": round(result.seconds, 1)}
        typer.echo(json.dumps({**record, "folder": str(result.artifact.path)}))
        return
    state = f"done in {result.seconds:.0f} s" if result.made else "up to date"
    typer.echo(f"{result.stage:<9} {state:<14} {_relative(result.artifact.path)}")
    if rejected := result.artifact.facts.get("rejected"):
        where = _relative(result.artifact.path / "rejected.parquet")
        typer.echo(f"{'':<9} {rejected} rows set aside, each with its reason: {where}")


def _show_report(project: Project, *, as_json: bool) -> None:
    from slant.cli.table import print_report

    report = project.report()
    if as_json:
        keys = ("systems", "differences", "latency", "calibration")
        typer.echo(json.dumps({key: report[key] for key in keys}, ensure_ascii=False))
        return
    print_report(report)
    typer.echo(f"report  {_relative(project.folder('evaluate') / 'report.html')}")


def _relative(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
