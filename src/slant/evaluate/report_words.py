"""The words of report.html: figures as a person reads them, and sentences that follow from them.

Every function takes ``report.json`` or a part of it as it is (docs/report-schema.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from slant.page.languages import language
from slant.page.words import score

__all__ = [
    "Figure",
    "caveats",
    "differences",
    "duration",
    "headline",
    "interval",
    "latency_sentence",
    "milliseconds",
    "outcome",
    "percent",
    "score",
    "short_name",
    "tiles",
    "verdict",
    "versus",
]

Figure = Mapping[str, Any]
"""An interval figure: value, low, high; the bounds are None where there are too few examples."""

_MINUS = "\N{MINUS SIGN}"
_LOW_F1 = 0.5  # below this, a label gets a caveat of its own
_SMALL_TEST = 200  # fewer test examples than this are worth a caveat

_SHORT_NAMES = {
    "tuned": "Tuned",
    "prompted": "Prompted",
    "tfidf": "TF-IDF",
    "majority": "Majority",
}


def interval(figure: Figure) -> str:
    """``[0.66, 0.76]``, or nothing where there are too few examples for an interval."""
    if figure["low"] is None or figure["high"] is None:
        return ""
    return f"[{figure['low']:.2f}, {figure['high']:.2f}]"


def percent(share: float) -> str:
    """``71 %``, with a space that does not break."""
    return f"{_hundredths(share)}\N{NO-BREAK SPACE}%"


def milliseconds(value: float) -> str:
    """``38 ms``; from ten seconds on ``12.3 s``."""
    if value >= 10_000:
        return f"{value / 1000:,.1f}\N{NO-BREAK SPACE}s"
    return f"{value:,.{0 if value >= 10 else 1}f}\N{NO-BREAK SPACE}ms"


def duration(seconds: float) -> str:
    """``3.2 s``, ``12 min 5 s`` or ``2 h 7 min``."""
    if seconds < 0.1:
        return "less than 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def short_name(system: Mapping[str, Any]) -> str:
    """One word for a system, for the margins of charts and the heads of tables."""
    return _SHORT_NAMES.get(system["id"], str(system["name"]))


def differences(report: Mapping[str, Any]) -> dict[str, Figure]:
    """By how much the tuned model's macro-F1 exceeds each baseline's, by system id."""
    return {entry["system"]: entry["macro_f1"] for entry in report["differences"]}


def outcome(difference: Figure) -> str:
    """``better``, ``worse`` or ``unclear``: whether the whole interval lies on one side of 0."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None or low <= 0 <= high:
        return "unclear"
    return "better" if low > 0 else "worse"


def versus(difference: Figure, name: str = "") -> str:
    """``24 points better than NAME [17, 31]``, or that there is no clear difference."""
    value, low, high = difference["value"], difference["low"], difference["high"]
    result = outcome(difference)
    unit = "point" if abs(_hundredths(value)) == 1 else "points"
    if result == "unclear":
        bounds = "" if low is None or high is None else f" [{_signed(low)}, {_signed(high)}]"
        rival = f" from {name}" if name else ""
        return f"no clear difference{rival}: {_signed(value)} {unit}{bounds}"
    if result == "worse":
        value, low, high = -value, -high, -low
    rival = f" than {name}" if name else ""
    return f"{_hundredths(value)} {unit} {result}{rival} [{_hundredths(low)}, {_hundredths(high)}]"


def _hundredths(value: float) -> int:
    """``value`` in percent or points, rounded as ``score`` rounds: 0.695 is 0.69 and 69 %."""
    return round(100 * round(value, 2))


def _signed(value: float) -> str:
    points = _hundredths(value)
    return f"{_MINUS if points < 0 else '+' if points > 0 else ''}{abs(points)}"


def headline(report: Mapping[str, Any]) -> dict[str, str]:
    """The finding in one sentence, in parts: ``score``, ``interval``, ``count``, ``versus``."""
    overall = report["systems"][0]["overall"]
    measured = differences(report)
    rivals = [system for system in report["systems"][1:] if system["id"] in measured]
    # Prompting the base model is what tuning replaces; without it, the hardest baseline counts.
    rivals.sort(
        key=lambda system: (system["id"] != "prompted", -system["overall"]["macro_f1"]["value"])
    )
    sentence = ""
    if rivals:
        rival = rivals[0]
        name = "prompting the same base model" if rival["id"] == "prompted" else rival["name"]
        sentence = versus(measured[rival["id"]], name)
    return {
        "score": score(overall["macro_f1"]["value"]),
        "interval": interval(overall["macro_f1"]),
        "count": f"{overall['count']:,}",
        "versus": sentence,
    }


