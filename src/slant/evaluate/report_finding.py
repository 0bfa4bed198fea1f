"""What the evaluation found, in sentences: for the head of report.html and for report.md.

Every function takes ``report.json`` or a part of it as it is (docs/report-schema.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from slant.evaluate import report_words as words
from slant.evaluate.report_decisions import accepted_tile
from slant.page.languages import language
from slant.page.words import listed

__all__ = [
    "caveats",
    "headline",
    "latency_sentence",
    "main_rival",
    "price_and_pace",
    "rival_name",
    "tiles",
    "verdict",
]

Report = Mapping[str, Any]

_LOW_F1 = 0.5  # below this, a label gets a caveat of its own
_SMALL_TEST = 200  # fewer test examples than this are worth a caveat


def main_rival(report: Report) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The system that a reader wants to be compared with, and the comparison; None without any.

    A language model behind an endpoint is what the tuned model would replace; without one, what
    tuning replaces is prompting the base model; without that, the hardest baseline counts.
    """
    compared = {entry["system"]: entry for entry in report["comparisons"]}
    order = {"endpoint": 0, "prompted": 1}
    rivals = [system for system in report["systems"][1:] if system["id"] in compared]
    if not rivals:
        return None
    rival = min(
        rivals,
        key=lambda system: (order.get(system["kind"], 2), -system["overall"]["macro_f1"]["value"]),
    )
    return rival, compared[rival["id"]]


def rival_name(system: Mapping[str, Any]) -> str:
    """How a sentence names a system that the tuned model is compared with."""
    return "prompting the same base model" if system["kind"] == "prompted" else str(system["name"])


def headline(report: Report) -> dict[str, str]:
    """The finding in one sentence, in parts: ``score``, ``interval``, ``count``, ``versus``."""
    overall = report["systems"][0]["overall"]
    rival = main_rival(report)
    return {
        "score": words.score(overall["macro_f1"]["value"]),
        "interval": words.interval(overall["macro_f1"]),
        "count": f"{overall['count']:,}",
        "versus": words.versus(rival[1], rival_name(rival[0])) if rival else "",
    }


def price_and_pace(report: Report) -> str:
    """Cost and latency beside those of the main rival; empty where neither is known of both."""
    rival = main_rival(report)
    if rival is None:
        return ""
    tuned, other = report["systems"][0], rival[0]
    parts = []
    if tuned["cost"] and other["cost"]:
        ours, theirs = tuned["cost"]["usd_per_1000"], other["cost"]["usd_per_1000"]
        ratio = ""
        if ours > 0 and theirs > 0:
            is_cheaper = theirs >= ours
            times = words.factor(theirs / ours if is_cheaper else ours / theirs)
            ratio = f" (1/{times} of that)" if is_cheaper else f" ({times} times as much)"
        parts.append(
            f"{words.money(ours)} per 1,000 answers instead of {words.money(theirs)}{ratio}"
        )
    if tuned["latency"] and other["latency"]:
        ours, theirs = tuned["latency"]["p50"], other["latency"]["p50"]
        ratio = ""
        if ours > 0 and theirs > 0:
            is_faster = theirs >= ours
            times = words.factor(theirs / ours if is_faster else ours / theirs)
            ratio = f" ({times} times as {'fast' if is_faster else 'long'})"
        parts.append(
            f"{words.milliseconds(ours)} for one document instead of "
            f"{words.milliseconds(theirs)}{ratio}"
        )
    return f"{'; '.join(parts)}." if parts else ""


def verdict(report: Report) -> dict[str, str]:
    """Whether the model is clearly better than every other system, or than which it is not."""
    names = {system["id"]: system["name"] for system in report["systems"]}
    found: dict[str, list[str]] = {"worse": [], "unclear": [], "better": []}
    for entry in report["comparisons"]:
        found[entry["outcome"]].append(names[entry["system"]])
    if found["worse"] or found["unclear"]:
        parts = []
        if found["worse"]:
            parts.append(f"Worse than {listed(found['worse'])}.")
        if found["unclear"]:
            parts.append(f"Not clearly better than {' or '.join(found['unclear'])}.")
        return {"kind": "worse" if found["worse"] else "unclear", "text": " ".join(parts)}
    if not found["better"]:
        return {"kind": "unclear", "text": "Measured against no other system."}
    many = len(found["better"])
    others = f"all {many} other systems" if many > 1 else "the other system"
    return {"kind": "better", "text": f"Clearly better than {others}."}


