"""Rows into JSONL, CSV, TSV and Parquet files that appear only when they are complete."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, final

from slant.disk import storage_errors, sync_folder
from slant.errors import UsageError, did_you_mean
from slant.tables.reader import EXTENSIONS

__all__ = ["TableWriter", "check_writable"]

_BATCH_ROWS = 1024


class _Format(Protocol):
    def write(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def check_writable(path: Path) -> None:
    """Raises UsageError if ``path`` has an unknown ending or its folder does not exist."""
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        raise UsageError(
            f"{path}: files of type '{extension}' cannot be written"
            f"{did_you_mean(extension, EXTENSIONS)}",
            hint=f"Known file types are {', '.join(EXTENSIONS)}.",
        )
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder")


@final
class TableWriter:
    """Writes rows to ``path``, under a temporary name until the block ends without an error.

    Args:
        path: its ending tells the format.
        columns: name → ``str`` or ``float``, in order; every row has all of them.
        metadata: goes into the file where its format has a place for it: Parquet.

    Raises:
        UsageError: an unknown ending, or no such folder.
        StorageError: no space left or no permission.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, type],
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        check_writable(path)
        self._metadata = dict(metadata or {})
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._columns = dict(columns)
        self._format: _Format | None = None

    def __enter__(self) -> Self:
        with storage_errors(self._path):
            extension = self._path.suffix.lower()
            if extension == ".parquet":
                self._format = _Parquet(self._partial, self._columns, self._metadata)
            elif extension in (".csv", ".tsv"):
                self._format = _Csv(self._partial, list(self._columns), extension)
            else:
                self._format = _Jsonl(self._partial)
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        if self._format is None:
            raise RuntimeError("TableWriter is used outside of its with block")
        with storage_errors(self._path):
            self._format.write(row)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with storage_errors(self._path):
                if self._format is not None:
                    self._format.close()
                if kind is None:
                    with self._partial.open("rb") as content:
                        os.fsync(content.fileno())
                    self._partial.replace(self._path)
                    sync_folder(self._path.parent)
        finally:
            self._partial.unlink(missing_ok=True)


class _Jsonl:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _Csv:
    def __init__(self, path: Path, columns: Sequence[str], extension: str) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        delimiter = "\t" if extension == ".tsv" else ","
        self._writer = csv.DictWriter(self._file, columns, delimiter=delimiter)
        self._writer.writeheader()

    def write(self, row: Mapping[str, Any]) -> None:
        self._writer.writerow(row)

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(
        self, path: Path, columns: Mapping[str, type], metadata: Mapping[str, str]
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {str: pa.string(), float: pa.float64()}
        fields = [(name, kinds[kind]) for name, kind in columns.items()]
        self._schema = pa.schema(fields, metadata=dict(metadata) or None)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        self._rows.append(dict(row))
        if len(self._rows) == _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()
