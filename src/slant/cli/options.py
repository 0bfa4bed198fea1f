"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from slant.progress import BarProgress, JsonProgress, LineProgress, Progress

__all__ = ["ConfigArgument", "JsonOption", "SetOption", "make_progress"]

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
    """A bar on a terminal, a line every ten seconds elsewhere, JSON if asked for."""
    if as_json:
        return JsonProgress()
    return BarProgress() if sys.stderr.isatty() else LineProgress()