def tiles(report: Report) -> list[tuple[str, str, str]]:
    """The facts beside the headline: what, the figure, a note."""
    tuned, calibration = report["systems"][0], report["calibration"]
    accuracy = tuned["overall"]["accuracy"]
    bounds = "too few examples for an interval"
    if accuracy["low"] is not None and accuracy["high"] is not None:
        low, high = (words.percent(accuracy[end]).split()[0] for end in ("low", "high"))
        bounds = f"of the answers are right [{low}, {high}]"
    result = [("Accuracy", words.percent(accuracy["value"]), bounds)]
    measured = [
        (metrics["macro_f1"]["value"], code, metrics["macro_f1"])
        for code, metrics in tuned["slices"]["lang"].items()
        if metrics["macro_f1"]["low"] is not None
    ]
    if len(measured) > 1:
        value, code, figure = min(measured, key=lambda entry: entry[:2])
        note = f"macro-F1 {words.score(value)} {words.interval(figure)}"
        result.append(("Weakest language", language(code), note))
    if report["decisions"] is not None:
        result.append(accepted_tile(report["decisions"]))
    note = f"ECE after calibration; {words.percent(calibration['ece_before'])} before"
    result.append(("Calibration error", words.percent(calibration["ece_after"]), note))
    scoring = words.milliseconds(report["latency"]["label_scoring"]["p50"])
    result.append(("One document takes", scoring, _latency_note(report)))
    if tuned["cost"]:
        cost = words.money(tuned["cost"]["usd_per_1000"])
        result.append(("1,000 answers cost", cost, _cost_note(report)))
    return result


def _latency_note(report: Report) -> str:
    rival = main_rival(report)
    if rival and rival[0]["kind"] == "endpoint" and rival[0]["latency"]:
        return f"median; {rival[0]['name']}: {words.milliseconds(rival[0]['latency']['p50'])}"
    ratio = _latency_ratio(report["latency"])
    if math.isnan(ratio):
        return "median"
    times, way = (ratio, "faster") if ratio >= 1 else (1 / ratio, "slower")
    return f"median; {words.factor(times)}\N{MULTIPLICATION SIGN} {way} than generating"


def _cost_note(report: Report) -> str:
    rival = main_rival(report)
    if rival and rival[0]["cost"]:
        return f"{words.short_name(rival[0])}: {words.money(rival[0]['cost']['usd_per_1000'])}"
    return str(report["systems"][0]["cost"]["basis"])


def _latency_ratio(latency: Mapping[str, Any]) -> float:
    """How many times as long as scoring labels generating takes; NaN where nothing was timed."""
    scoring, generation = latency["label_scoring"]["p50"], latency["generation"]["p50"]
    return float(generation / scoring) if scoring > 0 and generation > 0 else math.nan


def latency_sentence(latency: Mapping[str, Any]) -> str:
    """Both medians and their ratio in words."""
    ratio = _latency_ratio(latency)
    times = "" if math.isnan(ratio) else f", {ratio:.1f} times as long"
    return (
        f"Reading the label scores takes {words.milliseconds(latency['label_scoring']['p50'])} "
        f"for one document; letting the same model generate its answer takes "
        f"{words.milliseconds(latency['generation']['p50'])}{times} "
        f"(medians of {latency['documents']} documents)."
    )


def caveats(report: Report) -> list[str]:
    """What the figures do not say: some hold always, some for this report only."""
    tuned = report["systems"][0]
    result = [
        f"The {words.percent(report['confidence'])} intervals say how far the figures could move "
        "with other test documents of the same kind. They do not cover another training run, "
        "another period or mistakes in the gold labels.",
        "Of many slices some look good or bad by chance: compare intervals, not ranks.",
        "Macro-F1 averages over all labels, also in a slice where a label never occurs, and is "
        "lower there for that reason alone; accuracy is the safer reading of a small slice.",
        "Latency holds for the machine named here and for one document at a time; that of an "
        "endpoint includes the way there and back.",
    ]
    if report["decisions"] is not None:
        result.append(
            "What is promised of accepted answers holds for documents drawn like those of the "
            "calibration split. Where topics, sources or languages change, calibrate again."
        )
    silent = [system["name"] for system in report["systems"] if words.unanswered(system)]
    if silent:
        result.append(
            f"Examples that a system gave no readable answer to count as wrong: {listed(silent)}."
        )
    return result + _particular_caveats(report, tuned)


def _particular_caveats(report: Report, tuned: Mapping[str, Any]) -> list[str]:
    result = []
    if tuned["overall"]["count"] < _SMALL_TEST:
        result.append(f"The test split is small: {tuned['overall']['count']} examples.")
    narratives = tuned["slices"]["narrative"].values()
    few = sum(metrics["macro_f1"]["low"] is None for metrics in narratives)
    if few:
        result.append(
            f"Narratives with too few test examples for an interval: {few} of {len(narratives)}."
        )
    weak = [name for name, f1 in tuned["overall"]["f1"].items() if f1["value"] < _LOW_F1]
    if weak:
        result.append(f"F1 is below {_LOW_F1} for: {', '.join(weak)}.")
    if report["data"]["rejected"]:
        result.append(
            f"Input rows that could not be used and were set aside: {report['data']['rejected']:,}."
        )
    return result
