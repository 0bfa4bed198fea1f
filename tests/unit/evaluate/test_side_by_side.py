from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slant.errors import InputError, UsageError
from slant.evaluate.side_by_side import COMPARISON_SCHEMA, compare_runs

LABELS = ("negative", "neutral", "positive")


def predictions(path: Path, *, skill: float, num: int = 240, seed: int = 0, **columns: Any) -> Path:
    """A predictions.parquet of ``num`` examples, two a document, in two languages."""
    random = np.random.default_rng(seed)
    gold = np.arange(num) % 3
    logits = random.normal(0, 1, (num, 3))
    logits[np.arange(num), gold] += skill
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    content: dict[str, Any] = {
        "document_id": [f"d-{row // 2}" for row in range(num)],
        "narrative_id": [None if row % 2 else "n-1" for row in range(num)],
        "lang": [("ru", "tl")[row // 2 % 2] for row in range(num)],
        "source": ["news"] * num,
        "document_key": [f"k-{row // 2}" for row in range(num)],
        "gold": [LABELS[label] for label in gold],
        "label": [LABELS[label] for label in shares.argmax(axis=1)],
        **{f"p_{label}": shares[:, column] for column, label in enumerate(LABELS)},
        **columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(content), path)
    return path


def test_a_better_run_is_found_better_overall_and_in_each_language(tmp_path: Path) -> None:
    good = predictions(tmp_path / "good.parquet", skill=3.0)
    poor = predictions(tmp_path / "poor.parquet", skill=0.5, seed=1)
    found = compare_runs([good, poor], bootstrap=300)
    assert found["schema"] == COMPARISON_SCHEMA
    assert (found["examples"], found["documents"], found["left_out"]) == (240, 120, 0)
    assert [system["name"] for system in found["systems"]] == ["good", "poor"]
    (comparison,) = found["comparisons"]
    assert comparison["sentence"] == "better overall and in ru and tl"
    assert comparison["macro_f1"]["low"] > 0
    assert comparison["mcnemar"]["p_value"] < 0.001


def test_a_run_against_itself_gives_no_evidence_either_way(tmp_path: Path) -> None:
    one = predictions(tmp_path / "one.parquet", skill=1.0)
    found = compare_runs([one, one], bootstrap=200)
    assert [system["name"] for system in found["systems"]] == ["one", "one (2)"]
    (comparison,) = found["comparisons"]
    assert comparison["macro_f1"]["value"] == 0
    assert comparison["sentence"] == "no evidence either way overall and in ru and tl"


def test_only_examples_that_all_runs_have_and_agree_on_are_compared(tmp_path: Path) -> None:
    gold = [LABELS[row % 3] for row in range(100)]
    gold[5] = LABELS[(5 + 1) % 3]
    first = predictions(tmp_path / "first.parquet", skill=1.0, num=240)
    second = predictions(tmp_path / "second.parquet", skill=1.0, num=100, gold=gold)
    found = compare_runs([first, second, first], bootstrap=200)
    assert found["examples"] == 99
    assert found["left_out"] == 141
    assert len(found["comparisons"]) == 2
    assert all(system["overall"]["count"] == 99 for system in found["systems"])


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    first = predictions(tmp_path / "first.parquet", skill=1.0)
    table = pq.read_table(first)
    order = np.random.default_rng(3).permutation(table.num_rows)
    pq.write_table(table.take(pa.array(order)), tmp_path / "shuffled.parquet")
    found = compare_runs([first, tmp_path / "shuffled.parquet"], bootstrap=200)
    one, other = found["systems"]
    assert one["overall"] == other["overall"]


def test_a_run_is_named_by_its_project_and_found_in_its_work_folder(tmp_path: Path) -> None:
    predictions(tmp_path / "city" / "work" / "evaluate" / "predictions.parquet", skill=1.0)
    predictions(tmp_path / "old" / "evaluate" / "predictions.parquet", skill=1.0)
    found = compare_runs([tmp_path / "city" / "work", tmp_path / "old" / "evaluate"], bootstrap=200)
    assert [system["name"] for system in found["systems"]] == ["city", "old"]


@pytest.mark.parametrize("num_runs", [0, 1])
def test_one_run_alone_cannot_be_compared(tmp_path: Path, num_runs: int) -> None:
    run = predictions(tmp_path / "a.parquet", skill=1.0)
    with pytest.raises(UsageError, match="two runs or more"):
        compare_runs([run] * num_runs)


def test_a_folder_without_predictions_is_named(tmp_path: Path) -> None:
    run = predictions(tmp_path / "a.parquet", skill=1.0)
    with pytest.raises(UsageError, match=r"nowhere: there is no predictions\.parquet"):
        compare_runs([run, tmp_path / "nowhere"])


def test_other_labels_missing_columns_and_doubled_examples_are_errors(tmp_path: Path) -> None:
    run = predictions(tmp_path / "a.parquet", skill=1.0)
    table = pq.read_table(run)

    def refused(name: str, changed: pa.Table, message: str) -> None:
        pq.write_table(changed, tmp_path / name)
        with pytest.raises(InputError, match=message):
            compare_runs([run, tmp_path / name])

    refused("labels.parquet", table.drop_columns(["p_neutral"]), "gold label 'neutral'")
    refused("goldless.parquet", table.drop_columns(["gold"]), "lacks the columns gold")
    refused("twice.parquet", pa.concat_tables([table, table.slice(0, 3)]), "3 examples twice")
    other = table.set_column(0, "document_id", pa.array([f"x-{i}" for i in range(240)]))
    refused("other.parquet", other, "share no example")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"broken\.parquet: cannot be read"):
        compare_runs([run, tmp_path / "broken.parquet"])


def test_probabilities_that_are_no_numbers_count_as_wrong_answers(tmp_path: Path) -> None:
    good = predictions(tmp_path / "good.parquet", skill=3.0)
    broken = np.full(240, np.nan)
    bad = predictions(tmp_path / "bad.parquet", skill=3.0, p_neutral=broken)
    found = compare_runs([good, bad], bootstrap=200)
    assert found["systems"][1]["answers"]["unreadable"] == 240
    assert found["systems"][1]["overall"]["accuracy"]["value"] == 0
