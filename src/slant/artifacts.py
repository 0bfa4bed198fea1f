"""Artifact folders: what one stage leaves for the next.

A folder is an artifact once it holds ``manifest.json``, which is written last and atomically. The
manifest records what the artifact was made from (``inputs``, by digest), how (``settings``,
``seed``, versions) and every file with its size and sha256. ``key`` is a digest of the first two:
a stage whose artifact already has the key it is about to build has nothing to do.

While a stage works its folder holds ``building.json`` with the key. A stage that was killed finds
it there and goes on; one that finds another key starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from slant.disk import TEMPORARY, exclusive, reading, storage_errors, sync_folder, write_atomically
from slant.errors import ArtifactError

__all__ = [
    "BUILDING",
    "LOCK",
    "SCRATCH",
    "Artifact",
    "Builder",
    "Recipe",
    "build",
    "digest_file",
    "digest_json",
    "find",
    "is_file_name",
    "load",
    "parse_manifest",
]

SCRATCH = "scratch"
"""Folder of what only an interrupted build needs; never part of an artifact."""
BUILDING = "building.json"
"""Name of the file that says what a folder is becoming."""
LOCK = ".lock"
"""Name of the file that is locked by whoever fills a folder."""
_MANIFEST = "manifest.json"
_SCHEMA = "slant.manifest/1"
_PACKAGES = ("slant", "torch", "transformers", "peft", "numpy", "pyarrow", "tokenizers")


@dataclass(frozen=True)
class Recipe:
    """What an artifact is made from: equal recipes make equal artifacts.

    Attributes:
        kind: the stage, e.g. ``"ingest"``.
        inputs: name → digest of everything that was read.
        settings: the resolved settings that had a say, as plain JSON values.
        seed: of every random choice.
    """

    kind: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    seed: int

    @property
    def key(self) -> str:
        """sha256 of the recipe."""
        return digest_json(
            {
                "kind": self.kind,
                "inputs": dict(self.inputs),
                "settings": dict(self.settings),
                "seed": self.seed,
            }
        )


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder and its manifest."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key of the recipe it was made from."""
        return str(self.manifest["key"])

    @property
    def digest(self) -> str:
        """sha256 over names and contents of its files; equal for equal contents."""
        return digest_json(
            {name: entry["sha256"] for name, entry in self.manifest["files"].items()}
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the stage wanted to be known without opening its files."""
        facts: Mapping[str, Any] = self.manifest["facts"]
        return facts

    def file(self, name: str) -> Path:
        """Path of one of its files; raises ArtifactError if the manifest does not list it."""
        if name not in self.manifest["files"]:
            raise ArtifactError(f"{self.path}: has no {name}")
        return self.path / name

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Check files against their sizes and sha256; raises ArtifactError naming the file.

        Args:
            names: of files that the manifest lists; None: all of them.
        """
        for name in self.manifest["files"] if names is None else names:
            with reading(self.path / name):
                self._verify_file(name)

    def _verify_file(self, name: str) -> None:
        entry, path = self.manifest["files"][name], self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ArtifactError(f"{self.path}/{_MANIFEST}: {name!r} lies outside the folder")
        if not path.is_file():
            raise ArtifactError(f"{path}: is missing", hint=self._repair)
        if path.stat().st_size != entry["bytes"] or digest_file(path) != entry["sha256"]:
            raise ArtifactError(
                f"{path}: is damaged (its sha256 is not the manifest's)", hint=self._repair
            )

    @property
    def _repair(self) -> str:
        """What to do where a file is not what it was."""
        if self.manifest["kind"] == "export":
            return (
                "If the bundle was pulled, `slant pull` into the same folder fetches the file "
                "again; otherwise delete the folder and export it again."
            )
        return "Delete the folder and run the stage again."


class Builder:
    """A folder being filled; ``facts`` go into the manifest.

    ``scratch`` is for what only an interrupted build needs (checkpoints): it is not part of the
    artifact and goes once the artifact is sealed, not before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scratch = path / SCRATCH
        self.facts: dict[str, Any] = {}


@contextmanager
def build(path: Path, recipe: Recipe) -> Iterator[Builder]:
    """Fill ``path`` and, if the block ends without an error, seal it with a manifest.

    What an interrupted build of the same recipe left in ``path`` is still there; anything else is
    removed first, but for a finished artifact of another kind. Two processes never fill the same
    folder: the second is refused.

    Raises:
        StorageError: no space left or no permission.
        ArtifactError: another process is at work in the folder, or it holds something else.
    """
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        with exclusive(path / LOCK):
            _prepare(path, recipe.kind, recipe.key)
            builder = Builder(path)
            builder.scratch.mkdir(exist_ok=True)
            yield builder
            manifest = {
                "schema": _SCHEMA,
                "kind": recipe.kind,
                "key": recipe.key,
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "inputs": dict(recipe.inputs),
                "settings": dict(recipe.settings),
                "seed": recipe.seed,
                "versions": _versions(),
                "facts": builder.facts,
                "files": _list_files(path),
            }
            write_atomically(path / _MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1))
            (path / BUILDING).unlink()
            shutil.rmtree(builder.scratch)
            # While the lock is held: removed later, it could be the lock of the next process.
            (path / LOCK).unlink(missing_ok=True)


def _prepare(path: Path, kind: str, key: str) -> None:
    building = _read_json(path / BUILDING)
    sealed = (path / _MANIFEST).exists()
    found = _read_json(path / _MANIFEST).get("kind", kind)
    if found != kind:
        raise ArtifactError(
            f"{path}: holds another artifact, of the kind {found}", hint="Name an empty folder."
        )
    if building.get("key") == key and not sealed:
        # What write_atomically had not finished when the process was killed.
        for leftover in path.rglob(f"*{TEMPORARY}"):
            if leftover.is_file():
                leftover.unlink()
        return
    leftovers = {LOCK, BUILDING + TEMPORARY}
    names = {child.name for child in path.iterdir()} - leftovers
    ours = "key" in building or _read_json(path / _MANIFEST).get("schema") == _SCHEMA
    if names and not ours:
        raise ArtifactError(
            f"{path}: holds files that slant did not write ({', '.join(sorted(names)[:3])}, …)",
            hint="Name an empty folder; what is there would be removed.",
        )
    # In this order, so that a folder that is half cleared when the process is killed is neither
    # complete, nor to be continued, nor a stranger's.
    write_atomically(path / BUILDING, json.dumps({"key": ""}))
    (path / _MANIFEST).unlink(missing_ok=True)
    sync_folder(path)
    for child in path.iterdir():
        if child.name in (LOCK, BUILDING):
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
    write_atomically(path / BUILDING, json.dumps({"key": key}))


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _list_files(path: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file; on the disk, with its name, when this returns."""
    files = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if name.partition("/")[0] == SCRATCH:
            continue
        if file.is_dir():
            sync_folder(file)
        elif file.is_file() and name not in (_MANIFEST, BUILDING, LOCK):
            with file.open("rb") as content:
                os.fsync(content.fileno())
            files[name] = {"bytes": file.stat().st_size, "sha256": digest_file(file)}
    return files


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def find(path: Path, kind: str) -> Artifact | None:
    """The artifact in ``path``, or None if there is none, it is not complete or of another kind."""
    try:
        return load(path, kind)
    except ArtifactError:
        return None


def load(path: Path, kind: str) -> Artifact:
    """The artifact of ``kind`` in ``path``.

    Raises:
        ArtifactError: there is none, it was not finished, or it is of another kind or version.
    """
    try:
        content = (path / _MANIFEST).read_bytes()
    except FileNotFoundError:
        state = "was not finished" if (path / BUILDING).exists() else "is not there"
        raise ArtifactError(
            f"{path}: the {kind} artifact {state}", hint=f"Run `slant {kind}` first."
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path / _MANIFEST}: cannot be read: {error}") from error
    return Artifact(path, parse_manifest(content, str(path / _MANIFEST), kind))


def parse_manifest(content: bytes, place: str, kind: str) -> Mapping[str, Any]:
    """The manifest of an artifact of ``kind``, from the content of its file.

    Args:
        content: of ``manifest.json``.
        place: where it lies, for errors.
        kind: the stage, e.g. ``"export"``.

    Raises:
        ArtifactError: it is malformed, of another kind or version, or names a file outside its
            folder.
    """
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{place}: cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != _SCHEMA:
        raise ArtifactError(f"{place}: is not a manifest of this version ({_SCHEMA})")
    _check_shape(place, manifest)
    if manifest["kind"] != kind:
        folder = place.removesuffix(f"/{_MANIFEST}")
        raise ArtifactError(f"{folder}: is a {manifest['kind']} artifact, not a {kind} artifact")
    return manifest


def _check_shape(path: str, manifest: Mapping[str, Any]) -> None:
    shape = {"kind": str, "key": str, "facts": dict, "files": dict}
    for name, kind in shape.items():
        if not isinstance(manifest.get(name), kind):
            raise ArtifactError(f"{path}: is damaged ({name!r} is missing or of another type)")
    for name, entry in manifest["files"].items():
        if not is_file_name(name):
            raise ArtifactError(
                f"{path}: {name!r} lies outside the folder, or is no name of a file"
            )
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
            raise ArtifactError(f"{path}: is damaged (the entry of {name!r})")


def is_file_name(name: object) -> bool:
    """Whether a manifest may list a file under this name: one inside the folder, as it is spelt."""
    if not isinstance(name, str) or "\0" in name or name in ("", "."):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    ways = PurePosixPath(name), PureWindowsPath(name)
    is_inside = not any(way.anchor or ".." in way.parts for way in ways)
    return is_inside and PurePosixPath(name).as_posix() == name


def digest_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """sha256 of a JSON value in its canonical form (sorted keys, no spaces), in hex."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
