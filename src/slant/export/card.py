"""The model card: what the bundle is, how good it is, how to use it, where not to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slant.task.spec import TaskSpec
from slant.version import __version__

__all__ = ["render_card"]


def render_card(report: Mapping[str, Any], spec: TaskSpec, proof: Mapping[str, Any]) -> str:
    """Markdown with the front matter that model hubs read."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("slant.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    environment.filters["figure"] = _figure
    before, _, after = spec.template.prompt.partition("{document}")
    return environment.get_template("card.md.j2").render(
        report=report,
        spec=spec,
        proof=proof,
        tuned=report["systems"][0],
        version=__version__,
        gemma="gemma" in spec.base.lower(),
        prompt_code=repr(before)
        + " + document.strip() + "
        + " + narrative.strip() + ".join(repr(part) for part in after.split("{narrative}", 1)),
    )


def _figure(interval: Mapping[str, float | None]) -> str:
    value = f"{interval['value']:.3f}"
    if interval["low"] is None:
        return value
    return f"{value} [{interval['low']:.3f}, {interval['high']:.3f}]"
