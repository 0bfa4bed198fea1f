"""The section ``ingest`` of slant.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from slant.config.section import Location, PositiveInt, Section, Share

__all__ = [
    "CleanSettings",
    "Columns",
    "DocumentSource",
    "DuplicateSettings",
    "ExampleSource",
    "IngestSettings",
    "JudgementSettings",
    "LanguageSettings",
    "SplitShares",
    "SplitSizes",
]

LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "id", "pt", "ru", "tl", "vi", "zh")


class Columns(Section):
    """Which column of the source holds what."""

    id: str | None = None
    """Document id; without it the id is made from the text's digest."""
    text: str = "text"
    """The document's text."""
    narrative: str | None = None
    """The narrative's text; empty or absent means overall sentiment. Examples only."""
    label: str = "label"
    """The gold label. Examples only."""
    lang: str | None = None
    """Language code (BCP 47)."""
    source: str | None = None
    """Kind of source: news, blog, social, review or other."""
    published_at: str | None = None
    """Date or time of publication (ISO 8601; UTC where no zone is given)."""
    url: str | None = None
    """Address of the document."""
    split: str | None = None
    """The source's own split: train, validation (or dev, valid, val), calibration or test. Takes
    the place of `split` and `sizes` for the rows that have one. Examples only."""
    annotator: str | None = None
    """Who gave the label; with several, rows of one text and narrative are judgements of one
    example. Examples only."""


class SplitSizes(Section):
    """How many examples of one source go to each split; what is left over is not used."""

    train: PositiveInt
    """Examples to learn from."""
    validation: PositiveInt
    """Examples watched while tuning."""
    calibration: PositiveInt
    """Examples that fit the temperature of the probabilities."""
    test: PositiveInt
    """Examples that nothing is fitted on: the report's figures."""


class SplitShares(Section):
    """Which share of the examples goes to each split; the rest is training.

    Examples of one document, and of documents whose texts are equal or nearly so, always share a
    split.
    """

    validation: Share = 0.05
    """Share watched while tuning."""
    calibration: Share = 0.10
    """Share that fits the temperature of the probabilities."""
    test: Share = 0.20
    """Share that nothing is fitted on: the report's figures."""

    by: Literal["digest", "time"] = "digest"
    """`digest`: at random, the same way every time. `time`: by `published_at`, the oldest to
    train on and the latest to test on; documents without a time are for training."""
    leaks: Literal["set-aside", "keep"] = "set-aside"
    """What becomes of a row whose own split (`columns.split`) is for training while its text, or
    one nearly the same, stands in a held-out split."""
    heldout_narratives: Share = 0.0
    """Share of the narratives that stand in the test split only."""
    heldout_datasets: list[str] = []
    """Data sets (a source's file name without its ending) that stand in the test split only."""

    @model_validator(mode="after")
    def _leaves_training_data(self) -> SplitShares:
        held_out = self.validation + self.calibration + self.test
        if held_out >= 1:
            raise ValueError(f"the shares add up to {held_out:g}; nothing is left to train on")
        return self


class DocumentSource(Section):
    """One source of unlabelled documents."""

    path: Location
    """File, folder or glob, relative to slant.yaml, or a URL (`s3://`, `gs://`, `abfs://`,
    `hf://`); `${NAME}` is replaced from the environment."""
    format: Literal[
        "auto",
        "jsonl",
        "json",
        "csv",
        "tsv",
        "parquet",
        "html",
        "datasets",
        "label-studio",
        "doccano",
    ] = "auto"
    """What the files hold. `auto` goes by the file name's ending, before `.gz` or `.zst`;
    `datasets` is a folder that Hugging Face `save_to_disk` wrote."""
    columns: Columns = Columns()
    """Which column holds what."""
    lang: str | None = None
    """Language of all rows, where there is no column for it."""
    source: Literal["news", "blog", "social", "review", "other"] | None = None
    """Kind of source of all rows, where there is no column for it."""
    limit: PositiveInt | None = None
    """Take at most this many documents, chosen by digest (the same ones every time)."""


class ExampleSource(DocumentSource):
    """One source of labelled examples: a document, a narrative (or none) and a label a row."""

    labels: dict[str, str] = {}
    """The source's own label values and what they mean, e.g. `{"-1": negative}`."""
    sizes: SplitSizes | None = None
    """Fixed numbers of examples per split for this source, in place of the shares."""


class CleanSettings(Section):
    """What is changed in a text before anything else reads it. Every change is counted."""

    repair: bool = True
    """Undo wrong decoding ("Ð¿Ñ€Ð¸" for "при") and HTML entities."""
    boilerplate: list[str] = []
    """Regular expressions; a line that one of them matches from end to end is removed."""
    mask: list[Literal["users", "urls", "emails", "phones"]] = []
    """What is replaced by a placeholder: `@user`, `<url>`, `<email>`, `<phone>`."""

    @field_validator("boilerplate")
    @classmethod
    def _compiles(cls, value: list[str]) -> list[str]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return value


class LanguageSettings(Section):
    """Which language a document is in."""

    identify: bool = True
    """Identify the language of every document. A given language is kept; where the two differ the
    report says so."""
    candidates: list[str] = list(LANGUAGES)
    """The languages to choose from (ISO 639-1 codes); fewer make better guesses."""
    min_confidence: Share = 0.8
    """A guess below this is not used, and disagrees with nothing."""

    @field_validator("candidates")
    @classmethod
    def _is_a_choice(cls, value: list[str]) -> list[str]:
        if len(set(value)) < 2:
            raise ValueError("at least two languages are needed to choose from")
        return value


class DuplicateSettings(Section):
    """Which texts count as nearly the same."""

    near: bool = True
    """Find near-duplicates. Of unlabelled ones the first is kept; labelled ones share a split."""
    jaccard: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Least Jaccard similarity of two texts' sets of shingles."""
    shingle_characters: Annotated[int, Field(ge=2, le=16)] = 5
    """Length of a shingle, in characters of the text in lower case without spaces."""


class JudgementSettings(Section):
    """How the judgements of several annotators become one label."""

    rule: Literal["majority", "unanimous"] = "majority"
    """`majority`: the label that more annotators gave than any other. `unanimous`: only where all
    agree. Examples that the rule gives no label are set aside."""
    min_annotators: PositiveInt = 1
    """Examples that fewer annotators judged are set aside."""


class IngestSettings(Section):
    """What to read and how to split it."""

    documents: list[DocumentSource] = []
    """Unlabelled documents, for domain adaptation."""
    examples: list[ExampleSource] = Field(min_length=1)
    """Labelled examples, for tuning and evaluation."""
    clean: CleanSettings = CleanSettings()
    """What is changed in a text."""
    language: LanguageSettings = LanguageSettings()
    """Which language a document is in."""
    duplicates: DuplicateSettings = DuplicateSettings()
    """Which texts count as nearly the same."""
    judgements: JudgementSettings = JudgementSettings()
    """How several annotators' labels become one."""
    split: SplitShares = SplitShares()
    """How the examples are split."""
    min_characters: Annotated[int, Field(ge=1)] = 1
    """Shorter documents are set aside."""
    max_characters: PositiveInt = 200_000
    """Longer documents are set aside."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and clean; 0: one for each processor core."""
