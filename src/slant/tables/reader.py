"""Rows of JSONL, CSV, TSV and Parquet files, one at a time.

A row that cannot be read comes back with its problem and the next one follows; only a file that is
of no use as a whole raises. Memory does not grow with the file.

The wording of a problem is ``kind`` or ``kind: detail``; kinds are few, so that they can be
counted.
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

from slant.errors import InputError, UsageError, did_you_mean

__all__ = ["EXTENSIONS", "Row", "count_parquet_rows", "read_rows"]

EXTENSIONS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""File names that can be read, by their ending."""

_MAX_LINE_BYTES = 64 << 20
_MAX_FIELD_CHARACTERS = 4 << 20
_CHECKED_ROWS = 1000
_BATCH_ROWS = 1024
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Row:
    """One row of an input file.

    Attributes:
        number: 1-based: the line of a JSONL file; the row below the header of a CSV file.
        values: by column; None if the row cannot be read.
        problem: why it cannot be read, else None.
        raw: the bytes of the row as read; for Parquet, its values as JSON.
    """

    number: int
    values: dict[str, Any] | None
    problem: str | None
    raw: bytes


def read_rows(path: Path, *, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """Read the rows of ``path`` in file order; blank lines are no rows.

    Errors are raised while iterating, those of a JSONL file's columns after at most 1000 rows: only
    then is a column known to be absent everywhere.

    Args:
        path: The file; its extension tells its format.
        name: How messages name the file.
        columns: The columns that are needed. In JSONL, single rows may lack some.

    Raises:
        UsageError: No such file, an unknown extension, or a column that does not exist.
        InputError: The file is empty, cannot be opened, or is damaged.
    """
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        raise UsageError(
            f"{name}: files of type '{extension}' cannot be read"
            f"{did_you_mean(extension, EXTENSIONS)}",
            hint=f"Known file types are {', '.join(EXTENSIONS)}.",
        )
    if not path.is_file():
        raise UsageError(f"{name}: no such file", hint=f"Looked for {path}")
    has_rows = False
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{name}: is empty (0 bytes)")
        if extension == ".parquet":
            rows = _read_parquet(path, name, columns)
        elif extension in (".csv", ".tsv"):
            rows = _read_csv(path, name, columns)
        else:
            rows = _read_jsonl(path, name, columns)
        for row in rows:
            has_rows = True
            yield row
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error
    if not has_rows:
        raise InputError(f"{name}: is empty (no rows)")


def _open_text(path: Path, name: str) -> BinaryIO:
    """The file behind its byte order mark, if it has one."""
    file = path.open("rb")
    start = file.read(len(_UTF8_BOM))
    if start.startswith(_UTF16_BOMS):
        file.close()
        raise InputError(f"{name}: is UTF-16 text", hint="Save the file as UTF-8.")
    file.seek(len(_UTF8_BOM) if start == _UTF8_BOM else 0)
    return file


def _read_line(file: BinaryIO) -> bytes:
    """The next line; of a line over the limit, what was within it. Empty at the end."""
    line = file.readline(_MAX_LINE_BYTES)
    if _is_cut(line):
        while (rest := file.readline(_MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
    return line


def _is_cut(line: bytes) -> bool:
    return len(line) == _MAX_LINE_BYTES and not line.endswith(b"\n")


# --- JSONL -------------------------------------------------------------------------------------


def _read_jsonl(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    absent = set(columns)
    known: dict[str, None] = {}  # ordered, as a message lists them
    num_readable = 0
    with _open_text(path, name) as file:
        for number, line in enumerate(iter(lambda: _read_line(file), b""), start=1):
            if not line.strip():
                continue
            row = _json_row(number, line)
            if absent and row.values is not None:
                num_readable += 1
                absent.difference_update(row.values)
                known.update(dict.fromkeys(row.values))
                if num_readable == _CHECKED_ROWS:
                    _require_columns(name, columns, known, where="any of its first 1000 rows")
                    absent.clear()
            yield row
    if absent and num_readable:
        _require_columns(name, columns, known, where="any of its rows")


def _json_row(number: int, line: bytes) -> Row:
    problem = None
    value: Any = None
    if _is_cut(line):
        problem = f"line too long: over {_MAX_LINE_BYTES >> 20} MiB"
    else:
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError as error:
            problem = f"not UTF-8: byte {error.start + 1} of the line"
        except RecursionError:
            problem = "not valid JSON: nested too deep"
        except ValueError as error:
            problem = f"not valid JSON: {error}"
    if problem is None and not isinstance(value, dict):
        problem = f"not a JSON object: {_json_type(value)}"
    # JSON can escape half of a surrogate pair, which no UTF-8 file can store.
    if problem is None and b"\\ud" in line.lower() and not _is_encodable(value):
        problem = "not Unicode: an escaped half of a surrogate pair"
    return Row(number, None if problem else value, problem, line)


def _is_encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# --- CSV and TSV -------------------------------------------------------------------------------


@final
class _CsvLines:
    """Lines for the csv module. Remembers those of the row being read and takes lines back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._returned: deque[bytes] = deque()
        self.taken: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else _read_line(self._file)
        if not line:
            raise StopIteration
        self.taken.append(line)
        # Undecodable bytes become lone surrogates, so that they cost their own row only.
        return line.decode("utf-8", "surrogateescape")

    def return_all_but_first(self) -> None:
        """Have the lines after the first read again."""
        self._returned.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _read_csv(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    # The csv module has one limit for the process; its 128 Ki is below our longest documents.
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD_CHARACTERS))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with _open_text(path, name) as file:
        records = _csv_records(file, delimiter)
        fields, problem, _ = next(records, (None, None, b""))
        if problem:
            raise InputError(f"{name}: its header cannot be read: {problem}")
        header = fields or []
        _require_columns(name, columns, header, where="its header")
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


def _csv_records(
    file: BinaryIO, delimiter: str
) -> Iterator[tuple[list[str] | None, str | None, bytes]]:
    """Fields or problem, and bytes, of each record with anything in it.

    An unclosed quote runs on into the rows below. Only its first line is given up; the others are
    read again as rows of their own. (``strict`` makes the csv module notice instead of guess.)
    """
    lines = _CsvLines(file)
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
        raw = b"".join(lines.taken)
        if not fields:
            continue  # a blank line
        if any(_is_cut(line) for line in lines.taken):
            yield None, f"line too long: over {_MAX_LINE_BYTES >> 20} MiB", raw
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


# --- Parquet -----------------------------------------------------------------------------------


def count_parquet_rows(path: Path) -> int | None:
    """Number of rows by the file's footer; None if that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return None


def _read_parquet(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _require_columns(name, columns, file.schema_arrow.names, where="the file")
            wanted = list(dict.fromkeys(columns))
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                cells = [_cells(column) for column in batch.columns]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield _parquet_row(number, dict(zip(batch.schema.names, row, strict=True)))
    except (pa.ArrowException, OSError) as error:
        detail = str(error).splitlines()[0]
        raise InputError(
            f"{name}: is not a Parquet file that can be read"
            + (f" (after row {number})" if number else "")
            + f": {detail}",
            hint="Write the file again; it may have been cut short.",
        ) from error


def _cells(column: Any) -> list[Any]:
    """The values of one column as Python objects; a value that has no such form as an exception."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):  # UnicodeDecodeError is a ValueError
        return [_cell(scalar) for scalar in column]
    return values


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return error


def _parquet_row(number: int, values: dict[str, Any]) -> Row:
    raw = json.dumps(values, ensure_ascii=False, default=repr).encode()
    for column, value in values.items():
        if isinstance(value, UnicodeDecodeError):
            return Row(number, None, f"not UTF-8: column '{column}'", raw)
        if isinstance(value, Exception):
            return Row(number, None, f"value out of range: column '{column}'", raw)
    return Row(number, values, None, raw)


# --- all formats -------------------------------------------------------------------------------


def _require_columns(
    name: str, columns: Iterable[str], known: Iterable[str], *, where: str
) -> None:
    """Raise UsageError for the first of ``columns`` that is not among ``known``."""
    known = list(known)
    for column in columns:
        if column in known:
            continue
        if len(known) == 1 and any(separator in known[0] for separator in ";\t|"):
            hint = "The header is one column: are the fields separated by another character?"
        else:
            hint = f"Its columns are {_listed(known)}."
        raise UsageError(
            f"{name}: there is no column '{column}' in {where}{did_you_mean(column, known)}",
            hint=hint,
        )


def _listed(names: Sequence[str], most: int = 30) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
