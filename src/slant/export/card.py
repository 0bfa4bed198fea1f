"""The model card: what the bundle is, how good it is, where it comes from, where not to use it.

Its front matter is that of the Hugging Face Hub ("Model cards", with a ``model-index``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from slant.export.snippet import prompt_code
from slant.model.embedded import EMBEDDED
from slant.model.license import License, join_licenses
from slant.task.languages import OTHER_LANGUAGES, UNKNOWN_LANGUAGE
from slant.task.spec import TaskSpec
from slant.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["render_card", "render_imported_card"]

_TITLE = "Sentiment toward a narrative"
_TASK = "text-classification"
_TAGS = ["sentiment", "stance", "narrative", "slant"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[A-Za-z0-9]")
_HUB_LANGUAGE = re.compile(r"[a-z]{2,3}")


def render_card(
    report: Mapping[str, Any],
    spec: TaskSpec,
    proof: Mapping[str, Any],
    origin: Mapping[str, Any],
) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        report: content of ``report.json``.
        spec: the calibrated contract.
        proof: content of ``parity.json``.
        origin: of ``describe_origin``.
    """
    decisions, tuned = report["decisions"], report["systems"][0]
    known = origin["base"]["license"]
    license_ = License(**known) if known else None
    return _render(
        "card.md.j2",
        spec,
        proof,
        base_is_local=origin["base"]["is_local"],
        license_=license_,
        report=report,
        origin=origin,
        temperature=_temperature(proof["formats"]),
        tuned=tuned,
        names={system["id"]: system["name"] for system in report["systems"]},
        accepting=bool(decisions)
        and any(group["threshold"] is not None for group in decisions["groups"]),
        accepted_share=_share(decisions["test"]) if decisions else 0.0,
        example_lang=report["data"]["languages"][0],
    )


def render_imported_card(
    spec: TaskSpec,
    proof: Mapping[str, Any],
    license_: License | None,
    adapter_license: License | None,
    *,
    base_is_local: bool,
) -> str:
    """The card of a bundle that was made from another program's model: nothing was measured.

    Args:
        spec: the contract; not calibrated.
        proof: content of ``parity.json``; its ``source`` is the model that was imported.
        license_: of the base model, where it is known.
        adapter_license: of the adapter that was imported, where it names one.
        base_is_local: whether the base is a folder, whose name means nothing to others.
    """
    return _render(
        "imported.md.j2",
        spec,
        proof,
        base_is_local=base_is_local,
        license_=join_licenses(adapter_license, license_),
        base_license=license_,
        adapter_license=adapter_license,
        source=proof["source"],
        example_lang="en",
    )


def _render(
    name: str,
    spec: TaskSpec,
    proof: Mapping[str, Any],
    *,
    base_is_local: bool,
    license_: License | None,
    report: Mapping[str, Any] | None = None,
    **values: Any,
) -> str:
    """A template's text; ``license_`` is that of the whole bundle."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("slant.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    environment.filters.update(
        cell=_cell,
        duration=_duration,
        figure=_figure,
        group_name=_group_name,
        license=_license,
        outcome=_outcome,
    )
    hub_id = None if base_is_local else _hub_id(spec.base)
    return environment.get_template(name).render(
        spec=spec,
        proof=proof,
        probes=proof["probes"]["count"],
        served=[name for name, found in proof["formats"].items() if "vllm" in found["ways"]],
        title=_TITLE,
        base_id=hub_id,
        front_matter=_front_matter(license_, hub_id, report),
        license=license_,
        report=report,
        prompt_code=prompt_code(spec),
        version=__version__,
        **values,
    )


def _front_matter(
    license_: License | None, hub_id: str | None, report: Mapping[str, Any] | None
) -> str:
    """What hubs read, between the two lines of dashes."""
    from huggingface_hub import ModelCardData

    known: dict[str, Any] = {}
    if license_ is not None:
        known |= {"license": license_.id}
        # Hubs ask for them beside ``other`` and refuse empty ones.
        known |= {"license_name": license_.name} if license_.name else {}
        known |= {"license_link": license_.link} if license_.id == "other" and license_.link else {}
    if hub_id is not None:
        known |= {"base_model": hub_id, "base_model_relation": "finetune"}
    if report is not None:
        languages = {lang.partition("-")[0].lower() for lang in report["data"]["languages"]}
        known["language"] = sorted(
            lang for lang in languages - {UNKNOWN_LANGUAGE} if _HUB_LANGUAGE.fullmatch(lang)
        )
        known["metrics"] = ["accuracy", "f1"]
        known |= {"model_name": _TITLE, "eval_results": _results(report)}
    data = ModelCardData(library_name="transformers", pipeline_tag=_TASK, tags=_TAGS, **known)
    return str(data.to_yaml())


def _results(report: Mapping[str, Any]) -> list[EvalResult]:
    """The tuned model's figures on the test split, overall and by language."""
    from huggingface_hub import EvalResult

    tuned = report["systems"][0]
    slices = {"all languages": tuned["overall"], **tuned["slices"]["lang"]}
    return [
        EvalResult(
            task_type=_TASK,
            task_name=_TITLE,
            dataset_type="held-out",
            dataset_name=f"Held-out examples, {name}",
            dataset_config=name,
            dataset_split="test",
            metric_type=kind,
            metric_name=title,
            metric_value=round(metrics[key]["value"], 4),
        )
        for name, metrics in slices.items()
        for kind, key, title in (
            ("accuracy", "accuracy", "Accuracy"),
            ("f1", "macro_f1", "Macro-F1"),
        )
    ]


def _hub_id(base: str) -> str | None:
    """The hub's name of a base model, if it can be one; embedded models are Google's."""
    name = f"google/{base}" if base in EMBEDDED else base
    return name if _HUB_ID.fullmatch(name) else None


def _temperature(formats: Collection[str]) -> str:
    """Where the calibration temperature is in the folders of a bundle."""
    inside = [f"`{name}/`" for name in ("classifier", "int8") if name in formats]
    beside = [f"`{name}/`" for name in ("causal-lm", "adapter") if name in formats]
    parts = [f"it is part of the weights of {' and '.join(inside)}"] if inside else []
    if beside:
        parts.append(f"the logits of {' and '.join(beside)} are to be divided by it")
    return "; ".join(parts)


def _license(found: License) -> str:
    """Its name, with a link where there is one."""
    name = found.name or found.id
    return f"[{name}]({found.link})" if found.link else f"`{name}`"


def _cell(text: str) -> str:
    """A name in a table: a bar would end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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
