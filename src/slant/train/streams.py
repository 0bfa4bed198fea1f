"""Streams: the folders of MDS shards that the shard stage leaves for training.

They lie in the artifact, or, with ``shard.to``, in a folder or at a URL of which the artifact keeps
``shards.json``: the place, and for each stream the sha256 of its index. An index lists the digests
of its shards, so that the artifact's own digest changes whenever a sample does.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from slant.artifacts import Artifact
from slant.config.settings import ShardSettings
from slant.disk import storage_errors, write_atomically
from slant.errors import ArtifactError, InputError, ShardError
from slant.progress import Progress
from slant.shards.reader import ShardReader
from slant.shards.store import DEFAULT_CACHE_DISK_BYTES, open_store
from slant.shards.writer import ShardWriter
from slant.storage import is_url, join_url, read_url, write_url

__all__ = [
    "STREAMS_FILE",
    "Chunk",
    "Stream",
    "StreamWriter",
    "open_shards",
    "stream_names",
]

STREAMS_FILE = "shards.json"
"""Where the streams are, if they are not in the artifact."""

_RECORD = "stream.json"  # beside the index of a stream outside the artifact: what it holds


@final
@dataclass(frozen=True)
class Chunk:
    """The samples of some items of a stream's source.

    Attributes:
        end: items of the source up to here, from its beginning.
        samples: what the items since the chunk before became; no sample spans two chunks.
        counts: what is to be counted of them.
    """

    end: int
    samples: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]


@final
@dataclass(frozen=True)
class Stream:
    """One stream to write.

    Attributes:
        name: its folder, e.g. ``tune/train``.
        columns: of its samples (see ``ShardWriter``).
        num_items: in its source.
        unit: what they are.
        counted: names of the counts, which begin at 0.
        chunks: the chunks from an item on, which is 0 or the end of a chunk. They are the same
            every time.
    """

    name: str
    columns: Mapping[str, str]
    num_items: int
    unit: str
    counted: Sequence[str]
    chunks: Callable[[int], Iterator[Chunk]]


def open_shards(
    artifact: Artifact, stream: str, *, cache_disk_bytes: int = DEFAULT_CACHE_DISK_BYTES
) -> ShardReader:
    """The reader of one stream of a shard artifact, wherever its shards are.

    Args:
        artifact: of the shard stage.
        stream: e.g. ``tune/train``; ``stream_names`` lists them.
        cache_disk_bytes: what the local cache of remote shards may take.

    Raises:
        ShardError: the shards are gone, or others lie in their place.
        InputError: their storage does not answer, or refuses.
    """
    remote = _remote(artifact)
    if remote is None:
        return ShardReader(artifact.path / stream)
    folder = _inside(_absolute(artifact.path, remote["location"]), stream)
    reader = ShardReader(folder, cache_disk_bytes=cache_disk_bytes)
    if reader.index_digest != remote["streams"].get(stream):
        raise ShardError(
            f"{folder}: these are not the shards that {artifact.path} was made with",
            hint=f"Remove both and run `slant shard` again; {STREAMS_FILE} has the digests.",
        )
    return reader


def stream_names(artifact: Artifact) -> list[str]:
    """The names of an artifact's streams, sorted."""
    remote = _remote(artifact)
    if remote is not None:
        return sorted(remote["streams"])
    suffix = "/index.json"
    files = artifact.manifest["files"]
    return sorted(name.removesuffix(suffix) for name in files if name.endswith(suffix))


