"""What is scored: files, folders and standard input, as rows with a text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from slant.errors import InputError, UsageError, did_you_mean
from slant.storage import BLOCK_BYTES, PATIENCE_S, check_url, is_url
from slant.tables.html import extract_article
from slant.tables.jsonl import read_jsonl
from slant.tables.opening import MAX_LINE_BYTES, Input, split_compression
from slant.tables.reader import Row, count_parquet_rows, file_format, read_rows
from slant.tables.row import with_columns
from slant.task.normalise import normalise_text

__all__ = [
    "STDIN",
    "Columns",
    "Inputs",
    "Source",
    "check_columns",
    "find_inputs",
    "has_column",
    "listed",
    "read_source",
    "text_problem",
]

STDIN = "-"
"""The input that is standard input, and the target that is standard output."""

_ROLES = ("text", "id", "narrative", "lang")
_UTF8_MARK = b"\xef\xbb\xbf"
_CHECKED_ROWS = 1001  # by then read_rows has said which columns are nowhere
_OF_DATASETS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_AS_TEXT = ("jsonl", "csv", "tsv", "json", "text")


@dataclass(frozen=True)
class Columns:
    """Which column holds what.

    None: the column of that very name, if a file has one. A column that is named has to be there.
    ``default_lang`` is the language of documents that name none.
    """

    text: str = "text"
    id: str | None = None
    narrative: str | None = None
    lang: str | None = None
    default_lang: str | None = None

    def required(self) -> list[str]:
        """The columns without which a file cannot be read."""
        return [name for name in (self.text, self.id, self.narrative, self.lang) if name]

    def optional(self) -> list[str]:
        """The columns that are taken where they are there."""
        return [role for role in _ROLES if getattr(self, role) is None]

    def by_role(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values of a row under the names ``text``, ``id``, ``narrative`` and ``lang``."""
        return {role: values.get(getattr(self, role) or role) for role in _ROLES}


@dataclass(frozen=True)
class Source:
    """One file, or standard input.

    Attributes:
        location: path or URL; ``-`` is standard input.
        shown: how messages name it.
        id: how ids name it: where it lies in the folder that was given, or else as it was given.
    """

    location: str
    shown: str
    id: str

    @property
    def format(self) -> str | None:
        """Of ``slant.tables``, or ``text``: a file that is one document; None if unknown."""
        if self.location == STDIN:
            return "jsonl"
        if PurePosixPath(split_compression(self.location)[0]).suffix.lower() == ".txt":
            return "text"
        return file_format(self.location)

    @property
    def path(self) -> Path | None:
        """The local file; None for standard input and URLs."""
        return None if self.location == STDIN or is_url(self.location) else Path(self.location)


@dataclass(frozen=True)
class Inputs:
    """Everything that is to be scored, in order.

    Attributes:
        sources: at least one.
        left_out: files of the folders whose type is not known.
        named: what was given, for messages.
        is_single: one file (or standard input) was given, no folder: rows are named by number only.
    """

    sources: tuple[Source, ...]
    left_out: tuple[str, ...]
    named: str
    is_single: bool

    @property
    def num_bytes(self) -> int | None:
        """Of all files as they are stored; None where that is not known."""
        sizes = [_size(source) for source in self.sources]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    @property
    def num_row_bytes(self) -> int | None:
        """As ``num_bytes`` where those of the rows add up to it: in text that is not compressed."""
        formats = {source.format for source in self.sources}
        packed = any(split_compression(source.location)[1] for source in self.sources)
        return None if packed or not formats <= set(_AS_TEXT) else self.num_bytes

    @property
    def num_rows(self) -> int | None:
        """Of Parquet files, by their footers; None where that is not known."""
        if any(source.format != "parquet" or source.path is None for source in self.sources):
            return None
        counts = [count_parquet_rows(source.location) for source in self.sources]
        return sum(count or 0 for count in counts)  # a damaged file has no rows to score


