"""Writes samples to a folder of MDS shards: whole shards only, and the index last."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from slant.artifacts import storage_errors, sync_folder, write_atomically
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

__all__ = ["DEFAULT_SIZE_LIMIT_BYTES", "ShardWriter"]

DEFAULT_SIZE_LIMIT_BYTES = 64 * 1024**2

# All that a writer ever puts into its folder, finished or not; nothing else there is touched.
_OWN_FILE = re.compile(r"shard\.\d{5,}\.mds(\.zstd)?(\.tmp)?|index\.json(\.tmp)?")


@final
class ShardWriter:
    """Writes samples, in the order given, to MDS shards (index version 2).

    Used as a context manager. A shard is written under a temporary name, synced and renamed;
    ``index.json`` follows when the block ends without an exception, so a folder with an index is
    complete. A killed or failed writer leaves a folder without an index, and the next one starts
    it afresh. Equal samples and settings give equal bytes.

    Args:
        folder: created with its parents where missing.
        columns: column name → encoding (see ``mds.codec``).
        compression: ``zstd``, ``zstd:<level 1–22>``, or None for shards that readers map into
            memory and read at random without decompressing.
        size_limit_bytes: a shard is closed before its uncompressed size would exceed this; a
            sample that is larger alone gets a shard of its own.
        hashes: digests kept for every file (``xxh64``, ``sha1``, ``sha256``, …).
        overwrite: whether a folder that already holds an index may be replaced.

    Raises:
        ShardError: a setting is not supported, or the folder already holds an index.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, str],
        *,
        compression: str | None = "zstd",
        size_limit_bytes: int = DEFAULT_SIZE_LIMIT_BYTES,
        hashes: Sequence[str] = ("sha1", "xxh64"),
        overwrite: bool = False,
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
        """
        index = self.folder / INDEX_BASENAME
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if index.exists() and not self._overwrite:
                raise ShardError(
                    f"{self.folder} already holds complete shards ({INDEX_BASENAME})",
                    hint="Write to another folder, or allow it to be overwritten.",
                )
            # The index goes first, and for good: what is left must not look complete.
            index.unlink(missing_ok=True)
            sync_folder(self.folder)
            for path in list(self.folder.iterdir()):
                if _OWN_FILE.fullmatch(path.name):
                    path.unlink()
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
        write_atomically(self.folder / INDEX_BASENAME, format_index(self._entries))

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

    def _start_shard(self) -> None:
        self._samples: list[bytes] = []
        self._shard_bytes = shard_overhead_bytes(self._config)

    def _flush(self) -> None:
        """Write the pending samples as the next shard; pending until that has succeeded."""
        raw_bytes = encode_shard(self._config, self._samples)
        raw = self._describe(f"shard.{len(self._entries):05}.mds", raw_bytes)
        zipped = None
        if self._compression is None:
            write_atomically(self.folder / raw.basename, raw_bytes)
        else:
            zipped_bytes = compress(self._compression, raw_bytes)
            zipped = self._describe(f"{raw.basename}.zstd", zipped_bytes)
            write_atomically(self.folder / zipped.basename, zipped_bytes)
        entry = ShardEntry(
            columns=self._columns,
            compression=self._compression,
            hashes=self._hashes,
            size_limit_bytes=self._size_limit_bytes,
            num_samples=len(self._samples),
            raw=raw,
            zipped=zipped,
        )
        self._entries.append(entry)
        self._start_shard()

    def _describe(self, basename: str, data: bytes) -> ShardFile:
        return ShardFile(basename, len(data), {name: digest(name, data) for name in self._hashes})
