"""One row of a source as a document, a narrative and a label."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from hashlib import sha256
from typing import Any, final

from slant.config.ingest_settings import Columns, DocumentSource, ExampleSource, IngestSettings
from slant.errors import did_you_mean
from slant.ingest.clean import Cleaner
from slant.ingest.language import LanguageIdentifier
from slant.ingest.split import own_split
from slant.labels import LabelSet
from slant.records import SOURCES, Document
from slant.tables.html import extract_article
from slant.task.normalise import normalise_text, text_digest

__all__ = ["Parsed", "RowParser", "RowRefusedError"]

# The form of a language tag (RFC 5646, "well-formed", without private use), not the registry:
# models know languages that no list of ours would have.
_LANGUAGE_TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
_WHOLE_NUMBER = re.compile(r"(-?[0-9]+)\.0+")
_SHOWN_CHARACTERS = 40
_CLEANED_SHARE = 4  # cleaning and masking may shorten a text, but not to less than a quarter


class RowRefusedError(Exception):
    """A row cannot be used. Never leaves the stage: the row goes to ``rejected``.

    ``reason`` is for the row; ``kind`` has no detail of the row, so that it can be counted.
    """

    def __init__(self, reason: str, *, kind: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind or reason


@dataclass(frozen=True)
class Parsed:
    """What a row says. ``label`` is None in a source of unlabelled documents.

    ``lang_given`` is the row's or the source's own word, ``document.lang`` the one to go by;
    ``changes`` are the kinds of change that cleaning made to the text.
    """

    document: Document
    narrative: str | None
    label: str | None
    annotator: str | None
    own_split: str | None
    lang_given: str | None
    changes: tuple[str, ...]


@final
class RowParser:
    """Reads the rows of one source by its settings; ``is_html``: its rows are web pages.

    ``notes`` counts values that were replaced without losing the row.
    """

    def __init__(
        self,
        source: DocumentSource,
        settings: IngestSettings,
        labels: LabelSet,
        *,
        is_html: bool = False,
    ) -> None:
        self._source = source
        self._is_html = is_html
        # What a page says of itself stands where the settings name no column for it.
        own = {"published_at": "published_at", "url": "url"} if is_html else {}
        given = source.columns.model_dump(exclude_none=True)
        self._columns = source.columns.model_copy(update={**own, **given})
        self._settings = settings
        self._labels = labels
        self._cleaner = Cleaner(settings.clean)
        language = settings.language
        self._identifier = LanguageIdentifier(language.candidates) if language.identify else None
        self.notes: Counter[str] = Counter()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the source must have."""
        if self._is_html:
            return ()  # a page has none; what it says of itself is looked for
        at = self._columns
        names = [at.text, at.id, at.lang, at.source, at.published_at, at.url]
        if isinstance(self._source, ExampleSource):
            names += [at.label, at.narrative, at.annotator, at.split]
        return tuple(name for name in names if name is not None)

    def parse(self, values: Mapping[str, Any]) -> Parsed:
        """The row's document, narrative and label.

        Raises:
            RowRefusedError: The row has no usable text, label, language or id.
        """
        if self._is_html:
            values = _article(values["html"], self._columns)
        raw = self._raw_text(values)
        text, changes = self._text(raw)
        given = self._lang(values)
        identified, confidence = self._identify(text)
        digest = text_digest(text)
        document = Document(
            id=_words(values, self._columns.id) or f"d-{digest[:16]}",
            text=text,
            lang=given or identified,
            source=self._source_kind(values),
            published_at=self._published_at(values),
            url=_words(values, self._columns.url),
            digest=digest,
            raw_digest=sha256(raw.encode("utf-8", "surrogatepass")).hexdigest(),
            lang_identified=identified,
            lang_confidence=confidence,
        )
        if not isinstance(self._source, ExampleSource):
            return Parsed(document, None, None, None, None, given, changes)
        narrative = normalise_text(_words(values, self._columns.narrative) or "").strip()
        return Parsed(
            document,
            narrative or None,
            self._label(values, self._source.labels),
            _words(values, self._columns.annotator),
            self._own_split(values),
            given,
            changes,
        )

    def _raw_text(self, values: Mapping[str, Any]) -> str:
        value = values.get(self._columns.text)
        if not isinstance(value, str | None):
            raise RowRefusedError(f"column '{self._columns.text}' holds no text")
        return value or ""

    def _text(self, raw: str) -> tuple[str, tuple[str, ...]]:
        """The text as it is kept, and the kinds of change made to it."""
        if len(raw) > _CLEANED_SHARE * self._settings.max_characters:
            raise self._too_long(len(raw))  # before work is spent on it
        cleaned, changes = self._cleaner.clean(raw)
        text = normalise_text(cleaned)
        length = len(text.strip())
        if length == 0:
            raise RowRefusedError("empty text")
        least, most = self._settings.min_characters, self._settings.max_characters
        if length < least:
            raise RowRefusedError(
                f"{length} characters, fewer than min_characters ({least})",
                kind=f"fewer than min_characters ({least})",
            )
        if length > most:
            raise self._too_long(length)
        return text, changes

    def _too_long(self, length: int) -> RowRefusedError:
        kind = f"more than max_characters ({self._settings.max_characters})"
        return RowRefusedError(f"{length} characters, {kind}", kind=kind)

    def _identify(self, text: str) -> tuple[str | None, float | None]:
        """The language that the text itself shows, if that is clear, and how clear it is."""
        if self._identifier is None:
            return None, None
        lang, confidence = self._identifier.identify(text)
        sure = confidence >= self._settings.language.min_confidence
        return (lang if sure else None), round(confidence, 4)

    def _own_split(self, values: Mapping[str, Any]) -> str | None:
        found = _words(values, self._columns.split)
        if found is None:
            return None
        split = own_split(found)
        if split is None:
            self.notes["split is none of train, validation, calibration, test; not used"] += 1
        return split

    def _label(self, values: Mapping[str, Any], meanings: Mapping[str, str]) -> str:
        found = _words(values, self._columns.label)
        if found is None:
            raise RowRefusedError("no label")
        whole = _WHOLE_NUMBER.fullmatch(found)
        # Tables with a gap in the column write their whole numbers as 1.0.
        for spelling in (found, whole[1]) if whole else (found,):
            label = meanings.get(spelling, spelling)
            if label in self._labels:
                return label
        kind = f"unknown label {_shown(found)}"
        raise RowRefusedError(kind + did_you_mean(found, (*self._labels, *meanings)), kind=kind)

    def _lang(self, values: Mapping[str, Any]) -> str | None:
        found = _words(values, self._columns.lang) or self._source.lang
        if found is None:
            return None
        lang = found.lower().replace("_", "-")
        if not _LANGUAGE_TAG.fullmatch(lang):
            raise RowRefusedError(f"{_shown(found)} is not a language code such as en or pt-br")
        return lang

    def _source_kind(self, values: Mapping[str, Any]) -> str | None:
        found = _words(values, self._columns.source)
        if found is None:
            return self._source.source
        kind = found.lower()
        if kind not in SOURCES:
            self.notes["source is of no known kind; stored as other"] += 1
            return "other"
        return kind

    def _published_at(self, values: Mapping[str, Any]) -> datetime | None:
        column = self._columns.published_at
        value = values.get(column) if column is not None else None
        if _is_missing(value):
            return None
        try:
            return _utc(value)
        except (ValueError, OverflowError):
            self.notes["published_at is no ISO 8601 time; stored as null"] += 1
            return None


