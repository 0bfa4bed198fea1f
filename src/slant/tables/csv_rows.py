"""Rows of CSV and TSV files."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from typing import final

from slant.errors import InputError
from slant.tables.opening import MAX_LINE_BYTES, is_cut, read_line, skip_blank_lines
from slant.tables.row import Row, require_columns

__all__ = ["read_csv"]

_MAX_FIELD_CHARACTERS = 4 << 20


def read_csv(
    file: io.BufferedReader, name: str, columns: Sequence[str], delimiter: str
) -> Iterator[Row]:
    """The rows below the header, in order; a bad line costs itself only.

    Raises:
        UsageError: The header lacks a column.
        InputError: The header cannot be read, or has one of the columns twice.
    """
    # The csv module has one limit for the process; its 128 Ki is below our longest documents.
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD_CHARACTERS))
    records = _records(file, delimiter)
    fields, problem, _ = next(records, (None, None, b""))
    if problem:
        raise InputError(f"{name}: its header cannot be read: {problem}")
    header = fields or []
    require_columns(name, columns, header, where="its header")
    for column in columns:
        if header.count(column) > 1:
            raise InputError(f"{name}: its header has column '{column}' more than once")
    for number, (fields, problem, raw) in enumerate(records, start=1):
        if fields is None:
            yield Row(number, None, problem, raw)
        elif len(fields) != len(header):
            count = f"{len(fields)} fields where the header has {len(header)}"
            yield Row(number, None, count, raw)
        else:
            yield Row(number, dict(zip(header, fields, strict=True)), None, raw)


@final
class _Lines:
    """Lines for the csv module. Remembers those of the row being read and takes lines back."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._returned: deque[bytes] = deque()
        self.taken: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else read_line(self._file)
        if not line:
            raise StopIteration
        self.taken.append(line)
        # Undecodable bytes become lone surrogates, so that they cost their own row only.
        return line.decode("utf-8", "surrogateescape")

    def return_all_but_first(self) -> None:
        """Have the lines after the first read again."""
        self._returned.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def skip_blank(self) -> None:
        """Go past blank lines, as far as is fast."""
        if not self._returned:
            skip_blank_lines(self._file)


def _records(
    file: io.BufferedReader, delimiter: str
) -> Iterator[tuple[list[str] | None, str | None, bytes]]:
    """Fields or problem, and bytes, of each record with anything in it.

    An unclosed quote runs on into the rows below. Only its first line is given up; the others are
    read again as rows of their own. (``strict`` makes the csv module notice instead of guess.)
    """
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.taken.clear()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            lines.return_all_but_first()
            yield None, f"not valid CSV: {error}", lines.taken[0]
            continue
        if fields is None:
            return
        if not fields:
            lines.skip_blank()
            continue
        raw = b"".join(lines.taken)
        if any(is_cut(line) for line in lines.taken):
            yield None, f"line too long: over {MAX_LINE_BYTES >> 20} MiB", raw
        elif bad := [i for i, field in enumerate(fields, start=1) if _has_surrogate(field)]:
            yield None, f"not UTF-8: field {bad[0]}", raw
        else:
            yield fields, None, raw


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
