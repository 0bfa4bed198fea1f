"""How long work tells a person where it stands.

A stage takes a ``Progress`` and knows nothing of terminals. Three kinds: a rich bar with rate and
ETA (terminal), a line every ten seconds (logs), one JSON object a line (``--json``).
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TextIO, final

__all__ = [
    "BarProgress",
    "JsonProgress",
    "LineProgress",
    "Progress",
    "SilentProgress",
    "Task",
    "format_bytes",
]

_LINE_INTERVAL_S = 10.0
_BYTES = "bytes"
"""A unit that is shown as kB, MB or GB."""


class Task(Protocol):
    """One counted piece of work."""

    def advance(self, count: int = 1, **facts: float | str) -> None:
        """Report ``count`` more units done and facts to show beside them (loss, docs/s)."""
        ...


class Progress(Protocol):
    """Where a stage reports to."""

    def task(
        self, name: str, total: int | None, unit: str, done: int = 0
    ) -> AbstractContextManager[Task]:
        """A task of ``total`` units (None: unknown), of which ``done`` were finished before."""
        ...

    def say(self, message: str) -> None:
        """One line for the reader, shown above any bar."""
        ...


@final
class SilentProgress:
    """Reports nothing: the default of the SDK and of tests."""

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """See Progress."""
        yield _SilentTask()

    def say(self, message: str) -> None:
        """See Progress."""


class _SilentTask:
    def advance(self, count: int = 1, **facts: float | str) -> None:
        pass


def _format_facts(facts: dict[str, float | str]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in facts.items()
    )


def format_bytes(count: float) -> str:
    """``1.5 GB``: in powers of a thousand, as networks and disks are measured."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"


def _format_count(count: float, unit: str) -> str:
    return format_bytes(count) if unit == _BYTES else f"{count:.3g} {unit}"


def _format_done(done: int, total: int | None, unit: str) -> str:
    if unit == _BYTES:
        return " of ".join(format_bytes(n) for n in (done, total) if n is not None)
    return f"{done}/{total} {unit}" if total is not None else f"{done} {unit}"


def _format_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@final
class LineProgress:
    """A plain line every ten seconds and one at the end: for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, interval_s: float = _LINE_INTERVAL_S) -> None:
        self._stream = stream or sys.stderr
        self._interval_s = interval_s

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """See Progress."""
        task = _LineTask(self, name, total, unit, done)
        yield task
        task.report(final=True)

    def say(self, message: str) -> None:
        """See Progress."""
        print(message, file=self._stream, flush=True)

    @property
    def interval_s(self) -> float:
        """Seconds between two lines of one task."""
        return self._interval_s


class _LineTask:
    def __init__(
        self, owner: LineProgress, name: str, total: int | None, unit: str, done: int
    ) -> None:
        self._owner, self._name, self._total, self._unit = owner, name, total, unit
        self._done = self._done_before = done
        self._facts: dict[str, float | str] = {}
        self._started = self._reported = time.monotonic()

    def advance(self, count: int = 1, **facts: float | str) -> None:
        self._done += count
        self._facts.update(facts)
        if time.monotonic() - self._reported >= self._owner.interval_s:
            self.report()

    def report(self, *, final: bool = False) -> None:
        now = self._reported = time.monotonic()
        elapsed = max(now - self._started, 1e-9)
        rate = (self._done - self._done_before) / elapsed
        done = _format_done(self._done, self._total, self._unit)
        parts = [f"{self._name}: {done}", f"{_format_count(rate, self._unit)}/s"]
        if final:
            parts.append(f"took {_format_seconds(elapsed)}")
        elif self._total is not None and rate > 0:
            parts.append(f"ETA {_format_seconds((self._total - self._done) / rate)}")
        if self._facts:
            parts.append(_format_facts(self._facts))
        self._owner.say("  ".join(parts))


@final
class JsonProgress:
    """One JSON object a line on stderr: ``{"task", "done", "total", "unit", …facts}``."""

    def __init__(self, stream: TextIO | None = None, interval_s: float = 1.0) -> None:
        self._stream = stream or sys.stderr
        self._interval_s = interval_s

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """See Progress."""
        task = _JsonTask(self, {"task": name, "total": total, "unit": unit}, done, self._interval_s)
        yield task
        task.report()

    def say(self, message: str) -> None:
        """See Progress."""
        self.write({"message": message})

    def write(self, record: dict[str, Any]) -> None:
        """Write one record as a line."""
        finite = {key: _finite(value) for key, value in record.items()}
        line = json.dumps(finite, ensure_ascii=False, allow_nan=False)
        print(line, file=self._stream, flush=True)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity; a loss may have become either."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class _JsonTask:
    def __init__(
        self, owner: JsonProgress, head: dict[str, Any], done: int, interval_s: float
    ) -> None:
        self._owner, self._head, self._done, self._interval_s = owner, head, done, interval_s
        self._facts: dict[str, float | str] = {}
        self._reported = time.monotonic()

    def advance(self, count: int = 1, **facts: float | str) -> None:
        self._done += count
        self._facts.update(facts)
        if time.monotonic() - self._reported >= self._interval_s:
            self.report()

    def report(self) -> None:
        self._reported = time.monotonic()
        self._owner.write({**self._head, "done": self._done, **self._facts})


@final
class BarProgress:
    """A rich bar with rate and ETA, for a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """See Progress."""
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description:<16}", style="bold", markup=False),
            BarColumn(bar_width=28),
            *(
                (DownloadColumn(),)
                if unit == _BYTES
                else (MofNCompleteColumn(), TextColumn("{task.fields[unit]}", markup=False))
            ),
            TextColumn("{task.fields[rate]}", style="cyan"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}", style="dim", markup=False),
        )
        with Progress(*columns, console=self._console, transient=False) as bar:
            task_id = bar.add_task(name, total=total, completed=done, unit=unit, rate="", facts="")
            yield _BarTask(bar, task_id, unit)

    def say(self, message: str) -> None:
        """See Progress."""
        self._console.print(message, highlight=False, markup=False)


class _BarTask:
    def __init__(self, bar: Any, task_id: Any, unit: str) -> None:
        self._bar, self._task_id, self._unit = bar, task_id, unit
        self._facts: dict[str, float | str] = {}
        self._count = 0
        self._started = time.monotonic()

    def advance(self, count: int = 1, **facts: float | str) -> None:
        self._facts.update(facts)
        self._count += count
        rate = self._count / max(time.monotonic() - self._started, 1e-9)
        self._bar.update(
            self._task_id,
            advance=count,
            rate=f"{format_bytes(rate) if self._unit == _BYTES else f'{rate:.3g}'}/s",
            facts=_format_facts(self._facts),
        )
