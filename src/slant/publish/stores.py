"""Where releases are kept: a folder, or a URL that fsspec knows. S3 has a store of its own."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol, TypeVar, final

from slant.disk import reading
from slant.errors import ArtifactError, InputError
from slant.patience import abandoned_by
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
    "Source",
    "Store",
    "UrlStore",
    "ahead",
    "check_sent",
    "digest_md5",
    "open_store",
    "whole_block",
]

Advance = Callable[[int], object]
"""Told of bytes that are done."""
WORKERS = 4
"""Requests under way at once; each holds a block or part in memory."""

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
    from slant.publish.folder_store import FolderStore

    if not is_url(location):
        return FolderStore(Path(location))
    check_url(location)
    if location.startswith("file://"):
        return FolderStore(Path(file_system(location)[1]))
    if location.startswith(("s3://", "s3a://")):
        from slant.publish.s3_store import S3Store

        return S3Store(location)
    return UrlStore(location)


@final
class UrlStore:
    """A URL that fsspec knows, of a store whose objects appear once they are whole.

    A file that was not sent whole is sent again.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        file_system(self._url)  # which finds out whether it can be used

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
        write_url(self.place(name), content)

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
        if entry.num_bytes <= BLOCK_BYTES:
            # Looked at before it goes, the manifest above all: it says that a version is there.
            with reading(path):
                content = path.read_bytes()
            check_sent(path, hashlib.sha256(content).hexdigest(), entry)
            self.write(name, content)
        else:
            fs, remote = file_system(self.place(name))
            options = _put_options(fs, path)
            patiently(
                lambda: fs.put_file(str(path), remote, **options), self.place(name), writes=True
            )
            check_sent(path, Entry.of(path).sha256, entry)
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
            return whole_block(bytes(block), end - first, url)

        return ahead(fetch, starts)


def ahead(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """``work`` done on every item by ``WORKERS`` threads; results in order, and few of them held.

    An error, or the end of whoever takes the results, ends the work: requests that fail are not
    sent again, and one that hangs does not hold up the end of the process.
    """
    waiting: deque[Future[_Result]] = deque()
    gone = Event()
    try:
        for item in items:
            waiting.append(_begin(work, item, gone))
            if len(waiting) == WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        gone.set()


def _begin(work: Callable[[_Item], _Result], item: _Item, gone: Event) -> Future[_Result]:
    """``work(item)`` in a thread of its own.

    Not in a pool: the interpreter waits for the threads of a pool before it ends, and Ctrl-C would
    have to wait for a network that is away.
    """
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            with abandoned_by(gone):
                future.set_result(work(item))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return future


def check_sent(path: Path, sha256: str, entry: Entry) -> None:
    """Refuse what was sent of a file that is no longer what the release lists.

    Raises:
        ArtifactError: its sha256 is another.
    """
    if sha256 != entry.sha256:
        raise ArtifactError(
            f"{path}: changed while it was sent",
            hint="Run `slant export` again; nothing points to what was sent.",
        )


def digest_md5(path: Path) -> str:
    """MD5 of a file in hex: what stores keep as a checksum. It protects against no attacker."""
    with reading(path), path.open("rb") as file:
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


def _put_options(fs: Any, path: Path) -> dict[str, Any]:
    """What a large file is sent with, beside its content.

    Azure knows no checksum of a file that goes up in blocks unless it is told one; without it the
    file would be read whole to find out whether it has to be sent again. Its library holds as many
    blocks as there may be requests, by default more than a hundred.
    """
    if "abfs" not in fs.protocol:
        return {}
    from azure.storage.blob import ContentSettings

    md5 = bytearray.fromhex(digest_md5(path))
    return {"content_settings": ContentSettings(content_md5=md5), "max_concurrency": WORKERS}


def whole_block(block: bytes, num_bytes: int, place: str) -> bytes:
    """The block, if it is one of so many bytes."""
    if len(block) != num_bytes:
        raise ArtifactError(f"{place}: is damaged (it is shorter than its manifest says)")
    return block
