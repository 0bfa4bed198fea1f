"""Rows of the inputs as pairs for the scorer, which reads ahead, and what each pair is from."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, final

from slant.errors import InputError, SlantError, UsageError
from slant.records import Narrative, Pair, Prediction
from slant.score.inputs import Columns, Inputs, Source, check_columns, read_source, text_problem
from slant.score.scorer import Refusal, Scorer
from slant.tables.reader import Row

__all__ = ["Asked", "Place", "Refused", "Run"]

_MOST_REFUSED = 10_000  # held at once; so many in a row are rare, but must not fill the memory


@dataclass(frozen=True)
class Place:
    """A row of the input; as listed among the rejected."""

    file: str
    row: int | None
    id: str | None
    reason: str
    raw_digest: str | None


@dataclass(frozen=True)
class Asked:
    """A pair on its way through the scorer.

    Attributes:
        place: where its document is from.
        narrative: None: overall sentiment.
        lang: of its document; None: not known.
        num_bytes: of the document's row.
        ends_document: no other pair of the document follows.
    """

    place: Place
    narrative: Narrative | None
    lang: str | None
    num_bytes: int
    ends_document: bool


@dataclass(frozen=True)
class Refused:
    """A row, or one pair of it, that cannot be scored; or a file that cannot be read on."""

    place: Place
    narrative: Narrative | None = None
    num_bytes: int = 0
    ends_document: bool = True


@final
class Run:
    """One pass over the input: pairs for the scorer, which reads ahead, and what they are from.

    ``error`` is the first error of a file as a whole.
    """

    def __init__(self, inputs: Inputs, columns: Columns, narratives: Sequence[Narrative]) -> None:
        self._inputs = inputs
        self._columns = columns
        self._narratives: tuple[Narrative | None, ...] = tuple(narratives) or (None,)
        self._known = {narrative.text: narrative for narrative in narratives}
        self._waiting: deque[Asked | Refused] = deque()
        self._rows = self._read()
        self._num_refused = 0
        self._is_done = False
        self.error: SlantError | None = None

    def outcomes(self, scorer: Scorer) -> Iterator[Refused | tuple[Prediction, Asked]]:
        """What became of each pair and of each row that made none, in input order."""
        while not self._is_done:
            for outcome in scorer.stream(self._pairs()):
                yield from self._refused()
                pair = self._waiting.popleft()
                assert isinstance(pair, Asked)  # `_refused` took the others
                if isinstance(outcome, Refusal):
                    place = replace(pair.place, reason=outcome.reason)
                    yield Refused(place, pair.narrative, pair.num_bytes, pair.ends_document)
                else:
                    yield outcome, pair
            yield from self._refused()

    def _refused(self) -> Iterator[Refused]:
        """The rows without a pair before the next pair."""
        while self._waiting and isinstance(first := self._waiting[0], Refused):
            self._waiting.popleft()
            self._num_refused -= 1
            yield first

    def _pairs(self) -> Iterator[Pair]:
        """Pairs up to the end; or until so many rows were refused that they must be written."""
        for source, row in self._rows:
            yield from self._pairs_of(source, row)
            if self._num_refused >= _MOST_REFUSED:
                return
        self._is_done = True

    def _read(self) -> Iterator[tuple[Source, Row]]:
        for source in self._inputs.sources:
            try:
                yield from ((source, row) for row in _checked_rows(source, self._columns))
            except (InputError, UsageError) as error:
                if self._inputs.is_single and isinstance(error, UsageError):
                    raise
                self.error = self.error or error
                place = Place(source.shown, None, None, error.message, None)
                self._refuse(Refused(place, ends_document=False))

    def _refuse(self, refused: Refused) -> None:
        self._waiting.append(refused)
        self._num_refused += 1

    def _pairs_of(self, source: Source, row: Row) -> Iterator[Pair]:
        """The pairs of one document, one after another: an engine reads its text once."""
        values = row.values or {}
        text, id_ = values.get("text"), _text(values.get("id"))
        problem = text_problem(row, text) or ""
        digest = hashlib.sha256(row.raw).hexdigest()
        place = Place(source.shown, row.number, id_, problem, digest)
        if problem:
            self._refuse(Refused(place, num_bytes=len(row.raw)))
            return
        lang = _text(values.get("lang")) or self._columns.default_lang
        narratives = self._narratives_of(_text(values.get("narrative")))
        for narrative in narratives:
            is_last = narrative is narratives[-1]
            self._waiting.append(Asked(place, narrative, lang, len(row.raw), is_last))
            yield Pair(
                text=str(text),
                narrative=narrative.text if narrative else None,
                id=id_ or self._id_of(source, row.number),
                lang=lang,
            )

    def _narratives_of(self, own: str | None) -> Sequence[Narrative | None]:
        if own is None:
            return self._narratives
        return (self._known.get(own) or Narrative("", own),)

    def _id_of(self, source: Source, number: int) -> str:
        return str(number) if self._inputs.is_single else f"{source.id}:{number}"


def _checked_rows(source: Source, columns: Columns) -> Iterator[Row]:
    # Else rows would be scored before it is known that a column is nowhere. A damaged file's rows
    # before the damage are wanted.
    with suppress(InputError):
        check_columns(source, columns)
    yield from read_source(source, columns)


def _text(value: Any) -> str | None:
    text = "" if value is None else str(value)
    return text if text.strip() else None
