"""Files of predictions: ``predictions.parquet`` of an evaluation, and those of other systems.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slant.corpus import LabelledDocument
from slant.errors import InputError
from slant.evaluate.gold import document_key
from slant.labels import LabelSet
from slant.score.inputs import has_column
from slant.tables.reader import file_format, read_rows
from slant.task.spec import TaskSpec

__all__ = ["read_predictions", "write_predictions"]

_ROUNDING = 0.006  # of one probability: some are written with two digits
_SHOWN = 3
_SHOWN_CHARACTERS = 40  # of a label: it may be all that a language model said


def write_predictions(
    path: Path,
    items: Sequence[LabelledDocument],
    probabilities_NL: NDArray[np.float64],
    spec: TaskSpec,
) -> None:
    """Write ``predictions.parquet``: a row for each test example; see docs/formats.md."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "document_id": [item.document.id for item in items],
        "narrative_id": [item.example.narrative_id for item in items],
        "lang": [item.document.lang for item in items],
        "source": [item.document.source for item in items],
        "document_key": [document_key(item) for item in items],
        "gold": [item.example.label for item in items],
        "label": [spec.labels[int(i)] for i in probabilities_NL.argmax(axis=1)],
    }
    for column, label in enumerate(spec.labels):
        columns[f"p_{label}"] = probabilities_NL[:, column]
    columns["fingerprint"] = [spec.fingerprint] * len(items)
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_predictions(
    location: str, items: Sequence[LabelledDocument], labels: LabelSet
) -> tuple[NDArray[np.float64], bool, list[str]]:
    """Another system's predictions for the test examples.

    Args:
        location: path or URL of a table with the columns ``document_id``, ``narrative_id`` (empty:
            overall sentiment), ``label`` and perhaps ``p_…`` for every label.
        items: N test examples.
        labels: the task's labels.

    Returns:
        ``(N, L)`` probabilities, one-hot where the file holds none, NaN where it holds no
        prediction that can be used; whether they are the system's own beliefs; and what was wrong
        with the file, in sentences.

    Raises:
        UsageError, InputError: the file cannot be read, has other columns, or says two things of
            one example.
    """
    wanted = {(i.document.id, i.example.narrative_id): row for row, i in enumerate(items)}
    probabilities_NL = np.full((len(items), len(labels)), np.nan)
    beliefs: set[bool] = set()
    unusable: list[str] = []
    seen: dict[int, tuple[str, int]] = {}
    num_odd = 0
    for number, row in _rows(location, labels):
        if row is None:
            unusable.append(f"row {number}: cannot be read")
            continue
        place = wanted.get((row.get("document_id", ""), row.get("narrative_id") or None))
        if place is None:
            continue
        said, reason, has_beliefs = _probabilities(row, labels)
        if place in seen and seen[place][0] != str(said):
            raise InputError(
                f"{location}: rows {seen[place][1]} and {number} say different things of document "
                f"{row['document_id']!r}",
                hint="Keep one prediction for each document and narrative.",
            )
        seen[place] = (str(said), number)
        if said is None:
            unusable.append(f"row {number}: {reason}")
            continue
        probabilities_NL[place] = said
        beliefs.add(has_beliefs)
        num_odd += has_beliefs and not _is_most_probable(row.get("label"), said, labels)
    notes = []
    if num_odd:
        notes.append(f"in {num_odd} rows label is not the most probable one; p_… were taken")
    if unusable:
        notes.append(f"{len(unusable)} rows cannot be used ({'; '.join(unusable[:_SHOWN])})")
    if missing := len(items) - len(seen):
        notes.append(f"{missing} test examples are not in it")
    if len(seen) == 0:
        raise InputError(
            f"{location}: holds no prediction for any test example",
            hint="document_id and narrative_id must be those of predictions.parquet.",
        )
    return probabilities_NL, beliefs == {True}, notes


def _rows(location: str, labels: LabelSet) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Rows by number; None for one that cannot be read."""
    for row in read_rows(location, name=location, columns=_columns(location, labels)):
        values = row.values
        yield row.number, values and {name: _text(value) for name, value in values.items()}


def _columns(location: str, labels: LabelSet) -> list[str]:
    """The columns to ask for: labels need not be there where all probabilities are."""
    beliefs = [f"p_{label}" for label in labels]
    if file_format(location) in ("parquet", "datasets"):
        known = {name for name in ("narrative_id", "label", *beliefs) if has_column(location, name)}
        taken = [name for name in ("narrative_id", "label", *beliefs) if name in known]
    else:  # rows come with all of their columns
        rows = read_rows(location, name=location, columns=["document_id"])
        known = set(next((row.values for row in rows if row.values), {}))
        taken = []
    needed = [] if set(beliefs) <= known else ["label"]
    return list(dict.fromkeys(["document_id", *taken, *needed]))


def _is_most_probable(label: str | None, said: Sequence[float], labels: LabelSet) -> bool:
    """Whether a row's label goes with its probabilities; without one it does."""
    return not label or (label in labels and said[labels.index(label)] >= max(said))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _probabilities(row: dict[str, str], labels: LabelSet) -> tuple[list[float] | None, str, bool]:
    """The probabilities in a row, why there are none, and whether they are beliefs."""
    given = [row.get(f"p_{label}") for label in labels]
    if all(value not in (None, "") for value in given):
        try:
            numbers = [float(value or "nan") for value in given]
        except ValueError:
            return None, f"a probability is no number: {given}", True
        total = sum(numbers)
        if (
            not math.isfinite(total)
            or min(numbers) < 0
            or abs(total - 1) > _ROUNDING * len(numbers)
        ):
            return None, f"the probabilities {given} do not add up to 1", True
        return [number / total for number in numbers], "", True
    if row.get("label") not in labels:
        return (
            None,
            f"label {row.get('label', '')[:_SHOWN_CHARACTERS]!r} is not among the labels "
            f"{', '.join(labels)}",
            False,
        )
    return [float(label == row.get("label")) for label in labels], "", False
