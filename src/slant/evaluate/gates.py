"""The bounds that a model must meet to be exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slant.config.evaluate_settings import LOWER_IS_BETTER, GateBound

__all__ = ["check_gate", "unmet"]


def check_gate(system: Mapping[str, Any], gate: Mapping[Any, GateBound]) -> list[dict[str, Any]]:
    """Every bound that is asked for, and whether a system of the report meets it.

    A metric that the system does not have does not meet its bound. A bound for every language is
    for those with an interval; where there is none, the language with the worst value stands for
    all.
    """
    found = []
    for metric, bound in gate.items():
        limit = bound.max if metric in LOWER_IS_BETTER else bound.min
        if limit is not None:
            found.append(_checked(metric, "overall", limit, system["overall"][metric]))
        if bound.worst_language is not None:
            langs = system["slices"]["lang"]
            known = {lang: m[metric] for lang, m in langs.items() if m[metric] is not None}
            measured = {lang: f for lang, f in known.items() if f["low"] is not None} or known
            sign = -1 if metric in LOWER_IS_BETTER else 1
            worst = min(measured, key=lambda lang: sign * measured[lang]["value"], default="")
            found.append(
                _checked(
                    metric, worst or "every language", bound.worst_language, measured.get(worst)
                )
            )
    return found


def _checked(
    metric: str, where: str, bound: float, figure: Mapping[str, Any] | None
) -> dict[str, Any]:
    value = None if figure is None else figure["value"]
    met = value is not None and (value <= bound if metric in LOWER_IS_BETTER else value >= bound)
    return {"metric": metric, "where": where, "bound": bound, "value": value, "met": met}


def unmet(checks: list[dict[str, Any]]) -> list[str]:
    """The bounds that are not met, each as a sentence."""
    sentences = []
    for check in checks:
        if check["met"]:
            continue
        way = "at most" if check["metric"] in LOWER_IS_BETTER else "at least"
        where = "" if check["where"] == "overall" else f" in {check['where']}"
        value = "not measured" if check["value"] is None else f"{check['value']:.4f}"
        sentences.append(
            f"{check['metric']}{where} is {value}, the gate asks for {way} {check['bound']:g}"
        )
    return sentences
