from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slant.errors import UsageError
from slant.tables.reader import Row, read_rows


def choice(*labels: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": "s", "to_name": "t", "value": {"choices": [*labels]}}


def task(*annotations: Any, **data: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"text": "one", **data}, "annotations": [*annotations]}


def by(annotator: Any, *results: Any, **more: Any) -> dict[str, Any]:
    return {"completed_by": annotator, "result": [*results], **more}


def label_studio(folder: Path, *tasks: Any, columns: tuple[str, ...] = ("text",)) -> list[Row]:
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return list(read_rows(path, name="export.json", columns=columns, format="label-studio"))


def doccano(folder: Path, *documents: Any, file: str = "all.jsonl") -> list[Row]:
    path = folder / file
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return list(read_rows(path, name=file, columns=("text",), format="doccano"))


def judgements(rows: list[Row]) -> list[Any]:
    return [
        (row.values["label"], row.values["annotator"]) if row.values else row.problem
        for row in rows
    ]


# --- Label Studio


def test_each_choice_of_each_annotator_is_a_row(tmp_path: Path) -> None:
    rows = label_studio(
        tmp_path,
        task(
            by({"id": 3, "email": "a@x.org"}, choice("pos")),
            by(4, choice("neg")),
            by({"id": 5}, choice("neu")),
            by(None, choice("pos")),
            meta={"lang": "en"},
        ),
        columns=("text", "label", "annotator", "meta.lang"),
    )
    assert judgements(rows) == [("pos", "a@x.org"), ("neg", "4"), ("neu", "5"), ("pos", None)]
    assert [row.number for row in rows] == [1, 2, 3, 4]
    assert rows[0].values is not None
    assert rows[0].values["text"] == "one"
    assert rows[0].values["task_id"] == 7
    assert rows[0].values["meta.lang"] == "en"
    assert json.loads(rows[0].raw)["id"] == 7


def test_several_results_of_an_annotation_are_rows_and_parts_of_the_text_are_none(
    tmp_path: Path,
) -> None:
    span = {"type": "labels", "value": {"start": 0, "end": 2, "labels": ["PER"]}}
    rating = {"type": "rating", "value": {"rating": 4}}
    rows = label_studio(tmp_path, task(by(1, span, choice("pos"), rating)))
    assert judgements(rows) == [("pos", "1"), ("4", "1")]


def test_what_nobody_judged_is_a_row_with_that_problem(tmp_path: Path) -> None:
    rows = label_studio(
        tmp_path,
        task(),
        task(by(1, choice("pos"), was_cancelled=True), by(2)),
        task(by(1, choice())),
        task(by(1, choice("pos"))),
    )
    assert [str(row.problem).partition(":")[0] for row in rows] == ["no annotation"] * 4 + ["None"]


def test_several_labels_are_a_problem_of_their_row(tmp_path: Path) -> None:
    rows = label_studio(tmp_path, task(by(1, choice("pos", "neg")), by(2, choice("neg"))))
    assert judgements(rows) == ["several labels: 2", ("neg", "2")]


@pytest.mark.parametrize(
    "broken",
    [
        7,
        {},
        {"data": 7, "annotations": []},
        {"data": {}, "annotations": {}},
        task(7),
        task({}),
        task(by(1, 7)),
        task(by(1, {"value": 7})),
        task(by(1, choice(7))) | {"data": []},
        task(by(1, {"value": {"choices": [{}]}})),
        task({"result": 7}),
    ],
)
def test_a_task_of_wrong_types_costs_only_itself(tmp_path: Path, broken: Any) -> None:
    good = task(by(1, choice("pos")))
    rows = label_studio(tmp_path, good, broken, good)
    assert judgements(rows)[0] == judgements(rows)[2] == ("pos", "1")
    assert rows[1].problem


def test_the_annotators_label_goes_before_one_in_the_data(tmp_path: Path) -> None:
    rows = label_studio(tmp_path, task(by(1, choice("pos")), label="guess", annotator="machine"))
    assert judgements(rows) == [("pos", "1")]


def test_an_absent_column_is_an_error_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'text'"):
        label_studio(tmp_path, task(by(1, choice("pos"))), columns=("txt",))


# --- doccano


def test_each_document_is_a_row_with_its_label_and_its_other_columns(tmp_path: Path) -> None:
    rows = doccano(
        tmp_path,
        {"id": 1, "text": "one", "label": ["pos"], "lang": "en"},
        {"id": 2, "data": "two", "labels": ["neg"], "username": "ann"},
        {"id": 3, "text": "three", "cats": {"pos": 0, "neg": 1}, "user": 5},
        {"id": 4, "text": "four", "label": "neu", "annotator": "bob"},
    )
    assert judgements(rows) == [("pos", None), ("neg", "ann"), ("neg", "5"), ("neu", "bob")]
    assert [row.values["text"] for row in rows if row.values] == ["one", "two", "three", "four"]
    assert rows[0].values is not None
    assert rows[0].values["lang"] == "en"


@pytest.mark.parametrize(
    ("file", "annotator"),
    [("ann.jsonl", "ann"), ("all.jsonl", None), ("ann.jsonl.gz", "ann")],
)
def test_the_file_names_the_annotator_where_the_document_does_not(
    tmp_path: Path, file: str, annotator: str | None
) -> None:
    import gzip

    line = b'{"text": "one", "label": ["pos"]}\n'
    (tmp_path / file).write_bytes(gzip.compress(line) if file.endswith(".gz") else line)
    rows = list(read_rows(tmp_path / file, name=f"x/{file}", columns=(), format="doccano"))
    assert judgements(rows) == [("pos", annotator)]


def test_documents_without_one_label_are_rows_with_a_problem(tmp_path: Path) -> None:
    rows = doccano(
        tmp_path,
        {"text": "a", "label": []},
        {"text": "b"},
        {"text": "c", "label": ["pos", "neg"]},
        {"text": "d", "label": [[0, 3, "PER"]]},
        {"text": "e", "label": ["pos"]},
    )
    assert judgements(rows)[:3] == ["no annotation", "no annotation", "several labels: 2"]
    assert str(rows[3].problem).startswith("not the label of a document")
    assert judgements(rows)[4] == ("pos", None)
