"""Where runs are sent, from the ``track`` section of slant.yaml, and whether they can be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

from slant.artifacts import digest_json
from slant.config.training_settings import MlflowSettings, TrackSettings, WandbSettings
from slant.errors import UsageError

__all__ = ["Target", "check_trackers", "targets"]

_WANDB_KEY = "WANDB_API_KEY"
_WANDB_URL = "https://api.wandb.ai"


@final
@dataclass(frozen=True)
class Target:
    """One tracker: ``kind`` as in slant.yaml, ``address`` for people, ``facts`` for its process.

    ``identity`` is a digest of where a run lies: in another place it cannot go on.
    """

    kind: str
    address: str
    facts: Mapping[str, Any]
    identity: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.address}"


def check_trackers(settings: TrackSettings) -> None:
    """Refuse what no waiting would mend, before an hour of training; connects to nothing.

    Raises:
        UsageError: a package is not installed, a key is not set, or a URL holds credentials.
    """
    for kind in ("wandb", "mlflow", "tensorboard"):
        if getattr(settings, kind) and find_spec(kind) is None:
            raise UsageError(
                f"track.{kind}: the package {kind} is not installed",
                hint=f"pip install 'slant[{kind}]'",
            )
    wandb, mlflow = settings.wandb, settings.mlflow
    if wandb is not None and wandb.mode == "online" and not os.environ.get(_WANDB_KEY):
        raise UsageError(
            f"track.wandb: {_WANDB_KEY} is not set",
            hint=f"Set {_WANDB_KEY} in the environment, or track.wandb.mode to offline.",
        )
    if mlflow is not None and _holds_credentials(mlflow.uri):
        raise UsageError(
            "track.mlflow.uri: the URL holds credentials",
            hint="Give the plain address, and set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment.",
        )


def targets(settings: TrackSettings, work: Path) -> list[Target]:
    """The trackers that the settings name; local files go to ``work``."""
    found = []
    if settings.wandb is not None:
        found.append(_wandb(settings.wandb, work))
    if settings.mlflow is not None:
        found.append(_mlflow(settings.mlflow))
    if settings.tensorboard:
        folder = work.resolve() / "tensorboard"
        facts = {"folder": str(folder)}
        found.append(Target("tensorboard", str(folder), facts, digest_json("tensorboard")))
    return found


def _wandb(settings: WandbSettings, work: Path) -> Target:
    server = urlsplit(os.environ.get("WANDB_BASE_URL", _WANDB_URL))
    offline = settings.mode == "offline"
    facts = {
        "project": settings.project,
        "entity": settings.entity,
        "mode": settings.mode,
        "folder": str(work.resolve()),
        "process": os.getpid(),
    }
    # Of the server's URL only the name: the rest may hold a secret.
    address = str(work / "wandb") if offline else f"{server.scheme}://{server.hostname}"
    place = ["wandb", settings.project, settings.entity, settings.mode, server.hostname]
    return Target("wandb", address, facts, digest_json(place))


def _mlflow(settings: MlflowSettings) -> Target:
    uri = settings.uri.rstrip("/")
    facts = {"uri": uri, "experiment": settings.experiment}
    return Target("mlflow", uri, facts, digest_json(["mlflow", uri, settings.experiment]))


def _holds_credentials(uri: str) -> bool:
    """Whether a URL has a user, a query, or where a port should be something else."""
    if "@" in uri or "?" in uri:
        return True
    if uri.startswith("databricks"):  # databricks://scope:prefix
        return False
    _, colon, port = urlsplit(uri).netloc.partition(":")
    return bool(colon) and not port.isdigit() and "[" not in uri
