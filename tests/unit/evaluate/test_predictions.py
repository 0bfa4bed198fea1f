from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slant.corpus import LabelledDocument
from slant.errors import InputError, UsageError
from slant.evaluate.predictions import read_predictions, write_predictions
from slant.labels import LabelSet
from slant.records import Document, Example, Narrative
from tiny_task import tiny_spec

NAMES = ("negative", "neutral", "positive")
LABELS = LabelSet(NAMES)
BRIDGE = Narrative("n-1", "the bridge")
FORMATS = ("jsonl", "csv", "parquet")
Rows = list[dict[str, Any]]


def items(num: int = 6) -> list[LabelledDocument]:
    """Two examples of each document: one toward a narrative, one overall."""
    made = []
    for row in range(num):
        number, narrative = row // 2, (BRIDGE, None)[row % 2]
        document = Document(
            f"d-{number}",
            f"text {number}",
            lang=(None, "pt-br")[number % 2],
            source=("news", None)[number % 2],
            digest=None if number == 2 else f"{number:064}",
        )
        example = Example(
            document.id, narrative and narrative.id, NAMES[row % 3], "test", "d", "f", row
        )
        made.append(LabelledDocument(example, document, narrative))
    return made


def beliefs(num: int = 6) -> np.ndarray:
    return np.random.default_rng(0).dirichlet([1, 1, 1], num)


