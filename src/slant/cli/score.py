"""``slant score``: texts from the command line or a file, predictions to the terminal or a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slant.cli.options import JsonOption, make_progress
from slant.errors import UsageError

if TYPE_CHECKING:
    from slant.score.scorer import Scorer

__all__ = ["add_to"]

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A folder that `slant export` wrote.")
]
NarrativeOption = Annotated[
    str | None,
    typer.Option("--narrative", "-n", help="Narrative; with --in: for rows that have none."),
]
TextOption = Annotated[
    list[str], typer.Option("--text", "-t", help="A document's text. Repeatable.")
]
InOption = Annotated[
    Path | None,
    typer.Option(
        "--in",
        help="JSONL, CSV, TSV or Parquet file with the columns text and, if wanted, id, narrative "
        "and lang.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="File to write (by its ending: JSONL, CSV, TSV or Parquet)."),
]
DtypeOption = Annotated[
    str, typer.Option(help="auto, bfloat16, float16 or float32.", metavar="DTYPE")
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score", help="Score documents toward a narrative with an exported bundle.")(_score)


def _score(
    bundle: BundleArgument,
    narrative: NarrativeOption = None,
    text: TextOption = [],
    source: InOption = None,
    target: OutOption = None,
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    if bool(text) == (source is not None):
        raise UsageError("give either --text or --in", hint="`slant score --help` shows both.")
    if any(not document.strip() for document in text):
        raise UsageError("--text is empty", hint="Give the text of a document.")
    if dtype not in ("auto", "bfloat16", "float16", "float32"):
        raise UsageError(f"--dtype {dtype}: must be one of auto, bfloat16, float16, float32")
    if source is None:
        if target is not None:
            raise UsageError("--out goes with --in")
        _score_texts(bundle, text, narrative, dtype, as_json=as_json)
        return
    if target is None:
        raise UsageError("--in needs --out", hint="For example --out scored.jsonl.")
    _score_file(bundle, (source, target), narrative, dtype, as_json=as_json)


def _score_file(
    bundle: Path, files: tuple[Path, Path], narrative: str | None, dtype: str, *, as_json: bool
) -> None:
    from slant.score.files import check_files, score_file

    # Before the model is loaded: a misspelt path should not cost a minute.
    check_files(*files)
    scorer = _load(bundle, dtype)
    outcome = score_file(
        scorer, *files, narrative=narrative, progress=make_progress(as_json=as_json)
    )
    if as_json:
        typer.echo(json.dumps(outcome.to_json()))
        return
    typer.echo(f"{outcome.scored} rows scored → {files[1]}", err=True)
    if outcome.rejected:
        typer.echo(f"{outcome.rejected} rows set aside → {outcome.rejected_path}", err=True)


def _score_texts(
    bundle: Path, texts: Sequence[str], narrative: str | None, dtype: str, *, as_json: bool
) -> None:
    scorer = _load(bundle, dtype)
    for text, prediction in zip(texts, scorer.predict(texts, narrative), strict=True):
        scores = dict(zip(scorer.labels, prediction.probabilities, strict=True))
        if as_json:
            record: dict[str, Any] = {"label": prediction.label}
            record |= {f"p_{label}": round(p, 6) for label, p in scores.items()}
            typer.echo(json.dumps(record))
            continue
        shown = "  ".join(f"{label} {p:.3f}" for label, p in scores.items())
        beginning = " ".join(text.split())
        beginning = beginning if len(beginning) <= 60 else beginning[:59] + "…"
        typer.echo(f"{prediction.label:<9} {shown}  {beginning}")


def _load(bundle: Path, dtype: str) -> Scorer:
    if not bundle.is_dir():
        raise UsageError(
            f"{bundle}: there is no such folder", hint="Name a bundle made by `slant export`."
        )
    from slant.score.scorer import Scorer

    return Scorer.load(bundle, dtype=dtype)
