"""report.md: the finding for a pull request, in the Markdown that GitHub and GitLab show.

Names and reasons are written by strangers: whatever could start markup, a table cell, a mention or
a link is escaped. Comments of pull requests hold 65,536 characters; the report stays below 60,000.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from slant.evaluate import report_decisions as decisions
from slant.evaluate import report_finding as finding
from slant.evaluate import report_systems as compared
from slant.evaluate import report_words as words
from slant.page.languages import language

__all__ = ["render_markdown"]

Report = Mapping[str, Any]

_MOST_CHARACTERS = 59_000
_MOST_ROWS = 60
_MOST_SYSTEMS = 12
_LONGEST = {"name": 80, "sentence": 600}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")


def render_markdown(report: Report) -> str:
    """The report of one evaluation as Markdown.

    Args:
        report: what ``report.json`` holds, as described in docs/report-schema.md.

    Returns:
        Less than 60,000 characters, the most important first; the same for the same report.

    Raises:
        InputError: ``report`` has another schema version.
    """
    words.check_schema(report)
    parts = [
        _headline(report),
        _gate(report),
        _systems(report),
        _sentences(report),
        _decisions(report),
        _languages(report),
        _caveats(report),
        _footer(report),
    ]
    return _joined([part for part in parts if part])


def _joined(parts: Sequence[str]) -> str:
    """The parts that there is room for; whole ones, so that no table ends in its middle."""
    kept: list[str] = []
    room = _MOST_CHARACTERS
    for part in parts:
        if len(part) <= room:
            kept.append(part)
            room -= len(part)
    if len(kept) < len(parts):
        kept.append("_Shortened: the rest is in report.html._")
    return "\n\n".join(kept) + "\n"


def _headline(report: Report) -> str:
    head, verdict = finding.headline(report), finding.verdict(report)
    versus = f"; {_text(head['versus'], 'sentence')}" if head["versus"] else ""
    bounds = f" {_text(head['interval'])}" if head["interval"] else ""
    lines = [
        f"## {head['score']} macro-F1{bounds}",
        f"**{_text(report['task']['base'])}**, tuned: {head['score']} macro-F1{bounds} on "
        f"{head['count']} held-out examples{versus}.",
        _text(finding.price_and_pace(report), "sentence"),
        f"{ {'better': '✓', 'unclear': '≈', 'worse': '✗'}[verdict['kind']] } "
        f"{_text(verdict['text'], 'sentence')}",
        *(
            f"⚠ {_text(words.unfinished_sentence(endpoint), 'sentence')}"
            for endpoint in report["unfinished"][:_MOST_SYSTEMS]
        ),
    ]
    return "\n\n".join(line for line in lines if line)


def _gate(report: Report) -> str:
    if not report["gate"]:
        return ""
    rows = [
        (
            words.METRICS.get(check["metric"], check["metric"]),
            words.gate_place(check),
            words.gate_bound(check),
            "–" if check["value"] is None else f"{check['value']:.3f}",
            "✓" if check["met"] else "✗ not met",
        )
        for check in report["gate"]
    ]
    num_met = sum(check["met"] for check in report["gate"])
    head = ("metric", "where", "must be", "is", "met")
    return f"### Gate: {num_met} of {len(rows)} bounds met\n\n{_table(head, rows, '  rr ')}"


def _systems(report: Report) -> str:
    rows = [
        (
            row.name,
            _figure(row.accuracy),
            _figure(row.macro_f1),
            _figure(system["overall"]["mcc"]),
            row.cost or "–",
            f"{row.p50} / {row.p95}" if row.p50 else "–",
            row.unanswered or "0",
        )
        for row, system in zip(compared.system_rows(report), report["systems"], strict=True)
    ]
    head = (
        "system",
        "accuracy",
        "macro-F1",
        "MCC",
        "1,000 answers cost",
        "latency p50 / p95",
        "no answer",
    )
    return f"### Systems\n\n{_table(head, rows, ' rrrrrr')}"


def _sentences(report: Report) -> str:
    if not report["comparisons"]:
        return ""
    return "Differences in points of macro-F1:\n\n" + "\n".join(
        f"- Against **{_text(one.name)}**: {_text(one.difference)}; "
        f"{_text(one.sentence, 'sentence')}."
        for one in compared.comparisons(report)[:_MOST_SYSTEMS]
    )


def _decisions(report: Report) -> str:
    if report["decisions"] is None:
        return ""
    sentences = decisions.decision_sentences(report["decisions"])
    return f"### Decisions\n\n{_text(' '.join(sentences), 'sentence')}"


def _languages(report: Report) -> str:
    systems = report["systems"][:_MOST_SYSTEMS]
    groups = report["decisions"]["groups"] if report["decisions"] is not None else []
    slices = systems[0]["slices"]["lang"]
    rows = []
    for code, metrics in sorted(slices.items(), key=lambda item: (-item[1]["count"], item[0])):
        found = [system["slices"]["lang"].get(code) for system in systems]
        ece = metrics["ece"]
        cells = [
            language(code),
            f"{metrics['count']:,}",
            *(_figure(other["macro_f1"]) if other else "–" for other in found),
            "–" if ece is None else f"{ece['value']:.3f}",
        ]
        if groups:
            cells.append(_accepted(code, groups))
        rows.append(tuple(cells))
    head = ["language", "examples", *(words.short_name(system) for system in systems), "ECE, tuned"]
    if groups:
        head.append("accepted, tuned")
    note = "Macro-F1 of each system"
    if groups:
        note += "; the share that is accepted without a look, and how much of it is wrong"
    table = _table(head, rows, " " + "r" * (len(head) - 1))
    return f"### Languages\n\n{note}.\n\n{table}"


def _accepted(code: str, groups: Sequence[Mapping[str, Any]]) -> str:
    """What is accepted of a language; that of its group where it has no threshold of its own."""
    group = next((group for group in groups if code in group["languages"]), None)
    if group is None or group["threshold"] is None:
        return "nothing"
    test = group["test"]
    together = "" if group["languages"] == [code] else " (with others)"
    accepted = words.share(test["accepted"] / test["count"]) if test["count"] else "–"
    wrong = f", {words.percent_interval(test['error'])} wrong" if test["error"] else ""
    return f"{accepted}{wrong}{together}"


def _caveats(report: Report) -> str:
    lines = "\n".join(f"- {_text(caveat, 'sentence')}" for caveat in finding.caveats(report))
    return f"### Caveats\n\n{lines}"


def _footer(report: Report) -> str:
    return (
        f"slant {_text(report['slant_version'])} · `{report['task']['fingerprint'][:12]}` · "
        f"{_text(report['created_at'])} · brackets hold {words.percent(report['confidence'])} "
        "intervals · all figures: report.html, report.json"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> str:
    """A table of plain texts, at most some dozen rows long; ``r`` in ``sides``: to the right."""
    lines = [
        _row([_text(cell) for cell in head]),
        _row(["---:" if side == "r" else "---" for side in sides]),
        *(_row([_text(cell) for cell in row]) for row in rows[:_MOST_ROWS]),
    ]
    if len(rows) > _MOST_ROWS:
        lines.append(f"\n… and {len(rows) - _MOST_ROWS:,} more in report.html.")
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figure(figure: words.Figure) -> str:
    return f"{words.score(figure['value'])} {words.interval(figure)}".rstrip()


def _text(value: object, kind: str = "name") -> str:
    """One line of plain text: no markup, no mention of a person, no link, not too long."""
    text = " ".join(str(value).split())
    longest = _LONGEST[kind]
    text = text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"
    text = _SPECIAL.sub(r"\\\1", text)
    # A joiner of no width keeps mentions and bare addresses from becoming links.
    return text.replace("@", "@\N{WORD JOINER}").replace("://", ":\N{WORD JOINER}//")
