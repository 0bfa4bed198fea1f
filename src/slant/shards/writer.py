"""Writes samples as MDS shards to a folder or a URL: whole shards only, and the index last."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from slant.disk import storage_errors, write_atomically
from slant.errors import ShardError
from slant.shards.index import (
    INDEX_BASENAME,
    ShardEntry,
    ShardFile,
    compress,
    digest,
    format_index,
    is_compression,
    is_hash,
    parse_index,
    shard_config,
)
from slant.shards.mds import (
    MAX_SHARD_BYTES,
    SAMPLE_OVERHEAD_BYTES,
    encode_sample,
    encode_shard,
    parse_columns,
    shard_overhead_bytes,
)
from slant.shards.store import open_store

__all__ = ["DEFAULT_SIZE_LIMIT_BYTES", "Mark", "ShardWriter"]

DEFAULT_SIZE_LIMIT_BYTES = 64 * 1024**2

# All that a writer ever puts into its folder, finished or not; nothing else there is touched.
_OWN_FILE = re.compile(r"shard\.\d{5,}\.mds(\.zstd)?(\.tmp)?|index\.json(\.tmp)?")


@final
@dataclass(frozen=True)
class Mark:
    """A place in the samples of a writer, and what its caller wanted to know of it."""

    num_samples: int
    note: Mapping[str, Any]


@final
class ShardWriter:
    """Writes samples, in the order given, to MDS shards (index version 2).

    Used as a context manager. A shard appears as a whole: in a folder it is written under a
    temporary name, synced and renamed; to a URL it is sent until the storage has all of it.
    ``index.json`` follows when the block ends without an exception, so a folder with an index is
    complete. Equal samples and settings give equal bytes.

    A killed or failed writer leaves a folder without an index. The next one starts it afresh, or,
    with a ``journal``, goes on after the last complete shard: ``num_samples`` then says how many
    samples are there already, and ``resumed`` is the last ``mark`` before them.

    Args:
        folder: a path, created with its parents where missing, or a URL.
        columns: column name → encoding (see ``mds.codec``).
        compression: ``zstd``, ``zstd:<level 1–22>``, or None for shards that readers map into
            memory and read at random without decompressing.
        size_limit_bytes: a shard is closed before its uncompressed size would exceed this; a
            sample that is larger alone gets a shard of its own.
        hashes: digests kept for every file (``xxh64``, ``sha1``, ``sha256``, …).
        overwrite: whether a folder that already holds an index may be replaced.
        journal: a local file that lists the complete shards; it stays when the writer is done.

    Raises:
        ShardError: a setting is not supported, or the folder already holds an index.
        UsageError: the URL holds credentials.
    """

    def __init__(
        self,
        folder: Path | str,
        columns: Mapping[str, str],
        *,
        compression: str | None = "zstd",
        size_limit_bytes: int = DEFAULT_SIZE_LIMIT_BYTES,
        hashes: Sequence[str] = ("sha1", "xxh64"),
        overwrite: bool = False,
        journal: Path | None = None,
    ) -> None:
        if compression is not None and not is_compression(compression):
            raise ShardError(
                f"compression {compression!r} is not supported",
                hint="Supported: zstd, zstd:1 to zstd:22, or none.",
            )
        if not 0 < size_limit_bytes <= MAX_SHARD_BYTES:
            raise ShardError(
                f"size limit of {size_limit_bytes} bytes is not in 1 … {MAX_SHARD_BYTES}"
            )
        if unknown := [name for name in hashes if not is_hash(name)]:
            raise ShardError(f"hashes {unknown} are not known")
        self.folder = folder
        self.num_samples = 0
        self.resumed: Mark | None = None
        self._store = open_store(folder)
        self._journal = journal
        self._last_mark = Mark(0, {})
        self._columns = parse_columns(columns)
        self._compression = compression
        self._size_limit_bytes = size_limit_bytes
        self._hashes = tuple(sorted(set(hashes)))  # the format wants them sorted
        self._overwrite = overwrite
        config = shard_config(self._columns, compression, self._hashes, size_limit_bytes)
        self._config = json.dumps(config, sort_keys=True).encode("utf-8")
        self._entries: list[ShardEntry] = []
        self._is_open = False
        self._start_shard()

    def __enter__(self) -> Self:
        """Make the folder ready.

        Raises:
            ShardError: it already holds an index and ``overwrite`` is off.
            StorageError: it cannot be created or cleared.
            InputError: the storage does not answer, or refuses.
        """
        present = self._store.prepare()
        if INDEX_BASENAME in present:
            if not self._overwrite:
                raise ShardError(
                    f"{self.folder} already holds complete shards ({INDEX_BASENAME})",
                    hint="Write to another folder, or allow it to be overwritten.",
                )
            # The index goes first, and for good: what is left must not look complete.
            self._store.remove([INDEX_BASENAME])
        self._resume(present)
        kept = {(entry.zipped or entry.raw).basename for entry in self._entries}
        own = (name for name in present - kept if _OWN_FILE.fullmatch(name))
        self._store.remove(sorted(own))
        self._is_open = True
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the last shard and the index, unless the block failed.

        Raises:
            StorageError: a file cannot be written; there is no index then.
        """
        self._is_open = False
        if error_type is not None:
            return
        if self._samples:
            self._flush()
        # The shards and their names are on the disk by now, as the index promises.
        self._store.write(INDEX_BASENAME, format_index(self._entries))

    def write(self, sample: Mapping[str, Any]) -> None:
        """Add one sample.

        After an error the writer is as it was before the call: a caller may set a bad sample
        aside, or free some space and write the same sample again.

        Args:
            sample: a value for each column.

        Raises:
            ShardError: the sample does not fit the columns, or the writer is not open.
            StorageError: the shard that became full cannot be written.
        """
        if not self._is_open:
            raise ShardError(f"the shard writer of {self.folder} is not open: use it in a 'with'")
        encoded = encode_sample(self._columns, sample)
        num_bytes = len(encoded) + SAMPLE_OVERHEAD_BYTES
        if self._samples and self._shard_bytes + num_bytes > self._size_limit_bytes:
            self._flush()
        self._samples.append(encoded)
        self._shard_bytes += num_bytes
        self.num_samples += 1

    def mark(self, note: Mapping[str, Any]) -> None:
        """Remember, beside the samples written so far, what the caller needs to go on from here.

        Args:
            note: JSON values; comes back as ``resumed.note``.
        """
        self._last_mark = Mark(self.num_samples, dict(note))

    def _start_shard(self) -> None:
        self._samples: list[bytes] = []
        self._shard_bytes = shard_overhead_bytes(self._config)

    def _flush(self) -> None:
        """Write the pending samples as the next shard; pending until that has succeeded."""
        raw_bytes = encode_shard(self._config, self._samples)
        raw = self._describe(f"shard.{len(self._entries):05}.mds", raw_bytes)
        zipped = None
        if self._compression is None:
            self._store.write(raw.basename, raw_bytes)
        else:
            zipped_bytes = compress(self._compression, raw_bytes)
            zipped = self._describe(f"{raw.basename}.zstd", zipped_bytes)
            self._store.write(zipped.basename, zipped_bytes)
        entry = ShardEntry(
            columns=self._columns,
            compression=self._compression,
            hashes=self._hashes,
            size_limit_bytes=self._size_limit_bytes,
            num_samples=len(self._samples),
            raw=raw,
            zipped=zipped,
        )
        self._save_journal([*self._entries, entry])
        self._entries.append(entry)
        self._start_shard()

    def _save_journal(self, entries: Sequence[ShardEntry]) -> None:
        if self._journal is None:
            return
        mark = {"num_samples": self._last_mark.num_samples, "note": self._last_mark.note}
        index = json.loads(format_index(entries))
        with storage_errors(self._journal):
            self._journal.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._journal, json.dumps({"index": index, "mark": mark}))

    def _resume(self, present: set[str]) -> None:
        """Take over the shards of the journal, if they are all there and were written like ours."""
        if self._journal is None or not self._journal.exists():
            return
        try:
            journal = json.loads(self._journal.read_bytes())
            entries = parse_index(json.dumps(journal["index"]).encode())
            mark = Mark(int(journal["mark"]["num_samples"]), dict(journal["mark"]["note"]))
        except (OSError, ValueError, LookupError, TypeError, ShardError):
            return  # it only saves time
        fits = all(
            (entry.zipped or entry.raw).basename in present
            and json.dumps(entry.config(), sort_keys=True).encode() == self._config
            for entry in entries
        )
        if fits:
            self._entries = entries
            self._last_mark = self.resumed = mark
            self.num_samples = sum(entry.num_samples for entry in entries)

    def _describe(self, basename: str, data: bytes) -> ShardFile:
        return ShardFile(basename, len(data), {name: digest(name, data) for name in self._hashes})
