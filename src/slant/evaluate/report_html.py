"""report.html: one self-contained page made from report.json.

The page is for two readers: one who decides (headline, comparison, tiles) and one who checks
(slices, mistakes, how it was measured). ``report_words`` turns figures into sentences,
``report_charts`` into positions; ``templates/`` holds what this page has beside `slant.page`: its
sections (``report.html.j2``), drawings (``charts.html.j2``), style and script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slant.errors import InputError
from slant.evaluate import report_charts as charts
from slant.evaluate import report_words as words
from slant.page.languages import language
from slant.page.render import render_page

__all__ = ["render_report"]

_SCHEMA = "slant.report/1"
_TEMPLATES = Path(__file__).parent / "templates"


def render_report(report: Mapping[str, Any]) -> str:
    """The page of one evaluation as a single HTML file: no request, no file beside it.

    Args:
        report: what ``report.json`` holds, as described in docs/report-schema.md.

    Returns:
        HTML5 text; the same for the same report, byte for byte.

    Raises:
        InputError: ``report`` has another schema version.
    """
    if report.get("schema") != _SCHEMA:
        raise InputError(
            f"the report has schema {report.get('schema')!r}; this version reads {_SCHEMA!r}",
            hint="Run `slant evaluate` again with this version of slant.",
        )
    return render_page(_TEMPLATES, _page(report), _formats())


def _formats() -> dict[str, Callable[..., str]]:
    return {
        "duration": words.duration,
        "interval": words.interval,
        "language": language,
        "percent": words.percent,
        "score": words.score,
        "short_name": words.short_name,
        "thousands": lambda count: f"{count:,}",
        "tidy": lambda value: f"{value:g}",
    }


def _page(report: Mapping[str, Any]) -> dict[str, Any]:
    """All that the template names."""
    systems, labels, training = report["systems"], report["task"]["labels"], report["training"]
    adapt = training["adapt"]
    # Under the names that their slices have, where a document came without these.
    mistakes = [
        {**mistake, "lang": mistake["lang"] or "und", "source": mistake["source"] or "other"}
        for mistake in report["mistakes"]
    ]
    return {
        "report": report,
        "labels": labels,
        "systems": systems,
        "tuned": systems[0],
        "headline": words.headline(report),
        "verdict": words.verdict(report),
        "tiles": words.tiles(report),
        "comparison": charts.comparison(report),
        "language_groups": charts.language_groups(systems),
        "language_rows": charts.slice_rows(systems, "lang", language),
        "source_rows": charts.slice_rows(systems, "source", str),
        "narrative_rows": charts.slice_rows(systems, "narrative", str),
        "label_groups": charts.label_groups(systems, labels),
        "confusion": charts.confusion(systems[0]["confusion"]),
        "worst_confusion": charts.worst_confusion(systems[0]["confusion"], labels),
        "latency_bars": charts.latency_bars(report["latency"]),
        "latency_sentence": words.latency_sentence(report["latency"]),
        "training_charts": charts.training_charts(training["tune"]),
        "perplexity": charts.perplexity_bars(adapt["perplexity"]) if adapt else [],
        "mistakes": mistakes,
        "filters": _filter_choices(mistakes, labels),
        "caveats": words.caveats(report),
    }


def _filter_choices(
    mistakes: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> dict[str, list[str]]:
    """The values that occur: languages by name, labels in their order."""
    return {
        "lang": sorted({mistake["lang"] for mistake in mistakes}, key=language),
        "gold": sorted({mistake["gold"] for mistake in mistakes}, key=labels.index),
        "predicted": sorted({mistake["predicted"] for mistake in mistakes}, key=labels.index),
    }
