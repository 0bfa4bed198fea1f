"""Reads MDS shards from a folder or a URL: any sample by its number, all checksums on request."""

from __future__ import annotations

import hashlib
import operator
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, final

import numpy as np
import numpy.typing as npt

from slant.errors import ShardError
from slant.progress import Progress, SilentProgress
from slant.shards.index import (
    INDEX_BASENAME,
    ShardEntry,
    ShardFile,
    decompress,
    parse_index,
)
from slant.shards.mds import decode_sample, read_layout
from slant.shards.store import DEFAULT_CACHE_DISK_BYTES, open_store

__all__ = ["DEFAULT_CACHE_BYTES", "ShardReader"]

DEFAULT_CACHE_BYTES = 1024**3

_MAX_OPEN_SHARDS = 128  # a mapped shard costs no memory of ours, but it does cost a descriptor

_REPAIR_HINT = "Copy the file again from where it came, or write the shards anew."


@final
@dataclass(frozen=True)
class _Shard:
    """A shard ready for reading: what it holds in memory, or in a memory map."""

    place: str
    data: bytes | memoryview
    offsets: npt.NDArray[np.int64]


@final
class ShardReader:
    """Random access to the samples of a folder of MDS shards (index version 2).

    Samples have the order in which they were written. Shards are read when first needed; a
    compressed shard is held decompressed in a cache, an uncompressed one is mapped into memory.
    Reading at random from compressed shards larger than the cache decompresses a shard for nearly
    every sample: give such a reader a larger cache, or write the shards without compression.

    Shards at a URL are downloaded when first needed, checked, and kept on the disk for this and
    other processes; what was damaged or removed there is downloaded again.

    Safe to use from several threads; it can be pickled, and used after a fork (the workers of a
    ``DataLoader``): each process has its own memory, and all share the cache on the disk.

    Args:
        folder: a path or URL that holds ``index.json`` and the files it names.
        check_on_read: check size and quickest hash of a shard file when it is first read.
            ``verify`` checks all hashes of all files. Downloads are always checked.
        cache_bytes: decompressed bytes to hold at most; one shard is always held.
        cache_folder: where shards from a URL are kept (default: ``$SLANT_CACHE/shards``).
        cache_disk_bytes: bytes that ``cache_folder`` may take, all URLs and processes together;
            shards being read stay, whatever they take.

    Raises:
        ShardError: the folder has no index (its writer did not finish), or the index is damaged
            or names files outside the folder.
        UsageError: the URL holds credentials, or its protocol is not known.
        InputError: the storage does not answer, or refuses.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        check_on_read: bool = True,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        cache_folder: Path | None = None,
        cache_disk_bytes: int = DEFAULT_CACHE_DISK_BYTES,
    ) -> None:
        self.folder = folder
        self._store = open_store(
            folder, cache_folder=cache_folder, cache_disk_bytes=cache_disk_bytes
        )
        index = self._store.read_index()
        self.index_digest = hashlib.sha256(index).hexdigest()
        self._entries = _parse(index, self._store.place(INDEX_BASENAME))
        # The number of the first sample of each shard, and after them the number of samples.
        self._starts = list(accumulate((e.num_samples for e in self._entries), initial=0))
        self._check_on_read = check_on_read
        self._cache_bytes = cache_bytes
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Hold nothing yet: neither shards nor a lock that another process may have held."""
        self._cache: OrderedDict[int, _Shard] = OrderedDict()
        self._checked: set[int] = set()
        self._lock = Lock()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_cache", "_checked", "_lock", "_process")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_afresh()

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> dict[str, Any]:
        """The sample of this number; negative numbers count from the end.

        Raises:
            IndexError: there is no such sample.
            ShardError: its shard is missing or damaged; the message names the file.
        """
        number = operator.index(number)
        wanted = number + len(self) if number < 0 else number
        if not 0 <= wanted < len(self):
            raise IndexError(f"sample {number} of {len(self)} in {self.folder}")
        shard_number = bisect_right(self._starts, wanted) - 1
        shard = self._shard(shard_number)
        place = wanted - self._starts[shard_number]
        data = bytes(shard.data[shard.offsets[place] : shard.offsets[place + 1]])
        try:
            return decode_sample(self._entries[shard_number].columns, data)
        except ShardError as error:
            raise ShardError(
                f"{shard.place}: sample {place}: {error.message}", hint=_REPAIR_HINT
            ) from error

    def verify(self, progress: Progress | None = None) -> None:
        """Read every shard and check all sizes, all hashes and the layout.

        Args:
            progress: told of every shard; None reports nothing.

        Raises:
            ShardError: files are missing or damaged; the message has a line for each of them.
        """
        problems: list[str] = []
        with (progress or SilentProgress()).task(
            "verify", total=len(self._entries), unit="shards"
        ) as task:
            for entry in self._entries:
                try:
                    self._read_shard(entry, entry.hashes, verifies=True)
                except ShardError as error:
                    problems.append(error.message)
                task.advance()
        if problems:
            raise ShardError("\n".join(problems), hint=_REPAIR_HINT)

    def _shard(self, shard_number: int) -> _Shard:
        """A shard from the cache, or from the disk into the cache."""
        if self._process != os.getpid():
            self._start_afresh()
        # Held while reading too: two threads in want of one shard should not both decompress it.
        with self._lock:
            if shard_number in self._cache:
                self._cache.move_to_end(shard_number)
                return self._cache[shard_number]
            entry = self._entries[shard_number]
            while self._cache and not self._has_room_for(entry):
                self._cache.popitem(last=False)
            is_first = self._check_on_read and shard_number not in self._checked
            shard = self._read_shard(entry, entry.raw.fastest_hash() if is_first else ())
            self._checked.add(shard_number)
            self._cache[shard_number] = shard
            return shard

    def _has_room_for(self, entry: ShardEntry) -> bool:
        held_bytes = mapped_bytes = 0
        for shard in self._cache.values():
            if isinstance(shard.data, bytes):
                held_bytes += len(shard.data)
            else:
                mapped_bytes += len(shard.data)
        if entry.zipped is not None:
            held_bytes += entry.raw.num_bytes
        else:
            mapped_bytes += entry.raw.num_bytes
        limit = self._store.mapped_limit_bytes
        return (
            held_bytes <= self._cache_bytes
            and (limit is None or mapped_bytes <= limit)
            and len(self._cache) < _MAX_OPEN_SHARDS
        )

    def _read_shard(
        self, entry: ShardEntry, hashes: Iterable[str], *, verifies: bool = False
    ) -> _Shard:
        """Read and check one shard.

        Args:
            entry: the shard.
            hashes: digests to check, of the file as it is stored.
            verifies: check them of the content of a compressed file too, and look at what is
                stored and not at a copy.
        """
        file = self._stored_file(entry)
        place = self._store.place(file.basename)
        try:
            if verifies:
                stored = self._store.read_once(file, hashes)
            else:
                stored = self._store.read(file, hashes, mapped=file is entry.raw)
            data = stored
            if file is entry.zipped:
                data = decompress(stored, entry.raw.num_bytes)
                if verifies:
                    entry.raw.check(data, hashes)
            layout = read_layout(data)
            _check_against_index(layout.config, len(layout.offsets) - 1, entry)
        except ShardError as error:
            raise ShardError(f"{place}: {error.message}", hint=_REPAIR_HINT) from error
        return _Shard(place, data, layout.offsets)

    def _stored_file(self, entry: ShardEntry) -> ShardFile:
        """The file that holds a shard.

        The reference library may decompress a shard in place and remove the compressed file, so
        the uncompressed one serves where only that is left.
        """
        files = [file for file in (entry.zipped, entry.raw) if file is not None]
        for file in files:
            if self._store.has(file.basename):
                return file
        raise ShardError(f"{self._store.place(files[0].basename)}: is missing", hint=_REPAIR_HINT)


def _parse(index: bytes, place: str) -> list[ShardEntry]:
    try:
        return parse_index(index)
    except ShardError as error:
        raise ShardError(f"{place}: {error.message}", hint=error.hint or _REPAIR_HINT) from error


def _check_against_index(config: dict[str, Any], num_samples: int, entry: ShardEntry) -> None:
    """The shard repeats what the index says of it; both must agree."""
    if num_samples != entry.num_samples:
        raise ShardError(f"holds {num_samples} samples, the index says {entry.num_samples}")
    expected = entry.config()
    different = sorted(
        key for key in expected.keys() | config.keys() if config.get(key) != expected.get(key)
    )
    if different:
        raise ShardError(f"its own header and the index disagree about {', '.join(different)}")