def _article(html: str, columns: Columns) -> dict[str, str | None]:
    """A page as a row: the title before the main text, and what the page says of itself."""
    article = extract_article(html)
    if article is None:
        raise RowRefusedError("no main text was found in the page")
    text, title = article["text"] or "", article["title"]
    if title and not text.lstrip().startswith(title):
        text = f"{title}\n\n{text}"
    found = {
        columns.text: text,
        columns.published_at: article["published_at"],
        columns.url: article["url"],
    }
    return {name: value for name, value in found.items() if name is not None}


def _utc(value: object) -> datetime:
    """A time in UTC; raises ValueError or OverflowError if ``value`` is none."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ValueError("neither a date nor a time")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _words(values: Mapping[str, Any], column: str | None) -> str | None:
    """The value of a column as text, without white space around it; None if there is none.

    Numbers are written as JSON writes them, but whole ones without a fraction (1.0 is "1").
    """
    value = values.get(column) if column is not None else None
    if _is_missing(value):
        return None
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    raise RowRefusedError(f"column '{column}' holds neither text nor a number")


def _is_missing(value: object) -> bool:
    # Data frames write a gap in a column of numbers as NaN.
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def _shown(text: str) -> str:
    """The start of a value, for a message: a wrong column must not put whole documents there."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
