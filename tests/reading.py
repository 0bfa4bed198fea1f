"""Reading a file that may be damaged."""

from __future__ import annotations

from collections.abc import Iterator

from slant.errors import SlantError
from slant.tables.reader import Row

__all__ = ["until_error"]


def until_error(rows: Iterator[Row]) -> tuple[list[Row], SlantError | None]:
    """The rows that come before an error, and the error, if there is one."""
    seen: list[Row] = []
    try:
        for row in rows:
            seen.append(row)
    except SlantError as error:
        return seen, error
    return seen, None
