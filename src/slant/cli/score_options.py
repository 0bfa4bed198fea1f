"""The options of ``slant score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BundleArgument",
    "CompileOption",
    "DeviceOption",
    "DtypeOption",
    "EngineOption",
    "IdColumnOption",
    "InOption",
    "LangColumnOption",
    "LangOption",
    "NarrativeColumnOption",
    "NarrativeOption",
    "NarrativesOption",
    "OutOption",
    "QuantizeOption",
    "StrictOption",
    "TextColumnOption",
    "TextOption",
    "TokensOption",
    "UrlOption",
    "VerifyOption",
]

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A folder that `slant export` wrote.")
]
NarrativeOption = Annotated[
    list[str],
    typer.Option(
        "--narrative",
        "-n",
        help="Narrative that every document is asked about, but "
        "for rows that name their own. Repeatable.",
    ),
]
NarrativesOption = Annotated[
    Path | None,
    typer.Option(
        "--narratives",
        metavar="FILE",
        help="Narratives: text, one a line; or JSONL or "
        "CSV with the column text and, if wanted, id.",
    ),
]
TextOption = Annotated[
    list[str], typer.Option("--text", "-t", help="A document's text. Repeatable.")
]
InOption = Annotated[
    list[str],
    typer.Option(
        "--in",
        metavar="PATH",
        help="JSONL, CSV, TSV, Parquet, JSON, HTML or text file, "
        "a folder of them, or - for JSONL on standard input. Repeatable.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="File to write (by its ending: JSONL, CSV, TSV or "
        "Parquet); - or none: JSONL on standard output.",
    ),
]
TextColumnOption = Annotated[
    str, typer.Option("--text-column", metavar="NAME", help="Column with the texts.")
]
IdColumnOption = Annotated[
    str | None,
    typer.Option("--id-column", metavar="NAME", help="Column with ids, instead of id."),
]
NarrativeColumnOption = Annotated[
    str | None,
    typer.Option(
        "--narrative-column", metavar="NAME", help="Column with narratives, instead of narrative."
    ),
]
LangColumnOption = Annotated[
    str | None,
    typer.Option("--lang-column", metavar="NAME", help="Column with languages, instead of lang."),
]
LangOption = Annotated[
    str | None,
    typer.Option(
        "--lang",
        metavar="CODE",
        help="Language (BCP 47) of documents that name none; decides which threshold holds.",
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit code 1 if anything was set aside.")
]
DtypeOption = Annotated[
    str, typer.Option("--dtype", metavar="DTYPE", help="auto, bfloat16, float16 or float32.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda, cuda:1 … or mps; by default a GPU where there is one.",
    ),
]
QuantizeOption = Annotated[
    str | None,
    typer.Option(
        "--quantize",
        metavar="KIND",
        help="none, int8 or nf4; by default what the bundle was evaluated with.",
    ),
]
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the model, some 15 s; by default for files of more than 4 MB.",
        show_default=False,
    ),
]
TokensOption = Annotated[
    int | None,
    typer.Option(
        "--tokens-per-batch",
        metavar="NUMBER",
        min=1,
        help="Tokens that go through the model at once.",
    ),
]
EngineOption = Annotated[str, typer.Option("--engine", metavar="ENGINE", help="torch or vllm.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Address of the vLLM server, with --engine vllm."),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Check the files that are loaded against the bundle's manifest.",
    ),
]
