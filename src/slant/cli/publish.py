"""``slant publish`` and ``slant pull``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slant.cli.options import (
    JsonOption,
    describe_published,
    make_progress,
    published_line,
    relative,
)

if TYPE_CHECKING:
    from slant.publish.release import Published

__all__ = ["add_to"]

BundleArgument = Annotated[
    Path,
    typer.Argument(metavar="BUNDLE", help="A folder that `slant export` or `slant import` wrote."),
]
ToArgument = Annotated[
    str,
    typer.Argument(
        metavar="TO",
        help="s3://bucket/models/name, gs://…, abfs://…, hf://org/name, mlflow+http://host:port/"
        "name, or a folder.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be sent; nothing is written.")
]
AliasOption = Annotated[
    list[str],
    typer.Option(
        "--alias",
        metavar="NAME",
        help="Let NAME point to this version, once all of it is there. Repeatable.",
    ),
]
SignKeyOption = Annotated[
    Path | None,
    typer.Option("--sign-key", metavar="FILE", help="Sign the release: a minisign secret key."),
]
FromArgument = Annotated[
    str, typer.Argument(metavar="FROM", help="Where it was published: a URL or a folder.")
]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Becomes the bundle; another one is replaced.")
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--version", metavar="VERSION", help="A version or an alias; by default the latest."
    ),
]
VerifyKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--verify-key",
        metavar="FILE",
        help="Refuse a release that the holder of this minisign key did not sign.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("publish", help="Send a bundle to an object store, the Hub or a registry.")(
        _publish
    )
    app.command("pull", help="Fetch a published bundle and verify it.")(_pull)


def _publish(
    bundle: BundleArgument,
    to: ToArgument,
    dry_run: DryRunOption = False,
    aliases: AliasOption = [],
    sign_key: SignKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    from slant.publish.publish import publish_bundle

    progress = make_progress(as_json=as_json)
    published = publish_bundle(
        bundle, to, dry_run=dry_run, aliases=aliases, sign_key=sign_key, progress=progress
    )
    if as_json:
        record = describe_published(published, dry_run=dry_run)
        typer.echo(json.dumps(record, ensure_ascii=False))
        return
    if dry_run:
        _print_files(published)
    typer.echo(published_line(published, dry_run=dry_run))


def _pull(
    source: FromArgument,
    folder: FolderArgument = Path("bundle"),
    version: VersionOption = None,
    verify_key: VerifyKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    from slant.progress import format_bytes
    from slant.publish.pull import pull_bundle

    progress = make_progress(as_json=as_json)
    pulled = pull_bundle(source, folder, version=version, verify_key=verify_key, progress=progress)
    if as_json:
        typer.echo(json.dumps({**vars(pulled), "folder": str(pulled.folder)}))
        return
    state = f"fetched {format_bytes(pulled.fetched_bytes)}" if pulled.fetched_bytes else "was there"
    typer.echo(f"{'pull':<9} {state:<14} {relative(pulled.folder)}, version {pulled.version}")


def _print_files(published: Published) -> None:
    from rich.markup import escape
    from rich.table import Table

    from slant.cli.table import make_console
    from slant.progress import format_bytes

    table = Table(title=f"version {published.version}", title_justify="left")
    table.add_column("file")
    for column in ("size", "to send"):
        table.add_column(column, justify="right")
    for file in published.files:
        to_send = format_bytes(file.sent_bytes) if file.sent_bytes else "is there"
        table.add_row(escape(file.name), format_bytes(file.num_bytes), to_send)
    make_console().print(table)
