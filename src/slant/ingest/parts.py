"""The rows of input files, parsed, cleaned and sketched: parts that outlive the artifact.

A file's rows are cut into chunks, and each chunk becomes a part: a Parquet file with a row for
each row of the chunk, whether it can be used or not. Parts are what takes time in ingestion, so
worker processes make them, and they are kept beside the artifact under the digest of all that they
are made from: a run that was killed goes on after its last part, and a run with one new file reads
that file only.

    <artifact>.parts/<key>/00000.parquet, 00001.parquet, …    in the order of the file
    <artifact>.parts/<key>/done.json                          all parts are there
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from slant.disk import storage_errors, sync_folder, write_atomically
from slant.errors import SlantError
from slant.ingest.inputs import Inputs, Reading
from slant.ingest.part import KEY_LENGTH, PartRecipe, make_part, read_notes
from slant.ingest.sources import Source, SourceFile
from slant.progress import Progress, Task
from slant.tables.reader import Row, read_rows

__all__ = ["FileParts", "make_parts", "remove_unused_parts"]

_DONE = "done.json"
_CHUNK_ROWS = 1000
_CHUNK_BYTES = 4 << 20
_INLINE_BYTES = 2 << 20  # less than this is done before a worker process has started
_WATCH_EVERY_S = 1.0


@dataclass(frozen=True)
class FileParts:
    """The parts of one file of a source, in row order.

    Attributes:
        kind: ``examples`` or ``documents``.
        paths: of the parts.
        notes: what was replaced without losing a row, counted.
    """

    source: Source
    file: SourceFile
    kind: str
    paths: tuple[Path, ...]
    notes: Counter[str]


def make_parts(inputs: Inputs, reading: Reading, folder: Path) -> list[FileParts]:
    """Make the parts that are not there yet; returns those of all files, in order.

    Args:
        inputs: The sources.
        reading: How rows are read and cleaned; its progress is told of megabytes read.
        folder: Holds the parts.

    Raises:
        UsageError: A mapped column does not exist.
        InputError: A file is empty or damaged.
        StorageError: ``folder`` cannot be written.
    """
    settings, jobs = reading.settings, []
    for kind, sources in (("examples", inputs.labelled), ("documents", inputs.unlabelled)):
        for source in sources:
            for file in source.files:
                recipe = PartRecipe.of(source, file, kind, reading)
                key = recipe.key(inputs.fingerprints[file.name])
                jobs.append(_Job(source, file, kind, recipe, folder / key))
    waiting = {job.folder: job for job in jobs if not (job.folder / _DONE).is_file()}
    with storage_errors(folder), _pool(list(waiting.values()), settings.workers) as pool:
        for job in waiting.values():
            _read(job, pool, reading.progress)
        pool.finish()
    return [_load(job) for job in jobs]


def remove_unused_parts(folder: Path, used: Sequence[FileParts]) -> None:
    """Remove the parts of files that no source has any more."""
    keep = {path.parent.name for parts in used for path in parts.paths}
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.is_dir() and child.name not in keep and len(child.name) == KEY_LENGTH:
            shutil.rmtree(child, ignore_errors=True)


@dataclass
class _Job:
    """A file whose parts are to be made."""

    source: Source
    file: SourceFile
    kind: str
    recipe: PartRecipe
    folder: Path
    num_parts: int = 0
    num_open: int = 0
    is_read: bool = False
    notes: Counter[str] = field(default_factory=Counter)


def _load(job: _Job) -> FileParts:
    done = json.loads((job.folder / _DONE).read_text("utf-8"))
    paths = tuple(job.folder / f"{number:05}.parquet" for number in range(done["parts"]))
    return FileParts(job.source, job.file, job.kind, paths, Counter(done["notes"]))


# --- reading: the main process ------------------------------------------------------------------


def _read(job: _Job, pool: _Pool, progress: Progress) -> None:
    """Cut the file into chunks and have their parts made."""
    job.folder.mkdir(parents=True, exist_ok=True)
    for leftover in job.folder.glob("*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink()
    form = job.source.settings.format
    columns = job.recipe.parser().columns
    rows = read_rows(job.file.location, name=job.file.name, columns=columns, format=form)
    size = _size(job.file)
    total = None if size is None else max(1, round(size / 1_000_000))
    with progress.task(f"read {Path(job.file.name).name}", total, "MB") as task:
        for chunk in _chunks(rows, task):
            path = job.folder / f"{job.num_parts:05}.parquet"
            job.num_parts += 1
            pool.submit(job, path, chunk)
    job.is_read = True
    pool.close_if_done(job)


def _chunks(rows: Iterator[Row], task: Task) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    num_rows = num_bytes = total_bytes = reported = 0
    for row in rows:
        chunk.append(row)
        num_bytes += len(row.raw)
        if len(chunk) == _CHUNK_ROWS or num_bytes >= _CHUNK_BYTES:
            num_rows += len(chunk)
            total_bytes += num_bytes
            yield chunk
            task.advance(total_bytes // 1_000_000 - reported, rows=str(num_rows))
            reported = total_bytes // 1_000_000
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk


@contextmanager
def _pool(jobs: Sequence[_Job], workers: int) -> Iterator[_Pool]:
    """Worker processes, or none where starting them would take longer than the work."""
    sizes = [_size(job.file) for job in jobs]
    num = workers or os.cpu_count() or 1
    if num == 1 or (None not in sizes and sum(size or 0 for size in sizes) < _INLINE_BYTES):
        yield _Pool(None, 1)
        return
    from loky import ProcessPoolExecutor

    # loky: its workers start in a clean process, need no `if __name__ == "__main__"` in the
    # caller's script, and a worker that dies raises instead of leaving the others to wait.
    executor = ProcessPoolExecutor(num, initializer=_end_with, initargs=(os.getpid(),))
    try:
        yield _Pool(executor, num)
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _size(file: SourceFile) -> int | None:
    """Bytes of a file of this machine; None for one at a URL."""
    path = Path(file.location)
    return path.stat().st_size if path.is_file() else None


@final
class _Pool:
    """Has parts made, a bounded number of chunks ahead."""

    def __init__(self, executor: Any, num_workers: int) -> None:
        self._executor = executor
        self._most_open = 3 * num_workers
        self._open: deque[tuple[_Job, Any]] = deque()

    def submit(self, job: _Job, path: Path, chunk: list[Row]) -> None:
        """Have a part made unless it is there from an earlier run."""
        if path.is_file():
            job.notes.update(read_notes(path))
        elif self._executor is None:
            job.notes.update(make_part(job.recipe, path, chunk))
        else:
            job.num_open += 1
            self._open.append((job, self._executor.submit(make_part, job.recipe, path, chunk)))
            while len(self._open) > self._most_open:
                self._take()

    def finish(self) -> None:
        """Wait for all parts."""
        while self._open:
            self._take()

    def close_if_done(self, job: _Job) -> None:
        """Write the mark of a file whose parts are all there."""
        if job.is_read and not job.num_open:
            sync_folder(job.folder)
            notes = dict(sorted(job.notes.items()))
            text = json.dumps({"parts": job.num_parts, "notes": notes}, ensure_ascii=False)
            write_atomically(job.folder / _DONE, text)

    def _take(self) -> None:
        from loky.process_executor import TerminatedWorkerError

        job, future = self._open.popleft()
        try:
            job.notes.update(future.result())
        except TerminatedWorkerError as error:
            raise SlantError(
                f"{job.file.name}: a worker process was ended by the system",
                hint="Most often for want of memory: set ingest.workers lower, then run the same "
                "command again; it goes on from here.",
            ) from error
        job.num_open -= 1
        self.close_if_done(job)


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone: a killed run leaves nothing behind."""

    def watch() -> None:
        while _is_running(parent):
            time.sleep(_WATCH_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return os.getppid() != 1
