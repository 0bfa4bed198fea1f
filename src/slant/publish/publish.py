"""One call for every place that a bundle can be published to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slant.artifacts import load
from slant.progress import Progress, SilentProgress
from slant.publish.address import HUB, MLFLOW, check_address
from slant.publish.object_store import is_in_store, publish_to_store
from slant.publish.release import MANIFEST, SIGNATURE, Entry, Published, Release, version_of
from slant.publish.stores import open_store

__all__ = ["check_target", "is_published", "publish_bundle"]


def check_target(to: str) -> None:
    """Find out before long work whether an address can be published to at all.

    Raises:
        UsageError: it is malformed or holds credentials, its protocol is unknown or its library
            not installed.
    """
    to = check_address(to)
    if to.startswith(HUB):
        from slant.publish.hub import hub_address

        hub_address(to)
    elif to.startswith(MLFLOW):
        from slant.publish.mlflow_model import mlflow_address

        mlflow_address(to)
    else:
        open_store(to)


def is_published(bundle: Path, to: str) -> bool:
    """Whether a bundle's version is there, by its manifest or its name alone; nothing is hashed.

    Raises:
        ArtifactError: there is no finished bundle.
        UsageError: the address cannot be used.
        InputError: the place does not answer, or refuses.
    """
    artifact, path, to = load(bundle, "export"), bundle / MANIFEST, check_address(to)
    manifest = path.read_bytes()
    version = version_of(artifact.manifest, manifest, str(path))
    if to.startswith(HUB):
        from slant.publish.hub import is_on_hub

        return is_on_hub(to, version)
    if to.startswith(MLFLOW):
        from slant.publish.mlflow_model import RegisteredModel, mlflow_address

        return RegisteredModel(mlflow_address(to), writes=False).registered(version) is not None
    return is_in_store(open_store(to), version, manifest)


def publish_bundle(
    bundle: str | Path,
    to: str | Path,
    *,
    dry_run: bool = False,
    aliases: Sequence[str] = (),
    sign_key: str | Path | None = None,
    progress: Progress | None = None,
) -> Published:
    """Publish a bundle. Killed and begun again, it goes on where it was.

    Args:
        bundle: folder that ``slant export`` or ``slant import`` wrote.
        to: ``s3://…``, ``gs://…``, ``abfs://…``; a folder; ``hf://org/name`` for the Hugging Face
            Hub; ``mlflow+http://host:port/name`` or ``models:/name`` for an MLflow model registry.
        dry_run: only say what would be sent; nothing is written, no signature either.
        aliases: names that shall point to this version, set once all of it is there.
        sign_key: minisign secret key to sign the release with; see ``publish.signing``.
        progress: told of the bytes; silent by default.

    Raises:
        GateError: the bundle has no proof that it is what was trained.
        ArtifactError: it is not whole, or other contents are published under its version.
        UsageError: the address, an alias or the key cannot be used.
        InputError, StorageError: the place does not answer, or refuses.
    """
    to = check_address(to)
    release = Release.of(bundle)
    if sign_key is not None and not dry_run:
        release = _signed(release, Path(sign_key))
    progress = progress or SilentProgress()
    if to.startswith(HUB):
        from slant.publish.hub import publish_to_hub

        return publish_to_hub(release, to, dry_run=dry_run, aliases=aliases, progress=progress)
    if to.startswith(MLFLOW):
        from slant.publish.mlflow_registry import publish_to_mlflow

        return publish_to_mlflow(release, to, dry_run=dry_run, aliases=aliases, progress=progress)
    return publish_to_store(release, to, dry_run=dry_run, aliases=aliases, progress=progress)


def _signed(release: Release, key: Path) -> Release:
    """The release with a signature beside its manifest."""
    from slant.publish.signing import sign

    signature = sign(release.path(MANIFEST), key)
    files = {name: entry for name, entry in release.files.items() if name != SIGNATURE}
    manifest = files.pop(MANIFEST)
    return replace(release, files={**files, SIGNATURE: Entry.of(signature), MANIFEST: manifest})
