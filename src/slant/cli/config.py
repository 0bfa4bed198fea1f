"""``slant config``: check, show and explain a configuration."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from slant.cli.options import ConfigArgument, SetOption

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        help="Check, show and explain a configuration.", no_args_is_help=True, rich_markup_mode=None
    )
    group.command("check", help="Report every mistake in a configuration at once.")(_check)
    group.command("show", help="Show a configuration with all defaults filled in.")(_show)
    group.command("explain", help="Explain every setting, or those below a key.")(_explain)
    group.command("schema", help="The JSON Schema of slant.yaml, for editors.")(_schema)
    app.add_typer(group, name="config")


def _check(config: ConfigArgument, overrides: SetOption = []) -> None:
    from slant.config.load import load_settings

    load_settings(config, overrides)
    typer.echo(f"{config}: no mistakes")


def _show(config: ConfigArgument, overrides: SetOption = []) -> None:
    from slant.config.load import dump_settings, load_settings

    typer.echo(dump_settings(load_settings(config, overrides)), nl=False)


def _explain(
    key: Annotated[str | None, typer.Argument(help="Dotted key, e.g. tune.lora.")] = None,
) -> None:
    from slant.config.explain import explain

    typer.echo(explain(key))


def _schema() -> None:
    from slant.config.explain import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