def _size(source: Source) -> int | None:
    try:
        return source.path.stat().st_size if source.path else None
    except OSError:
        return None  # reading it will say what is wrong


# --- finding -------------------------------------------------------------------------------------


def find_inputs(given: Sequence[str | Path] | str | Path, columns: Columns) -> Inputs:
    """Find the files, and look at the first row of each that was named.

    Args:
        given: files, URLs of files, folders, ``-`` for standard input. Of a folder: the files in
            it and below of a known type, sorted; hidden files are left out, and links to folders
            are not followed. What is given twice is read once.
        columns: where the texts are.

    Raises:
        UsageError: nothing is given, or what is given is not there, has an unknown type or lacks a
            column; a folder without a file of a known type.
        InputError: the only file is empty or damaged from its start, or a folder cannot be listed.
    """
    places = [given] if isinstance(given, str | Path) else list(given)
    if not places:
        raise UsageError("no input is given")
    found: dict[str, Source] = {}
    ids: set[str] = set()
    left_out: list[str] = []
    named: list[Source] = []
    for place in map(str, places):
        if place == STDIN or is_url(place) or not _is_folder(place):
            source = _named_source(place)
            named.append(source)
            _add(source, found, ids)
            continue
        known, unknown = _of_folder(Path(place))
        left_out += unknown
        for source in known:
            _add(source, found, ids)
    for source in named:
        # A misspelt column should not cost the time that a model takes to load. Of several files a
        # damaged one is set aside, when its turn comes.
        with suppress(InputError) if len(found) > 1 else nullcontext():
            check_columns(source, columns)
    return Inputs(
        tuple(found.values()),
        tuple(left_out),
        ", ".join(map(str, places)) if len(places) <= 3 else f"{len(places)} inputs",
        is_single=len(found) == len(named) == 1,
    )


def _is_folder(place: str) -> bool:
    try:
        return Path(place).is_dir()
    except OSError as error:
        raise UsageError(f"{place}: cannot be read: {error.strerror}") from error


def _named_source(place: str) -> Source:
    if place == STDIN:
        return Source(STDIN, "standard input", "stdin")
    if is_url(place):
        check_url(place)
        return Source(place, place, place)
    path = Path(place)
    if not path.exists():
        names = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"{place}: no such file{did_you_mean(path.name, sorted(names))}")
    if not path.is_file():
        raise UsageError(
            f"{place}: is no file that can be read again",
            hint="To read a pipe, give it as standard input: --in -",
        )
    return Source(place, _readable(place), _readable(place))


