"""The folder that a bundle is pulled into: what it holds stays until all of the new one is there.

    FOLDER/.pulling/0123456789ab/…    what has been fetched of the bundle with this manifest
    FOLDER/building.json              while files change places: their names, old and new

It lies inside, since a folder may be a mounted disk, or the one that somebody works in. Once all
files are there the old manifest is removed, the files are renamed, and the new manifest is written;
killed meanwhile, the next pull goes on from ``building.json``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from slant.artifacts import BUILDING, LOCK, is_file_name, parse_manifest
from slant.disk import TEMPORARY, exclusive, reading, storage_errors, sync_folder, write_atomically
from slant.errors import ArtifactError
from slant.publish.release import MANIFEST, SIGNATURE

__all__ = ["RESERVED", "is_settled", "receive"]

_STAGING = ".pulling"
_RECEIVED = "received:"
RESERVED = frozenset({MANIFEST, SIGNATURE, BUILDING, LOCK, _STAGING})
"""Names in the folder that no file of a bundle can have."""
_HINT = "Name an empty folder, or move elsewhere what is there."


@contextmanager
def receive(folder: Path, manifest: bytes, signature: bytes | None) -> Iterator[Path]:
    """Make ``folder`` the bundle of a manifest; an older bundle in it is replaced at the end.

    The block gets a folder, into which it writes the files that ``folder`` does not have as they
    are. What an interrupted pull of the same bundle wrote is still there.

    Raises:
        StorageError: no space left or no permission.
        ArtifactError: another process is at work in the folder, or it holds something else, which
            is left as it is.
    """
    with storage_errors(folder):
        _names(folder)  # asked before a lock is made in a folder that is somebody else's
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / LOCK):
            names = _names(folder)
            digest = hashlib.sha256(manifest).hexdigest()
            staging = folder / _STAGING / digest[:12]
            staging.mkdir(parents=True, exist_ok=True)
            for other in staging.parent.iterdir():
                if other != staging:
                    shutil.rmtree(other)
            yield staging
            new = set(json.loads(manifest)["files"])
            building = {"key": _RECEIVED + digest, "files": sorted(names | new)}
            write_atomically(folder / BUILDING, json.dumps(building, ensure_ascii=False))
            _replace(folder, staging, names - new, new)
            if signature is not None:
                write_atomically(folder / SIGNATURE, signature)
            write_atomically(folder / MANIFEST, manifest)
            shutil.rmtree(staging.parent)
            (folder / BUILDING).unlink()
            # While the lock is held: removed later, it could be the lock of the next process.
            (folder / LOCK).unlink(missing_ok=True)


def is_settled(folder: Path) -> bool:
    """Whether no pull was interrupted in the folder."""
    return not any((folder / name).exists() for name in (BUILDING, _STAGING))


def _replace(folder: Path, staging: Path, old: set[str], new: set[str]) -> None:
    """Put the fetched files in their places, and remove those that the new bundle lacks."""
    for name in (MANIFEST, SIGNATURE):
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
    for name in old:
        _remove(folder, name)
    for name in new:
        if (staging / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).replace(folder / name)
    for parent in {(folder / name).parent for name in new}:
        sync_folder(parent)


def _remove(folder: Path, name: str) -> None:
    """Remove a file and the folders that are empty without it."""
    path = folder / name
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
    for parent in path.parents:
        if parent == folder:
            return
        with suppress(OSError):  # not empty
            parent.rmdir()


def _names(folder: Path) -> set[str]:
    """Names of the files of the bundle in a folder, or of those that were about to change places.

    Raises:
        ArtifactError: the folder holds anything else.
    """
    names: set[str] = set()
    with reading(folder):
        if (folder / BUILDING).is_file():
            names |= _being_replaced(folder / BUILDING)
        if (folder / MANIFEST).is_file():
            names |= _listed(folder / MANIFEST)
        known = names | RESERVED | {f"{name}{TEMPORARY}" for name in RESERVED}
        if others := sorted(islice((n for n in _found(folder) if n not in known), 3)):
            raise ArtifactError(
                f"{folder}: holds files that slant did not write ({', '.join(others)}, …)",
                hint=_HINT,
            )
    return names


def _found(folder: Path) -> Iterator[str]:
    """Names of what lies in a folder, apart from what has been fetched; links are not followed."""
    for path in folder.rglob("*") if folder.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        is_link = path.is_symlink()
        if (is_link or not path.is_dir()) and not name.startswith(f"{_STAGING}/"):
            yield f"{name} (a link)" if is_link and name in RESERVED else name


def _listed(manifest: Path) -> set[str]:
    try:
        with reading(manifest):
            content = manifest.read_bytes()
        return set(parse_manifest(content, str(manifest), "export")["files"])
    except ArtifactError as error:
        raise ArtifactError(error.message, hint=_HINT) from error


def _being_replaced(building: Path) -> set[str]:
    try:
        with reading(building):
            content = json.loads(building.read_bytes())
        names = set(content["files"]) if content["key"].startswith(_RECEIVED) else None
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        names = None
    if names is None or not all(is_file_name(name) for name in names):
        raise ArtifactError(f"{building.parent}: holds an unfinished artifact", hint=_HINT)
    return names
