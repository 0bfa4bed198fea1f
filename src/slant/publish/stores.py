"""Where releases are kept: a folder, or a URL that fsspec knows. S3 has a store of its own."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar, final

from slant.artifacts import digest_file
from slant.disk import storage_errors, sync_folder, write_atomically
from slant.errors import ArtifactError, InputError
from slant.publish.release import Entry
from slant.storage import (
    BLOCK_BYTES,
    check_url,
    file_system,
    is_url,
    join_url,
    patiently,
    read_url,
    write_url,
)

__all__ = [
    "Advance",
    "FolderStore",
    "Source",
    "Store",
    "UrlStore",
    "ahead",
    "digest_md5",
    "open_store",
]

Advance = Callable[[int], object]
"""Told of bytes that are done."""
WORKERS = 4
"""Requests under way at once; each holds a block or part in memory."""
_PART = ".part"
# Their objects appear once they are whole, so that they need no temporary name.
_OBJECT_STORES = {"abfs", "abfss", "az", "gcs", "gs", "memory", "s3", "s3a"}

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Source(Protocol):
    """Files by name (``versions/…/slant.json``), to be read."""

    def place(self, name: str) -> str:
        """Where a file lies, for a person."""
        ...

    def read(self, name: str) -> bytes | None:
        """All of a small file; None if there is none."""
        ...

    def blocks(self, name: str, start: int, num_bytes: int) -> Iterator[bytes]:
        """The content of a file of ``num_bytes``, from ``start`` on.

        Raises:
            ArtifactError: it is shorter.
            InputError: there is no such file, or it cannot be read.
        """
        ...


class Store(Source, Protocol):
    """Files to be read and written, each there whole or not at all."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, or replace it."""
        ...

    def holds(self, name: str, path: Path, entry: Entry) -> bool | None:
        """Whether the file is there and has the size and the content of ``path``; None if there is
        no file."""
        ...

    def send(self, name: str, path: Path, entry: Entry, advance: Advance) -> int:
        """Write a file from ``path``; returns the bytes that had to be sent.

        ``advance`` is told of every byte, also of those that an interrupted upload sent before.

        Raises:
            StorageError: it cannot be written.
            ArtifactError: ``path`` is not what ``entry`` says.
        """
        ...


def open_store(location: str) -> Store:
    """The store at a path or URL.

    Raises:
        UsageError: the URL holds credentials, its protocol is unknown or its library missing.
    """
    if not is_url(location):
        return FolderStore(Path(location))
    check_url(location)
    if location.startswith(("s3://", "s3a://")):
        from slant.publish.s3_store import S3Store

        return S3Store(location)
    return UrlStore(location)


