"""Pulling: a published release becomes a bundle on this machine, every file verified."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slant.artifacts import load, parse_manifest
from slant.disk import sync_folder
from slant.errors import ArtifactError, InputError, UsageError
from slant.progress import Progress, SilentProgress, Task
from slant.publish.address import HUB, MLFLOW, check_address
from slant.publish.folder_store import FolderStore
from slant.publish.object_store import (
    LATEST,
    Pointer,
    is_alias,
    is_version,
    read_pointer,
    version_file,
)
from slant.publish.receive import RESERVED, is_settled, receive
from slant.publish.release import MANIFEST, SIGNATURE, Entry, Pulled, version_of
from slant.publish.stores import Source, open_store
from slant.storage import BLOCK_BYTES

__all__ = ["pull_bundle"]

_PART = ".part"
_DAMAGED = "Nothing was replaced. Ask who published it, or name another --version."


def pull_bundle(
    source: str | Path,
    folder: str | Path,
    *,
    version: str | None = None,
    verify_key: str | Path | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Fetch a release and verify it; what an interrupted pull left is kept.

    Args:
        source: where it was published, as ``publish_bundle`` takes it.
        folder: becomes the bundle: is empty, not there yet, or holds another bundle, which is
            replaced once all of this one is there.
        version: a version or an alias; None: the latest.
        verify_key: minisign public key that must have signed the release.
        progress: told of the bytes; silent by default.

    Raises:
        UsageError: the source or the version cannot be used.
        ArtifactError: nothing is published there, a file is damaged, the signature is missing or
            wrong, or the folder holds something else.
        InputError: the source does not answer, or refuses.
        StorageError: the folder cannot be written.
    """
    folder, progress = Path(folder), progress or SilentProgress()
    found = _find(check_address(source, pulls=True), version)
    if isinstance(found.store, FolderStore):
        found.store.check_apart(folder)
    place = found.place(MANIFEST)
    manifest = parse_manifest(found.manifest, place, "export")
    files = {name: _entry(place, name, entry) for name, entry in manifest["files"].items()}
    version = version_of(manifest, found.manifest, place)
    signature = found.store.read(found.prefix + SIGNATURE)
    if verify_key is not None:
        _check_signature(place, found.manifest, signature, Path(verify_key))
    total, fetched_bytes = sum(entry.num_bytes for entry in files.values()), 0
    if not _is_whole(folder, found.manifest, signature):
        with (
            receive(folder, found.manifest, signature) as staging,
            progress.task("pull", total, "bytes") as task,
        ):
            for name, entry in files.items():
                if entry.fits(folder / name):
                    task.advance(entry.num_bytes)
                else:
                    fetched_bytes += _fetch(found, name, _inside(staging, name), entry, task)
    return Pulled(folder, version, fetched_bytes, total - fetched_bytes)


@dataclass(frozen=True)
class _Found:
    """A release in its store: its files begin with ``prefix``."""

    store: Source
    prefix: str
    manifest: bytes

    def place(self, name: str) -> str:
        return self.store.place(self.prefix + name)


def _find(source: str, wanted: str | None) -> _Found:
    if source.startswith(HUB):
        from slant.publish.hub import hub_revision

        # The release lies at the root of the repository; the commit is fixed while it is read.
        return _at_the_root(open_store(hub_revision(source, wanted)))
    if source.startswith(MLFLOW):
        from slant.publish.mlflow_model import MlflowFiles, mlflow_address

        return _at_the_root(MlflowFiles(mlflow_address(source), wanted))
    return _find_in_store(source, wanted)


def _at_the_root(files: Source) -> _Found:
    """A place that holds one release and nothing else."""
    manifest = files.read(MANIFEST)
    if manifest is None:
        raise ArtifactError(
            f"{files.place(MANIFEST)}: is missing; this is no bundle that slant published"
        )
    return _Found(files, "", manifest)


