"""What may be published: a finished bundle whose files are whole and whose proof passed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slant.artifacts import Artifact, digest_file, load
from slant.disk import reading
from slant.errors import ArtifactError, GateError

__all__ = ["MANIFEST", "SIGNATURE", "Entry", "Published", "Pulled", "Release", "Sent", "version_of"]

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.minisig"
"""Lies beside the manifest; it cannot be listed in what it signs."""
_PROOF = "parity.json"
_HINT = "Run `slant export` again; only a bundle that proves itself is published."


@dataclass(frozen=True)
class Entry:
    """A file as the manifest knows it: its size and its sha256 in hex."""

    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Entry:
        """That of a file on the disk, which is read whole."""
        with reading(path):
            return cls(path.stat().st_size, digest_file(path))

    def fits(self, path: Path) -> bool:
        """Whether a file on the disk is this one; a link is none."""
        with reading(path):
            return (
                path.is_file()
                and not path.is_symlink()
                and path.stat().st_size == self.num_bytes
                and digest_file(path) == self.sha256
            )


@dataclass(frozen=True)
class Release:
    """A bundle that may be published.

    Attributes:
        folder: where it lies.
        version: a pure function of the manifest, ``20261128T101500Z-0123456789ab``: its time and
            the beginning of its sha256. An upload that is begun again goes to the same place.
        files: name → size and sha256, in the order in which they are sent: the manifest last, and
            before it the signature, where there is one.
        facts: what the export stage wanted to be known, such as ``fingerprint``.
    """

    folder: Path
    version: str
    files: Mapping[str, Entry]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, folder: str | Path) -> Release:
        """The release of a bundle. Every file is read and its sha256 checked.

        Raises:
            ArtifactError: there is no finished bundle, a file is missing, damaged or outside the
                folder.
            GateError: the proof that the formats reproduce the trained model is missing or did not
                pass.
        """
        artifact = load(Path(folder), "export")
        artifact.verify()
        _check_proof(artifact)
        root = artifact.path.resolve()
        files = {
            name: Entry(int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in sorted(artifact.manifest["files"].items())
        }
        for name in (SIGNATURE, MANIFEST):
            if (path := artifact.path / name).is_file():
                if not path.resolve().is_relative_to(root):
                    raise ArtifactError(f"{path}: lies outside the folder")
                files.pop(name, None)
                files[name] = Entry.of(path)
        path = artifact.path / MANIFEST
        version = version_of(artifact.manifest, path.read_bytes(), str(path))
        return cls(artifact.path, version, files, artifact.facts)

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(entry.num_bytes for entry in self.files.values())

    def path(self, name: str) -> Path:
        """Where a file of the release lies."""
        return self.folder / name


@dataclass(frozen=True)
class Sent:
    """A file of a release and how much of it had to be sent; the rest was there before."""

    name: str
    num_bytes: int
    sent_bytes: int


@dataclass(frozen=True)
class Published:
    """What became of a release; in a dry run, what would become of it.

    Attributes:
        version: the release's.
        url: where that version lies, for a person and for ``slant pull``.
        files: in the order in which they were sent.
        was_there: whether the whole version was there before, with nothing left to send or to
            register; pointers and aliases are set all the same.
    """

    version: str
    url: str
    files: Sequence[Sent]
    was_there: bool = False

    @property
    def sent_bytes(self) -> int:
        """What had to be sent."""
        return sum(file.sent_bytes for file in self.files)

    @property
    def kept_bytes(self) -> int:
        """What was there before."""
        return sum(file.num_bytes - file.sent_bytes for file in self.files)


@dataclass(frozen=True)
class Pulled:
    """What became of a pull.

    Attributes:
        folder: the bundle, whole and verified.
        version: of the release.
        fetched_bytes: what had to be fetched.
        kept_bytes: what was in the folder before.
    """

    folder: Path
    version: str
    fetched_bytes: int
    kept_bytes: int


def _check_proof(artifact: Artifact) -> None:
    path = artifact.path / _PROOF
    if _PROOF not in artifact.manifest["files"]:
        raise GateError(f"{path}: the proof is missing; nothing was published", hint=_HINT)
    try:
        with reading(path):
            proof = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise GateError(
            f"{path}: is no proof ({error}); nothing was published", hint=_HINT
        ) from error
    if not isinstance(proof, dict) or proof.get("passed") is not True:
        raise GateError(f"{path}: the proof did not pass; nothing was published", hint=_HINT)


def version_of(manifest: Mapping[str, Any], content: bytes, place: str) -> str:
    """The version of a bundle.

    Args:
        manifest: its manifest.
        content: of ``manifest.json``.
        place: where that lies, for errors.

    Raises:
        ArtifactError: the manifest does not tell when it was made.
    """
    created_at = manifest.get("created_at")
    try:
        moment = datetime.fromisoformat(str(created_at)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ArtifactError(f"{place}: is damaged (created_at is {created_at!r})") from error
    return f"{moment:%Y%m%dT%H%M%SZ}-{hashlib.sha256(content).hexdigest()[:12]}"