@final
class StreamWriter:
    """Writes the streams of one build, each once however often the build is stopped.

    A stream that is complete is not written again; one that is not goes on after its last complete
    shard. The result is byte for byte that of a build that was never stopped.

    Args:
        out: folder of the artifact.
        scratch: keeps what is needed to go on.
        settings: the section ``shard``.
        location: folder (relative to ``out``) or URL for the streams; None: ``out`` itself.
    """

    def __init__(
        self, out: Path, scratch: Path, settings: ShardSettings, location: str | None
    ) -> None:
        self._out = out
        self._scratch = scratch
        self._settings = settings
        self._location = location
        self._digests: dict[str, str] = {}

    def write(self, stream: Stream, progress: Progress) -> dict[str, int]:
        """Write a stream unless it is complete; returns its counts.

        Raises:
            StorageError, InputError: it cannot be written, or its storage does not answer.
        """
        folder = self._folder(stream.name)
        counts = self._counts_if_complete(folder, stream.name)
        if counts is None:
            counts = self._write(folder, stream, progress)
            digest = _index_digest(folder)
            record = json.dumps({"index": digest, "counts": counts})
            _write(self._record(folder, stream.name), record.encode())
            self._digests[stream.name] = digest
        return counts

    def finish(self) -> None:
        """Leave word of where the streams are, if they are not in the artifact."""
        if self._location is not None:
            content = {"location": self._location, "streams": self._digests}
            write_atomically(self._out / STREAMS_FILE, json.dumps(content, indent=1))

    def _folder(self, name: str) -> Path | str:
        if self._location is None:
            return self._out / name
        return _inside(_absolute(self._out, self._location), name)

    def _record(self, folder: Path | str, name: str) -> Path | str:
        if self._location is None:
            return self._scratch / f"{name.replace('/', '-')}.done.json"
        return _inside(folder, _RECORD)

    def _counts_if_complete(self, folder: Path | str, name: str) -> dict[str, int] | None:
        content = _read(self._record(folder, name))
        if content is None:
            return None
        try:
            record = json.loads(content)
            counts = {str(key): int(value) for key, value in record["counts"].items()}
            if record["index"] != _index_digest(folder):
                return None
        except (ValueError, LookupError, TypeError, AttributeError, ShardError):
            return None  # it is written again
        self._digests[name] = record["index"]
        return counts

    def _write(self, folder: Path | str, stream: Stream, progress: Progress) -> dict[str, int]:
        compression = self._settings.compression
        writer = ShardWriter(
            folder,
            stream.columns,
            compression=None if compression == "none" else compression,
            size_limit_bytes=self._settings.size_limit_bytes,
            overwrite=True,
            journal=self._scratch / f"{stream.name.replace('/', '-')}.journal.json",
        )
        counts = Counter(dict.fromkeys(stream.counted, 0))
        with writer:
            first = present = 0
            if writer.resumed is not None and writer.resumed.note:
                first = int(writer.resumed.note["end"])
                counts.update(writer.resumed.note["counts"])
            if writer.resumed is not None:
                present = writer.num_samples - writer.resumed.num_samples
            with progress.task(
                f"encode {stream.name}", stream.num_items, stream.unit, done=first
            ) as task:
                for chunk in stream.chunks(first):
                    for sample in chunk.samples[present:]:
                        writer.write(sample)
                    present = 0
                    counts.update(chunk.counts)
                    writer.mark({"end": chunk.end, "counts": dict(counts)})
                    task.advance(chunk.end - first)
                    first = chunk.end
        return dict(counts)


def _remote(artifact: Artifact) -> dict[str, Any] | None:
    """What ``shards.json`` says; None if the artifact has none."""
    if STREAMS_FILE not in artifact.manifest["files"]:
        return None
    path = artifact.file(STREAMS_FILE)
    try:
        content = json.loads(path.read_text("utf-8"))
        location, streams = str(content["location"]), dict(content["streams"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ArtifactError(
            f"{path}: is missing or damaged", hint="Run `slant shard` again."
        ) from error
    return {"location": location, "streams": streams}


def _absolute(folder: Path, location: str) -> Path | str:
    return location if is_url(location) else folder / location


def _inside(folder: Path | str, name: str) -> Path | str:
    return join_url(folder, name) if isinstance(folder, str) else folder / name


def _index_digest(folder: Path | str) -> str:
    return hashlib.sha256(open_store(folder).read_index()).hexdigest()


def _read(place: Path | str) -> bytes | None:
    """The content of a file, or None if there is none."""
    if isinstance(place, Path):
        with storage_errors(place):
            return place.read_bytes() if place.is_file() else None
    try:
        return read_url(place)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _write(place: Path | str, content: bytes) -> None:
    if isinstance(place, str):
        write_url(place, content)
    else:
        write_atomically(place, content)