def _find_in_store(source: str, wanted: str | None) -> _Found:
    """A version in a folder or an object store, with its manifest verified."""
    store, wanted = open_store(source), wanted or LATEST
    if is_version(wanted):
        pointer = Pointer(wanted, wanted.rpartition("-")[2])
    elif is_alias(wanted):
        found = read_pointer(store, wanted)
        if found is None:
            known = store.place(f"{wanted}.json")
            raise ArtifactError(
                f"{known}: is not there, so there is no version {wanted!r}",
                hint="`slant publish BUNDLE TO` writes latest.json; look whether the address is "
                "the one that was published to.",
            )
        pointer = found
    else:
        raise UsageError(
            f"--version {wanted}: is neither a version nor an alias",
            hint="A version looks like 20261128T101500Z-0123456789ab, an alias like champion.",
        )
    name = version_file(pointer.version, MANIFEST)
    content = store.read(name)
    if content is None:
        raise ArtifactError(f"{store.place(name)}: is missing", hint="Name another --version.")
    if not hashlib.sha256(content).hexdigest().startswith(pointer.manifest_sha256):
        raise ArtifactError(
            f"{store.place(name)}: is damaged (its sha256 is not that of version "
            f"{pointer.version} in {wanted})",
            hint=_DAMAGED,
        )
    return _Found(store, version_file(pointer.version, ""), content)


def _entry(place: str, name: str, entry: Mapping[str, Any]) -> Entry:
    num_bytes, sha256 = entry["bytes"], entry["sha256"]
    is_size = type(num_bytes) is int and num_bytes >= 0  # a bool is an int too
    if name.partition("/")[0] in RESERVED or not is_size or not isinstance(sha256, str):
        raise ArtifactError(f"{place}: is damaged (the entry of {name!r})")
    return Entry(num_bytes, sha256)


def _check_signature(place: str, manifest: bytes, signature: bytes | None, key: Path) -> None:
    """Before anything of the release is written."""
    from slant.publish.signing import check_signature

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / MANIFEST
        path.write_bytes(manifest)
        if signature is not None:
            (path.parent / SIGNATURE).write_bytes(signature)
        try:
            check_signature(path, key)
        except ArtifactError as error:
            message = error.message.replace(str(path.parent), place.removesuffix(f"/{MANIFEST}"))
            raise ArtifactError(message, hint=error.hint) from error


def _is_whole(folder: Path, manifest: bytes, signature: bytes | None) -> bool:
    """Whether the folder holds this very release, undamaged, and nothing is left to do in it."""
    try:
        if not is_settled(folder) or (folder / MANIFEST).read_bytes() != manifest:
            return False
        if signature is not None and (folder / SIGNATURE).read_bytes() != signature:
            return False
        load(folder, "export").verify()
    except (OSError, ArtifactError):
        return False
    return True


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{path}: lies outside the folder")
    return path


def _fetch(found: _Found, name: str, path: Path, entry: Entry, task: Task) -> int:
    """Make ``path`` the file ``name``; returns the bytes that had to be fetched."""
    if entry.fits(path):
        task.advance(entry.num_bytes)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + _PART)
    before = part.stat().st_size if part.is_file() else 0
    sha256 = _fill(found, name, part, entry, task)
    if sha256 != entry.sha256 and before:
        # The beginning, of an earlier run, may be what is wrong.
        before = 0
        part.unlink()
        sha256 = _fill(found, name, part, entry, None)
    if sha256 != entry.sha256:
        part.unlink()
        raise ArtifactError(
            f"{found.place(name)}: is damaged (its sha256 is not the manifest's)", hint=_DAMAGED
        )
    part.replace(path)
    sync_folder(path.parent)
    return entry.num_bytes - before


def _fill(found: _Found, name: str, part: Path, entry: Entry, task: Task | None) -> str:
    """Fetch what a partly fetched file lacks; returns its sha256."""
    digest = hashlib.sha256()

    def take(block: bytes) -> None:
        digest.update(block)
        if task is not None:
            task.advance(len(block))

    with part.open("a+b") as file:
        file.seek(0)
        while block := file.read(BLOCK_BYTES):
            take(block)
        try:
            for block in found.store.blocks(found.prefix + name, file.tell(), entry.num_bytes):
                file.write(block)
                take(block)
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise ArtifactError(f"{found.place(name)}: is missing", hint=_DAMAGED) from error
            raise
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
