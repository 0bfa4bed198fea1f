"""Which row of a classifier's head stands for which label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slant.errors import TaskError
from slant.export.foreign import ForeignModel
from slant.labels import LabelSet

__all__ = ["label_columns", "row_names"]


def row_names(model: ForeignModel) -> list[str]:
    """What the rows of a classifier's head are called; by transformers, if by nobody else."""
    return [*model.head_labels] or [f"LABEL_{row}" for row in range(model.num_labels)]


def label_columns(model: ForeignModel, labels: LabelSet, named: Mapping[str, str]) -> list[int]:
    """For each of the wanted labels, the row of a classifier's head that stands for it.

    Rows are found by their names, whatever the case. Where the head names none, labels may be new
    names in its order; where it does, that order is not guessed: many heads do not have the usual
    one, and a model whose labels are exchanged answers as readily as before.

    Args:
        model: a classifier.
        labels: the wanted ones.
        named: label → name of its row; empty: labels are names of rows themselves.

    Raises:
        TaskError: a label is not found, two are the same row, or their number is another.
    """
    own = row_names(model)
    rows = [_row(own, named.get(label, label)) for label in labels]
    if len(labels) == len(own):
        if not model.head_labels and not named and set(rows) == {None}:
            return [*range(len(own))]
        found = [row for row in rows if row is not None]
        if len(set(found)) == len(own):
            return found
    wanted = ", ".join(named.get(label, label) for label in labels)
    raise TaskError(
        f"the labels {wanted} are not those of {model.name}: {', '.join(own)}",
        hint="Name all of its labels, in any order, or say which of them stands for which of "
        f"yours: --labels {','.join(f'{label}=ITS-NAME' for label in labels)} (in Python: "
        "labels={…}).",
    )


def _row(own: Sequence[str], name: str) -> int | None:
    """The row of that name, or the only one whose name differs in its case alone."""
    same = [row for row, label in enumerate(own) if label == name]
    like = [row for row, label in enumerate(own) if label.casefold() == name.casefold()]
    return same[0] if same else like[0] if len(like) == 1 else None
