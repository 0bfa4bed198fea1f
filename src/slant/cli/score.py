"""``slant score``: texts, files, folders or standard input, to the terminal or a file."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from slant.cli.options import JsonOption, make_progress
from slant.cli.score_options import (
    BundleArgument,
    CompileOption,
    DeviceOption,
    DtypeOption,
    EngineOption,
    IdColumnOption,
    InOption,
    LangColumnOption,
    LangOption,
    NarrativeColumnOption,
    NarrativeOption,
    NarrativesOption,
    OutOption,
    QuantizeOption,
    StrictOption,
    TextColumnOption,
    TextOption,
    TokensOption,
    UrlOption,
    VerifyOption,
)
from slant.errors import InputError, UsageError, did_you_mean
from slant.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from slant.records import Narrative
    from slant.score.inputs import Columns
    from slant.score.scorer import Scorer

__all__ = ["add_to"]

_STDOUT = "-"
_COMPILE_FROM_BYTES = 4_000_000
"""Compiling takes some 15 s and makes each pass a fifth faster: that is earned back after a few
hundred thousand tokens, and a token is about four bytes of text (less where it is compressed)."""

_DTYPES = ("auto", "bfloat16", "float16", "float32")
_ENGINES = ("torch", "vllm")
_DEVICES = re.compile(r"cpu|mps|cuda(:\d+)?")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score", help="Score documents toward narratives with an exported bundle.")(_score)


def _score(
    bundle: BundleArgument,
    narrative: NarrativeOption = [],
    narratives: NarrativesOption = None,
    text: TextOption = [],
    source: InOption = [],
    target: OutOption = None,
    text_column: TextColumnOption = "text",
    id_column: IdColumnOption = None,
    narrative_column: NarrativeColumnOption = None,
    lang_column: LangColumnOption = None,
    lang: LangOption = None,
    strict: StrictOption = False,
    engine: EngineOption = "torch",
    url: UrlOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    quantize: QuantizeOption = None,
    compiled: CompileOption = None,
    tokens_per_batch: TokensOption = None,
    verify: VerifyOption = True,
    as_json: JsonOption = False,
) -> None:
    if bool(text) == bool(source):
        raise UsageError("give either --text or --in", hint="`slant score --help` shows both.")
    if any(not document.strip() for document in text):
        raise UsageError("--text is empty", hint="Give the text of a document.")
    if text and target is not None:
        raise UsageError("--out goes with --in")
    loading = _Loading(engine, url, dtype, device, quantize, compiled, tokens_per_batch, verify)
    loading.check()
    asked = _narratives(narrative, narratives)
    if text:
        _score_texts(loading.load(bundle, None), text, asked, lang, as_json=as_json)
        return

    from slant.score.inputs import Columns

    columns = Columns(text_column, id_column, narrative_column, lang_column, lang)
    job = _Files(source, str(target or _STDOUT), columns, asked)
    try:
        job.score(bundle, loading, strict=strict, as_json=as_json)
    except BrokenPipeError:
        # Whoever read our rows has enough of them; what is left in the buffer goes nowhere. At
        # once, because threads of libraries may still be at work, and some abort when an orderly
        # exit takes them by surprise ("terminate called without an active exception").
        os._exit(1)


def _narratives(given: Sequence[str], file: Path | None) -> list[Narrative]:
    """Those of the command line, then those of the file."""
    from slant.records import Narrative
    from slant.score.narratives import read_narratives

    if any(not narrative.strip() for narrative in given):
        raise UsageError(
            "--narrative is empty", hint="Leave it out to ask for the overall sentiment."
        )
    return [*(Narrative("", text) for text in given), *(read_narratives(file) if file else ())]


# --- the model -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Loading:
    """How to load the bundle: the options of that name."""

    engine: str
    url: str | None
    dtype: str
    device: str | None
    quantize: str | None
    compiled: bool | None
    tokens_per_batch: int | None
    verify: bool

    def check(self) -> None:
        """Raises UsageError for a value that cannot be, or an option without effect."""
        _check_choice("--engine", self.engine, _ENGINES)
        _check_choice("--dtype", self.dtype, _DTYPES)
        if self.quantize is not None:
            from slant.task.spec import QUANTIZE

            _check_choice("--quantize", self.quantize, QUANTIZE)
        if self.device is not None and not _DEVICES.fullmatch(self.device):
            raise UsageError(f"--device {self.device}: must be cpu, cuda, cuda:NUMBER or mps")
        if self.engine == "torch":
            if self.url is not None:
                raise UsageError("--url goes with --engine vllm")
            return
        if self.url is None:
            raise UsageError(
                "--engine vllm needs --url",
                hint="Start `vllm serve BUNDLE/classifier` and name its address.",
            )
        for option, is_given in (
            ("--dtype", self.dtype != "auto"),
            ("--device", self.device is not None),
            ("--quantize", self.quantize is not None),
            ("--compile", self.compiled is not None),
            ("--tokens-per-batch", self.tokens_per_batch is not None),
        ):
            if is_given:
                raise UsageError(
                    f"{option} goes with --engine torch",
                    hint="A vLLM server is told when it is started.",
                )

    def load(self, bundle: Path, num_bytes: int | None) -> Scorer:
        """Load ``bundle`` to score ``num_bytes`` of input; None: few, or nobody knows."""
        if not bundle.is_dir():
            raise UsageError(
                f"{bundle}: there is no such folder", hint="Name a bundle made by `slant export`."
            )
        from slant.score.scorer import Scorer

        if self.device is not None:
            _check_device(self.device)
        pays = self.engine == "torch" and (num_bytes or 0) > _COMPILE_FROM_BYTES
        return Scorer.load(
            bundle,
            engine=self.engine,
            url=self.url,
            dtype=self.dtype,
            device=self.device,
            quantize=self.quantize,
            compile=pays and self._can_compile() if self.compiled is None else self.compiled,
            tokens_per_batch=self.tokens_per_batch,
            verify=self.verify,
        )

    def _can_compile(self) -> bool:
        """Whether it is known to be faster: on a CPU, with a compiler."""
        from slant.model.base import pick_device
        from slant.model.compiling import has_compiler

        return (self.device or pick_device()) == "cpu" and has_compiler()


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(
            f"{option} {value}: must be one of {', '.join(choices)}{did_you_mean(value, choices)}"
        )


def _check_device(device: str) -> None:
    import torch

    kind, _, number = device.partition(":")
    if kind == "cuda" and not int(number or 0) < torch.cuda.device_count():
        raise UsageError(
            f"--device {device}: this machine has {torch.cuda.device_count()} such devices"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this machine has none")


# --- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """Inputs, the file or ``-`` that the result goes to, and what is asked."""

    sources: Sequence[str]
    target: str
    columns: Columns
    narratives: Sequence[Narrative]

    def score(self, bundle: Path, loading: _Loading, *, strict: bool, as_json: bool) -> None:
        from slant.score.files import check_target, score_files
        from slant.score.inputs import find_inputs

        # Before the model is loaded: a misspelt path should not cost a minute.
        inputs = find_inputs(self.sources, self.columns)
        check_target(inputs, self.target)
        outcome = score_files(
            loading.load(bundle, inputs.num_bytes),
            inputs,
            self.target,
            narratives=self.narratives,
            columns=self.columns,
            progress=self._progress(as_json=as_json),
        )
        is_stdout = self.target == _STDOUT
        if as_json:
            typer.echo(json.dumps(outcome.to_json()), err=is_stdout)
        elif is_stdout:
            if outcome.rejected:
                first = f"the first: {outcome.first_reason}"
                typer.echo(f"{outcome.rejected} rows set aside; {first}", err=True)
        else:
            typer.echo(f"{outcome.scored} rows scored → {self.target}", err=True)
            if outcome.rejected:
                typer.echo(f"{outcome.rejected} rows set aside → {outcome.rejected_path}", err=True)
        if strict and outcome.rejected:
            raise InputError(
                f"--strict: {outcome.rejected} rows were set aside",
                hint="With --out FILE they are listed, each with its reason."
                if is_stdout
                else f"They are listed in {outcome.rejected_path}.",
            )

    def _progress(self, *, as_json: bool) -> Progress:
        if self.target == _STDOUT and sys.stdout.isatty() and not as_json:
            return SilentProgress()  # rows and a bar in one place would spoil each other
        return make_progress(as_json=as_json)


# --- texts ---------------------------------------------------------------------------------------


def _score_texts(
    scorer: Scorer,
    texts: Sequence[str],
    narratives: Sequence[Narrative],
    lang: str | None,
    *,
    as_json: bool,
) -> None:
    from slant.score.narratives import unique_narratives
    from slant.score.results import prediction_row

    asked: list[Narrative | None] = [*unique_narratives(narratives)[0]] or [None]
    pairs = [(text, narrative) for text in texts for narrative in asked]
    predictions = scorer.predict(
        [text for text, _ in pairs],
        [narrative.text if narrative else None for _, narrative in pairs],
        lang,
    )
    several = len(asked) > 1 or any(narrative and narrative.id for narrative in asked)
    for (text, narrative), prediction in zip(pairs, predictions, strict=True):
        row = prediction_row(scorer.labels, prediction)
        if as_json:
            names: dict[str, Any] = {}
            if narrative and narrative.id:
                names["narrative_id"] = narrative.id
            if narrative and several:
                names["narrative"] = narrative.text
            typer.echo(json.dumps(names | row))
            continue
        shown = "  ".join(f"{label} {row[f'p_{label}']:.3f}" for label in scorer.labels)
        decision = f"  {prediction.decision}" if prediction.decision else ""
        toward = f"  [{_beginning(narrative.text, 30)}]" if narrative and several else ""
        typer.echo(f"{prediction.label:<9} {shown}{decision}{toward}  {_beginning(text, 60)}")


def _beginning(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
