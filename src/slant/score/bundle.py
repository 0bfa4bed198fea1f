"""Whether a bundle's files are those that were exported, asked before they are loaded."""

from __future__ import annotations

from pathlib import Path

from slant.artifacts import load
from slant.errors import ArtifactError

__all__ = ["verify_bundle"]

_MODEL = "causal-lm"
_WEIGHTS = ".safetensors"


def verify_bundle(folder: Path, *, weights: bool = True) -> None:
    """Check what is about to be loaded (``slant.json`` and ``causal-lm/``) by its sha256.

    Args:
        folder: the bundle.
        weights: whether the weights are loaded; without them little is read.

    Raises:
        ArtifactError: there is no manifest, a file is missing or damaged, or one lies in
            ``causal-lm/`` that was not exported: a loader might take it.
    """
    if not (folder / "manifest.json").is_file() and not (folder / "building.json").exists():
        raise ArtifactError(
            f"{folder}: has no manifest.json, by which its files could be verified",
            hint="Copy the bundle as a whole, as `slant pull` does. To go without: verify=False, "
            "or --no-verify.",
        )
    bundle = load(folder, "export")
    listed = bundle.manifest["files"]
    for path in sorted((folder / _MODEL).rglob("[!.]*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in listed:
            raise ArtifactError(
                f"{path}: is not part of the bundle that was exported",
                hint="Move it elsewhere; a loader might take it for a part of the model.",
            )
    of_model = [name for name in listed if name.startswith(f"{_MODEL}/")]
    read = [name for name in of_model if weights or not name.endswith(_WEIGHTS)]
    bundle.verify(["slant.json", *read] if "slant.json" in listed else read)
