"""The narratives that every document is asked about: from a list, or from a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from slant.errors import InputError, UsageError
from slant.records import Narrative
from slant.score.inputs import has_column, text_problem
from slant.storage import BLOCK_BYTES, PATIENCE_S
from slant.tables.opening import Input, is_cut, read_line
from slant.tables.reader import file_format, read_rows
from slant.task.normalise import normalise_text

__all__ = ["read_narratives", "unique_narratives"]


def read_narratives(path: Path) -> list[Narrative]:
    """The narratives of a file, in its order; the id of one that has none is empty.

    Args:
        path: JSONL, JSON, CSV, TSV or Parquet with a column ``text`` and, if wanted, ``id``. Any
            other file: text with one narrative a line; blank lines, and lines that begin with
            ``#``, are none.

    Raises:
        UsageError: no such file, or it has no column ``text``.
        InputError: it cannot be read, a row of it cannot, or it has no narrative.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file", hint="It was given as --narratives.")
    is_table = file_format(path.name) in ("jsonl", "json", "csv", "tsv", "parquet")
    narratives = list(_of_table(path) if is_table else _of_lines(path))
    if not narratives:
        raise InputError(f"{path}: has no narrative", hint="Write one narrative a line.")
    return narratives


def unique_narratives(
    narratives: Iterable[Narrative],
) -> tuple[list[Narrative], list[Narrative]]:
    """The narratives without those whose text came before, and those.

    Raises:
        InputError: two have the same id and different texts.
    """
    kept: dict[str, Narrative] = {}
    by_id: dict[str, str] = {}
    repeated = []
    for narrative in narratives:
        text = normalise_text(narrative.text).strip()
        if narrative.id and by_id.setdefault(narrative.id, text) != text:
            raise InputError(
                f"narrative id '{narrative.id}' stands for two narratives: "
                f"{by_id[narrative.id]!r} and {text!r}",
                hint="Give each its own id.",
            )
        if kept.setdefault(text, narrative) is not narrative:
            repeated.append(narrative)
    return list(kept.values()), repeated


def _of_table(path: Path) -> Iterator[Narrative]:
    is_parquet = file_format(path.name) == "parquet"
    columns = ["text", "id"] if is_parquet and has_column(str(path), "id") else ["text"]
    for row in read_rows(path, name=str(path), columns=columns):
        values = row.values or {}
        text, id_ = values.get("text"), values.get("id")
        if problem := text_problem(row, text):
            raise InputError(f"{path}: row {row.number}: {problem}", hint="Mend or remove the row.")
        yield Narrative("" if id_ is None else str(id_).strip(), str(text).strip())


def _of_lines(path: Path) -> Iterator[Narrative]:
    number = 0
    try:
        with Input(str(path), str(path), PATIENCE_S, BLOCK_BYTES).open_text() as file:
            while line := read_line(file):
                number += 1
                text = line.decode().strip()
                if is_cut(line):
                    raise InputError(f"{path}: line {number}: too long for a narrative")
                if normalise_text(text).strip() and not text.startswith("#"):
                    yield Narrative("", text)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: line {number}: not UTF-8", hint="Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
