"""Releases in an object store or a folder.

    TO/versions/20261128T101500Z-0123456789ab/…    the bundle; its manifest.json is written last
    TO/latest.json                                 which version to take; written last of all
    TO/NAME.json                                   the same for an alias

A version is there once its manifest is, and never changes afterwards: what is published under other
contents has another name. A pointer is a small file that is replaced as a whole, so that a reader
gets the version before or the version after, and never a part of one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from slant.errors import ArtifactError, UsageError
from slant.progress import Progress
from slant.publish.folder_store import FolderStore
from slant.publish.release import MANIFEST, SIGNATURE, Published, Release, Sent
from slant.publish.stores import Source, Store, open_store
from slant.storage import check_bucket, is_url

__all__ = [
    "LATEST",
    "Pointer",
    "check_alias",
    "is_alias",
    "is_in_store",
    "is_version",
    "publish_to_store",
    "read_pointer",
    "version_file",
]

LATEST = "latest"
_SCHEMA = "slant.latest/1"
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Pointer:
    """A version and the sha256 of its manifest."""

    version: str
    manifest_sha256: str


def publish_to_store(
    release: Release,
    target: str,
    *,
    dry_run: bool,
    aliases: Sequence[str],
    progress: Progress,
    store: Store | None = None,
) -> Published:
    """Publish a release to a folder or a URL that fsspec knows; go on where it was interrupted.

    Args:
        release: what is sent.
        target: ``s3://bucket/models/narratives``, ``gs://…``, ``abfs://…``, or a folder.
        dry_run: only say what would be sent.
        aliases: further pointers to set, besides ``latest``.
        progress: told of the bytes.
        store: the store at ``target``, where it is not to be opened in the ordinary way.

    Raises:
        UsageError: the target or an alias cannot be used.
        ArtifactError: other contents are published under this version, or were damaged; or what
            lies where a pointer belongs is none.
        InputError, StorageError: the store does not answer, or refuses.
    """
    for alias in aliases:
        check_alias(alias, taken=[LATEST])
    store = store or open_store(target)
    if isinstance(store, FolderStore):
        store.check_apart(release.folder)
    if is_url(target):
        check_bucket(target)
    for pointer in (*aliases, LATEST):
        read_pointer(store, pointer)  # one that cannot be read is found out before all is sent
    held = _held(store, release)
    files = [
        Sent(name, entry.num_bytes, 0 if name in held else entry.num_bytes)
        for name, entry in release.files.items()
    ]
    if not dry_run:
        files = _send(store, release, files, progress)
        for pointer in (*aliases, LATEST):
            _point(store, pointer, release)
    was_there = len(held) == len(files)
    url = store.place(f"versions/{release.version}")
    return Published(release.version, url, files, was_there=was_there)


def is_in_store(store: Source, version: str, manifest: bytes) -> bool:
    """Whether a version with this manifest is there; its other files are not looked at.

    Raises:
        InputError: the store does not answer, or refuses.
    """
    return store.read(version_file(version, MANIFEST)) == manifest


def version_file(version: str, name: str) -> str:
    """Name of a file of a version in its store."""
    return f"versions/{version}/{name}"


def read_pointer(store: Source, name: str) -> Pointer | None:
    """What ``latest`` or an alias points to; None if there is no such pointer.

    Raises:
        ArtifactError: its file is damaged.
        InputError: the store does not answer, or refuses.
    """
    content = store.read(f"{name}.json")
    if content is None:
        return None
    place = store.place(f"{name}.json")
    hint = "If nobody needs it remove it, and publish again; or publish elsewhere."
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{place}: cannot be read: {error}", hint=hint) from error
    if not isinstance(found, dict) or found.get("schema") != _SCHEMA:
        raise ArtifactError(f"{place}: is no pointer to a version ({_SCHEMA})", hint=hint)
    version, sha256 = found.get("version"), found.get("manifest_sha256")
    if not is_version(str(version)) or not re.fullmatch("[0-9a-f]{64}", str(sha256)):
        raise ArtifactError(f"{place}: is damaged (it names {version!r} and {sha256!r})", hint=hint)
    return Pointer(str(version), str(sha256))


def is_version(name: str) -> bool:
    """Whether this is the name of a version, as ``Release`` makes them."""
    return re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{12}", name) is not None


def is_alias(name: str) -> bool:
    """Whether this can be the name of an alias."""
    return _ALIAS.fullmatch(name) is not None


def check_alias(alias: str, *, taken: Collection[str]) -> None:
    """Refuse a name that is no alias, or that means something else where it is to be set.

    Raises:
        UsageError: it is so.
    """
    if not is_alias(alias) or alias in taken:
        raise UsageError(
            f"--alias {alias}: cannot be the name of an alias here",
            hint="Take small letters, digits, - and _, as in champion, and none of: "
            f"{', '.join(taken)}.",
        )


def _held(store: Store, release: Release) -> set[str]:
    """Names of the files that the store has as they are.

    Raises:
        ArtifactError: the version is there, and is not this release.
    """
    place = store.place(version_file(release.version, MANIFEST))
    manifest = store.read(version_file(release.version, MANIFEST))
    if manifest is not None and _sha256(manifest) != release.files[MANIFEST].sha256:
        raise ArtifactError(
            f"{place}: other contents are published under this version",
            hint="A version is never overwritten. Find out who wrote it, or publish elsewhere.",
        )
    held = set()
    for name, entry in release.files.items():
        if name == MANIFEST:
            if manifest is not None:
                held.add(name)
            continue
        found = store.holds(version_file(release.version, name), release.path(name), entry)
        if found:
            held.add(name)
        elif manifest is not None and not (name == SIGNATURE and found is None):
            what = "is missing" if found is None else "is not what was published"
            raise ArtifactError(
                f"{store.place(version_file(release.version, name))}: {what}",
                hint="A version is never overwritten. Find out what happened to it; remove it as a "
                "whole to publish it again.",
            )
    return held


def _send(store: Store, release: Release, files: Sequence[Sent], progress: Progress) -> list[Sent]:
    """Send what is not there, in order; the manifest is the last."""
    kept = sum(file.num_bytes for file in files if not file.sent_bytes)
    sent = []
    with progress.task("publish", release.num_bytes, "bytes", done=kept) as task:
        for file in files:
            num_sent = 0
            if file.sent_bytes:
                name = version_file(release.version, file.name)
                path, entry = release.path(file.name), release.files[file.name]
                num_sent = store.send(name, path, entry, task.advance)
            sent.append(Sent(file.name, file.num_bytes, num_sent))
    return sent


def _point(store: Store, name: str, release: Release) -> None:
    """Make a pointer name the release; one that does so already is left as it is."""
    pointer = Pointer(release.version, release.files[MANIFEST].sha256)
    if read_pointer(store, name) == pointer:
        return
    content = {
        "schema": _SCHEMA,
        "version": pointer.version,
        "manifest_sha256": pointer.manifest_sha256,
        "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    store.write(f"{name}.json", json.dumps(content, indent=1).encode() + b"\n")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
