"""Rows of Arrow files, as Hugging Face ``datasets`` saves them.

``save_to_disk`` writes Arrow IPC streams; the IPC file format is read too. The names of classes are
in the schema, under the key ``huggingface``, and in ``dataset_info.json`` beside the file.
Format: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slant.errors import InputError, SlantError
from slant.storage import is_url, join_url, read_url
from slant.tables.opening import Input
from slant.tables.row import Row, raw_of_values, require_columns

__all__ = [
    "BATCH_BYTES",
    "BATCH_ROWS",
    "arrow_file",
    "batch_rows",
    "read_arrow",
    "unreadable",
]

BATCH_ROWS = 1024
BATCH_BYTES = 64 << 20
"""Rows are held this many at once, and about this many bytes of them."""

_FILE_MAGIC, _STREAM_MAGIC = b"ARROW1", b"\xff\xff\xff\xff"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


def arrow_file(source: Input) -> Any:
    """The file for Arrow's own readers, seekable.

    Raises:
        UsageError, InputError: As ``Input.open_stored``; InputError too if the file is empty.
    """
    import pyarrow as pa

    stored = source.open_stored()
    if not stored.peek(1):
        stored.close()
        raise InputError(f"{source.name}: is empty (0 bytes)")
    if is_url(source.location):
        return pa.PythonFile(stored, mode="r")
    stored.close()
    # Not mapped into memory: a file that is cut meanwhile would end the process.
    return pa.OSFile(source.location)


def read_arrow(source: Input, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a file in order; of its columns, only ``columns`` are read.

    Values of a ``ClassLabel`` come as the class's name; -1, which is no class, as None.

    Raises:
        UsageError: A column does not exist.
        InputError: The file is damaged; the rows before the damage come first.
    """
    import pyarrow as pa

    number = 0
    try:
        with arrow_file(source) as file:
            schema = _open(file).schema
            require_columns(source.name, columns, schema.names, where="the file")
            wanted = sorted({schema.get_field_index(column) for column in columns})
            if -1 in wanted:
                raise InputError(f"{source.name}: has one of the columns {columns} twice")
            classes = _class_names(schema, source)
            for batch in _batches(file, pa.ipc.IpcReadOptions(included_fields=wanted)):
                for row in batch_rows(batch, number + 1, classes):
                    number = row.number
                    yield row
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unreadable(source.name, "an Arrow file", number, error) from error


def unreadable(name: str, kind: str, number: int, error: Exception) -> InputError:
    """The error of a file that is damaged behind row ``number``."""
    detail = (str(error) or type(error).__name__).splitlines()[0]
    after = f" (after row {number})" if number else ""
    return InputError(
        f"{name}: is not {kind} that can be read{after}: {detail}",
        hint="Write the file again; it may have been cut short.",
    )


def _is_file_format(file: Any) -> bool:
    """Whether it is of the file format; OSError if it is no stream either."""
    file.seek(0)
    start = file.read(len(_FILE_MAGIC))
    file.seek(0)
    if start == _FILE_MAGIC:
        return True
    if start.startswith(_STREAM_MAGIC):
        return False
    # Else the first bytes would be taken for a length, and as much memory asked for.
    raise OSError("it does not begin as one")


def _open(file: Any, options: Any = None) -> Any:
    import pyarrow as pa

    if _is_file_format(file):
        return pa.ipc.open_file(file, options=options)
    return pa.ipc.open_stream(file, options=options)


def _batches(file: Any, options: Any) -> Iterator[Any]:
    """Record batches, small ones. Raises OSError if a stream has no end mark: it was cut."""
    if _is_file_format(file):
        reader = _open(file, options)
        whole: Iterator[Any] = map(reader.get_batch, range(reader.num_record_batches))
    else:
        # A reader takes the end of the file for the end of the stream.
        is_cut = file.size() < len(_STREAM_END) or not _ends_with(file, _STREAM_END)
        whole = _checked(_open(file, options), is_cut=is_cut)
    for batch in whole:
        _validate(batch)
        mean_bytes = batch.nbytes // max(1, batch.num_rows)
        step = min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, mean_bytes)))
        for start in range(0, batch.num_rows, step):
            yield batch.slice(start, step)


def _checked(batches: Iterator[Any], *, is_cut: bool) -> Iterator[Any]:
    yield from batches
    if is_cut:
        raise OSError("the stream has no end mark")


def _ends_with(file: Any, end: bytes) -> bool:
    file.seek(file.size() - len(end))
    return bool(file.read(len(end)) == end)


def _validate(batch: Any) -> None:
    """Raise ArrowInvalid where offsets lead out of the data; Arrow itself would follow them."""
    import pyarrow as pa

    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for column in batch.columns:
        # Text that is no UTF-8 is left to cost its own row.
        (column.view(as_bytes[column.type]) if column.type in as_bytes else column).validate(
            full=True
        )


# --- names of classes ----------------------------------------------------------------------------


def _class_names(schema: Any, source: Input) -> dict[str, list[str]]:
    """The names of the classes of each ``ClassLabel`` column."""
    stored = (schema.metadata or {}).get(b"huggingface")
    features = _features(stored, "info") if stored else _features(_info_beside(source), None)
    names = {}
    for column, feature in features.items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            values = feature.get("names")
            if isinstance(values, list):
                names[column] = [str(value) for value in values]
    return names


def _features(content: bytes, key: str | None) -> dict[str, Any]:
    try:
        value = json.loads(content)
        features = (value[key] if key else value)["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _info_beside(source: Input) -> bytes:
    name = "dataset_info.json"
    try:
        if is_url(source.location):
            folder = source.location.rpartition("/")[0]
            return read_url(join_url(folder, name), patience_s=source.patience_s)
        return (Path(source.location).parent / name).read_bytes()
    except (OSError, SlantError):
        return b""


# --- values --------------------------------------------------------------------------------------


def batch_rows(
    batch: Any, first_number: int, classes: dict[str, list[str]] | None = None
) -> Iterator[Row]:
    """The rows of a record batch.

    Args:
        batch: The batch.
        first_number: Number of its first row.
        classes: Names of classes by column, for columns that hold numbers of classes.
    """
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        cells = _cells(column)
        if classes and name in classes:
            cells = [_class_name(cell, classes[name]) for cell in cells]
        columns.append(cells)
    names = batch.schema.names
    for number, row in enumerate(zip(*columns, strict=True), start=first_number):
        yield _row(number, dict(zip(names, row, strict=True)))


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


def _class_name(cell: Any, names: Sequence[str]) -> Any:
    if not isinstance(cell, int) or cell == -1:
        return None if cell == -1 else cell
    return names[cell] if 0 <= cell < len(names) else ValueError(f"class {cell}")


def _row(number: int, values: dict[str, Any]) -> Row:
    raw = raw_of_values(values)
    for column, value in values.items():
        if isinstance(value, UnicodeDecodeError):
            return Row(number, None, f"not UTF-8: column '{column}'", raw)
        if isinstance(value, Exception):
            return Row(number, None, f"value out of range: column '{column}'", raw)
    return Row(number, values, None, raw)
