"""``slant ingest``, ``slant shard`` and ``slant noise``: the commands about data."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from slant.cli.options import (
    ConfigArgument,
    JsonOption,
    SetOption,
    open_project,
    relative,
    show_result,
)
from slant.errors import GateError

__all__ = ["ingest", "noise", "shard"]

_LISTED = 20


def ingest(
    config: ConfigArgument,
    overrides: SetOption = [],
    as_json: JsonOption = False,
    check_leakage: Annotated[
        bool,
        typer.Option(
            "--check-leakage",
            help="Look for texts on two sides of a split; exit with 3 where there are some.",
        ),
    ] = False,
) -> None:
    """The command; its help stands where it is added."""
    from slant.ingest.leakage import CONTAINED, describe

    project = open_project(config, overrides, as_json=as_json)
    result = project.run_stage("ingest")
    show_result(result, as_json=as_json)
    if not as_json:
        typer.echo(f"report    {relative(result.artifact.path / 'ingest.html')}")
    if not check_leakage:
        return
    leaks = project.find_leaks()
    if as_json:
        typer.echo(json.dumps({"leaks": [vars(leak) for leak in leaks]}, ensure_ascii=False))
    elif leaks:
        typer.echo(describe(leaks))
    else:
        typer.echo("leakage   none found")
    # A sentence that stands inside a longer text is worth a look, but no two texts need be the same
    # for it: quotations and headlines do it too.
    if proven := [leak for leak in leaks if leak.kind != CONTAINED]:
        raise GateError(
            f"{len(proven)} leaks between the splits",
            hint="See docs/how-to.md, Prove that nothing leaks.",
        )


def shard(
    config: ConfigArgument,
    overrides: SetOption = [],
    as_json: JsonOption = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read every shard and check all sizes and hashes."),
    ] = False,
) -> None:
    """The command; its help stands where it is added."""
    project = open_project(config, overrides, as_json=as_json)
    show_result(project.run_stage("shard"), as_json=as_json)
    if verify:
        project.verify_shards()
        if not as_json:
            typer.echo("verified  every shard has the size and the hashes of its index")


def noise(
    config: ConfigArgument,
    overrides: SetOption = [],
    as_json: JsonOption = False,
    split: Annotated[
        Literal["train", "test"],
        typer.Option("--split", help="train: judged by TF-IDF; test: by the tuned model."),
    ] = "train",
    most: Annotated[
        int, typer.Option("--most", min=1, help="How many to list, the likeliest first.")
    ] = _LISTED,
) -> None:
    """The command; its help stands where it is added."""
    from slant.cli.table import print_noise

    candidates = open_project(config, overrides, as_json=as_json).label_noise(split)
    if as_json:
        for candidate in candidates[:most]:
            typer.echo(json.dumps(candidate, ensure_ascii=False))
    else:
        print_noise(candidates, most, split)