def verdict(report: Mapping[str, Any]) -> dict[str, str]:
    """Whether the model is clearly better than every baseline, or than which it is not."""
    names = {system["id"]: system["name"] for system in report["systems"]}
    found: dict[str, list[str]] = {"worse": [], "unclear": [], "better": []}
    for system_id, figure in differences(report).items():
        found[outcome(figure)].append(names[system_id])
    if found["worse"] or found["unclear"]:
        parts = []
        if found["worse"]:
            parts.append(f"Worse than {' and '.join(found['worse'])}.")
        if found["unclear"]:
            parts.append(f"Not clearly better than {' or '.join(found['unclear'])}.")
        return {"kind": "worse" if found["worse"] else "unclear", "text": " ".join(parts)}
    if not found["better"]:
        return {"kind": "unclear", "text": "Measured against no baseline."}
    many = len(found["better"])
    return {
        "kind": "better",
        "text": f"Clearly better than {f'all {many} baselines' if many > 1 else 'the baseline'}.",
    }


def tiles(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The facts beside the headline: what, the figure, a note."""
    tuned = report["systems"][0]
    accuracy = tuned["overall"]["accuracy"]
    bounds = "too few examples for an interval"
    if accuracy["low"] is not None and accuracy["high"] is not None:
        low, high = _hundredths(accuracy["low"]), _hundredths(accuracy["high"])
        bounds = f"of the answers are right [{low}, {high}]"
    result = [("Accuracy", percent(accuracy["value"]), bounds)]
    measured = [
        (metrics["macro_f1"]["value"], code, metrics["macro_f1"])
        for code, metrics in tuned["slices"]["lang"].items()
        if metrics["macro_f1"]["low"] is not None
    ]
    if len(measured) > 1:
        value, code, figure = min(measured, key=lambda entry: entry[:2])
        note = f"macro-F1 {score(value)} {interval(figure)}"
        result.append(("Weakest language", language(code), note))
    latency, calibration = report["latency"], report["calibration"]
    scoring = milliseconds(latency["label_scoring"]["p50"])
    result.append(("One document takes", scoring, _latency_note(latency)))
    note = f"ECE after calibration; {percent(calibration['ece_before'])} before"
    result.append(("Calibration error", percent(calibration["ece_after"]), note))
    return result


def _latency_ratio(latency: Mapping[str, Any]) -> float:
    """How many times as long as scoring labels generating takes; NaN where nothing was timed."""
    scoring, generation = latency["label_scoring"]["p50"], latency["generation"]["p50"]
    return float(generation / scoring) if scoring > 0 and generation > 0 else math.nan


def _latency_note(latency: Mapping[str, Any]) -> str:
    ratio = _latency_ratio(latency)
    if math.isnan(ratio):
        return "median"
    factor, way = (ratio, "faster") if ratio >= 1 else (1 / ratio, "slower")
    return f"median; {factor:.1f}\N{MULTIPLICATION SIGN} {way} than generating"


def latency_sentence(latency: Mapping[str, Any]) -> str:
    """Both medians and their ratio in words."""
    ratio = _latency_ratio(latency)
    times = "" if math.isnan(ratio) else f", {ratio:.1f} times as long"
    return (
        f"Reading the label scores takes {milliseconds(latency['label_scoring']['p50'])} for one "
        f"document; letting the same model generate its answer takes "
        f"{milliseconds(latency['generation']['p50'])}{times} "
        f"(medians of {latency['documents']} documents)."
    )


def caveats(report: Mapping[str, Any]) -> list[str]:
    """What the figures do not say: some hold always, some for this report only."""
    data, tuned = report["data"], report["systems"][0]
    result = [
        f"The {percent(report['confidence'])} intervals say how far the figures could move with "
        "other test documents of the same kind. They do not cover another training run, another "
        "period or mistakes in the gold labels.",
        "Of many slices some look good or bad by chance: compare intervals, not ranks.",
        "Macro-F1 averages over all labels, also in a slice where a label never occurs, and is "
        "lower there for that reason alone; accuracy is the safer reading of a small slice.",
        "Latency holds for the machine named here and for one document at a time.",
    ]
    if tuned["overall"]["count"] < _SMALL_TEST:
        result.append(f"The test split is small: {tuned['overall']['count']} examples.")
    narratives = tuned["slices"]["narrative"].values()
    few = sum(metrics["macro_f1"]["low"] is None for metrics in narratives)
    if few:
        result.append(
            f"Narratives with too few test examples for an interval: {few} of {len(narratives)}."
        )
    weak = [name for name, f1 in tuned["overall"]["f1"].items() if f1 < _LOW_F1]
    if weak:
        result.append(f"F1 is below {_LOW_F1} for: {', '.join(weak)}.")
    if data["rejected"]:
        result.append(
            f"Input rows that could not be used and were set aside: {data['rejected']:,}."
        )
    return result
