"""A bounded folder of downloaded files that several processes share.

A file gets its name when it is complete. Whoever reads one holds a shared lock on it (``flock``,
which a memory map keeps and which ends with the process), and only files that nobody holds are
removed to make room, least recently used first. A removal that a reader did not expect costs it
another download and nothing else.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, final

from slant.disk import storage_errors
from slant.errors import StorageError

__all__ = ["DiskCache"]

_PARTIAL = ".part"
_ABANDONED_S = 3600.0  # a download that nobody has written to for so long is nobody's
_NUM_LOCKS = 16


@final
@dataclass(frozen=True)
class DiskCache:
    """Files below ``folder`` that together take ``limit_bytes`` at most.

    A file that is larger alone is let in when all others are out; files being read stay, and one
    on its way counts from its beginning. The folder may be removed whenever no process uses it.
    """

    folder: Path
    limit_bytes: int

    def open(self, name: str, num_bytes: int, download: Callable[[BinaryIO], None]) -> BinaryIO:
        """A file of the cache, open for reading; it stays while it is open or mapped.

        Args:
            name: its path below ``folder``.
            num_bytes: what it takes.
            download: writes its content, if it is not here yet. What it raises is passed on, and
                nothing is kept then.

        Raises:
            StorageError: no space left or no permission.
        """
        path = self.folder / name
        with storage_errors(path):
            if found := _open_shared(path):
                return found
            path.parent.mkdir(parents=True, exist_ok=True)
            # One download at a time of one file; others come through unless they share the lock.
            with self._lock(str(zlib.crc32(name.encode()) % _NUM_LOCKS)):
                return _open_shared(path) or self._add(path, num_bytes, download)

    def discard(self, name: str) -> None:
        """Remove a file that turned out to be damaged."""
        with storage_errors(self.folder):
            (self.folder / name).unlink(missing_ok=True)

    def _add(self, path: Path, num_bytes: int, download: Callable[[BinaryIO], None]) -> BinaryIO:
        partial = path.with_name(path.name + _PARTIAL)
        self._reserve(partial, num_bytes)
        try:
            with partial.open("r+b") as file:
                download(file)
                file.truncate()
            # Held before it has its name, so that it cannot go between the two.
            opened = _open_shared(partial)
            if opened is None:
                raise StorageError(
                    f"{partial}: was removed while it was written",
                    hint="Empty the cache only while nothing reads from it.",
                )
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        return opened

    def _reserve(self, partial: Path, num_bytes: int) -> None:
        """Make room for a file and take it: a sparse file counts with its whole length."""
        with self._lock("room"):
            partial.unlink(missing_ok=True)  # of a process that was killed
            self._make_room(num_bytes)
            partial.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.truncate(num_bytes)

    def _make_room(self, num_bytes: int) -> None:
        files = sorted(self._files())
        total = num_bytes + sum(size for _, size, _ in files)
        for modified, size, path in files:
            if total <= self.limit_bytes:
                return
            is_partial = path.name.endswith(_PARTIAL)
            if is_partial and time.time() - modified < _ABANDONED_S:
                continue
            if _remove_unless_held(path):
                total -= size
                with suppress(OSError):  # others are in it
                    path.parent.rmdir()

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, size and path of every file."""
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                if not path.name.startswith(".lock-") and path.is_file():
                    status = path.stat()
                    yield status.st_mtime, status.st_size, path

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        from filelock import FileLock

        with FileLock(self.folder / f".lock-{name}"):
            yield


def _open_shared(path: Path) -> BinaryIO | None:
    """Open a file and hold it, noting that it was used; None if it is not there."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with suppress(OSError):  # a read-only cache, or another user's
        os.utime(path)
    with suppress(ImportError, OSError):  # no flock on Windows and on some network file systems
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _remove_unless_held(path: Path) -> bool:
    """Remove a file that no process reads; whether it is gone."""
    try:
        with path.open("rb") as file:
            with suppress(ImportError):
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:  # held, or not ours to remove
        return False
    return True
