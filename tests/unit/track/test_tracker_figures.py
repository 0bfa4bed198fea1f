from __future__ import annotations

import copy
import csv
import io
import json
import math
import re

import pytest
from sample_of_evaluation import LANGUAGES, NARRATIVES, REPORT, TEXTS

from slant.track import figures
from slant.track.figures import Table


def test_runs_can_be_sorted_by_score_overall_and_in_each_language() -> None:
    found = figures.metrics(REPORT)
    tuned, *others = REPORT["systems"]
    assert found["test/macro_f1"] == tuned["overall"]["macro_f1"]["value"]
    for lang in LANGUAGES:
        expected = tuned["slices"]["lang"][lang]["macro_f1"]["value"]
        assert found[f"test/{lang}/macro_f1"] == expected
    for metric in ("f1_polar", "mcc", "auroc", "brier"):
        assert found[f"test/{metric}"] == tuned["overall"][metric]["value"]
    for other in others:
        expected = other["overall"]["macro_f1"]["value"]
        assert found[f"test/baseline/{other['id']}/macro_f1"] == expected
    test = REPORT["decisions"]["test"]
    assert found["test/accepted_share"] == test["accepted"] / test["count"]
    assert found["test/accepted_error"] == test["error"]["value"]
    assert found["cost/usd_per_1000"] == 0.0136
    assert found["latency/label_scoring_p50_ms"] == 38.4
    assert all(math.isfinite(value) for value in found.values())


def test_what_was_not_measured_is_no_figure() -> None:
    report = copy.deepcopy(REPORT)
    report["systems"][0]["overall"].update(f1_polar=None, auroc=None)
    report["systems"][0]["cost"] = None
    report["decisions"]["test"].update(accepted=0, error=None)
    found = figures.metrics(report)
    assert not {"test/f1_polar", "test/auroc", "cost/usd_per_1000", "test/accepted_error"} & set(
        found
    )
    assert found["test/accepted_share"] == 0
    report["decisions"] = None
    assert "test/accepted_share" not in figures.metrics(report)


def test_a_systems_name_is_no_obstacle_to_a_tracker() -> None:
    report = copy.deepcopy(REPORT)
    report["systems"][1]["id"] = "endpoint:org/gpt-4 (юг) @ 50%"
    # As MLflow allows.
    assert all(re.fullmatch(r"[/\w.\- :]+", name) for name in figures.metrics(report))
    assert "test/baseline/endpoint:org_gpt-4__юг____50_/macro_f1" in figures.metrics(report)


def test_tables_have_a_row_for_each_system_and_each_language() -> None:
    systems, languages = figures.tables(REPORT)
    assert [row[0] for row in systems.rows] == [s["name"] for s in REPORT["systems"]]
    assert [row[0] for row in languages.rows] == list(LANGUAGES)
    assert all(len(row) == len(t.columns) for t in (systems, languages) for row in t.rows)
    cost, p95 = (systems.columns.index(name) for name in ("usd_per_1000", "latency_p95_ms"))
    assert [(row[cost], row[p95]) for row in systems.rows] == [
        (0.0136, 61.2),
        (10.42, 1483.0),
        (0.0134, 60.8),
        (0.0006, 1.1),
        (None, None),
    ]


def test_no_text_of_a_document_or_narrative_goes_to_a_tracker() -> None:
    sent = json.dumps(
        [figures.metrics(REPORT), [table.as_json() for table in figures.tables(REPORT)]],
        ensure_ascii=False,
    )
    for text in [*TEXTS.values(), *NARRATIVES]:
        assert text not in sent


@pytest.mark.parametrize("table", figures.tables(REPORT))
def test_a_table_is_the_same_after_json_and_readable_as_csv(table: Table) -> None:
    assert Table.from_json(json.loads(json.dumps(table.as_json()))) == table
    head, *rows = csv.reader(io.StringIO(table.as_csv()))
    assert tuple(head) == table.columns
    assert [[cell or None for cell in row] for row in rows] == [
        [None if cell is None else str(cell) for cell in row] for row in table.rows
    ]


def test_a_bar_in_a_cell_does_not_end_it_in_markdown() -> None:
    table = Table("t", ("system", "macro_f1"), (("a|b", 0.5), ("c", None)))
    assert table.as_markdown() == (
        "| system | macro_f1 |\n| --- | --- |\n| a\\|b | 0.5000 |\n| c |  |\n"
    )
