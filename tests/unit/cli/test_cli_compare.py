"""``slant compare``."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Cli

from unit.evaluate.test_side_by_side import predictions


def test_runs_are_shown_side_by_side_with_a_sentence_for_each_pair(
    cli: Cli, tmp_path: Path
) -> None:
    good = predictions(tmp_path / "good.parquet", skill=3.0)
    poor = predictions(tmp_path / "poor.parquet", skill=0.5, seed=1)
    done = cli("compare", good, poor, "--bootstrap", "200")
    assert done.code == 0, done.err
    assert "240 examples in common, 120 documents, 95% intervals" in done.out
    assert "good against poor: better overall and in ru and tl" in done.out
    for column in ("accuracy", "macro-F1", "ECE", "good is better by"):
        assert column in done.out


def test_the_comparison_as_json_is_that_of_the_report(cli: Cli, tmp_path: Path) -> None:
    run = predictions(tmp_path / "run.parquet", skill=1.0)
    done = cli("compare", run, run, "--bootstrap", "200", "--json")
    found = json.loads(done.out)
    assert found["schema"] == "slant.comparison/1"
    assert found["comparisons"][0]["outcome"] == "unclear"


def test_a_run_that_is_not_there_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    run = predictions(tmp_path / "run.parquet", skill=1.0)
    done = cli("compare", run, tmp_path / "nowhere")
    assert done.code == 2
    assert "there is no predictions.parquet" in done.err
    assert cli("compare", run).code == 2
