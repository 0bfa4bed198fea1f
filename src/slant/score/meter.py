"""How far scoring has come, in the best unit that is known without reading everything first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from slant.progress import Progress, Task
from slant.score.inputs import Inputs

__all__ = ["Meter", "metered"]

_MB_FROM_BYTES = 100_000_000  # below, a megabyte is too coarse a step


@contextmanager
def metered(progress: Progress, inputs: Inputs) -> Iterator[Meter]:
    """A task with a total where one is known: documents of Parquet, else bytes of text files."""
    num_rows, num_bytes = inputs.num_rows, inputs.num_row_bytes
    if num_rows is not None or num_bytes is None:
        with progress.task("score", num_rows, "documents") as task:
            yield Meter(task, None, 0)
        return
    unit_bytes = 1_000_000 if num_bytes >= _MB_FROM_BYTES else 1000
    total = max(1, round(num_bytes / unit_bytes))
    with progress.task("score", total, "MB" if unit_bytes > 1000 else "kB") as task:
        meter = Meter(task, unit_bytes, total)
        yield meter
        meter.finish()


@final
class Meter:
    """Counts documents; of text files, tells of the bytes that they took."""

    def __init__(self, task: Task, unit_bytes: int | None, total: int) -> None:
        self._task = task
        self._unit_bytes = unit_bytes
        self._total = total
        self._told = self._num_bytes = self._num_documents = 0
        self._started = time.monotonic()

    def advance(self, num_bytes: int) -> None:
        """One more document is done, whose row has so many bytes."""
        if self._unit_bytes is None:
            self._task.advance()
            return
        self._num_documents += 1
        self._num_bytes += num_bytes
        # Blank lines and headers are no rows; rows of UTF-16 are counted as UTF-8.
        done = min(self._num_bytes // self._unit_bytes, self._total)
        rate = self._num_documents / max(time.monotonic() - self._started, 1e-9)
        facts: dict[str, float | str] = {"documents": str(self._num_documents), "docs/s": rate}
        self._task.advance(done - self._told, **facts)
        self._told = done

    def finish(self) -> None:
        """Everything is done, whatever the bytes add up to."""
        self._task.advance(self._total - self._told)
