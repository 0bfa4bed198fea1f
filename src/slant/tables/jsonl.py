"""Rows of JSON Lines: one object a line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

from slant.tables.opening import MAX_LINE_BYTES, is_cut, read_line, skip_blank_lines
from slant.tables.row import Row

__all__ = ["json_row", "read_jsonl"]


def read_jsonl(file: io.BufferedReader) -> Iterator[Row]:
    """The rows of a file in order, numbered by line; blank lines are no rows."""
    number = 0
    while line := read_line(file):
        number += 1
        if line.strip():
            yield json_row(number, line)
        else:
            number += skip_blank_lines(file)


def json_row(number: int, raw: bytes) -> Row:
    """The row of a JSON text, which has to be an object."""
    problem = None
    value: Any = None
    if is_cut(raw):
        problem = f"line too long: over {MAX_LINE_BYTES >> 20} MiB"
    else:
        try:
            value = json.loads(raw.decode())
        except UnicodeDecodeError as error:
            problem = f"not UTF-8: byte {error.start + 1} of the line"
        except RecursionError:
            problem = "not valid JSON: nested too deep"
        except ValueError as error:
            problem = f"not valid JSON: {error}"
    if problem is None and not isinstance(value, dict):
        problem = f"not a JSON object: {_json_type(value)}"
    # JSON can escape half of a surrogate pair, which no UTF-8 file can store.
    if problem is None and b"\\ud" in raw.lower() and not _is_encodable(value):
        problem = "not Unicode: an escaped half of a surrogate pair"
    return Row(number, None if problem else value, problem, raw)


def _is_encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
