"""Releases in an MLflow model registry (extra ``mlflow``).

The files lie among the artifacts of a run, under ``bundle/``; the run is found again by its tag, so
that an interrupted upload goes on. Once every file is there the run's bundle becomes a version of
the registered model, with tags that say what it is, and then the aliases are set. MLflow keeps no
checksums of artifacts: what is there is told by its size here (a small file by its content), and by
its sha256 when it is pulled.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from slant.errors import ArtifactError, UsageError
from slant.progress import Progress
from slant.publish.mlflow_model import FOLDER, VERSION_TAG, RegisteredModel, mlflow_address
from slant.publish.object_store import check_alias
from slant.publish.release import SIGNATURE, Entry, Published, Release, Sent
from slant.version import __version__

__all__ = ["publish_to_mlflow"]

_RESERVED = ["latest"]
"""MLflow's own word in models:/name@alias."""
_SMALL_BYTES = 1 << 16
"""Of a file that is fetched to be compared."""


def publish_to_mlflow(
    release: Release, target: str, *, dry_run: bool, aliases: Sequence[str], progress: Progress
) -> Published:
    """Register a release as a version of a model; the same release is registered once.

    Credentials come from MLflow's own variables (MLFLOW_TRACKING_USERNAME, …).

    Args:
        release: what to publish.
        target: ``mlflow+http://host:port/model``, or ``models:/model`` with MLFLOW_TRACKING_URI.
        dry_run: only find out what would be sent.
        aliases: set once every file is there and the version is registered.
        progress: told of the bytes.

    Raises:
        UsageError: the target or an alias cannot be used, or the library is not installed.
        ArtifactError: the server has other files than were sent, another signature is there, or
            the version's run was deleted.
        StorageError: the server does not answer or refuses.
    """
    address = mlflow_address(target)
    for alias in aliases:
        _check_alias(alias)
    model = RegisteredModel(address)
    number, run = model.registered(release.version) or (None, model.run(release.version))
    if number is not None and run is not None:
        model.check_run(run, number)
    held = set() if run is None else _held(model, run, number, release)
    files = [
        Sent(name, entry.num_bytes, 0 if name in held else entry.num_bytes)
        for name, entry in release.files.items()
    ]
    was_there = number is not None and len(held) == len(files)
    published = Published(release.version, model.page(number), files, was_there=was_there)
    if dry_run:
        return published
    run = run or model.start_run(release.version)
    if published.sent_bytes or number is None:
        _send(model, run, release, published, progress)
    number = number or model.register(release.version, run, _tags(release))
    for alias in aliases:
        model.set_alias(alias, number)
    return replace(published, url=model.page(number))


def _check_alias(alias: str) -> None:
    check_alias(alias, taken=_RESERVED)
    if re.fullmatch(r"v\d+", alias):
        raise UsageError(
            f"--alias {alias}: cannot be the name of an alias here",
            hint="MLflow takes v and a number for its own number of a version.",
        )


def _held(model: RegisteredModel, run: str, number: str | None, release: Release) -> set[str]:
    """Names of the files that a run has as they are.

    Raises:
        ArtifactError: the version is registered under another signature.
    """
    there = model.files(run)

    def is_same(name: str, entry: Entry, folder: str) -> bool:
        if there.get(name) != entry.num_bytes:
            return False
        if entry.num_bytes > _SMALL_BYTES:
            return True
        return Entry.of(model.fetch(run, name, folder)) == entry

    with tempfile.TemporaryDirectory() as folder:
        held = {name for name, entry in release.files.items() if is_same(name, entry, folder)}
    if number is not None and SIGNATURE in (release.files.keys() & there.keys()) - held:
        raise ArtifactError(
            f"{model.page(number)}/{SIGNATURE}: is not what was published",
            hint="A version is never overwritten, nor its signature: sign with the same key, or "
            "publish as another model.",
        )
    return held


def _send(
    model: RegisteredModel, run: str, release: Release, published: Published, progress: Progress
) -> None:
    """Store the files that are not there yet, the manifest last, and look that all are there."""
    with progress.task("publish", release.num_bytes, "bytes", published.kept_bytes) as task:
        for file in published.files:
            if file.sent_bytes:
                model.send(run, release, file.name)
                task.advance(file.sent_bytes)
    there = model.files(run)
    for name, entry in release.files.items():
        if there.get(name) != entry.num_bytes:
            raise ArtifactError(
                f"run {run}: {FOLDER}/{name} has {there.get(name, 0)} bytes instead of "
                f"{entry.num_bytes}; nothing was registered",
                hint="Look at the server's artifact store, then publish again.",
            )
    model.finish(run)


def _tags(release: Release) -> dict[str, str]:
    """What people look for in the model."""
    tags = {VERSION_TAG: release.version, "slant.package": __version__}
    if "fingerprint" in release.facts:
        tags["slant.fingerprint"] = str(release.facts["fingerprint"])
    if (figure := _macro_f1(release)) is not None:
        tags["slant.macro_f1"] = f"{figure:.4f}"
    return tags


def _macro_f1(release: Release) -> float | None:
    """Of the model on its test split; None for a bundle that was not evaluated."""
    if "report.json" not in release.files:
        return None
    report: Mapping[str, Any] = json.loads(release.path("report.json").read_text("utf-8"))
    for system in report.get("systems", [])[:1]:  # the model itself comes first
        value = system["overall"]["macro_f1"]["value"]
        return None if value is None else float(value)
    return None
