"""``slant import``: a bundle of another program's model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from slant.cli.options import JsonOption, make_progress, relative
from slant.errors import UsageError, did_you_mean

__all__ = ["add_to"]

FromArgument = Annotated[
    str,
    typer.Argument(
        metavar="FROM",
        help="A PEFT LoRA adapter, a causal language model or a decoder's "
        "sequence classifier: a folder or a hub id.",
    ),
]
BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="The folder that is written.")
]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", help="Base of an adapter, if not the one that it names."),
]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Commit or tag of a hub id in FROM.")
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="A,B,…",
        help="The labels in the order of every column. Of a classifier: its own names in any "
        "order, or LABEL=ITS-NAME,…; where it names none, new ones in the order of its head.",
    ),
]
LabelWordOption = Annotated[
    list[str],
    typer.Option(
        "--label-word",
        metavar="LABEL=WORD",
        help="Word that stands for a label after the prompt, if not the label itself. Repeatable.",
    ),
]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt", help="Wording that holds {document} and then {narrative}."),
]
OverallOption = Annotated[
    str | None,
    typer.Option("--prompt-overall", help="Wording without a narrative; holds {document}."),
]
LimitOption = Annotated[
    int, typer.Option("--token-limit", min=16, help="Longest prompt in tokens.")
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="bfloat16, float16 or float32: of the weights, if not as they are stored."
    ),
]
_DTYPES = ("bfloat16", "float16", "float32")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import", help="Make a bundle of a model that another program trained.")(_import)


def _import(
    source: FromArgument,
    bundle: BundleArgument,
    base: BaseOption = None,
    revision: RevisionOption = None,
    labels: LabelsOption = None,
    label_word: LabelWordOption = [],
    prompt: PromptOption = None,
    prompt_overall: OverallOption = None,
    token_limit: LimitOption = 512,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    words = dict(map(_label_word, label_word))
    if dtype is not None and dtype not in _DTYPES:
        raise UsageError(
            f"--dtype {dtype}: must be one of {', '.join(_DTYPES)}{did_you_mean(dtype, _DTYPES)}"
        )
    from slant.export.import_model import import_model

    made = import_model(
        source,
        bundle,
        base=base,
        revision=revision,
        labels=None if labels is None else _labels(labels),
        label_words=words,
        prompt=_unescaped(prompt),
        prompt_overall=_unescaped(prompt_overall),
        token_limit=token_limit,
        dtype=dtype,
        progress=make_progress(as_json=as_json),
    )
    proof = made.facts["parity"]
    moved = max(found["max_difference"] for found in proof["formats"].values())
    if as_json:
        record = {"folder": str(made.path), "fingerprint": made.facts["fingerprint"]}
        typer.echo(json.dumps({**record, "source": proof["source"], "max_difference": moved}))
        return
    typer.echo(f"import    done           {relative(made.path)}")
    typer.echo(
        f"{'':<9} {proof['source']['kind']}; asked {proof['probes']['count']} prompts beside it, "
        f"probabilities differ by at most {moved:.5f}"
    )
    if rows := proof["source"].get("labels"):
        shown = ", ".join(f"{label} = {name}" for label, name in rows.items())
        typer.echo(f"{'':<9} labels and its own names of them: {shown}")


def _labels(text: str) -> list[str] | dict[str, str]:
    """Labels in their order, or label → the model's own name where one is given."""
    pairs = [tuple(map(str.strip, item.partition("="))) for item in text.split(",")]
    names = [label for label, _, _ in pairs]
    if not any(equals for _, equals, _ in pairs):
        return names
    if len(set(names)) < len(names) or not all(label and own for label, _, own in pairs):
        raise UsageError(f"--labels {text}: must be LABEL=ITS-NAME,… for different labels")
    return {label: own for label, _, own in pairs}


def _label_word(text: str) -> tuple[str, str]:
    label, equals, word = text.partition("=")
    if not (label.strip() and equals and word.strip()):
        raise UsageError(f"--label-word {text}: must be LABEL=WORD, e.g. negative=against")
    return label.strip(), word.strip()


def _unescaped(text: str | None) -> str | None:
    """A shell passes on ``\\n`` as two characters; in a prompt they are meant as one."""
    return None if text is None else text.replace("\\n", "\n")
