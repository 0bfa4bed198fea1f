"""The words of the reports: figures as a person reads them, and sentences that follow from them.

Every function takes ``report.json`` or a part of it as it is (docs/report-schema.md).
``report_finding`` has the sentences about the whole, ``report_decisions`` those about decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slant.config.evaluate_settings import LOWER_IS_BETTER
from slant.errors import InputError
from slant.evaluate.report import REPORT_SCHEMA
from slant.page.languages import language
from slant.page.words import score

__all__ = [
    "MARKS",
    "METRICS",
    "Figure",
    "check_schema",
    "duration",
    "factor",
    "gate_bound",
    "gate_place",
    "interval",
    "milliseconds",
    "money",
    "percent",
    "percent_interval",
    "probability",
    "score",
    "share",
    "short_name",
    "tenths",
    "unanswered",
    "unfinished_sentence",
    "versus",
]

Figure = Mapping[str, Any]
"""An estimate and its interval: value, low, high; the bounds are None where there are too few."""

MARKS = {"better": "▲", "worse": "▼", "unclear": "≈"}
"""Of the outcomes of a comparison."""

METRICS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "f1_polar": "F1 without neutral",
    "mcc": "MCC",
    "auroc": "AUROC",
    "ece": "ECE",
    "brier": "Brier score",
}
"""Names of the metrics for people."""

_MINUS = "\N{MINUS SIGN}"
_SPACE = "\N{NO-BREAK SPACE}"
_SHORT_NAMES = {
    "tuned": "Tuned",
    "prompted": "Prompted",
    "tfidf": "TF-IDF",
    "embedding": "Embedding",
    "majority": "Majority",
}


def check_schema(report: Mapping[str, Any]) -> None:
    """Refuse the report of another version.

    Raises:
        InputError: ``report`` has another schema version.
    """
    if report.get("schema") != REPORT_SCHEMA:
        raise InputError(
            f"the report has schema {report.get('schema')!r}; this version reads {REPORT_SCHEMA!r}",
            hint="Run `slant evaluate` again with this version of slant.",
        )


def interval(figure: Figure) -> str:
    """``[0.66, 0.76]``, or nothing where there are too few examples for an interval."""
    if figure["low"] is None or figure["high"] is None:
        return ""
    return f"[{score(figure['low'])}, {score(figure['high'])}]"


def percent(part: float) -> str:
    """``71 %``, with a space that does not break."""
    return f"{_hundredths(part)}{_SPACE}%"


def tenths(part: float) -> str:
    """``7.9 %``."""
    return f"{100 * part:.1f}{_SPACE}%"


def share(part: float) -> str:
    """``71 %``; with a decimal where it would be read as nothing or as all, and is not."""
    if part not in (0.0, 1.0) and _hundredths(part) in (0, 100):
        return tenths(part)
    return percent(part)


def percent_interval(figure: Figure) -> str:
    """``7.9 % [6.6, 9.3]``; without bounds, the value alone."""
    if figure["low"] is None or figure["high"] is None:
        return tenths(figure["value"])
    return f"{tenths(figure['value'])} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def money(usd: float) -> str:
    """``$0.013``, ``$10.42`` or ``$1,240``."""
    if usd == 0:
        return "$0"
    if usd < 1:
        # Two digits that say something, however small it is.
        digits = 2
        while digits < 8 and float(f"{usd:.{digits}f}") < 10 ** (1 - digits):
            digits += 1
        return f"${usd:.{digits}f}"
    return f"${usd:,.2f}" if usd < 100 else f"${usd:,.0f}"


def milliseconds(value: float) -> str:
    """``38 ms``; from ten seconds on ``12.3 s``."""
    if value >= 10_000:
        return f"{value / 1000:,.1f}{_SPACE}s"
    return f"{value:,.{0 if value >= 10 else 1}f}{_SPACE}ms"


def duration(seconds: float) -> str:
    """``3.2 s``, ``12 min 5 s`` or ``2 h 7 min``."""
    if seconds < 0.1:
        return "less than 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def factor(ratio: float) -> str:
    """``16`` or ``3.3``, of something that is so many times another."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def probability(p_value: float | None) -> str:
    """``0.031``, ``<0.001``, or a dash where nothing was tested."""
    if p_value is None:
        return "–"
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def short_name(system: Mapping[str, Any]) -> str:
    """A word or two for a system, for the margins of charts and the heads of tables."""
    return _SHORT_NAMES.get(system["kind"], str(system["name"]))


def unanswered(system: Mapping[str, Any]) -> str:
    """``12: 8 unreadable, 3 refused, 1 failed``, or nothing."""
    parts = {name: system["answers"][name] for name in ("unreadable", "refused", "failed")}
    total = sum(parts.values())
    if not total:
        return ""
    return f"{total:,}: " + ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)


def versus(comparison: Mapping[str, Any], name: str = "") -> str:
    """``13 points better than NAME [10, 16]``, or that there is no clear difference."""
    figure, outcome = comparison["macro_f1"], comparison["outcome"]
    value, low, high = figure["value"], figure["low"], figure["high"]
    unit = "point" if abs(_hundredths(value)) == 1 else "points"
    if outcome == "unclear":
        bounds = f" [{_signed(low)}, {_signed(high)}]" if low is not None else ""
        rival = f" from {name}" if name else ""
        return f"no clear difference{rival}: {_signed(value)} {unit}{bounds}"
    if outcome == "worse":
        value, low, high = -value, None if high is None else -high, None if low is None else -low
    bounds = f" [{_points(low)}, {_points(high)}]" if low is not None else ""
    rival = f" than {name}" if name else ""
    return f"{_hundredths(value)} {unit} {outcome}{rival}{bounds}"


def gate_place(check: Mapping[str, Any]) -> str:
    """Where a bound of the gate was looked at: ``overall`` or a language's name."""
    return language(check["where"])


def gate_bound(check: Mapping[str, Any]) -> str:
    """``at least 0.70``, or ``at most`` where less is better."""
    way = "at most" if check["metric"] in LOWER_IS_BETTER else "at least"
    return f"{way} {check['bound']:g}"


def unfinished_sentence(endpoint: Mapping[str, Any]) -> str:
    """What came of an endpoint that was not asked to the end."""
    spent = "" if endpoint["usd"] is None else f" for {money(endpoint['usd'])}"
    return (
        f"{endpoint['name']} was not asked to the end: {endpoint['reason']}. It answered "
        f"{endpoint['answered']:,} of {endpoint['of']:,} examples{spent} and is in no comparison."
    )


def _hundredths(value: float) -> int:
    """``value`` in percent or points, rounded as ``score`` rounds: 0.695 is 0.69 and 69 %."""
    return round(100 * round(value, 2))


def _points(value: float) -> str:
    points = _hundredths(value)
    return f"{_MINUS if points < 0 else ''}{abs(points)}"


def _signed(value: float) -> str:
    return f"{'+' if _hundredths(value) > 0 else ''}{_points(value)}"
