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
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, final

from slant.artifacts import digest_json, storage_errors, sync_folder, write_atomically
from slant.config.ingest_settings import DocumentSource, ExampleSource, IngestSettings
from slant.errors import SlantError
from slant.ingest.inputs import Inputs, Reading
from slant.ingest.near import NUM_BANDS, band_keys, shingle_hashes
from slant.ingest.rows import Parsed, RowParser, RowRefusedError
from slant.ingest.sources import Source, SourceFile
from slant.labels import LabelSet
from slant.progress import Progress, Task
from slant.tables.reader import Row, file_format, read_rows

__all__ = ["FileParts", "make_parts", "remove_unused_parts"]

_SCHEMA = "slant.parts/1"
_DONE = "done.json"
_NOTES = b"slant.notes"
_CHUNK_ROWS = 1000
_CHUNK_BYTES = 4 << 20
_INLINE_BYTES = 2 << 20  # less than this is done before a worker process has started
_START_CHARACTERS = 80
_WATCH_EVERY_S = 1.0
_KEY_LENGTH = 24


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
                recipe = _Recipe.of(source, file, kind, reading)
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
        if child.is_dir() and child.name not in keep and len(child.name) == _KEY_LENGTH:
            shutil.rmtree(child, ignore_errors=True)


@dataclass(frozen=True)
class _Recipe:
    """What a worker needs to parse rows; plain text, so that equal ones are found equal."""

    source: str
    settings: str
    labels: tuple[str, ...]
    kind: str
    form: str

    @classmethod
    def of(cls, source: Source, file: SourceFile, kind: str, reading: Reading) -> _Recipe:
        own = source.settings.model_dump(mode="json", exclude={"path", "limit", "sizes"})
        form = own["format"]
        if form == "auto":
            form = file_format(file.name) or "auto"
        return cls(
            json.dumps({"path": "-", **own}, sort_keys=True),
            json.dumps(_row_settings(reading.settings), sort_keys=True),
            tuple(reading.labels),
            kind,
            form,
        )

    def key(self, fingerprint: str) -> str:
        """Names the parts of a file of this content."""
        made_from = {
            "schema": _SCHEMA,
            "content": fingerprint,
            "recipe": [self.source, self.settings, *self.labels, self.kind, self.form],
            "bands": NUM_BANDS,
        }
        return digest_json(made_from)[:_KEY_LENGTH]

    def parser(self) -> RowParser:
        kind = ExampleSource if self.kind == "examples" else DocumentSource
        return RowParser(
            kind.model_validate_json(self.source),
            IngestSettings.model_construct(**_row_settings_from(self.settings)),
            LabelSet(self.labels),
            is_html=self.form == "html",
        )


@dataclass
class _Job:
    """A file whose parts are to be made."""

    source: Source
    file: SourceFile
    kind: str
    recipe: _Recipe
    folder: Path
    num_parts: int = 0
    num_open: int = 0
    is_read: bool = False
    notes: Counter[str] = field(default_factory=Counter)


# What of `ingest` has a say in a row; the rest (splits, duplicates, …) is decided afterwards.
_ROW_SECTIONS = ("clean", "language", "duplicates", "min_characters", "max_characters")


def _row_settings(settings: IngestSettings) -> dict[str, Any]:
    dumped = {name: settings.model_dump(mode="json")[name] for name in _ROW_SECTIONS}
    del dumped["duplicates"]["jaccard"]
    return dumped


def _row_settings_from(text: str) -> dict[str, Any]:
    values = json.loads(text)
    whole = IngestSettings.model_validate({"examples": [{"path": "-"}], **values})
    return {name: getattr(whole, name) for name in _ROW_SECTIONS}


def _load(job: _Job) -> FileParts:
    done = json.loads((job.folder / _DONE).read_text("utf-8"))
    paths = tuple(job.folder / f"{number:05}.parquet" for number in range(done["parts"]))
    return FileParts(job.source, job.file, job.kind, paths, Counter(done["notes"]))


# --- reading: the main process ------------------------------------------------------------------


def _read(job: _Job, pool: _Pool, progress: Progress) -> None:
    """Cut the file into chunks and have their parts made."""
    job.folder.mkdir(parents=True, exist_ok=True)
    form = job.source.settings.format
    columns = job.recipe.parser().columns
    rows = read_rows(job.file.location, name=job.file.name, columns=columns, format=form)
    with progress.task(f"read {Path(job.file.name).name}", _megabytes(job.file), "MB") as task:
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


