"""Releases in a folder of this machine, or in one that is mounted."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import final

from slant.artifacts import digest_file
from slant.disk import reading, storage_errors, sync_folder
from slant.errors import InputError, UsageError
from slant.publish.release import Entry
from slant.publish.stores import Advance, check_sent, whole_block
from slant.storage import BLOCK_BYTES

__all__ = ["FolderStore"]

_PART = ".part"
_STALE_S = 3600.0
"""A temporary file that nobody has written to for so long is that of a killed process."""


@final
class FolderStore:
    """A folder. Files appear under their names once they are whole and on the disk. See Store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check_apart(self, bundle: Path) -> None:
        """Refuse a bundle's folder in this one, or around it: who replaced one would remove both.

        Raises:
            UsageError: it is so.
        """
        store, folder = self._folder.resolve(), bundle.resolve()
        if store.is_relative_to(folder) or folder.is_relative_to(store):
            relation = "are the same folder" if store == folder else "lie in one another"
            raise UsageError(
                f"{self._folder}: this and the bundle {bundle} {relation}",
                hint="Keep a bundle apart from where versions are published.",
            )

    def place(self, name: str) -> str:
        """See Store."""
        return str(self._folder / name)

    def read(self, name: str) -> bytes | None:
        """See Store."""
        with reading(self._folder / name, InputError):
            try:
                return (self._folder / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, content: bytes) -> None:
        """See Store."""
        with _temporary(self._folder / name) as part:
            _fill(part, [content])

    def holds(self, name: str, path: Path, entry: Entry) -> bool | None:
        """See Store."""
        found = self._folder / name
        with reading(found, InputError):
            if not found.is_file():
                return None
            return found.stat().st_size == entry.num_bytes and digest_file(found) == entry.sha256

    def send(self, name: str, path: Path, entry: Entry, advance: Advance) -> int:
        """See Store."""
        digest = hashlib.sha256()

        def blocks() -> Iterator[bytes]:
            with reading(path), path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    yield block
                    advance(len(block))

        with _temporary(self._folder / name) as part:
            _fill(part, blocks())
            check_sent(path, digest.hexdigest(), entry)
            shutil.copymode(path, part)
        return entry.num_bytes

    def blocks(self, name: str, start: int, num_bytes: int) -> Iterator[bytes]:
        """See Store."""
        path = self._folder / name
        with reading(path, InputError), path.open("rb") as file:
            file.seek(start)
            for first in range(start, num_bytes, BLOCK_BYTES):
                size = min(BLOCK_BYTES, num_bytes - first)
                yield whole_block(file.read(size), size, str(path))


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A file to be made in the block, that then becomes ``target``; removed after an error.

    Its name is its own: two processes may publish the same release at once.
    """
    part = target.with_name(f"{target.name}.{secrets.token_hex(6)}{_PART}")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            _remove_stale(target, part)
            part.replace(target)
            sync_folder(target.parent)
        finally:
            with suppress(OSError):  # half a file would keep a full disk full
                part.unlink(missing_ok=True)


def _fill(part: Path, blocks: Iterator[bytes] | list[bytes]) -> None:
    with part.open("xb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _remove_stale(target: Path, part: Path) -> None:
    """Remove what killed processes left of ``target``, by the clock of the disk it lies on."""
    oldest = part.stat().st_mtime - _STALE_S
    for other in target.parent.glob(f"{escape(target.name)}.*{_PART}"):
        with suppress(OSError):
            if other.stat().st_mtime < oldest:
                other.unlink()
