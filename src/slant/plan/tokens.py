"""How many tokens a project trains on: counted, where the shard stage has run, else guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from slant.artifacts import Artifact
from slant.config.ingest_settings import DocumentSource, ExampleSource
from slant.config.settings import ProjectSettings
from slant.errors import SlantError
from slant.storage import is_url
from slant.tables.opening import split_compression
from slant.tables.reader import count_parquet_rows, file_format, read_rows

__all__ = ["InputFile", "TokenCounts", "counts_of_files", "counts_of_shards"]

_SAMPLED_ROWS = 500
_BYTES_PER_TOKEN = 4.0
_NARRATIVE_TOKENS = 12
_COMPRESSION = 3.0  # text, gzip or zstd
_WHOLE = {"json", "label-studio", "doccano", "datasets", "html"}  # no size tells their rows


@final
@dataclass(frozen=True)
class TokenCounts:
    """Tokens of a corpus; of one pass over it each.

    Attributes:
        adapt: of the packed rows.
        heldout: of the documents that perplexity is measured on.
        tune: of the training prompts.
        examples: how many prompts those are.
        validation: of the validation prompts.
        source: where the figures come from, for people.
    """

    adapt: int
    heldout: int
    tune: int
    examples: int
    validation: int
    source: str


@final
@dataclass(frozen=True)
class InputFile:
    """A file of an entry of ``ingest.documents`` or ``ingest.examples``."""

    kind: Literal["documents", "examples"]
    location: str
    name: str
    text: str
    format: str
    sizes: tuple[int, int] | None = None
    """Training and validation examples of its entry, where ``sizes`` tells them."""

    @classmethod
    def of(cls, source: DocumentSource, location: str, name: str, *, num_files: int) -> InputFile:
        """One of the ``num_files`` files of a source."""
        text, form = source.columns.text, source.format
        if not isinstance(source, ExampleSource):
            return cls("documents", location, name, text, form)
        sizes = source.sizes
        shares = (sizes.train // num_files, sizes.validation // num_files) if sizes else None
        return cls("examples", location, name, text, form, shares)


def counts_of_shards(shards: Artifact) -> TokenCounts:
    """What the shard stage counted."""
    facts = shards.facts
    train, validation = facts["tune/train"], facts["tune/validation"]
    langs: list[Mapping[str, int]] = list(facts.get("adapt", {}).values())
    return TokenCounts(
        adapt=sum(lang["train_tokens"] for lang in langs),
        heldout=sum(lang["heldout_tokens"] for lang in langs),
        tune=train["tokens"],
        examples=train["examples"],
        validation=validation["tokens"],
        source="counted by the shard stage",
    )


def counts_of_files(settings: ProjectSettings, files: Iterable[InputFile]) -> TokenCounts:
    """A rough count from the first rows of each file, their bytes and the size of the file.

    A token is taken for four bytes of UTF-8. Of public sets Gemma's tokenizer makes tokens of 3.6
    to 4.7 bytes in en, es, tl and zh and of 6.3 to 6.9 in ru, which is overstated so. Cleaning,
    duplicates and the splits that files bring along are not looked at.

    Raises:
        SlantError: a file cannot be read, or its size does not tell its rows.
    """
    split, limit = settings.ingest.split, settings.task.token_limit
    around = len(settings.task.prompt.encode()) / _BYTES_PER_TOKEN + _NARRATIVE_TOKENS
    adapt = tune = validation = examples = 0.0
    for file in files:
        rows, sampled = _sample(file)
        if file.kind == "documents":
            adapt += rows * sum(sampled) / len(sampled)
            continue
        prompt = sum(min(limit, tokens + around) for tokens in sampled) / len(sampled)
        kept = 1 - split.validation - split.calibration - split.test
        of_train, of_validation = file.sizes or (rows * kept, rows * split.validation)
        examples += of_train
        tune += of_train * prompt
        validation += of_validation * prompt
        adapt += of_train * sum(sampled) / len(sampled)
    share = settings.shard.heldout_share
    return TokenCounts(
        adapt=round(adapt * (1 - share)),
        heldout=round(adapt * share),
        tune=round(tune),
        examples=round(examples),
        validation=round(validation),
        source=f"guessed: four bytes a token, from the first {_SAMPLED_ROWS} rows of each file",
    )


def _sample(file: InputFile) -> tuple[float, list[float]]:
    """About how many rows a file has, and the tokens of the first of them."""
    form = file_format(file.location) if file.format == "auto" else file.format
    tokens: list[float] = []
    raw_bytes, ended = 0, True
    columns = [] if form == "html" else [file.text]
    for row in read_rows(file.location, name=file.name, columns=columns, format=file.format):
        if len(tokens) == _SAMPLED_ROWS:
            ended = False
            break
        raw_bytes += len(row.raw) + 1
        text = (row.values or {}).get("html" if form == "html" else file.text)
        tokens.append(len(str(text or "").encode("utf-8", "replace")) / _BYTES_PER_TOKEN)
    if ended:
        return len(tokens), tokens
    if form == "parquet" and (rows := count_parquet_rows(file.location)) is not None:
        return rows, tokens
    if is_url(file.location) or form in _WHOLE or form is None:
        raise SlantError(f"{file.name}: its rows are not known before `slant ingest`")
    size = Path(file.location).stat().st_size
    if split_compression(file.location)[1] is not None:
        size = round(size * _COMPRESSION)
    return max(len(tokens), size * len(tokens) / raw_bytes), tokens
