"""``slant``: the commands, and what an error looks like on a terminal."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer

from slant.cli import compare, config, import_model, plan, publish, runs, score
from slant.errors import SlantError
from slant.version import __version__

__all__ = ["app", "main"]

_INTERRUPTED = 130
_KEPT_PRODUCTS = "128"

app = typer.Typer(
    name="slant",
    help="Fine-tune, evaluate, export and run your own model of sentiment toward a narrative.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
runs.add_to(app)
compare.add_to(app)
publish.add_to(app)
import_model.add_to(app)
score.add_to(app)
plan.add_to(app)
config.add_to(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"slant {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; both are read before the command runs."""


def main() -> None:
    """Run the command line; ends the process with the exit code of docs/errors.md."""
    sys.exit(_run())


def _run() -> int:
    # Stopping a job with SIGTERM must end it as Ctrl-C does, through every cleanup.
    signal.signal(signal.SIGTERM, _interrupt)
    # oneDNN, which multiplies on CPUs, keeps code for 1,024 shapes of products, and hardly a batch
    # has the shape of another. With 128, enough for a pass, tuning took 0.4 GiB less, no longer.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KEPT_PRODUCTS)
    debug = "--debug" in sys.argv
    try:
        app()
    except SystemExit as end:
        # Typer ends every command like this: done, or a usage error that it has worded itself.
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except SlantError as error:
        return _fail(str(error), error, error.exit_code, debug=debug)
    except BrokenPipeError:
        # The reader of our output went away (`slant … | head`); nothing is wrong with us.
        sys.stderr.close()
        return 1
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        hint = "This is a defect in slant. Run with --debug and report what it shows."
        return _fail(f"{what}\n  {hint}", error, 1, debug=debug)
    else:
        code = 0
    if code == _INTERRUPTED:
        typer.echo("\ninterrupted; run the same command again: what is finished is kept", err=True)
    return code


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(text: str, error: BaseException, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(text, err=True)
    return code
