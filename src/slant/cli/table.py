"""Results as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slant.evaluate import report_words as words
from slant.evaluate.report_decisions import decision_sentences
from slant.evaluate.report_systems import comparisons

__all__ = ["make_console", "percent", "points", "print_noise", "print_report"]

_WIDTH = 100


def print_report(report: Mapping[str, Any]) -> None:
    """Print systems, languages, decisions and the gate of a ``report.json``."""
    console = make_console()
    console.print()
    console.print(_systems(report))
    console.print(_languages(report))
    if report["gate"]:
        console.print(_gate(report))
    for line in _sentences(report):
        console.print(line, markup=False)
    console.print()


def print_noise(candidates: Sequence[Mapping[str, Any]], most: int, split: str) -> None:
    """Print the first ``most`` examples of a split whose label looks wrong."""
    from rich.table import Table

    table = Table(
        title=f"{len(candidates)} {split} examples whose label looks wrong",
        title_justify="left",
    )
    for column in ("document", "narrative", "label", "looks like"):
        table.add_column(column)
    table.add_column("probability", justify="right")
    for one in candidates[:most]:
        table.add_row(
            one["document_id"],
            one["narrative_id"] or "",
            one["label"],
            one["suggested"],
            f"{one['probability']:.2f}",
        )
    make_console().print(table)


def make_console() -> Any:
    """A console that keeps its width where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    # Pipes and logs have no width; 80 columns would wrap the names.
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


def _systems(report: Mapping[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    data = report["data"]
    table = Table(
        title=f"{data['test']} held-out examples, {data['test_documents']} documents, "
        f"{report['confidence']:.0%} intervals",
        title_justify="left",
    )
    table.add_column("system")
    for column in ("accuracy", "macro-F1", "tuned is better by"):
        table.add_column(column, justify="right")
    differences = {entry["system"]: entry["macro_f1"] for entry in report["comparisons"]}
    for number, system in enumerate(report["systems"]):
        overall = system["overall"]
        difference = differences.get(system["id"])
        table.add_row(
            escape(system["name"]),
            percent(overall["accuracy"]),
            percent(overall["macro_f1"]),
            points(difference) if difference else "",
            style="bold" if number == 0 else None,
        )
    return table


def _languages(report: Mapping[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="macro-F1 by language", title_justify="left")
    table.add_column("language")
    table.add_column("examples", justify="right")
    for system in report["systems"]:
        table.add_column(escape(words.short_name(system)), justify="right")
    for lang, metrics in report["systems"][0]["slices"]["lang"].items():
        found = [system["slices"]["lang"].get(lang) for system in report["systems"]]
        row = [percent(other["macro_f1"]) if other else "" for other in found]
        table.add_row(escape(lang), str(metrics["count"]), *row)
    return table


def _gate(report: Mapping[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="gate", title_justify="left")
    for column in ("metric", "where"):
        table.add_column(column)
    for column in ("must be", "is"):
        table.add_column(column, justify="right")
    table.add_column("met")
    for check in report["gate"]:
        value = "" if check["value"] is None else f"{check['value']:.4f}"
        met = "✓" if check["met"] else "✗ not met"
        where = escape(check["where"])
        table.add_row(check["metric"], where, words.gate_bound(check), value, met)
    return table


def _sentences(report: Mapping[str, Any]) -> list[str]:
    latency, calibration = report["latency"], report["calibration"]
    scoring, generation = latency["label_scoring"], latency["generation"]
    lines = [f"against {one.name}: {one.sentence}" for one in comparisons(report)]
    lines += [words.unfinished_sentence(endpoint) for endpoint in report["unfinished"]]
    if costs := _costs(report):
        lines.append(f"cost of 1,000 answers: {costs}")
    lines += [
        f"latency per document: {scoring['p50']:.0f} ms (p95 {scoring['p95']:.0f}) reading label "
        f"scores, {generation['p50']:.0f} ms (p95 {generation['p95']:.0f}) generating the answer",
        f"calibration error {calibration['ece_after']:.3f} "
        f"(before temperature {calibration['temperature']:g}: {calibration['ece_before']:.3f})",
    ]
    adapt = report["training"]["adapt"]
    if adapt:
        changes = ", ".join(
            f"{lang} {p['before']:.1f} → {p['after']:.1f}"
            for lang, p in adapt["perplexity"].items()
        )
        lines.append(f"perplexity by domain adaptation: {changes}")
    if report["decisions"] is not None:
        first, *rest = decision_sentences(report["decisions"])
        lines += [f"decisions: {first}", *rest]
    return lines


def _costs(report: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{system['name']} {words.money(system['cost']['usd_per_1000'])}"
        for system in report["systems"]
        if system["cost"]
    )


def percent(figure: Mapping[str, float | None]) -> str:
    """``72.8 % [71–75]``; without bounds, the value alone."""
    value = f"{100 * (figure['value'] or 0):.1f} %"
    if figure["low"] is None or figure["high"] is None:
        return value
    return f"{value} [{100 * figure['low']:.0f}–{100 * figure['high']:.0f}]"


def points(figure: Mapping[str, Any]) -> str:
    """``+13.2 [+10, +16]``: a difference in points; without bounds, the value alone."""
    value = f"{100 * figure['value']:+.1f}"
    if figure["low"] is None or figure["high"] is None:
        return value
    return f"{value} [{100 * figure['low']:+.0f}, {100 * figure['high']:+.0f}]"
