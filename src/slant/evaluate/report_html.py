"""report.html: one self-contained page made from report.json.

The page is for two readers: one who decides (headline, comparison, decisions) and one who checks
(slices, mistakes, how it was measured). ``report_words``, ``report_finding`` and
``report_decisions`` turn figures into sentences, ``report_systems`` into tables, ``report_charts``
and ``report_plots`` into positions; ``templates/`` holds what this page has beside `slant.page`:
its sections (``report.html.j2``), tables, drawings (``charts.html.j2``), style and script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slant.evaluate import report_charts as charts
from slant.evaluate import report_decisions as decisions
from slant.evaluate import report_finding as finding
from slant.evaluate import report_plots as plots
from slant.evaluate import report_systems as compared
from slant.evaluate import report_words as words
from slant.evaluate.report_browser import browser_filters, shown_mistakes
from slant.page.languages import language
from slant.page.render import render_page

__all__ = ["render_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_SEEN = ("seen", "unseen")


def render_report(report: Mapping[str, Any]) -> str:
    """The page of one evaluation as a single HTML file: no request, no file beside it.

    Args:
        report: what ``report.json`` holds, as described in docs/report-schema.md.

    Returns:
        HTML5 text; the same for the same report, byte for byte.

    Raises:
        InputError: ``report`` has another schema version.
    """
    words.check_schema(report)
    values = {
        **_finding(report),
        **_systems(report),
        **_confidence(report),
        **_slices(report),
        **_checks(report),
    }
    return render_page(_TEMPLATES, values, _formats())


def _formats() -> dict[str, Callable[..., str]]:
    return {
        "duration": words.duration,
        "exact": decisions.exact,
        "gate_bound": words.gate_bound,
        "gate_place": words.gate_place,
        "interval": words.interval,
        "language": language,
        "mark": words.MARKS.__getitem__,
        "metric": lambda name: str(words.METRICS.get(name, name)),
        "money": words.money,
        "percent": words.percent,
        "probability": words.probability,
        "score": words.score,
        "short_name": words.short_name,
        "tenths": words.tenths,
        "thousands": lambda count: f"{count:,}",
        "tidy": lambda value: f"{value:.6g}",
    }


def _finding(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "report": report,
        "labels": report["task"]["labels"],
        "headline": finding.headline(report),
        "price_and_pace": finding.price_and_pace(report),
        "verdict": finding.verdict(report),
        "tiles": finding.tiles(report),
        "unfinished": [words.unfinished_sentence(one) for one in report["unfinished"]],
        "caveats": finding.caveats(report),
    }


def _systems(report: Mapping[str, Any]) -> dict[str, Any]:
    """The tuned model against the others."""
    systems, labels = report["systems"], report["task"]["labels"]
    return {
        "systems": systems,
        "comparison": charts.comparison(report),
        "system_rows": compared.system_rows(report),
        "measure_names": compared.measure_names(report),
        "costs": [
            (system["name"], system["cost"]["basis"]) for system in systems if system["cost"]
        ],
        "cost_plot": plots.cost_plot(report),
        "comparisons": compared.comparisons(report),
        "language_groups": charts.language_groups(systems),
        "label_groups": charts.label_groups(systems, labels),
        "confusions": [
            (system["name"], charts.confusion(system["confusion"])) for system in systems
        ],
        "worst_confusion": charts.worst_confusion(systems[0]["confusion"], labels),
    }


def _confidence(report: Mapping[str, Any]) -> dict[str, Any]:
    """What probabilities are worth, and what is done with them."""
    calibration, reliability = report["calibration"], report["systems"][0]["reliability"]
    values = {
        "bins_before": calibration["bins_before"],
        "bins_after": reliability["bins"] if reliability else [],
        "temperatures": sorted(
            calibration["languages"].items(), key=lambda item: (-item[1]["count"], item[0])
        ),
    }
    if report["decisions"] is not None:
        values |= {
            "decision_sentences": decisions.decision_sentences(report["decisions"]),
            "decision_rows": decisions.group_rows(report["decisions"]),
            "error_limit": decisions.exact(report["decisions"]["max_error"]),
            "curves": decisions.curves(report),
        }
    return values


def _slices(report: Mapping[str, Any]) -> dict[str, Any]:
    systems = report["systems"]

    def rows(attribute: str, order: Callable[[str], Any] | None = None) -> list[charts.Row]:
        return charts.slice_rows(systems, attribute, str, order)

    return {
        "language_rows": charts.slice_rows(systems, "lang", language),
        "slices": {
            "source": rows("source"),
            "narrative": rows("narrative"),
            "month": rows("month", str),
            "length": rows("length", charts.by_numbers),
            "narrative_seen": rows("narrative_seen", lambda value: (value not in _SEEN, value)),
        },
        "month_plot": plots.month_plot(report),
    }


def _checks(report: Mapping[str, Any]) -> dict[str, Any]:
    """For the reader who checks: latency, training, mistakes."""
    training = report["training"]
    adapt, mistakes = training["adapt"], shown_mistakes(report["mistakes"])
    return {
        "latency_bars": charts.latency_bars(report["latency"]),
        "latency_sentence": finding.latency_sentence(report["latency"]),
        "training_charts": charts.training_charts(training["tune"]),
        "perplexity": charts.perplexity_bars(adapt["perplexity"]) if adapt else [],
        "mistakes": mistakes,
        "filters": browser_filters(mistakes, report["task"]["labels"]),
    }
