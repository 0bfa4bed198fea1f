"""Rows of a JSON file: the objects of an array, or one object a line."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import final

from slant.errors import InputError
from slant.tables.jsonl import json_row, read_jsonl
from slant.tables.opening import MAX_LINE_BYTES
from slant.tables.row import Row

__all__ = ["read_json"]

_PIECE_BYTES = 1 << 20
_STRUCTURE = re.compile(rb'["\[\]{},]')
# Possessive: never tries again, so it takes one pass and no stack.
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


def read_json(file: io.BufferedReader, name: str) -> Iterator[Row]:
    """The rows of a file in order, numbered by element, or by line if it begins with ``{``.

    An element that is no JSON object costs itself only. Memory holds one element.

    Raises:
        InputError: It begins with something else, its array does not end, or it goes on behind it.
    """
    while (start := file.peek(1)[:1]).isspace():
        file.read(1)
    if start == b"{":
        yield from read_jsonl(file)
    elif start == b"[":
        file.read(1)
        for number, element in enumerate(_elements(file, name), start=1):
            yield json_row(number, element)
    elif start:
        raise InputError(
            f"{name}: is neither a JSON array nor one JSON object a line",
            hint="It has to begin with [ or {.",
        )


def _elements(file: io.BufferedReader, name: str) -> Iterator[bytes]:
    """The texts between the commas of the array whose bracket was just read."""
    scanner = _Scanner()
    element = bytearray()
    number = 0
    while piece := file.read(_PIECE_BYTES):
        start = 0
        for end in scanner.ends(piece):
            _extend(element, piece[start:end])
            start = end + 1
            number += 1
            if not scanner.is_open:
                if stripped := element.strip():  # nothing: the array is empty, or ends in a comma
                    yield bytes(stripped)
                _require_end(file, piece[start:], name)
                return
            # One over the limit stays as long as it is, which tells that it was cut.
            yield bytes(element if len(element) == MAX_LINE_BYTES else element.strip())
            element.clear()
        _extend(element, piece[start:])
    raise InputError(
        f"{name}: ends inside its array" + (f" (after row {number})" if number else ""),
        hint="Write the file again; it may have been cut short.",
    )


def _extend(element: bytearray, part: bytes) -> None:
    element += part[: MAX_LINE_BYTES - len(element)]


def _require_end(file: io.BufferedReader, rest: bytes, name: str) -> None:
    while not rest.strip():
        rest = file.read(_PIECE_BYTES)
        if not rest:
            return
    raise InputError(f"{name}: goes on after the end of its array")


@final
class _Scanner:
    """Finds where the elements of an array end, in pieces of a file.

    Only quotes, brackets and commas are looked at; whether an element is valid is found later.
    """

    def __init__(self) -> None:
        self._depth = 1
        self._in_string = False
        self._is_escaped = False  # the last piece ended with a backslash

    @property
    def is_open(self) -> bool:
        """Whether the array has not ended yet."""
        return self._depth > 0

    def ends(self, piece: bytes) -> Iterator[int]:
        """Positions of the commas between elements, and of the bracket that ends the array."""
        position = 1 if self._is_escaped else 0
        self._is_escaped = False
        while position < len(piece):
            if self._in_string:
                position = self._after_string(piece, position)
                continue
            token = _STRUCTURE.search(piece, position)
            if token is None:
                return
            position = token.end()
            kind = token[0]
            if kind == b'"':
                self._in_string = True
            elif kind in b"[{":
                self._depth += 1
            elif kind in b"]}":
                self._depth -= 1
                if self._depth == 0:
                    yield position - 1
                    return
            elif self._depth == 1:
                yield position - 1

    def _after_string(self, piece: bytes, position: int) -> int:
        """The position behind the quote that ends a string, or the end of the piece."""
        match = _IN_STRING.match(piece, position)
        position = match.end() if match else position
        if piece[position : position + 1] == b'"':
            self._in_string = False
        else:
            self._is_escaped = position < len(piece)
        return position + 1
