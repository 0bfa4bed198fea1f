"""Where shard files lie: a folder of this machine, or a URL behind a cache on its disk."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Protocol, final

from slant.disk import storage_errors, sync_folder, write_atomically
from slant.errors import InputError, ShardError
from slant.shards.cache import DiskCache
from slant.shards.index import INDEX_BASENAME, ShardFile
from slant.storage import (
    BLOCK_BYTES,
    check_url,
    is_url,
    join_url,
    list_urls,
    open_url,
    read_url,
    remove_url,
    url_exists,
    write_url,
)

__all__ = [
    "DEFAULT_CACHE_DISK_BYTES",
    "LocalStore",
    "RemoteStore",
    "ShardStore",
    "default_cache_folder",
    "open_store",
]

DEFAULT_CACHE_DISK_BYTES = 10 << 30

_SHARES = 8


class ShardStore(Protocol):
    """A folder of shard files, wherever it is. Names are those of the index."""

    @property
    def mapped_limit_bytes(self) -> int | None:
        """How many bytes of memory maps a reader may hold; None: any number."""
        ...

    def place(self, name: str) -> str:
        """Where a file lies, for a person."""
        ...

    def read_index(self) -> bytes:
        """The content of ``index.json``; ShardError if there is none."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def read(self, file: ShardFile, hashes: Iterable[str], *, mapped: bool) -> bytes | memoryview:
        """The content of a file, or a map of it, after its size and these hashes were checked.

        Raises:
            ShardError: it cannot be read or is damaged; the message leaves the place to the caller.
        """
        ...

    def read_once(self, file: ShardFile, hashes: Iterable[str]) -> bytes | memoryview:
        """As ``read``, but from where the file really lies: nothing is cached."""
        ...

    def prepare(self) -> set[str]:
        """Make the folder ready for writing; returns the names of the files in it."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file that is there as a whole or not at all; StorageError where that fails."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, for good when this returns."""
        ...


def open_store(
    folder: Path | str, *, cache_folder: Path | None = None, cache_disk_bytes: int | None = None
) -> ShardStore:
    """The store at a path or URL.

    Args:
        folder: a path, or a URL that fsspec knows.
        cache_folder: where files from a URL are kept; None: ``default_cache_folder()``.
        cache_disk_bytes: what they may take there, all URLs together.

    Raises:
        UsageError: the URL holds credentials.
    """
    if isinstance(folder, Path) or not is_url(folder):
        return LocalStore(Path(folder))
    check_url(folder)
    limit_bytes = DEFAULT_CACHE_DISK_BYTES if cache_disk_bytes is None else cache_disk_bytes
    return RemoteStore(folder, DiskCache(cache_folder or default_cache_folder(), limit_bytes))


def default_cache_folder() -> Path:
    """``shards`` in ``$SLANT_CACHE``, or else in ``slant`` in the user's cache."""
    from slant.model.embedded import cache_folder

    return cache_folder() / "shards"


@final
class LocalStore:
    """A folder of this machine."""

    mapped_limit_bytes: int | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, name: str) -> str:
        """See ShardStore."""
        return str(self._folder / name)

    def read_index(self) -> bytes:
        """See ShardStore."""
        path = self._folder / INDEX_BASENAME
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise _not_complete(str(self._folder)) from error
        except OSError as error:
            raise ShardError(f"{path}: cannot be read: {error.strerror or error}") from error

    def has(self, name: str) -> bool:
        """See ShardStore."""
        return (self._folder / name).is_file()

    def read(self, file: ShardFile, hashes: Iterable[str], *, mapped: bool) -> bytes | memoryview:
        """See ShardStore."""
        try:
            with (self._folder / file.basename).open("rb") as opened:
                content = _content(opened, file, mapped=mapped)
        except OSError as error:
            raise ShardError(f"cannot be read: {error.strerror or error}") from error
        file.check(content, hashes)
        return content

    def read_once(self, file: ShardFile, hashes: Iterable[str]) -> bytes | memoryview:
        """See ShardStore."""
        return self.read(file, hashes, mapped=True)

    def prepare(self) -> set[str]:
        """See ShardStore."""
        with storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            return {path.name for path in self._folder.iterdir()}

    def write(self, name: str, content: bytes) -> None:
        """See ShardStore."""
        write_atomically(self._folder / name, content)

    def remove(self, names: Iterable[str]) -> None:
        """See ShardStore."""
        with storage_errors(self._folder):
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
            sync_folder(self._folder)


