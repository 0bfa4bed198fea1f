"""ingest.html: one self-contained page made from ingest.json.

It answers an analyst ("what is in my data, what was thrown away and why?") and an engineer ("is it
fit to train on?"). ``report_words`` turns figures into sentences, ``report_findings`` says what
deserves a look, ``report_charts`` turns figures into positions; ``templates/`` holds what this page
has beside `slant.page`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slant.errors import InputError
from slant.ingest import report_charts as charts
from slant.ingest import report_findings as rules
from slant.ingest import report_plots as plots
from slant.ingest import report_words as words
from slant.ingest.report import SCHEMA
from slant.page.render import render_page

__all__ = ["render_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_SAMPLES = 5  # of one reason
_MOST_CONTRADICTIONS = 100
_MOST_REASONS = 50

Entry = Mapping[str, Any]


def render_report(report: Mapping[str, Any]) -> str:
    """The page of one ingest as a single HTML file: no request, no file beside it.

    Args:
        report: what ``ingest.json`` holds, as described in docs/formats.md. Any list may be empty
            and any part absent: its section is left out.

    Returns:
        HTML5 text that UTF-8 can encode; the same for the same report, byte for byte.

    Raises:
        InputError: ``report`` has another schema version.
    """
    if report.get("schema") != SCHEMA:
        raise InputError(
            f"the report has schema {report.get('schema')!r}; this version reads {SCHEMA!r}",
            hint="Run `slant ingest` again with this version of slant.",
        )
    return render_page(_TEMPLATES, _page(_legible(report)), _formats())


def _legible(part: Any) -> Any:
    """The same with every text on one line and free of what no font shows and no file can hold."""
    if isinstance(part, str):
        return words.legible(part)
    if isinstance(part, Mapping):
        return {_legible(key): _legible(value) for key, value in part.items()}
    return [_legible(entry) for entry in part] if isinstance(part, list | tuple) else part


def _formats() -> dict[str, Callable[..., str]]:
    return {
        "count": words.count,
        "excerpt": words.excerpt,
        "language": words.language_name,
        "plural": words.plural,
        "score": words.score,
        "share": words.share,
    }


def _page(report: Mapping[str, Any]) -> dict[str, Any]:
    """All that the template names."""
    labels = words.labels(report)
    duplicates = report.get("duplicates") or {}
    page = {
        "labels": labels,
        "headline": words.headline(report),
        "summary": words.summary(report),
        "findings": rules.findings(report),
        "tiles": words.tiles(report),
        "flows": charts.flows(report.get("sources") or ()),
        "splits": list(report.get("examples") or ()),
        "label_groups": charts.label_groups(report, labels),
        "months": plots.months((report.get("breakdown") or {}).get("month") or ()),
        "breakdowns": _breakdowns(report, labels),
        "narratives": report.get("narratives") or 0,
        "lengths": report.get("lengths") or {},
        "sampled": words.sampled(report),
        "histograms": plots.histograms(report.get("lengths") or {}),
        "languages": report.get("languages") or {},
        "language_sentence": words.language_sentence(report),
        "matrix": charts.language_matrix(_disagreements(report)),
        "disagreements": sorted(_disagreements(report), key=lambda entry: -entry["count"]),
        "duplicates": duplicates,
        "duplicate_sentence": words.duplicate_sentence(duplicates),
        "contradictions": (duplicates.get("contradictions") or [])[:_MOST_CONTRADICTIONS],
        "agreement": charts.alpha_rows(report.get("judgements") or {}),
        "num_reasoned": sum((report.get("reasons") or {}).values()),
        "rejected": words.total(report, "rejected"),
        "reasons": _reasons(report),
        "more_reasons": max(len(report.get("reasons") or {}) - _MOST_REASONS, 0),
        "cleaning": report.get("cleaning") or {},
        "changes": charts.counted(
            (report.get("cleaning") or {}).get("kinds") or {}, words.num_documents(report)
        ),
        "notes": charts.counted(report.get("notes") or {}, words.total(report, "rows")),
    }
    return {**page, "sections": _sections(page)}


def _disagreements(report: Mapping[str, Any]) -> Sequence[Entry]:
    return (report.get("languages") or {}).get("disagreements") or ()


def _breakdowns(report: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Tables of documents and labels by attribute; an attribute with one value says nothing."""
    whole, result = words.num_documents(report), []
    for key, head, name in (
        ("language", "Language", words.language_name),
        ("source", "Kind of source", lambda value: value or "not given"),
        ("dataset", "Data set", lambda value: value or "not given"),
        ("narrative", "Narrative", lambda value: value or "overall sentiment"),
    ):
        entries = (report.get("breakdown") or {}).get(key) or ()
        names = [str(name(entry.get("value"))) for entry in entries]
        if len(entries) > 1 or (entries and key == "narrative"):
            rows = charts.shares(entries, names, labels, whole)
            result.append({"key": key, "head": head, "rows": rows})
    return result


def _reasons(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Why rows are not in the result: the most frequent reason first, with some of its rows."""
    reasons = dict(report.get("reasons") or {})
    samples: dict[str, list[Entry]] = {}
    for sample in report.get("rejected_samples") or ():
        # A sample's reason may go into details that the counted one leaves out.
        kinds = [kind for kind in reasons if sample["reason"].endswith(kind)]
        kinds += [kind for kind in reasons if sample["reason"].startswith(kind)]
        samples.setdefault(max(kinds, key=len, default=""), []).append(sample)
    bars = charts.counted(reasons, sum(reasons.values()))[:_MOST_REASONS]
    result = [{"bar": bar, "samples": samples.get(bar.name, [])[:_MOST_SAMPLES]} for bar in bars]
    if others := samples.get(""):
        result.append({"bar": None, "samples": others[:_MOST_SAMPLES]})
    return result


def _sections(page: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections that have something to show, and their names in the page's menu."""
    duplicates, languages = page["duplicates"], page["languages"]
    shown = {
        "sources": ("Sources", page["flows"]),
        "labels": ("Labels", page["label_groups"]),
        "content": ("Content", page["months"] or page["breakdowns"]),
        "lengths": ("Lengths", page["histograms"]),
        "languages": ("Languages", any(languages.values())),
        "duplicates": ("Duplicates", any(duplicates.values())),
        "agreement": ("Agreement", page["agreement"]),
        "rejected": ("Set aside", page["reasons"]),
        "changes": ("Changes", page["changes"] or page["notes"]),
    }
    return [(key, name) for key, (name, found) in shown.items() if found]
