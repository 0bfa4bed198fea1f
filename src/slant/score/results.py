"""Where predictions go, and where what was set aside is listed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol, final

from slant.records import Narrative, Prediction
from slant.score.inputs import STDIN
from slant.score.pairs import Place, Refused
from slant.score.scorer import Scorer
from slant.tables.writer import TableWriter

__all__ = ["Rejected", "Result", "prediction_row", "rejected_path"]


def prediction_row(labels: Iterable[str], prediction: Prediction) -> dict[str, Any]:
    """What a result says of a prediction: label, confidence, probabilities, decision if any."""
    probabilities = zip(labels, prediction.probabilities, strict=True)
    row: dict[str, Any] = {
        "label": prediction.label,
        "confidence": round(prediction.confidence, 6),
        **{f"p_{label}": round(p, 6) for label, p in probabilities},
    }
    return row if prediction.decision is None else row | {"decision": prediction.decision}


class _Writer(Protocol):
    def write(self, row: Mapping[str, Any]) -> None: ...


@final
class _Stdout:
    """Rows as JSONL on standard output, in UTF-8, each sent on its way at once."""

    def __init__(self) -> None:
        # Not sys.stdout itself, which a progress bar replaces while it is shown.
        self._file = sys.stdout.buffer

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._file.flush()


@final
class Result:
    """The predictions. A file is begun with the first, which tells whether there are decisions.

    Args:
        target: a file, or ``-`` for standard output.
        scorer: makes the predictions.
        narratives: that every document is asked about.
        stack: closes the file.
    """

    def __init__(
        self,
        target: str | Path,
        scorer: Scorer,
        narratives: Sequence[Narrative],
        stack: ExitStack,
    ) -> None:
        self._target = target
        self._scorer = scorer
        self._stack = stack
        self._writer: _Writer | None = _Stdout() if str(target) == STDIN else None
        self._with_id = any(narrative.id for narrative in narratives)
        self.with_narrative = self._with_id or len(narratives) > 1
        self.num_rows = 0

    def write(self, prediction: Prediction, narrative: Narrative | None) -> None:
        """Write one row."""
        row: dict[str, Any] = {"id": prediction.id}
        if self._with_id:
            row["narrative_id"] = (narrative.id or None) if narrative else None
        if self.with_narrative:
            row["narrative"] = narrative.text if narrative else None
        row |= prediction_row(self._scorer.labels, prediction)
        if self._writer is None:
            kinds = {name: float if isinstance(row[name], float) else str for name in row}
            metadata = {"slant.fingerprint": self._scorer.fingerprint}
            table = TableWriter(Path(self._target), kinds, metadata=metadata)
            self._writer = self._stack.enter_context(table)
        self._writer.write(row)
        self.num_rows += 1


def rejected_path(target: Path) -> Path:
    """The list of what was set aside on the way to ``target``."""
    return target.with_name(target.name + ".rejected.jsonl")


@final
class Rejected:
    """The file of what was set aside; it is begun with the first. Standard output has none."""

    def __init__(self, target: str | Path, stack: ExitStack, *, with_narrative: bool) -> None:
        self.path = None if str(target) == STDIN else rejected_path(Path(target))
        self._stack = stack
        self._with_narrative = with_narrative
        self._writer: TableWriter | None = None
        self.count = 0
        self.first_reason = ""

    def write(self, refused: Refused) -> None:
        """List one row, pair or file."""
        if not self.count:
            self.first_reason = refused.place.reason
        self.count += 1
        if self.path is None:
            return
        if self._writer is None:
            columns = dict.fromkeys((field.name for field in fields(Place)), str)
            self._writer = self._stack.enter_context(TableWriter(self.path, columns))
        row = asdict(refused.place)
        if self._with_narrative:
            # None: the row itself cannot be used, whatever is asked of it.
            row["narrative"] = refused.narrative.text if refused.narrative else None
        self._writer.write(row)

    def remove_earlier(self) -> None:
        """Take away the list of an earlier run, if this run needs none."""
        if self.path and not self.count:
            self.path.unlink(missing_ok=True)
