"""Several runs on the examples that all of them answered: ``slant compare``.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slant.artifacts import find
from slant.errors import InputError, UsageError
from slant.evaluate.gold import UNKNOWN_SOURCE, Gold, Slices, numbered
from slant.evaluate.report import Measured, Measurement, compare
from slant.labels import LabelSet
from slant.task.languages import UNKNOWN_LANGUAGE

__all__ = ["COMPARISON_SCHEMA", "compare_runs"]

COMPARISON_SCHEMA = "slant.comparison/1"
_PREDICTIONS = "predictions.parquet"
_COLUMNS = ("document_id", "narrative_id", "lang", "source", "document_key", "gold")


@final
@dataclass(frozen=True)
class _Run:
    """One run's predictions: ``columns`` as in predictions.parquet, one entry for each example."""

    name: str
    path: Path
    labels: tuple[str, ...]
    columns: dict[str, list[Any]]
    probabilities_NL: NDArray[np.float64]  # noqa: N815

    @cached_property
    def rows(self) -> dict[tuple[str, str | None], int]:
        """The row of each example."""
        keys = zip(self.columns["document_id"], self.columns["narrative_id"], strict=True)
        return {key: row for row, key in enumerate(keys)}


def compare_runs(
    paths: Sequence[str | Path],
    *,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 17,
) -> dict[str, Any]:
    """Measure runs on the examples they share, and the first against each other one.

    Args:
        paths: two or more: ``predictions.parquet`` files, or folders that hold one or an
            ``evaluate/`` with one (a project's work folder).
        bootstrap: resamples of documents.
        confidence: of intervals and outcomes, 0…1.
        seed: of the resamples.

    Returns:
        ``schema``, ``examples`` and ``documents`` in common, ``left_out`` (examples that not all
        have or that differ in their gold label), ``confidence``, ``labels``, and ``systems`` and
        ``comparisons`` as in ``report.json``; the first run stands where the tuned model stands
        there.

    Raises:
        UsageError: fewer than two runs, or one is not there.
        InputError: a file has other columns, an example twice or other labels; they share no
            example.
    """
    if len(paths) < 2:
        raise UsageError("slant compare needs two runs or more")
    runs = [_read(Path(path)) for path in paths]
    first = runs[0]
    for run in runs[1:]:
        if run.labels != first.labels:
            raise InputError(
                f"{run.path}: has the labels {', '.join(run.labels)}, {first.path} has "
                f"{', '.join(first.labels)}",
                hint="Only runs with the same labels in the same order can be compared.",
            )
    rows_RN, left_out = _shared(runs)
    if not rows_RN.shape[1]:
        raise InputError(
            f"{' and '.join(str(run.path) for run in runs)} share no example",
            hint="Compare runs on the same test split.",
        )
    gold = _gold(first, rows_RN[0])
    measurement = Measurement(gold, bootstrap=bootstrap, confidence=confidence, seed=seed)
    names = _names(runs)
    systems = [
        Measured("predictions", name, str(run.path), run.probabilities_NL[rows_N])
        for name, run, rows_N in zip(names, runs, rows_RN, strict=True)
    ]
    found = compare(measurement, systems)
    return {
        "schema": COMPARISON_SCHEMA,
        "examples": len(gold),
        "documents": gold.num_documents,
        "left_out": left_out,
        "confidence": confidence,
        "labels": list(gold.labels),
        "systems": found["systems"],
        "comparisons": found["comparisons"],
    }


def _read(path: Path) -> _Run:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = _predictions_file(path)
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    labels = tuple(name[2:] for name in table.column_names if name.startswith("p_"))
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing or len(labels) < 2:
        wanted = ", ".join([*missing, *([] if len(labels) > 1 else ["p_… for each label"])])
        raise InputError(
            f"{file}: lacks the columns {wanted}",
            hint="Name predictions.parquet of an evaluation by this version of slant.",
        )
    columns = {name: table[name].to_pylist() for name in _COLUMNS}
    probabilities_NL = np.column_stack([table[f"p_{label}"].to_numpy() for label in labels])
    run = _Run(_name(file), file, labels, columns, probabilities_NL.astype(np.float64))
    if len(run.rows) < table.num_rows:
        raise InputError(
            f"{file}: holds {table.num_rows - len(run.rows)} examples twice",
            hint="A document under a narrative may have one prediction.",
        )
    unknown = sorted(set(columns["gold"]) - set(labels), key=str)
    if unknown:
        raise InputError(f"{file}: gold label {unknown[0]!r} has no column p_{unknown[0]}")
    return run


def _predictions_file(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in (path, path / "evaluate"):
        if (folder / _PREDICTIONS).is_file():
            is_artifact = any(
                (folder / name).exists() for name in ("manifest.json", "building.json")
            )
            if is_artifact and find(folder, "evaluate") is None:
                raise UsageError(f"{folder}: is not a finished evaluation")
            return folder / _PREDICTIONS
    raise UsageError(
        f"{path}: there is no {_PREDICTIONS}",
        hint="Name the work folder of a project that was evaluated, or the file itself.",
    )


def _name(file: Path) -> str:
    """The folder that says most: of ``NAME/work/evaluate/predictions.parquet`` it is NAME."""
    parts = [part for part in file.resolve().parent.parts if part not in ("evaluate", "work", "/")]
    if file.name != _PREDICTIONS:
        return file.stem
    return parts[-1] if parts else file.stem


def _names(runs: Sequence[_Run]) -> list[str]:
    """A name for each run, with a number where several have the same."""
    names: list[str] = []
    for run in runs:
        same = sum(other.name == run.name for other in runs[: len(names)])
        names.append(f"{run.name} ({same + 1})" if same else run.name)
    return names


def _shared(runs: Sequence[_Run]) -> tuple[NDArray[np.int64], int]:
    """The rows of the examples that all runs have, with the same gold label, by run; and how many
    examples of any run are not among them."""
    places = [run.rows for run in runs]
    everything = set().union(*places)
    shared: list[list[int]] = []
    for key in places[0]:
        if not all(key in place for place in places):
            continue
        rows = [place[key] for place in places]
        if len({run.columns["gold"][row] for run, row in zip(runs, rows, strict=True)}) == 1:
            shared.append(rows)
    found = np.array(shared, dtype=np.int64).reshape(-1, len(runs)).T
    return found, len(everything) - found.shape[1]


def _gold(run: _Run, rows_N: NDArray[np.int64]) -> Gold:
    labels = LabelSet(run.labels)
    columns = {name: [values[row] for row in rows_N] for name, values in run.columns.items()}

    def show(row: int) -> dict[str, Any]:
        shown = {name: columns[name][row] for name in ("document_id", "lang", "source")}
        return {**shown, "text": "", "narrative": columns["narrative_id"][row]}

    return Gold(
        labels=labels,
        gold_N=np.array([labels.index(label) for label in columns["gold"]], dtype=np.int64),
        document_N=numbered(columns["document_key"]),
        slices={
            "lang": Slices.of([lang or UNKNOWN_LANGUAGE for lang in columns["lang"]]),
            "source": Slices.of([source or UNKNOWN_SOURCE for source in columns["source"]]),
        },
        show=show,
    )
