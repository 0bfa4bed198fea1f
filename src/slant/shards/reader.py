"""Reads a folder of MDS shards: any sample by its number, and every checksum on request."""

from __future__ import annotations

import mmap
import operator
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
    digest,
    parse_index,
)
from slant.shards.mds import decode_sample, read_layout

__all__ = ["DEFAULT_CACHE_BYTES", "ShardReader"]

DEFAULT_CACHE_BYTES = 1024**3

_MAX_OPEN_SHARDS = 128  # a mapped shard costs no memory of ours, but it does cost a descriptor

_REPAIR_HINT = "Copy the file again from where it came, or write the shards anew."


@final
@dataclass(frozen=True)
class _Shard:
    """A shard ready for reading; ``held_bytes`` is what it takes from the cache."""

    path: Path
    data: bytes | memoryview
    offsets: npt.NDArray[np.int64]
    held_bytes: int


@final
class ShardReader:
    """Random access to the samples of a folder of MDS shards (index version 2).

    Samples have the order in which they were written. Shards are read when first needed; a
    compressed shard is held decompressed in a cache, an uncompressed one is mapped into memory.
    Reading at random from compressed shards larger than the cache decompresses a shard for nearly
    every sample: give such a reader a larger cache, or write the shards without compression.

    Safe to use from several threads.

    Args:
        folder: holds ``index.json`` and the files it names.
        check_on_read: check size and quickest hash of a shard file when it is first read.
            ``verify`` checks all hashes of all files.
        cache_bytes: decompressed bytes to hold at most; one shard is always held.

    Raises:
        ShardError: the folder has no index (its writer did not finish), or the index is damaged
            or names files outside the folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        check_on_read: bool = True,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.folder = folder
        self._entries = _read_index(folder / INDEX_BASENAME)
        # The number of the first sample of each shard, and after them the number of samples.
        self._starts = list(accumulate((e.num_samples for e in self._entries), initial=0))
        self._check_on_read = check_on_read
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[int, _Shard] = OrderedDict()
        self._checked: set[int] = set()
        self._lock = Lock()

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
                f"{shard.path}: sample {place}: {error.message}", hint=_REPAIR_HINT
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
                    self._read_shard(entry, entry.hashes)
                except ShardError as error:
                    problems.append(error.message)
                task.advance()
        if problems:
            raise ShardError("\n".join(problems), hint=_REPAIR_HINT)

    def _shard(self, shard_number: int) -> _Shard:
        """A shard from the cache, or from the disk into the cache."""
        # Held while reading too: two threads in want of one shard should not both decompress it.
        with self._lock:
            if shard_number in self._cache:
                self._cache.move_to_end(shard_number)
                return self._cache[shard_number]
            entry = self._entries[shard_number]
            is_first = self._check_on_read and shard_number not in self._checked
            shard = self._read_shard(entry, entry.raw.fastest_hash() if is_first else ())
            self._checked.add(shard_number)
            self._cache[shard_number] = shard
            while len(self._cache) > 1 and self._is_cache_over_its_bounds():
                self._cache.popitem(last=False)
            return shard

    def _is_cache_over_its_bounds(self) -> bool:
        held_bytes = sum(shard.held_bytes for shard in self._cache.values())
        return held_bytes > self._cache_bytes or len(self._cache) > _MAX_OPEN_SHARDS

    def _read_shard(self, entry: ShardEntry, hashes: Iterable[str]) -> _Shard:
        """Read and check one shard.

        ``hashes`` names the digests to check, of the file as it is stored and, for a compressed
        one whose digests are all to be checked, of its content.
        """
        path, file = self._stored_file(entry)
        try:
            stored = _read_file(path, file.num_bytes, mapped=file is entry.raw)
            _check_hashes(stored, file, hashes)
            data = stored
            if file is entry.zipped:
                data = decompress(stored, entry.raw.num_bytes)
                if tuple(hashes) == entry.hashes:
                    _check_hashes(data, entry.raw, hashes)
            layout = read_layout(data)
            _check_against_index(layout.config, len(layout.offsets) - 1, entry)
        except ShardError as error:
            raise ShardError(f"{path}: {error.message}", hint=_REPAIR_HINT) from error
        held_bytes = len(data) if isinstance(data, bytes) else 0
        return _Shard(path, data, layout.offsets, held_bytes)

    def _stored_file(self, entry: ShardEntry) -> tuple[Path, ShardFile]:
        """The file that holds a shard.

        The reference library may decompress a shard in place and remove the compressed file, so
        the uncompressed one serves where only that is left.
        """
        files = [file for file in (entry.zipped, entry.raw) if file is not None]
        for file in files:
            path = self.folder / file.basename
            if path.is_file():
                return path, file
        raise ShardError(f"{self.folder / files[0].basename}: is missing", hint=_REPAIR_HINT)


def _read_index(path: Path) -> list[ShardEntry]:
    try:
        return parse_index(path.read_bytes())
    except FileNotFoundError as error:
        raise ShardError(
            f"{path.parent} holds no complete shards: it has no {path.name}",
            hint="A writer that was stopped leaves none; run the command that writes it again.",
        ) from error
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ShardError as error:
        raise ShardError(f"{path}: {error.message}", hint=error.hint or _REPAIR_HINT) from error


def _read_file(path: Path, num_bytes: int, *, mapped: bool) -> bytes | memoryview:
    """The content of a file, or a memory map of it, after checking its size."""
    try:
        with path.open("rb") as file:
            actual_bytes = file.seek(0, 2)
            if actual_bytes != num_bytes:
                raise ShardError(f"has {actual_bytes} bytes, the index says {num_bytes}")
            if mapped and num_bytes:  # an empty file cannot be mapped
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            file.seek(0)
            return file.read()
    except OSError as error:
        raise ShardError(f"cannot be read: {error.strerror or error}") from error


def _check_hashes(data: bytes | memoryview, file: ShardFile, hashes: Iterable[str]) -> None:
    for name in hashes:
        actual, expected = digest(name, data), file.hashes[name]
        if actual != expected:
            raise ShardError(f"{name} of {file.basename} is {actual}, the index says {expected}")


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
