"""``slant plan``: what training takes, before it is started."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slant.cli.options import ConfigArgument, JsonOption, SetOption, open_project

if TYPE_CHECKING:
    from slant.plan.estimate import Plan, StagePlan

__all__ = ["add_to"]

_WIDTH = 100
CardOption = Annotated[
    str | None,
    typer.Option(
        "--card",
        metavar="NAME",
        help="Plan for another card than plan.card: a10, a10g, l4, a100-40, a100-80, h100, h200, "
        "cpu; auto is this machine's.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", help="Say what training takes: memory, speed, hours, cost.")(_plan)


def _plan(
    config: ConfigArgument,
    overrides: SetOption = [],
    card: CardOption = None,
    as_json: JsonOption = False,
) -> None:
    from slant.plan.fit import refusal

    plan = open_project(config, overrides, as_json=as_json).plan(card)
    if as_json:
        typer.echo(json.dumps(plan.to_json(), ensure_ascii=False))
    else:
        _print(plan)
    for stage in plan.stages:
        if stage.verdict == "does not fit":
            raise refusal(stage.load, plan.card)


def _print(plan: Plan) -> None:
    from rich.console import Console

    from slant.plan.fit import gib

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    many = f"{plan.devices} × " if plan.devices > 1 else ""
    console.print(
        f"{plan.base} ({plan.shape.num_params / 1e6:,.0f} M parameters) on {many}{plan.card.title}",
        style="bold",
    )
    console.print(_memory(plan))
    console.print(_work(plan))
    for stage in plan.stages:
        if stage.verdict == "tight":
            ways = "; ".join(stage.advice)
            console.print(
                f"warning: {stage.stage} is tight: {gib(stage.memory.total)} of "
                f"{gib(stage.capacity)}. Safer: {ways or 'a larger card'}",
                style="yellow",
            )
    console.print(f"main memory to put the adapters into the base: {gib(plan.host_bytes)}")
    if plan.host_capacity is not None and plan.host_bytes > plan.host_capacity:
        console.print(
            f"warning: this machine has {gib(plan.host_capacity)} of main memory", style="yellow"
        )
    for note in plan.notes:
        console.print(note, style="dim")


def _memory(plan: Plan) -> Any:
    from rich.table import Table

    from slant.plan.fit import gib

    table = Table(title="peak memory of each device, estimated", title_justify="left")
    table.add_column("")
    for stage in plan.stages:
        table.add_column(stage.stage, justify="right")
    names = dict.fromkeys(name for stage in plan.stages for name in stage.memory.parts)
    for name in names:
        table.add_row(name, *(_mib(stage.memory.parts.get(name)) for stage in plan.stages))
    table.add_section()
    table.add_row("together", *(gib(s.memory.total) for s in plan.stages), style="bold")
    table.add_row("there is", *(gib(stage.capacity) for stage in plan.stages))
    table.add_row("", *(_styled(stage) for stage in plan.stages))
    return table


def _styled(stage: StagePlan) -> str:
    colour = {"fits": "green", "tight": "yellow", "does not fit": "red"}[stage.verdict]
    return f"[bold {colour}]{stage.verdict}[/]"


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / (1 << 20):,.0f} MiB"


def _work(plan: Plan) -> Any:
    from rich.table import Table

    table = Table(title="work, expected", title_justify="left")
    table.add_column("")
    for column in ("tokens", "tokens a pass", "GFLOP a token", "tokens/s", "hours", "cost"):
        table.add_column(column, justify="right")
    for stage in plan.stages:
        table.add_row(
            stage.stage,
            "?" if stage.tokens is None else f"{stage.tokens:,}",
            f"{stage.load.pass_tokens:,}",
            f"{stage.flops.total / 1e9:,.2f}",
            f"{stage.tokens_per_s:,.0f}",
            _hours(stage.hours),
            "?" if stage.cost is None else f"{stage.cost:,.2f}",
        )
    if len(plan.stages) > 1:
        hours, costs = [s.hours for s in plan.stages], [s.cost for s in plan.stages]
        table.add_section()
        table.add_row(
            "both",
            *([""] * 4),
            _hours(_sum(hours)),
            "?" if (cost := _sum(costs)) is None else f"{cost:,.2f}",
            style="bold",
        )
    return table


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _hours(hours: float | None) -> str:
    if hours is None:
        return "?"
    return f"{hours:,.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"