def _readable(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 become ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _add(source: Source, found: dict[str, Source], ids: set[str]) -> None:
    """Add a source that is not there yet, with an id that no other has."""
    key = str(source.path.resolve()) if source.path else source.location
    if key in found:
        return
    if source.id in ids:
        source = Source(source.location, source.shown, source.shown)
    ids.add(source.id)
    found[key] = source


def _of_folder(folder: Path) -> tuple[list[Source], list[str]]:
    """The files of known types in a folder and below, and the names of the others."""

    def refuse(error: OSError) -> None:  # os.walk would leave the folder out
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error

    known: list[Source] = []
    unknown: list[str] = []
    walked = os.walk(folder, onerror=refuse)
    for path in sorted(Path(parent) / name for parent, _, names in walked for name in names):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        source = Source(str(path), _readable(str(path)), _readable(inside.as_posix()))
        if path.name in _OF_DATASETS:  # what Hugging Face datasets writes beside its files
            continue
        if source.format is None:
            unknown.append(source.id)
        elif path.is_file():  # not a pipe, which would never end
            known.append(source)
    if not known:
        raise UsageError(
            f"{folder}: the folder has no file of a known type",
            hint="Known are .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .html and .txt."
            + (f" It has {listed(unknown)}." if unknown else ""),
        )
    return known, unknown


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_columns(source: Source, columns: Columns) -> None:
    """Read as far as it takes to know that the columns are there: most often one row.

    Raises:
        UsageError: a column is not there, or the file's type is not known.
        InputError: the file is empty, or damaged that early.
    """
    if source.location == STDIN:
        return
    if source.format in ("text", "html"):
        return  # these have none
    wanted = set(columns.required())
    rows = read_rows(source.location, name=source.shown, columns=columns.required())
    for row in islice(rows, _CHECKED_ROWS):
        if row.values is not None and wanted <= row.values.keys():
            return


# --- reading -------------------------------------------------------------------------------------


def read_source(source: Source, columns: Columns) -> Iterator[Row]:
    """The rows of a file, with their values under ``text``, ``id``, ``narrative`` and ``lang``.

    Files of type .txt and .html are one document each, whose id is the source's.

    Raises:
        UsageError, InputError: As ``read_rows``: the rows before a damaged place come first.
    """
    if source.format == "text":
        yield _read_text(source)
    elif source.format == "html":
        for row in read_rows(source.location, name=source.shown, columns=["html"]):
            yield _article(row, source)
    else:
        for row in _table(source, columns):
            values = None if row.values is None else columns.by_role(row.values)
            yield Row(row.number, values, row.problem, row.raw)


def _table(source: Source, columns: Columns) -> Iterator[Row]:
    wanted = columns.required()
    if source.location == STDIN:
        return _stdin_rows(source, wanted)
    if source.format in ("parquet", "datasets"):
        # Of these, nothing is read but what is asked for.
        wanted += [name for name in columns.optional() if has_column(source.location, name)]
    return read_rows(source.location, name=source.shown, columns=wanted)


def text_problem(row: Row, text: Any) -> str | None:
    """Why the ``text`` of a row cannot be used; None: it can."""
    if row.problem:
        return row.problem
    is_text = isinstance(text, str) and bool(normalise_text(text).strip())
    return None if is_text else "text is empty or not a text"


def has_column(location: str, column: str) -> bool:
    """Whether a file of which only named columns are read (Parquet, Arrow) has this one."""
    try:
        next(read_rows(location, name=location, columns=[column]), None)
    except UsageError:
        return False
    except InputError:
        pass  # reading it will say so
    return True


def _stdin_rows(source: Source, wanted: Sequence[str]) -> Iterator[Row]:
    """Rows of JSONL as they come: none waits for a later one to be read."""
    is_empty = True
    # Not sys.stdin itself: where the program ends while a thread waits for a line, Python would
    # stop at that file's lock and abort.
    with open(sys.stdin.fileno(), "rb", closefd=False) as file:
        if file.peek(len(_UTF8_MARK)).startswith(_UTF8_MARK):
            file.read(len(_UTF8_MARK))
        for row in with_columns(read_jsonl(file), wanted, source.shown):
            is_empty = False
            yield row
    if is_empty:
        raise InputError(f"{source.shown}: is empty (no rows)")


def _one_document(source: Source, text: str | None, problem: str | None, raw: bytes) -> Row:
    values = {"text": text, "id": source.id}
    return Row(1, values, problem, raw)


def _article(row: Row, source: Source) -> Row:
    if row.values is None:
        return _one_document(source, None, row.problem, row.raw)
    article = extract_article(row.values["html"])
    problem = None if article else "no article in the page"
    return _one_document(source, article["text"] if article else None, problem, row.raw)


def _read_text(source: Source) -> Row:
    """The only row of a file that is one document."""
    stored = Input(source.location, source.shown, PATIENCE_S, BLOCK_BYTES)
    try:
        with stored.open_text() as file:
            raw = file.read(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{source.shown}: cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_LINE_BYTES:
        return _one_document(source, None, f"text too long: over {MAX_LINE_BYTES >> 20} MiB", raw)
    try:
        return _one_document(source, raw.decode(), None, raw)
    except UnicodeDecodeError as error:
        return _one_document(source, None, f"not UTF-8: byte {error.start + 1}", raw)
