"""Where a bundle comes from: data, base model, training and what it takes to make it again.

All of it is read from artifacts and settings, so that the same inputs give the same text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from slant.artifacts import Artifact
from slant.config.load import dump_settings
from slant.config.settings import ProjectSettings
from slant.config.yaml_tree import dump_yaml
from slant.model.base import BaseModel
from slant.model.license import read_license

__all__ = ["describe_origin"]

_SCHEMA = "slant.origin/1"
_SHAPING = {"seed", "labels", "model", "task", "adapt", "tune", "train", "score"}
"""Settings that have a say in what the model becomes."""


def describe_origin(
    settings: ProjectSettings,
    *,
    ingest: Artifact,
    tune: Artifact,
    evaluate: Artifact,
    base: BaseModel,
) -> dict[str, Any]:
    """The origin of a bundle, as plain JSON values, for the model card.

    Args:
        settings: the project's.
        ingest: the data; its sources are named by file name and digest.
        tune: the tuned checkpoint.
        evaluate: the report.
        base: the model that was tuned: the base, or the adapted one.

    Returns:
        ``{"schema", "data", "base", "artifacts", "training", "reproduce"}``; see
        docs/model-card.md.
    """
    report = json.loads(evaluate.file("report.json").read_text("utf-8"))
    found = read_license(base.name, base.folder)
    return {
        "schema": _SCHEMA,
        "data": {"sources": dict(sorted(ingest.manifest["inputs"].items()))},
        "base": {
            "name": base.name,
            "is_local": base.is_local,
            "revision": settings.model.revision,
            "license": None if found is None else asdict(found),
        },
        "artifacts": {
            "ingest": ingest.digest,
            "shard": tune.manifest["inputs"].get("shard"),
            **({} if settings.adapt is None else {"adapt": base.digest}),
            "tune": tune.digest,
            "evaluate": evaluate.digest,
        },
        "training": _training(settings, tune.facts, report),
        "reproduce": {
            "config_sha256": hashlib.sha256(dump_settings(settings).encode()).hexdigest(),
            "settings": dump_yaml(settings.model_dump(include=_SHAPING)),
            "versions": dict(tune.manifest["versions"]),
        },
    }


def _training(
    settings: ProjectSettings, tune: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    """Time, and what it cost in money and energy where price and power are configured."""
    adapt = report["training"]["adapt"]
    stages = {
        name: {"tokens": facts["tokens"], "seconds": facts["seconds"]}
        for name, facts in (("adapt", adapt), ("tune", tune))
        if facts
    }
    devices = int(tune.get("devices", 1))
    hours = sum(stage["seconds"] for stage in stages.values()) / 3600 * devices
    # Older checkpoints do not say where they were trained.
    plan, processor = settings.plan, tune.get("processor") or report["machine"]["processor"]
    price = _of_card(plan.price_per_hour, plan.card, processor)
    power = _of_card(plan.power_w, plan.card, processor)
    return {
        "stages": stages,
        "devices": devices,
        "processor": processor,
        "peak_memory_bytes": tune.get("peak_memory_bytes"),
        "device_hours": round(hours, 4),
        "cost": None
        if price is None
        else {"card": price[0], "per_hour": price[1], "total": round(hours * price[1], 4)},
        "energy": None
        if power is None
        else {"card": power[0], "power_w": power[1], "kwh": round(hours * power[1] / 1000, 4)},
    }


def _of_card(table: Mapping[str, float], card: str, processor: str) -> tuple[str, float] | None:
    """Name and figure of the card that was trained on; None where the table has none of it.

    That is the one that ``plan.card`` names; with ``auto``, the one whose name is a word of what
    the machine calls its processor.
    """
    words = set(re.split(r"[^a-z0-9]+", processor.lower()))
    names = [name for name in table if name == card or (card == "auto" and name.lower() in words)]
    return (names[0], table[names[0]]) if len(names) == 1 else None
