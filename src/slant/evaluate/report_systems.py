"""The tuned model against the others as tables: quality, cost, latency; language by language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slant.evaluate import report_finding as finding
from slant.evaluate import report_words as words
from slant.evaluate.report_words import Figure
from slant.page.languages import language

__all__ = [
    "ComparedLanguage",
    "Comparison",
    "SystemRow",
    "comparisons",
    "measure_names",
    "system_rows",
]

Report = Mapping[str, Any]
_MEASURES = ("f1_polar", "mcc", "auroc", "ece", "brier")


@dataclass(frozen=True)
class SystemRow:
    """One system in the table of quality, cost and latency; ``""`` where something is not known."""

    name: str
    kind: str
    macro_f1: Figure
    accuracy: Figure
    cost: str
    p50: str
    p95: str
    unanswered: str
    measures: tuple[Figure | None, ...]


@dataclass(frozen=True)
class ComparedLanguage:
    """One language of a comparison; differences are the tuned model's minus the other's."""

    name: str
    code: str
    count: int
    tuned: Figure
    other: Figure | None
    difference: Figure
    p_adjusted: float | None
    only_tuned: int
    only_other: int
    outcome: str


@dataclass(frozen=True)
class Comparison:
    """The tuned model against one other system."""

    name: str
    short_name: str
    kind: str
    outcome: str
    difference: str
    sentence: str
    p_value: float | None
    only_tuned: int
    only_other: int
    languages: tuple[ComparedLanguage, ...]


def measure_names(report: Report) -> list[str]:
    """Names of the further metrics in ``SystemRow.measures``."""
    return [words.METRICS[name] for name in _measures(report)]


def _measures(report: Report) -> list[str]:
    """The further metrics that any system has."""
    return [
        name
        for name in _MEASURES
        if any(system["overall"][name] is not None for system in report["systems"])
    ]


def system_rows(report: Report) -> list[SystemRow]:
    """Every system, the tuned model first."""
    measures = _measures(report)
    rows = []
    for system in report["systems"]:
        overall, latency = system["overall"], system["latency"]
        rows.append(
            SystemRow(
                name=system["name"],
                kind=system["kind"],
                macro_f1=overall["macro_f1"],
                accuracy=overall["accuracy"],
                cost=words.money(system["cost"]["usd_per_1000"]) if system["cost"] else "",
                p50=words.milliseconds(latency["p50"]) if latency else "",
                p95=words.milliseconds(latency["p95"]) if latency else "",
                unanswered=words.unanswered(system),
                measures=tuple(overall[name] for name in measures),
            )
        )
    return rows


def comparisons(report: Report) -> list[Comparison]:
    """Every comparison, that with the main rival first."""
    systems = {system["id"]: system for system in report["systems"]}
    rival = finding.main_rival(report)
    entries = [entry for entry in report["comparisons"] if entry["system"] in systems]
    if rival is not None:
        entries.sort(key=lambda entry: entry["system"] != rival[0]["id"])
    return [_comparison(report["systems"][0], systems[entry["system"]], entry) for entry in entries]


def _comparison(
    tuned: Mapping[str, Any], other: Mapping[str, Any], entry: Mapping[str, Any]
) -> Comparison:
    ours, theirs = tuned["slices"]["lang"], other["slices"]["lang"]
    ordered = sorted(entry["languages"].items(), key=lambda item: (-item[1]["count"], item[0]))
    return Comparison(
        name=other["name"],
        short_name=words.short_name(other),
        kind=other["kind"],
        outcome=entry["outcome"],
        difference=words.versus(entry),
        sentence=entry["sentence"],
        p_value=entry["p_value"],
        only_tuned=entry["mcnemar"]["only_tuned"],
        only_other=entry["mcnemar"]["only_other"],
        languages=tuple(
            ComparedLanguage(
                name=language(code),
                code=code,
                count=found["count"],
                tuned=ours[code]["macro_f1"],
                other=theirs[code]["macro_f1"] if code in theirs else None,
                difference=found["macro_f1"],
                p_adjusted=found["p_adjusted"],
                only_tuned=found["mcnemar"]["only_tuned"],
                only_other=found["mcnemar"]["only_other"],
                outcome=found["outcome"],
            )
            for code, found in ordered
            if code in ours
        ),
    )
