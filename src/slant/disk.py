"""Files on a disk: written whole or not at all, one process at a time, and what may go wrong."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slant.errors import ArtifactError, SlantError, StorageError

__all__ = ["TEMPORARY", "exclusive", "reading", "storage_errors", "sync_folder", "write_atomically"]

TEMPORARY = ".tmp"
"""Ending of a file that is being written."""
_OWNER = "Check who owns the folder."
_AGAIN = "then run the same command again: it goes on from here."
_HINTS = {
    errno.ENOSPC: f"Free some space, {_AGAIN}",
    errno.EDQUOT: f"Free some of the quota, {_AGAIN}",
    errno.EFBIG: "No larger file is allowed here; raise ulimit -f or choose another folder.",
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.EROFS: "The file system is read-only; choose another folder.",
    errno.EIO: "The disk or the network storage failed; check it, or choose another folder.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.ENAMETOOLONG: "Choose a folder with a shorter path.",
}
# Libraries in Rust and C++ report a failed write in exceptions of their own, by its text only.
_NATIVE_NUMBER = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
_NATIVE_TEXTS = {
    "no space left": errno.ENOSPC,
    "disk quota exceeded": errno.EDQUOT,
    "file too large": errno.EFBIG,
}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that ``path`` holds either what it held before or all of ``content``.

    Text is written as UTF-8. When this returns the file and its name are on the disk. One process
    at a time may write to ``path``.

    Raises:
        StorageError: it cannot be written; nothing of it is left.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # half a file would keep a full disk full
        if isinstance(error, OSError):
            raise _storage_error(path, error.errno, error) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable, where the file system can be asked to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows does not open folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold ``lock`` while the block runs; the system lets go of it if the process dies.

    Raises:
        ArtifactError: another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise ArtifactError(
            f"{lock.parent}: another process is at work here",
            hint="Wait for it to end, or give this project another `work` folder.",
        ) from None


@contextmanager
def reading(path: Path, kind: type[SlantError] = ArtifactError) -> Iterator[None]:
    """Turn an error of the file system into one of ``kind``: ``path`` cannot be read."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = _HINTS.get(error.errno or 0, "")
        raise kind(f"{path}: cannot be read: {reason}", hint=hint) from error


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a StorageError that names the place.

    Every OSError with a number is one, but for those of a network connection; so is an exception
    in which a library in Rust or C++ reports a full disk. The place is the file that the error
    names, or else ``path``.
    """
    try:
        yield
    except (SlantError, ConnectionError, TimeoutError):
        raise
    except Exception as error:
        number = _number(error)
        if number is None:
            raise
        named = getattr(error, "filename", None)
        place = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else path
        raise _storage_error(place, number, error) from error


def _number(error: Exception) -> int | None:
    """The system's error number behind an exception, or None."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    if (match := _NATIVE_NUMBER.search(text)) and int(match[1] or match[2]) in _HINTS:
        return int(match[1] or match[2])
    return next((n for words, n in _NATIVE_TEXTS.items() if words in text.lower()), None)


def _storage_error(place: Path, number: int | None, error: Exception) -> StorageError:
    reason = os.strerror(number) if number else str(error)
    verb = "read" if number == errno.ENOENT else "write"
    return StorageError(f"cannot {verb} {place}: {reason}", hint=_HINTS.get(number or 0, ""))