@final
class FolderStore:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, name: str) -> str:
        """See Store."""
        return str(self._folder / name)

    def read(self, name: str) -> bytes | None:
        """See Store."""
        try:
            return (self._folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{self.place(name)}: cannot be read: {error.strerror}") from error

    def write(self, name: str, content: bytes) -> None:
        """See Store."""
        path = self._folder / name
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)

    def holds(self, name: str, path: Path, entry: Entry) -> bool | None:
        """See Store."""
        found = self._folder / name
        if not found.is_file():
            return None
        return found.stat().st_size == entry.num_bytes and digest_file(found) == entry.sha256

    def send(self, name: str, path: Path, entry: Entry, advance: Advance) -> int:
        """See Store."""
        target = self._folder / name
        part = target.with_name(target.name + _PART)
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as source, part.open("wb") as sink:
                while block := source.read(BLOCK_BYTES):
                    sink.write(block)
                    advance(len(block))
                sink.flush()
                os.fsync(sink.fileno())
            shutil.copymode(path, part)
            part.replace(target)
            sync_folder(target.parent)
        return entry.num_bytes

    def blocks(self, name: str, start: int, num_bytes: int) -> Iterator[bytes]:
        """See Store."""
        path = self._folder / name
        try:
            with path.open("rb") as file:
                file.seek(start)
                for size in _sizes(start, num_bytes):
                    yield _whole(file.read(size), size, str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error


@final
class UrlStore:
    """A URL that fsspec knows. A file that was not sent whole is sent again."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        protocol = file_system(self._url)[0].protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._has_folders = protocols.isdisjoint(_OBJECT_STORES)

    def place(self, name: str) -> str:
        """See Store."""
        return join_url(self._url, name)

    def read(self, name: str) -> bytes | None:
        """See Store."""
        try:
            return read_url(self.place(name))
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def write(self, name: str, content: bytes) -> None:
        """See Store."""
        fs, remote = self._ready(name)
        if not self._has_folders:
            write_url(self.place(name), content)
            return

        def write() -> None:
            fs.pipe_file(remote + _PART, content)
            fs.mv(remote + _PART, remote)

        patiently(write, self.place(name), writes=True)

    def holds(self, name: str, path: Path, entry: Entry) -> bool | None:
        """See Store."""
        fs, remote = file_system(self.place(name))

        def ask() -> dict[str, Any] | None:
            fs.invalidate_cache()
            try:
                return dict(fs.info(remote))
            except FileNotFoundError:
                return None

        found = patiently(ask, self.place(name))
        if found is None or found["type"] != "file":
            return None
        if found["size"] != entry.num_bytes:
            return False
        md5 = _md5_of(found)
        # Not every store knows a checksum; and one that differs may be of something else.
        return (md5 is not None and md5 == digest_md5(path)) or self.has_digest(name, entry)

    def has_digest(self, name: str, entry: Entry) -> bool:
        """Whether a file of the right size has the right sha256. It is read whole."""
        digest = hashlib.sha256()
        for block in self.blocks(name, 0, entry.num_bytes):
            digest.update(block)
        return digest.hexdigest() == entry.sha256

    def send(self, name: str, path: Path, entry: Entry, advance: Advance) -> int:
        """See Store."""
        fs, remote = self._ready(name)
        target = remote + _PART if self._has_folders else remote

        def put() -> None:
            fs.put_file(str(path), target)
            if self._has_folders:
                fs.mv(target, remote)

        patiently(put, self.place(name), writes=True)
        advance(entry.num_bytes)
        return entry.num_bytes

    def blocks(self, name: str, start: int, num_bytes: int) -> Iterator[bytes]:
        """See Store."""
        url = self.place(name)
        fs, remote = file_system(url)
        starts = range(start, num_bytes, BLOCK_BYTES)

        def fetch(first: int) -> bytes:
            end = min(first + BLOCK_BYTES, num_bytes)
            block = patiently(lambda: fs.cat_file(remote, start=first, end=end), url)
            return _whole(bytes(block), end - first, url)

        return ahead(fetch, starts)

    def _ready(self, name: str) -> tuple[Any, str]:
        """The file system and the path of a file, in a folder that is there."""
        fs, remote = file_system(self.place(name))
        if self._has_folders:  # others make none, or make a bucket
            parent = fs._parent(remote)
            patiently(lambda: fs.makedirs(parent, exist_ok=True), self.place(name), writes=True)
        return fs, remote


def ahead(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """``work`` done on every item by ``WORKERS`` threads; results in order, and few of them held.

    An error, or the end of whoever takes the results, ends the work that has not begun.
    """
    pool = ThreadPoolExecutor(WORKERS)
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def digest_md5(path: Path) -> str:
    """MD5 of a file in hex: what stores keep as a checksum. It protects against no attacker."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _md5(content: bytes = b"") -> Any:
    return hashlib.md5(content, usedforsecurity=False)


def _md5_of(info: dict[str, Any]) -> str | None:
    """The MD5 that a listing tells of an object, in hex; None if it tells none.

    Google Cloud Storage has it in base64 under ``md5Hash``, Azure as bytes in the content settings.
    """
    if isinstance(found := info.get("md5Hash"), str):
        return base64.b64decode(found).hex()
    settings = info.get("content_settings") or {}
    found = settings.get("content_md5") if hasattr(settings, "get") else None
    return bytes(found).hex() if found else None


def _sizes(start: int, num_bytes: int) -> Iterator[int]:
    """Sizes of the blocks of a file from ``start`` on."""
    for first in range(start, num_bytes, BLOCK_BYTES):
        yield min(BLOCK_BYTES, num_bytes - first)


def _whole(block: bytes, num_bytes: int, place: str) -> bytes:
    if len(block) != num_bytes:
        raise ArtifactError(f"{place}: is damaged (it is shorter than its manifest says)")
    return block