def save(path: Path, rows: Rows) -> str:
    """Rows as a table of the format that the ending tells."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def answer(row: int, **more: Any) -> dict[str, Any]:
    """A row of predictions for the example at ``row``."""
    item = items()[row]
    return {"document_id": item.document.id, "narrative_id": item.example.narrative_id, **more}


def labelled() -> Rows:
    return [answer(row, label=NAMES[(row + 1) % 3]) for row in range(6)]


def believed() -> Rows:
    return [
        answer(row, **{f"p_{name}": float(p) for name, p in zip(NAMES, shares, strict=True)})
        for row, shares in enumerate(beliefs())
    ]


def test_what_an_evaluation_writes_comes_back_as_it_was(tmp_path: Path) -> None:
    path, probabilities, spec = tmp_path / "predictions.parquet", beliefs(), tiny_spec()
    write_predictions(path, items(), probabilities, spec)
    found, confident, notes = read_predictions(str(path), items(), spec.labels)
    assert found == pytest.approx(probabilities, abs=1e-15)
    assert confident
    assert notes == []


def test_what_an_evaluation_writes_has_all_that_tells_its_rows_apart(tmp_path: Path) -> None:
    path, probabilities, spec = tmp_path / "predictions.parquet", beliefs(), tiny_spec()
    write_predictions(path, items(), probabilities, spec)
    table = pq.read_table(path)
    assert table.column_names == [
        "document_id", "narrative_id", "lang", "source", "document_key", "gold", "label",
        "p_negative", "p_neutral", "p_positive", "fingerprint",
    ]  # fmt: skip
    rows = table.to_pylist()
    assert [(row["document_id"], row["narrative_id"]) for row in rows] == [
        ("d-0", "n-1"), ("d-0", None), ("d-1", "n-1"), ("d-1", None), ("d-2", "n-1"), ("d-2", None),
    ]  # fmt: skip
    assert [row["lang"] for row in rows[::2]] == [None, "pt-br", None]
    assert [row["source"] for row in rows[::2]] == ["news", None, "news"]
    # The text's digest, or the id where there is none.
    assert [row["document_key"] for row in rows[::2]] == ["0" * 64, f"{1:064}", "d-2"]
    assert [row["gold"] for row in rows] == [*NAMES, *NAMES]
    assert [row["label"] for row in rows] == [NAMES[i] for i in probabilities.argmax(axis=1)]
    assert {row["fingerprint"] for row in rows} == {spec.fingerprint}


@pytest.mark.parametrize("ending", FORMATS)
def test_labels_alone_are_certain_answers_and_no_beliefs(tmp_path: Path, ending: str) -> None:
    location = save(tmp_path / f"p.{ending}", labelled())
    found, confident, notes = read_predictions(location, items(), LABELS)
    assert found.tolist() == [np.eye(3)[(row + 1) % 3].tolist() for row in range(6)]
    assert not confident
    assert notes == []


@pytest.mark.parametrize("ending", FORMATS)
def test_probabilities_are_beliefs_whatever_else_the_file_holds(
    tmp_path: Path, ending: str
) -> None:
    rows = [{**row, "label": "neutral", "remark": "x"} for row in believed()]
    location = save(tmp_path / f"p.{ending}", rows[::-1])
    found, confident, notes = read_predictions(location, items(), LABELS)
    assert found == pytest.approx(beliefs())
    assert confident
    assert len(notes) <= 1  # that another label is the most probable one


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_without_narratives_answers_for_the_overall_sentiment(
    tmp_path: Path, ending: str
) -> None:
    rows = [{"document_id": f"d-{i}", "label": "positive"} for i in range(3)]
    location = save(tmp_path / f"p.{ending}", rows)
    found, _, notes = read_predictions(location, items(), LABELS)
    assert np.isnan(found[::2]).all()
    assert found[1::2].tolist() == [[0, 0, 1]] * 3
    assert notes == ["3 test examples are not in it"]


def test_probabilities_of_some_labels_only_are_left_aside_for_the_label(tmp_path: Path) -> None:
    rows = [{**row, "p_negative": 0.9, "p_positive": 0.1} for row in labelled()]
    found, confident, _ = read_predictions(save(tmp_path / "p.csv", rows), items(), LABELS)
    assert found.tolist() == [np.eye(3)[(row + 1) % 3].tolist() for row in range(6)]
    assert not confident


@pytest.mark.parametrize("ending", FORMATS)
def test_where_some_rows_hold_labels_only_nothing_is_the_systems_belief(
    tmp_path: Path, ending: str
) -> None:
    rows = [{**row, "label": "neutral"} for row in believed()]
    for name in NAMES:
        rows[4][f"p_{name}"] = None
    found, confident, _ = read_predictions(save(tmp_path / f"p.{ending}", rows), items(), LABELS)
    assert found[4].tolist() == [0, 1, 0]
    assert not confident


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.333, 0.333, 0.333], [1 / 3, 1 / 3, 1 / 3]),
        ([0.5, 0.25, 0.255], [0.4975124, 0.2487562, 0.2537313]),
        ([1, 0, 0], [1, 0, 0]),
        (["0.2", "0.3", "0.5"], [0.2, 0.3, 0.5]),
    ],
)
def test_probabilities_that_nearly_add_up_to_one_are_made_to(
    tmp_path: Path, given: list[Any], expected: list[float]
) -> None:
    rows = [answer(0, **{f"p_{n}": p for n, p in zip(NAMES, given, strict=True)})]
    found, confident, _ = read_predictions(save(tmp_path / "p.jsonl", rows), items(), LABELS)
    assert found[0] == pytest.approx(expected)
    assert confident


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "given",
    [
        [float("nan")] * 3,
        [0.5, float("nan"), 0.5],
        [float("inf"), 0.0, 0.0],
        [0.5, 0.6, 0.7],
        [0.0, 0.0, 0.0],
        [1.5, -0.5, 0.0],
        [50.0, 30.0, 20.0],
    ],
)
def test_what_are_no_probabilities_is_no_answer_and_is_told(
    tmp_path: Path, ending: str, given: list[float]
) -> None:
    rows = believed()
    rows[2] |= {f"p_{name}": p for name, p in zip(NAMES, given, strict=True)}
    found, confident, notes = read_predictions(
        save(tmp_path / f"p.{ending}", rows), items(), LABELS
    )
    assert np.isnan(found[2]).all()
    assert found[[0, 1, 3, 4, 5]] == pytest.approx(beliefs()[[0, 1, 3, 4, 5]])
    assert confident
    (note,) = notes
    assert note.startswith("1 rows cannot be used (row 3: the probabilities [")


def test_a_probability_that_is_a_word_is_no_answer_and_is_told(tmp_path: Path) -> None:
    rows = believed()
    rows[0]["p_neutral"] = "high"
    found, _, notes = read_predictions(save(tmp_path / "p.csv", rows), items(), LABELS)
    assert np.isnan(found[0]).all()
    assert "a probability is no number" in notes[0]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("label", ["Positive", "I cannot say", "", None])
def test_a_label_that_there_is_not_is_no_answer_and_is_told(
    tmp_path: Path, ending: str, label: str | None
) -> None:
    rows = labelled()
    rows[1]["label"] = label
    found, _, notes = read_predictions(save(tmp_path / f"p.{ending}", rows), items(), LABELS)
    assert np.isnan(found[1]).all()
    assert not np.isnan(found[[0, 2, 3, 4, 5]]).any()
    said = "" if label is None else label
    assert notes == [
        f"1 rows cannot be used (row 2: label {said!r} is not among the labels "
        "negative, neutral, positive)"
    ]


def test_labels_that_are_not_the_most_probable_ones_are_told_and_not_taken(tmp_path: Path) -> None:
    shares = {"p_negative": 0.2, "p_neutral": 0.4, "p_positive": 0.4}
    labels = ("neutral", "positive", "negative", "", "odd", None)
    rows = [
        {**row, **shares, "label": label} for row, label in zip(labelled(), labels, strict=True)
    ]
    found, confident, notes = read_predictions(save(tmp_path / "p.jsonl", rows), items(), LABELS)
    assert found.tolist() == [[0.2, 0.4, 0.4]] * 6
    assert confident
    # Equally probable ones are as good; no label at all contradicts nothing.
    assert notes == ["in 2 rows label is not the most probable one; p_… were taken"]


def test_of_many_rows_that_cannot_be_used_the_first_three_are_told(tmp_path: Path) -> None:
    rows = [{**row, "label": "?"} for row in labelled()[:5]] + labelled()[5:]
    _, _, notes = read_predictions(save(tmp_path / "p.csv", rows), items(), LABELS)
    assert notes[0].startswith("5 rows cannot be used (row 1: ")
    assert "row 3: " in notes[0]
    assert "row 4: " not in notes[0]


def test_test_examples_that_are_not_in_the_file_have_no_answer_and_are_counted(
    tmp_path: Path,
) -> None:
    location = save(tmp_path / "p.csv", labelled()[:2])
    found, _, notes = read_predictions(location, items(), LABELS)
    assert np.isnan(found).all(axis=1).tolist() == [False, False, True, True, True, True]
    assert notes == ["4 test examples are not in it"]


def test_rows_of_other_documents_and_narratives_are_passed_over(tmp_path: Path) -> None:
    others = [
        {"document_id": "d-0", "narrative_id": "n-2", "label": "neutral"},
        {"document_id": "d-99", "narrative_id": "n-1", "label": "no label at all"},
        {"document_id": "d-99", "narrative_id": "n-1", "label": "neutral"},
    ]
    location = save(tmp_path / "p.csv", others + labelled())
    found, _, notes = read_predictions(location, items(), LABELS)
    assert not np.isnan(found).any()
    assert notes == []


def test_numbers_as_ids_are_the_same_in_every_format(tmp_path: Path) -> None:
    document = Document("17", "text")
    example = Example("17", "3", "neutral", "test", "d", "f", 1)
    item = LabelledDocument(example, document, Narrative("3", "the bridge"))
    for ending in FORMATS:
        rows = [{"document_id": 17, "narrative_id": 3, "label": "neutral"}]
        location = save(tmp_path / f"p.{ending}", rows)
        assert read_predictions(location, [item], LABELS)[0].tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("ending", FORMATS)
def test_equal_rows_of_one_example_are_no_harm(tmp_path: Path, ending: str) -> None:
    location = save(tmp_path / f"p.{ending}", labelled() + labelled()[2:4])
    found, _, notes = read_predictions(location, items(), LABELS)
    assert found.argmax(axis=1).tolist() == [1, 2, 0, 1, 2, 0]
    assert notes == []


@pytest.mark.parametrize("ending", FORMATS)
def test_rows_that_say_two_things_of_one_example_are_an_error_that_names_both(
    tmp_path: Path, ending: str
) -> None:
    location = save(tmp_path / f"p.{ending}", [*labelled(), answer(2, label="neutral")])
    with pytest.raises(InputError, match="rows 3 and 7 say different things of document 'd-1'"):
        read_predictions(location, items(), LABELS)
    shares = believed()
    twice = [*shares, {**shares[0], "p_negative": 0.0, "p_neutral": 0.0, "p_positive": 1.0}]
    location = save(tmp_path / f"q.{ending}", twice)
    with pytest.raises(InputError, match="rows 1 and 7 say different things") as raised:
        read_predictions(location, items(), LABELS)
    assert raised.value.hint


def test_an_answer_and_none_are_two_different_things(tmp_path: Path) -> None:
    location = save(tmp_path / "p.csv", [*labelled(), answer(2, label="?")])
    with pytest.raises(InputError, match="rows 3 and 7"):
        read_predictions(location, items(), LABELS)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_for_other_documents_is_an_error_that_says_which_ids_it_takes(
    tmp_path: Path, ending: str
) -> None:
    rows = [{**row, "document_id": f"other-{row['document_id']}"} for row in labelled()]
    location = save(tmp_path / f"p.{ending}", rows)
    with pytest.raises(InputError, match="no prediction for any test example") as raised:
        read_predictions(location, items(), LABELS)
    assert "predictions.parquet" in raised.value.hint


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_without_ids_or_without_labels_is_an_error_that_names_the_column(
    tmp_path: Path, ending: str
) -> None:
    for missing in ("document_id", "label"):
        rows = [{k: v for k, v in row.items() if k != missing} for row in labelled()]
        location = save(tmp_path / f"p.{ending}", rows)
        with pytest.raises(UsageError, match=missing):
            read_predictions(location, items(), LABELS)


def test_a_missing_and_an_empty_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        read_predictions(str(tmp_path / "nowhere.csv"), items(), LABELS)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="empty"):
        read_predictions(str(tmp_path / "empty.jsonl"), items(), LABELS)


def test_a_row_that_cannot_be_read_is_told_and_its_example_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    save(path, labelled())
    lines = path.read_text().splitlines()
    lines[3] = lines[3][:20]
    path.write_text("\n".join(lines))
    found, _, notes = read_predictions(str(path), items(), LABELS)
    assert np.isnan(found[3]).all()
    assert notes == [
        "1 rows cannot be used (row 4: cannot be read)",
        "1 test examples are not in it",
    ]


def test_probabilities_come_in_the_order_of_the_projects_labels(tmp_path: Path) -> None:
    labels = LabelSet(("positive", "negative", "neutral"))
    location = save(tmp_path / "p.csv", believed())
    found, _, _ = read_predictions(location, items(), labels)
    assert found == pytest.approx(beliefs()[:, [2, 0, 1]])
