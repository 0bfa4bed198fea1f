"""Rows of annotation exports: one row for each annotator's label of a document.

Label Studio's JSON export: https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks
doccano's JSONL export: https://doccano.github.io/doccano/tutorial/#export-dataset
Their CSV exports, and Label Studio's JSON-MIN, are ordinary tables.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from slant.tables.json_array import read_json
from slant.tables.opening import split_compression
from slant.tables.row import Row

__all__ = ["read_doccano", "read_label_studio"]

_NO_ANNOTATION = "no annotation"


def read_label_studio(file: io.BufferedReader, name: str) -> Iterator[Row]:
    """One row for each choice or rating that an annotator gave a task.

    A row's values are the task's ``data``, and ``label``, ``annotator`` (e-mail address or id as
    text, or None) and ``task_id``. Rows are counted from 1 through the file. A task without
    annotations, and an annotation that was skipped or that judges nothing, is a row with a problem.

    Raises:
        InputError: As ``read_json``.
    """
    number = 0
    for task in read_json(file, name):
        for values, problem in _judgements_of(task):
            number += 1
            yield Row(number, None if problem else values, problem, task.raw)


_Judgement = tuple[dict[str, Any] | None, str | None]


def _judgements_of(task: Row) -> Iterator[_Judgement]:
    if task.values is None:
        yield None, task.problem
        return
    data, annotations = task.values.get("data"), task.values.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        yield None, "not a task of Label Studio: it has no data and annotations"
        return
    task_id = task.values.get("id")
    if not annotations:
        yield None, f"{_NO_ANNOTATION}: task {task_id}"
    for annotation in annotations:
        if not isinstance(annotation, dict):
            yield None, "not a task of Label Studio: an annotation is no object"
            continue
        labels = list(_results(annotation))
        if not labels or annotation.get("was_cancelled"):
            yield None, f"{_NO_ANNOTATION}: task {task_id}"
            continue
        annotator = _annotator(annotation.get("completed_by"))
        for label in labels:
            yield _judgement(label, data | {"annotator": annotator, "task_id": task_id})


def _results(annotation: dict[str, Any]) -> Iterator[list[Any]]:
    """The labels of each result that is a judgement of the whole document."""
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            continue
        if isinstance(value.get("choices"), list):
            yield value["choices"]
        elif "rating" in value:
            yield [value["rating"]]


def _judgement(labels: list[Any], values: dict[str, Any]) -> _Judgement:
    """A row of a task that takes one label."""
    if not labels:
        return None, _NO_ANNOTATION
    if len(labels) > 1:
        return None, f"several labels: {len(labels)}"
    label = labels[0]
    if isinstance(label, bool) or not isinstance(label, str | int | float):
        return None, "not the label of a document: the label of a part of it"
    return values | {"label": str(label)}, None


def _annotator(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return str(value) if isinstance(value, str | int) and value != "" else None


def read_doccano(file: io.BufferedReader, name: str) -> Iterator[Row]:
    """One row for each labelled document, numbered by line (of a JSON array, by element).

    A row's values are the document's, and ``text``, ``label`` and ``annotator``: what the document
    says (``annotator``, ``user`` or ``username``), or else the file's name, as doccano exports one
    file for each annotator (and ``all.jsonl`` for all of them, which names nobody).

    Raises:
        InputError: As ``read_json``.
    """
    stem = PurePosixPath(split_compression(name)[0]).stem
    annotator = None if stem == "all" else stem
    for row in read_json(file, name):
        if row.values is None:
            yield row
            continue
        named = (row.values.get(key) for key in ("annotator", "user", "username"))
        who = next((text for text in map(_annotator, named) if text is not None), annotator)
        values, problem = _judgement(
            _doccano_labels(row.values), row.values | {"annotator": who} | _doccano_text(row.values)
        )
        yield Row(row.number, values, problem, row.raw)


def _doccano_text(values: dict[str, Any]) -> dict[str, Any]:
    return {"text": values["data"]} if "text" not in values and "data" in values else {}


def _doccano_labels(values: dict[str, Any]) -> list[Any]:
    """The labels, whichever version wrote them: a list, one value, or a mapping to 0 and 1."""
    for key in ("label", "labels", "cats"):
        found = values.get(key)
        if isinstance(found, list):
            return found
        if isinstance(found, dict):
            return [label for label, is_given in found.items() if is_given]
        if found is not None and found != "":
            return [found]
    return []
