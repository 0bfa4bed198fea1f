"""What of an evaluation's report goes into a tracker: figures to sort runs by, tables to read.

No document and no narrative is among them. docs/report-schema.md describes the report.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

__all__ = ["Table", "metrics", "tables"]

Cell = str | float | None
_INTERVALS = ("macro_f1", "accuracy")
_FIGURES = ("f1_polar", "mcc", "auroc", "brier")
_LATENCIES = ("p50", "p95")


@final
@dataclass(frozen=True)
class Table:
    """A small table; its rows have one cell a column."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Table:
        """The table that ``as_json`` described."""
        rows = tuple(tuple(row) for row in value["rows"])
        return cls(value["name"], tuple(value["columns"]), rows)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [list(row) for row in self.rows]
        return {"name": self.name, "columns": list(self.columns), "rows": rows}

    def as_csv(self) -> str:
        """Comma-separated values with a header; what is not known is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.columns, *self.rows])
        return text.getvalue()

    def as_markdown(self) -> str:
        """A table in Markdown."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(map(_shown, line)) + " |" for line in lines) + "\n"


def _shown(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.4f}"
    return "" if cell is None else str(cell).replace("|", "\\|")


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The tuned model's scores, overall and by language (``test/es/macro_f1``), those of the
    other systems, the calibration error, the share that is accepted without a look and how much of
    it is wrong, the cost of 1,000 answers and the median latency in milliseconds."""
    tuned, *others = report["systems"]
    found = {f"test/{metric}": tuned["overall"][metric]["value"] for metric in _INTERVALS}
    for metric in _FIGURES:
        if tuned["overall"][metric] is not None:
            found[f"test/{metric}"] = tuned["overall"][metric]["value"]
    for lang, measured in tuned["slices"]["lang"].items():
        found |= {f"test/{lang}/{metric}": measured[metric]["value"] for metric in _INTERVALS}
    for system in others:
        score = system["overall"]["macro_f1"]["value"]
        found[f"test/baseline/{_name(system['id'])}/macro_f1"] = score
    if calibration := report.get("calibration"):
        found["test/ece"] = calibration["ece_after"]
    if decisions := report.get("decisions"):
        test = decisions["test"]
        found["test/accepted_share"] = test["accepted"] / max(test["count"], 1)
        if test["error"] is not None:
            found["test/accepted_error"] = test["error"]["value"]
    if tuned["cost"]:
        found["cost/usd_per_1000"] = tuned["cost"]["usd_per_1000"]
    for name in ("label_scoring", "generation"):
        if name in (report.get("latency") or {}):
            found[f"latency/{name}_p50_ms"] = report["latency"][name]["p50"]
    return {name: float(value) for name, value in found.items()}


def _name(system_id: str) -> str:
    """A system's id as a part of a metric's name: trackers refuse most signs in it."""
    return re.sub(r"[^\w.:-]", "_", system_id)


def tables(report: Mapping[str, Any]) -> list[Table]:
    """``systems``: all that were measured, with cost and latency; ``languages``: the tuned model
    in each language."""
    systems = report["systems"]
    languages = systems[0]["slices"]["lang"]
    measured = _table(
        "systems", "system", [(system["name"], system["overall"]) for system in systems]
    )
    prices = [(system["cost"] or {}).get("usd_per_1000") for system in systems]
    times = [[(system["latency"] or {}).get(name) for name in _LATENCIES] for system in systems]
    more = ("usd_per_1000", *(f"latency_{name}_ms" for name in _LATENCIES))
    rows = tuple(
        (*row, price, *time) for row, price, time in zip(measured.rows, prices, times, strict=True)
    )
    return [
        Table(measured.name, (*measured.columns, *more), rows),
        _table("languages", "language", list(languages.items())),
    ]


def _table(name: str, key: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """One row for each metrics object of the report: scores, their intervals, F1 of each label."""
    labels = list(rows[0][1]["f1"]) if rows else []
    columns = [key, "examples"]
    for metric in _INTERVALS:
        columns += [metric, f"{metric}_low", f"{metric}_high"]
    columns += [*_FIGURES, "ece", *(f"f1_{label}" for label in labels)]
    cells: list[tuple[Cell, ...]] = []
    for title, measured in rows:
        row: list[Cell] = [title, measured["count"]]
        for metric in _INTERVALS:
            row += [measured[metric][end] for end in ("value", "low", "high")]
        row += [_value(measured[metric]) for metric in (*_FIGURES, "ece")]
        row += [measured["f1"][label]["value"] for label in labels]
        cells.append(tuple(row))
    return Table(name, tuple(columns), tuple(cells))


def _value(figure: Mapping[str, Any] | None) -> Cell:
    return None if figure is None else float(figure["value"])
