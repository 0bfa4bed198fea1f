"""slant: your own model of sentiment toward a narrative, from documents to predictions.

``Project`` runs a slant.yaml; ``Scorer`` scores with the bundle that came of it, ``score_files``
does so with files and folders; ``compare_runs`` puts evaluations side by side; ``publish_bundle``
and ``pull_bundle`` take a bundle elsewhere and back; ``import_model`` makes one of another
program's model. Importing slant loads neither torch nor transformers; they come with the first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slant.version import __version__

if TYPE_CHECKING:
    from slant.errors import SlantError
    from slant.evaluate.side_by_side import compare_runs
    from slant.export.import_model import import_model
    from slant.project import Project
    from slant.publish.publish import publish_bundle
    from slant.publish.pull import pull_bundle
    from slant.records import Pair, Prediction
    from slant.score.files import score_files
    from slant.score.scorer import Scorer

__all__ = [
    "Pair",
    "Prediction",
    "Project",
    "Scorer",
    "SlantError",
    "__version__",
    "compare_runs",
    "import_model",
    "publish_bundle",
    "pull_bundle",
    "score_files",
]

_HOMES = {
    "Pair": "slant.records",
    "Prediction": "slant.records",
    "Project": "slant.project",
    "Scorer": "slant.score.scorer",
    "SlantError": "slant.errors",
    "compare_runs": "slant.evaluate.side_by_side",
    "import_model": "slant.export.import_model",
    "publish_bundle": "slant.publish.publish",
    "pull_bundle": "slant.publish.pull",
    "score_files": "slant.score.files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'slant' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
