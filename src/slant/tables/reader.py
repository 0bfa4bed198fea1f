"""Rows of input files of any known format, one at a time.

A row that cannot be read comes back with its problem and the next one follows. A file that is of no
use as a whole raises; one that is damaged further on (cut short, a broken block) gives the rows
before the damage first. Memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from slant.errors import InputError, UsageError, did_you_mean
from slant.storage import BLOCK_BYTES, PATIENCE_S
from slant.tables.annotations import read_doccano, read_label_studio
from slant.tables.arrow import read_arrow
from slant.tables.csv_rows import read_csv
from slant.tables.html import read_html
from slant.tables.json_array import read_json
from slant.tables.jsonl import read_jsonl
from slant.tables.opening import COMPRESSIONS, Input, split_compression
from slant.tables.parquet import count_parquet_rows, read_parquet
from slant.tables.row import Row, with_columns

__all__ = ["EXTENSIONS", "FORMATS", "Row", "count_parquet_rows", "file_format", "read_rows"]

EXTENSIONS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""Endings of the tables that are written as well as read."""

_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
    ".arrow": "datasets",
}
FORMATS = (*dict.fromkeys(_ENDINGS.values()), "label-studio", "doccano")
"""What ``read_rows`` can read."""


def file_format(name: str) -> str | None:
    """The format that a file's name tells by its ending, before that of a compression."""
    return _ENDINGS.get(_ending(name))


def read_rows(
    location: str | Path,
    *,
    name: str,
    columns: Sequence[str],
    format: str = "auto",  # noqa: A002 - as in slant.yaml
    patience_s: float = PATIENCE_S,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Row]:
    """Read the rows of a file in order; blank lines are no rows.

    Errors are raised while iterating, those of a JSON file's columns after at most 1000 rows: only
    then is a column known to be absent everywhere.

    Args:
        location: The file's path or URL. The ending .gz, .zst, .zstd or .bz2 tells that it is
            compressed.
        name: How messages name the file.
        columns: The columns that are needed. Of JSON, single rows may lack some, and a dotted name
            reaches into objects (``user.lang``). Of HTML, the only column is ``html``: the page,
            for ``slant.tables.html.extract_article``.
        format: One of ``FORMATS``, or ``auto``: by the location's ending.
        patience_s: How long the storage of a URL may stay away, in seconds.
        block_bytes: How much of a URL's file is asked for at once.

    Raises:
        UsageError: No such file, an unknown format, or a column that does not exist.
        InputError: The file is empty, cannot be opened, grows when decompressed as no text does, or
            is damaged: the rows before the damage come first, and the message tells the last one.
    """
    source = Input(str(location), name, patience_s, block_bytes)
    kind = _kind(source, format)
    number = 0
    try:
        for row in _rows(source, kind, columns):
            number = row.number
            yield row
    except OSError as error:
        after = f" (after row {number})" if number else ""
        raise InputError(
            f"{name}: cannot be read{after}: {error.strerror or error}",
            hint="Write the file again if it may have been cut short.",
        ) from error
    if number == 0:
        raise InputError(f"{name}: is empty (no rows)")


def _ending(name: str) -> str:
    return PurePosixPath(split_compression(name)[0]).suffix.lower()


def _kind(source: Input, wanted: str) -> str:
    """The format to read ``source`` in."""
    if wanted != "auto" and wanted not in FORMATS:
        raise UsageError(
            f"{source.name}: there is no format '{wanted}'{did_you_mean(wanted, FORMATS)}",
            hint=f"Known formats are {', '.join(FORMATS)}.",
        )
    kind = file_format(source.location) if wanted == "auto" else wanted
    ending = _ending(source.location)
    if kind is None:
        raise UsageError(
            f"{source.name}: files of type '{ending}' cannot be read"
            f"{did_you_mean(ending, _ENDINGS)}",
            hint=f"Known file types are {', '.join(_ENDINGS)}, also with {', '.join(COMPRESSIONS)} "
            "behind; or say in `format` what the file holds.",
        )
    if kind in ("parquet", "datasets") and split_compression(source.location)[1] is not None:
        raise UsageError(
            f"{source.name}: files of type '{ending}' cannot be read while compressed",
            hint="Decompress it; it is compressed inside anyway.",
        )
    return kind


def _rows(source: Input, kind: str, columns: Sequence[str]) -> Iterator[Row]:
    if kind == "parquet":
        yield from read_parquet(source, columns)
    elif kind == "datasets":
        yield from read_arrow(source, columns)
    elif kind == "html":
        with source.open() as file:
            yield read_html(file)
    else:
        with source.open_text() as file:
            if kind in ("csv", "tsv"):
                delimiter = "\t" if kind == "tsv" else ","
                yield from read_csv(file, source.name, columns, delimiter)
                return
            if kind == "label-studio":
                rows = read_label_studio(file, source.name)
            elif kind == "doccano":
                rows = read_doccano(file, source.name)
            elif kind == "json":
                rows = read_json(file, source.name)
            else:
                rows = read_jsonl(file)
            yield from with_columns(rows, columns, source.name)