@final
class RemoteStore:
    """A URL. What is read is kept in a cache under the URL and the digest of its index.

    Shards that were written anew have another index, so that old files never mix with them.
    """

    def __init__(self, url: str, cache: DiskCache) -> None:
        self._url = url.rstrip("/")
        self._cache = cache
        self._key = ""

    @property
    def mapped_limit_bytes(self) -> int | None:
        """See ShardStore. A mapped file cannot be removed from the cache, so each reader keeps
        to a share of it; to open a file again costs little."""
        return self._cache.limit_bytes // _SHARES

    def place(self, name: str) -> str:
        """See ShardStore."""
        return join_url(self._url, name)

    def read_index(self) -> bytes:
        """See ShardStore; InputError if the storage does not answer."""
        try:
            content = read_url(self.place(INDEX_BASENAME))
        except InputError as error:
            if _is_missing(error):
                raise _not_complete(self._url) from error
            raise
        version = hashlib.sha256(content).hexdigest()
        self._key = hashlib.sha256(f"{self._url}\n{version}".encode()).hexdigest()[:32]
        return content

    def has(self, name: str) -> bool:
        """See ShardStore; InputError if the storage does not answer."""
        return (self._cache.folder / self._key / name).is_file() or url_exists(self.place(name))

    def read(self, file: ShardFile, hashes: Iterable[str], *, mapped: bool) -> bytes | memoryview:
        """See ShardStore; InputError if the storage does not answer, StorageError if the cache
        cannot be written."""
        try:
            return self._read_cached(file, hashes, mapped=mapped)
        except ShardError:
            # The copy may have been damaged on this disk: once more, from the storage.
            self._cache.discard(self._name(file))
            return self._read_cached(file, hashes, mapped=mapped)

    def read_once(self, file: ShardFile, hashes: Iterable[str]) -> bytes | memoryview:
        """See ShardStore; InputError if the storage does not answer."""
        try:
            content = read_url(self.place(file.basename))
        except InputError as error:
            raise _missing_or(error) from error
        file.check(content, hashes)
        return content

    def prepare(self) -> set[str]:
        """See ShardStore; InputError if the storage does not answer."""
        # A listing may spell the protocol in another way (s3, s3a): only the parts are counted.
        depth = len(_parts(self._url))
        found = map(_parts, list_urls(f"{self._url}/"))
        return {parts[-1] for parts in found if len(parts) == depth + 1}

    def write(self, name: str, content: bytes) -> None:
        """See ShardStore."""
        write_url(self.place(name), content)

    def remove(self, names: Iterable[str]) -> None:
        """See ShardStore."""
        for name in names:
            remove_url(self.place(name))

    def _name(self, file: ShardFile) -> str:
        return f"{self._key}/{file.basename}"

    def _read_cached(
        self, file: ShardFile, hashes: Iterable[str], *, mapped: bool
    ) -> bytes | memoryview:
        def download(target: BinaryIO) -> None:
            self._download(file, target)

        with self._cache.open(self._name(file), file.num_bytes, download) as opened:
            try:
                content = _content(opened, file, mapped=mapped)
            except OSError as error:
                raise ShardError(f"its copy cannot be read: {error.strerror or error}") from error
        file.check(content, hashes)
        return content

    def _download(self, file: ShardFile, target: BinaryIO) -> None:
        """Copy a file and check its size and quickest hash."""
        try:
            with open_url(self.place(file.basename)) as remote:
                file.check_size(remote.seek(0, 2))  # before it takes more room than was made
                remote.seek(0)
                while block := remote.read(BLOCK_BYTES):
                    target.write(block)
        except InputError as error:
            raise _missing_or(error) from error
        target.flush()
        file.check(_map(target), file.fastest_hash())


def _content(opened: BinaryIO, file: ShardFile, *, mapped: bool) -> bytes | memoryview:
    """All of an open file, or a memory map of it, if it has the right size."""
    file.check_size(opened.seek(0, 2))
    if mapped:
        return _map(opened)
    opened.seek(0)
    return opened.read()


def _map(opened: BinaryIO) -> memoryview:
    num_bytes = opened.seek(0, 2)
    if not num_bytes:  # an empty file cannot be mapped
        return memoryview(b"")
    return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


def _parts(url: str) -> list[str]:
    return url.partition("://")[2].strip("/").split("/")


def _not_complete(place: str) -> ShardError:
    return ShardError(
        f"{place} holds no complete shards: it has no {INDEX_BASENAME}",
        hint="A writer that was stopped leaves none; run the command that writes it again.",
    )


def _is_missing(error: InputError) -> bool:
    return isinstance(error.__cause__, FileNotFoundError)


def _missing_or(error: InputError) -> ShardError | InputError:
    """The storage answered that a file is not there, or did not answer."""
    return ShardError("is missing") if _is_missing(error) else error