def _megabytes(file: SourceFile) -> int | None:
    path = Path(file.location)
    return max(1, round(path.stat().st_size / 1_000_000)) if path.is_file() else None


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
            job.notes.update(_read_notes(path))
        elif self._executor is None:
            job.notes.update(_make_part(job.recipe, path, chunk))
        else:
            job.num_open += 1
            self._open.append((job, self._executor.submit(_make_part, job.recipe, path, chunk)))
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


# --- making: the worker processes ---------------------------------------------------------------


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


@lru_cache(maxsize=8)
def _parser(recipe: _Recipe) -> RowParser:
    # Kept for the next chunk: its language model takes half a second to load.
    return recipe.parser()


def _make_part(recipe: _Recipe, path: Path, chunk: Sequence[Row]) -> Counter[str]:
    """Write one part; returns its notes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parser = _parser(recipe)
    parser.notes.clear()
    shingle = json.loads(recipe.settings)["duplicates"]
    columns: dict[str, list[Any]] = {name: [] for name in _part_schema().names}
    for row in chunk:
        record = _record(parser, row, shingle["shingle_characters"] if shingle["near"] else 0)
        for name, values in columns.items():
            values.append(record.get(name))
    schema = _part_schema().with_metadata({_NOTES: json.dumps(dict(parser.notes)).encode()})
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        pq.write_table(
            pa.table(columns, schema=schema), partial, compression="zstd", compression_level=1
        )
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Counter(parser.notes)


def _record(parser: RowParser, row: Row, shingle_characters: int) -> dict[str, Any]:
    """A row of a part."""
    record: dict[str, Any] = {"row": row.number, "row_digest": sha256(row.raw).digest()}
    try:
        if row.values is None:
            problem = row.problem or "cannot be read"
            raise RowRefusedError(problem, kind=problem.partition(":")[0])
        parsed = parser.parse(row.values)
    except RowRefusedError as refused:
        start = row.raw[: 4 * _START_CHARACTERS].decode("utf-8", "replace")[:_START_CHARACTERS]
        return record | {"reason": refused.reason, "kind": refused.kind, "start": start}
    return record | _usable(parsed, shingle_characters)


def _usable(parsed: Parsed, shingle_characters: int) -> dict[str, Any]:
    document = parsed.document
    bands = None
    if shingle_characters:
        bands = band_keys(shingle_hashes(document.text, shingle_characters)).tobytes()
    return {
        "id": document.id,
        "text": document.text,
        "lang": document.lang,
        "lang_given": parsed.lang_given,
        "lang_identified": document.lang_identified,
        "lang_confidence": document.lang_confidence,
        "source": document.source,
        "published_at": document.published_at,
        "url": document.url,
        "digest": bytes.fromhex(document.digest or ""),
        "raw_digest": bytes.fromhex(document.raw_digest or ""),
        "changes": list(parsed.changes),
        "narrative": parsed.narrative,
        "label": parsed.label,
        "annotator": parsed.annotator,
        "own_split": parsed.own_split,
        "bands": bands,
    }


@lru_cache(maxsize=1)
def _part_schema() -> Any:
    import pyarrow as pa

    text, digest = pa.string(), pa.binary(32)
    return pa.schema(
        {
            "row": pa.int64(),
            "row_digest": digest,
            "reason": text,  # null: the row can be used
            "kind": text,
            "start": text,
            "id": text,
            "text": text,
            "lang": text,
            "lang_given": text,
            "lang_identified": text,
            "lang_confidence": pa.float64(),
            "source": text,
            "published_at": pa.timestamp("us", tz="UTC"),
            "url": text,
            "digest": digest,
            "raw_digest": digest,
            "changes": pa.list_(text),
            "narrative": text,
            "label": text,
            "annotator": text,
            "own_split": text,
            "bands": pa.binary(NUM_BANDS * 8),
        }
    )


def _read_notes(path: Path) -> dict[str, int]:
    import pyarrow.parquet as pq

    notes: dict[str, int] = json.loads(pq.read_schema(path).metadata[_NOTES])
    return notes
