"""report.md: the finding, safe to post and never too long."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from slant.errors import InputError
from slant.evaluate.report_markdown import render_markdown
from unit.evaluate.sample_report import sample_report

HOSTILE = "a|b\n| c | <img src=x> @everyone [x](https://e.com) `~~**"
FIGURE = r"−?\d\.\d\d( \\\[−?\d\.\d\d, −?\d\.\d\d\\\])?"


def text_of(report: dict[str, Any]) -> str:
    text = render_markdown(report).replace("\N{NO-BREAK SPACE}", " ")
    # As it is read: what is escaped stands for itself.
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def tables(text: str) -> list[list[list[str]]]:
    """Cells of every table."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("| "):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_the_finding_comes_first() -> None:
    lines = text_of(sample_report()).splitlines()
    assert lines[0] == "## 0.79 macro-F1 [0.76, 0.81]"
    assert lines[2] == (
        "**mistralai/Mistral-7B-v0.3**, tuned: 0.79 macro-F1 [0.76, 0.81] on 1,222 held-out "
        "examples; 13 points better than gpt-4 [10, 16]."
    )
    assert lines[4].startswith("$0.014 per 1,000 answers instead of $10.42")
    assert lines[6] == "✓ Clearly better than all 4 other systems."
    assert lines[8].startswith("⚠ gpt-4.1 was not asked to the end")


def test_every_part_is_there() -> None:
    text = text_of(sample_report())
    assert "### Gate: 2 of 3 bounds met" in text
    assert "| Macro-F1 | Tagalog | at least 0.7 | 0.680 | ✗ not met |" in text
    assert "- Against **gpt-4**: 13 points better [10, 16]; better overall and in es" in text
    assert "Accept 50 % of the answers without a look" in text
    assert "### Caveats" in text


def test_systems_stand_with_quality_cost_and_latency() -> None:
    report = sample_report()
    _, systems, _ = tables(render_markdown(report))
    assert [row[0] for row in systems[2:]] == [s["name"] for s in report["systems"]]
    assert all(re.fullmatch(FIGURE, cell) for row in systems[2:] for cell in row[1:4])
    assert text_of(report).count("612 ms / 1,483 ms | 12: 8 unreadable, 3 refused, 1 failed |") == 1


def test_languages_stand_with_every_system_and_what_is_accepted() -> None:
    _, _, languages = tables(text_of(sample_report()))
    assert languages[0] == [
        *("language", "examples", "Tuned", "gpt-4", "Prompted", "TF-IDF", "Majority"),
        *("ECE, tuned", "accepted, tuned"),
    ]
    assert [row[0] for row in languages[2:4]] == ["Spanish", "Russian"]
    assert languages[2][-1] == "63 %, 7.0 % [3.5, 10.1] wrong"
    assert languages[5][-1] == "nothing"
    assert languages[7][-1].endswith("(with others)")


def test_all_rows_of_a_table_have_as_many_cells_whatever_a_name_holds() -> None:
    report = sample_report()
    for system in report["systems"]:
        system["name"] = HOSTILE
        system["slices"]["lang"] = {HOSTILE: system["slices"]["lang"]["es"]}
    for entry in report["comparisons"]:
        entry["sentence"], entry["languages"] = HOSTILE, {}
    report["task"]["base"] = HOSTILE
    report["gate"][0].update(where=HOSTILE)
    report["unfinished"][0].update(name=HOSTILE, reason=HOSTILE)
    text = render_markdown(report)
    for table in tables(text):
        assert len({len(row) for row in table}) == 1
    assert not re.search(r"(?<!\\)<img", text)
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "@everyone" not in text
    assert "https://" not in text


@pytest.mark.parametrize("decided", [True, False])
def test_what_was_not_asked_for_is_left_out(decided: bool) -> None:
    report = sample_report()
    report.update(gate=[], unfinished=[], comparisons=[])
    report["systems"] = report["systems"][:1]
    if not decided:
        report["decisions"] = None
    text = text_of(report)
    assert "Gate" not in text
    assert "Against" not in text
    assert ("### Decisions" in text) is decided
    assert ("accepted" in text) is decided


@pytest.mark.parametrize("num_systems", [1, 40])
def test_the_report_never_outgrows_a_comment(num_systems: int) -> None:
    report = sample_report()
    long = "|*_" * 400
    for i in range(num_systems):
        other = copy.deepcopy(report["systems"][1])
        other.update(id=f"endpoint:{i}", name=f"{i}{long}")
        report["systems"].append(other)
        entry = copy.deepcopy(report["comparisons"][0])
        report["comparisons"].append({**entry, "system": other["id"], "sentence": long})
    for system in report["systems"]:
        one = system["slices"]["lang"]["es"]
        system["slices"]["lang"] = {f"{i}{long}": one for i in range(200)}
    report["gate"] = [{**report["gate"][0], "where": long}] * 200
    report["unfinished"] = [{**report["unfinished"][0], "reason": long}] * 100
    text = render_markdown(report)
    assert 10_000 < len(text) < 60_000
    assert text.startswith("## 0.79 macro-F1")
    assert "more in report.html" in text


def test_another_schema_is_refused() -> None:
    with pytest.raises(InputError, match=r"slant\.report/1"):
        render_markdown({**sample_report(), "schema": "slant.report/1"})
