"""The model card: what the bundle is, how good it is, how to use it, where not to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slant.task.languages import OTHER_LANGUAGES
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
    environment.filters.update(cell=_cell, figure=_figure, group_name=_group_name, outcome=_outcome)
    decisions = report["decisions"]
    before, _, after = spec.template.prompt.partition("{document}")
    return environment.get_template("card.md.j2").render(
        report=report,
        spec=spec,
        proof=proof,
        tuned=report["systems"][0],
        names={system["id"]: system["name"] for system in report["systems"]},
        accepting=bool(decisions)
        and any(group["threshold"] is not None for group in decisions["groups"]),
        accepted_share=_share(decisions["test"]) if decisions else 0.0,
        version=__version__,
        gemma="gemma" in spec.base.lower(),
        prompt_code=repr(before)
        + " + document.strip() + "
        + " + narrative.strip() + ".join(repr(part) for part in after.split("{narrative}", 1)),
    )


def _cell(text: str) -> str:
    """A name in a table: a bar would end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _group_name(group: Mapping[str, Any]) -> str:
    if group["name"] != OTHER_LANGUAGES:
        return str(group["name"])
    return f"others ({', '.join(group['languages'])})" if group["languages"] else "others"


def _outcome(outcome: Mapping[str, Any]) -> str:
    if outcome["error"] is None:
        return "–"
    return f"{_share(outcome):.0%}, {outcome['error']['value']:.1%}"


def _share(outcome: Mapping[str, Any]) -> float:
    return float(outcome["accepted"] / outcome["count"]) if outcome["count"] else 0.0


def _figure(interval: Mapping[str, float | None] | None) -> str:
    if interval is None:
        return "–"
    value = f"{interval['value']:.3f}"
    if interval["low"] is None:
        return value
    return f"{value} [{interval['low']:.3f}, {interval['high']:.3f}]"
