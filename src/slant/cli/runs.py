"""``slant run`` and a command for each stage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from slant.cli import data
from slant.cli.options import (
    ConfigArgument,
    JsonOption,
    SetOption,
    open_project,
    relative,
    show_result,
)
from slant.errors import GateError

if TYPE_CHECKING:
    from slant.project import Project

__all__ = ["add_to"]

_STAGES = {
    "adapt": "Adapt the base model to the unlabelled documents.",
    "tune": "Fine-tune on the labelled examples.",
    "evaluate": "Measure the tuned model against its baselines; write the report.",
    "export": "Write the bundle, with the proof that it is what was trained.",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands, in the order in which they are used."""
    app.command("run", help="Run every stage whose inputs changed, then show the report.")(_run_all)
    app.command("ingest", help="Read documents and examples, check them, split them.")(data.ingest)
    app.command("shard", help="Encode the corpus into MDS shards.")(data.shard)
    for stage, text in _STAGES.items():
        app.command(stage, help=text)(_stage_command(stage))
    app.command("noise", help="List examples whose label looks wrong.")(data.noise)


def _run_all(
    config: ConfigArgument,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    project = open_project(config, overrides, as_json=as_json)
    try:
        results = project.run()
    except GateError:
        _show_report(project, as_json=as_json)
        raise
    for result in results:
        show_result(result, as_json=as_json)
    idle = not any(result.made or result.published for result in results)
    if idle and not as_json:
        typer.echo("Nothing to do: every stage is up to date.")
    _show_report(project, as_json=as_json)
    if not as_json:
        typer.echo(f"bundle  {relative(project.folder('export'))}")


def _stage_command(stage: str):  # type: ignore[no-untyped-def]
    def command(
        config: ConfigArgument,
        overrides: SetOption = [],
        as_json: JsonOption = False,
    ) -> None:
        project = open_project(config, overrides, as_json=as_json)
        try:
            result = project.run_stage(stage)
        except GateError:
            if stage == "evaluate":
                _show_report(project, as_json=as_json)
            raise
        show_result(result, as_json=as_json)
        if stage == "evaluate":
            _show_report(project, as_json=as_json)

    return command


def _show_report(project: Project, *, as_json: bool) -> None:
    from slant.cli.table import print_report

    report = project.report()
    if as_json:
        keys = ("systems", "comparisons", "latency", "calibration", "decisions", "gate")
        typer.echo(json.dumps({key: report[key] for key in keys}, ensure_ascii=False))
        return
    print_report(report)
    typer.echo(f"report  {relative(project.folder('evaluate') / 'report.html')}")
