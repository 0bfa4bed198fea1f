"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slant.errors import InputError
from slant.storage import BLOCK_BYTES, PATIENCE_S
from slant.tables.arrow import BATCH_BYTES, BATCH_ROWS, arrow_file, batch_rows, unreadable
from slant.tables.opening import Input, refuse_bomb
from slant.tables.row import Row, require_columns

__all__ = ["count_parquet_rows", "read_parquet"]


def count_parquet_rows(location: str | Path) -> int | None:
    """Number of rows by the file's footer; None if that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with arrow_file(Input(str(location), str(location), PATIENCE_S, BLOCK_BYTES)) as file:
            return int(pq.read_metadata(file).num_rows)
    except (OSError, ValueError, pa.ArrowException, InputError):
        return None


def read_parquet(source: Input, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a file in order; of its columns, only ``columns`` are read.

    Raises:
        UsageError: A column does not exist.
        InputError: The file is damaged; the rows before the damage come first.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with arrow_file(source) as stored, pq.ParquetFile(stored) as file:
            names = file.schema_arrow.names
            require_columns(source.name, columns, names, where="the file")
            wanted = list(dict.fromkeys(columns))
            for column in wanted:
                if names.count(column) > 1:
                    raise InputError(f"{source.name}: has column '{column}' more than once")
            num_rows = _rows_at_once(file.metadata, stored.size())
            for batch in file.iter_batches(batch_size=num_rows, columns=wanted):
                for row in batch_rows(batch, number + 1):
                    number = row.number
                    yield row
    # A column's name that is no UTF-8 is a ValueError.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unreadable(source.name, "a Parquet file", number, error) from error


def _rows_at_once(metadata: Any, file_bytes: int) -> int:
    """How many rows are held at once, so that long documents do not add up."""
    # Not from the metadata of columns: asking for them ends the process where they contradict the
    # schema (pyarrow 26).
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    refuse_bomb(sum(group.total_byte_size for group in groups), file_bytes)
    sizes = (group.total_byte_size // max(1, group.num_rows) for group in groups)
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max([1, *sizes]))))
