"""Reading again from parts what was not held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slant.ingest.ledger import Place
from slant.ingest.near import NUM_BANDS
from slant.ingest.parts import FileParts

__all__ = ["read_bands", "read_texts"]


def read_texts(files: Sequence[FileParts], places: Iterable[Place]) -> Iterator[str]:
    """The texts at ``places``, in order; quick where neighbours stand in the same part."""
    for column, row in _cells(files, places, "text"):
        yield column[row].as_py()


def read_bands(files: Sequence[FileParts], places: Sequence[Place]) -> NDArray[np.uint64]:
    """The band keys of the texts at ``places``: uint64 ``(len(places), NUM_BANDS)``."""
    bands = np.zeros((len(places), NUM_BANDS), dtype=np.uint64)
    held: Any = None
    keys = bands[:0]
    for number, (column, row) in enumerate(_cells(files, places, "bands")):
        if column is not held:
            held = column
            # Rows that cannot be used are null; their bytes are there all the same.
            keys = np.frombuffer(column.buffers()[1], dtype=np.uint64)
            keys = keys.reshape(-1, NUM_BANDS)[column.offset : column.offset + len(column)]
        bands[number] = keys[row]
    return bands


def _cells(
    files: Sequence[FileParts], places: Iterable[Place], name: str
) -> Iterator[tuple[Any, int]]:
    """The column of the part and the row in it, for each place."""
    import pyarrow.parquet as pq

    for (file, part), inside in groupby(places, key=lambda place: place[:2]):
        table = pq.read_table(files[file].paths[part], columns=[name])
        column = table.column(name).combine_chunks()
        for _, _, row in inside:
            yield column, row
