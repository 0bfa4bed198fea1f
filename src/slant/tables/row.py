"""A row of an input file, and the check that its columns are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slant.errors import UsageError, did_you_mean

__all__ = ["Row", "raw_of_values", "require_columns", "with_columns"]

_CHECKED_ROWS = 1000
_MAX_SUGGESTED = 1000
_MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True)
class Row:
    """One row of an input file.

    Attributes:
        number: 1-based: the line of a JSONL file; the row below the header of a CSV file; the
            element of a JSON array.
        values: by column; None if the row cannot be read.
        problem: why it cannot be read, else None: ``kind`` or ``kind: detail``. Kinds are few, so
            that they can be counted.
        raw: the bytes of the row as read (of UTF-16 and UTF-32 text, as UTF-8); for Parquet and
            Arrow, its values as JSON.
    """

    number: int
    values: dict[str, Any] | None
    problem: str | None
    raw: bytes


def raw_of_values(values: dict[str, Any]) -> bytes:
    """Values as JSON, for rows that have no bytes of their own in the file."""
    text = json.dumps(values, ensure_ascii=False, default=repr)
    return text.encode("utf-8", "backslashreplace")


def with_columns(rows: Iterable[Row], columns: Sequence[str], name: str) -> Iterator[Row]:
    """``rows`` of JSON objects, with the values of dotted columns beside the others.

    The column ``user.lang`` is the value of ``lang`` in the object ``user``, unless a row has a
    column of that very name.

    Raises:
        UsageError: A column is in none of the first 1000 readable rows.
    """
    dotted = [column for column in columns if "." in column]
    absent = set(columns)
    known: dict[str, None] = {}  # ordered, as a message lists them
    num_readable = 0
    for row in rows:
        if row.values is not None:
            for column in dotted:
                _add_nested(row.values, column)
            if absent:
                num_readable += 1
                absent.difference_update(row.values)
                known.update(dict.fromkeys(_names(row.values, nested=bool(dotted))))
                if num_readable == _CHECKED_ROWS:
                    require_columns(name, columns, known, where="any of its first 1000 rows")
                    absent.clear()
        yield row
    if absent and num_readable:
        require_columns(name, columns, known, where="any of its rows")


def _add_nested(values: dict[str, Any], column: str) -> None:
    if column in values:
        return
    value: Any = values
    for key in column.split("."):
        if not isinstance(value, dict) or key not in value:
            return
        value = value[key]
    values[column] = value


def _names(values: dict[str, Any], *, nested: bool) -> Iterator[str]:
    """The columns of a row, and the dotted ones of the objects in it."""
    for name, value in values.items():
        yield name
        if nested and isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in value)


def require_columns(name: str, columns: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Raise UsageError for the first of ``columns`` that is not among ``known``."""
    known = list(known)
    for column in columns:
        if column in known:
            continue
        if len(known) == 1 and any(separator in known[0] for separator in ";\t|"):
            hint = "The header is one column: are the fields separated by another character?"
        else:
            hint = f"Its columns are {_listed(known)}."
        # A damaged file can have a million "columns", or one of a megabyte.
        likely = [other for other in known[:_MAX_SUGGESTED] if len(other) <= _MAX_NAME_CHARACTERS]
        raise UsageError(
            f"{name}: there is no column '{column}' in {where}{did_you_mean(column, likely)}",
            hint=hint,
        )


def _listed(names: Sequence[str], most: int = 30) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    shown = (
        name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[:_MAX_NAME_CHARACTERS]}…"
        for name in names[:most]
    )
    return ", ".join(shown) + more
