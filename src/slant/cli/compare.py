"""``slant compare``: runs side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slant.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["add_to"]

RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN",
        help="Work folders of evaluated projects, or predictions.parquet files. The first is "
        "compared with each other one.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", help="Compare evaluated runs on the examples they share.")(_compare)


def _compare(
    runs: RunsArgument,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=100, help="Resamples of documents.")
    ] = 2000,
    confidence: Annotated[
        float,
        typer.Option("--confidence", min=0.5, max=0.999, help="Of intervals and outcomes."),
    ] = 0.95,
    as_json: JsonOption = False,
) -> None:
    from slant.evaluate.side_by_side import compare_runs

    found = compare_runs(runs, bootstrap=bootstrap, confidence=confidence)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        _print(found)


def _print(found: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from slant.cli.table import make_console, percent, points

    left_out = f"; {found['left_out']} others are not in all runs" if found["left_out"] else ""
    table = Table(
        title=f"{found['examples']} examples in common, {found['documents']} documents, "
        f"{found['confidence']:.0%} intervals{left_out}",
        title_justify="left",
    )
    first, *others = found["systems"]
    table.add_column("run")
    for column in ("accuracy", "macro-F1", "ECE", f"{escape(first['name'])} is better by", "p"):
        table.add_column(column, justify="right")
    differences = {entry["system"]: entry for entry in found["comparisons"]}
    for system in found["systems"]:
        overall, entry = system["overall"], differences.get(system["id"])
        ece = overall["ece"]
        table.add_row(
            escape(system["name"]),
            percent(overall["accuracy"]),
            percent(overall["macro_f1"]),
            "" if ece is None else f"{ece['value']:.3f}",
            "" if entry is None else points(entry["macro_f1"]),
            "" if entry is None or entry["p_value"] is None else f"{entry['p_value']:.4f}",
            style="bold" if system is first else None,
        )
    console = make_console()
    console.print(table)
    console.print(_languages(found["systems"]))
    for system in others:
        sentence = differences[system["id"]]["sentence"]
        names = f"{first['name']} against {system['name']}"
        console.print(f"{escape(names)}: {sentence}")


def _languages(systems: Sequence[Mapping[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from slant.cli.table import percent

    table = Table(title="macro-F1 by language", title_justify="left")
    table.add_column("language")
    for column in ("examples", *[escape(system["name"]) for system in systems]):
        table.add_column(column, justify="right")
    for lang, metrics in systems[0]["slices"]["lang"].items():
        figures = [percent(system["slices"]["lang"][lang]["macro_f1"]) for system in systems]
        table.add_row(lang, str(metrics["count"]), *figures)
    return table
