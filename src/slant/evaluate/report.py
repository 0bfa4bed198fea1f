"""report.json: arrays and facts in, one JSON value out. docs/report-schema.md describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slant.corpus import LabelledDocument
from slant.evaluate.metrics import (
    Resamples,
    accuracy,
    brier,
    confusion,
    f1_per_label,
    interval,
    macro_f1,
    reliability,
)
from slant.labels import LabelSet
from slant.records import OVERALL

__all__ = ["REPORT_SCHEMA", "Measured", "Measurement", "compare"]

REPORT_SCHEMA = "slant.report/1"
_FEW = 10
_MISTAKES = 50
_MISTAKE_CHARACTERS = 600
_SLICES: Mapping[str, Callable[[LabelledDocument], str]] = {
    "lang": lambda item: item.document.lang or "und",
    "source": lambda item: item.document.source or "other",
    "narrative": lambda item: item.narrative.text if item.narrative else OVERALL,
}


@dataclass(frozen=True)
class Measured:
    """One system's answers on the test split: ``probabilities_NL`` is ``(N, L)``.

    ``confident`` says whether the probabilities are the system's own degree of belief, so that a
    reliability diagram makes sense.
    """

    id: str
    name: str
    description: str
    probabilities_NL: NDArray[np.float64]  # noqa: N815
    seconds: float
    confident: bool = True


class Measurement:
    """The test split, and how every system is measured on it.

    Args:
        items: N test examples.
        labels: the task's labels.
        bootstrap: number of resamples.
        confidence: of the intervals.
        seed: of the resamples.
    """

    def __init__(
        self,
        items: Sequence[LabelledDocument],
        labels: LabelSet,
        *,
        bootstrap: int,
        confidence: float,
        seed: int,
    ) -> None:
        self.items = items
        self.labels = labels
        self.gold_N = np.array([labels.index(item.example.label) for item in items], dtype=np.int64)
        texts: dict[str, int] = {}
        self._document_N = np.array(
            [
                texts.setdefault(item.document.digest or item.document.id, len(texts))
                for item in items
            ],
            dtype=np.int64,
        )
        self.num_documents = len(texts)
        self._bootstrap, self._confidence, self._seed = bootstrap, confidence, seed

    def system(self, measured: Measured) -> dict[str, Any]:
        """Everything the report says of one system."""
        predicted_N = measured.probabilities_NL.argmax(axis=1)
        everything = np.arange(len(self.gold_N))
        return {
            "id": measured.id,
            "name": measured.name,
            "description": measured.description,
            "overall": self._metrics(predicted_N, everything),
            "slices": {
                name: {
                    value: self._metrics(predicted_N, rows)
                    for value, rows in self._slices(key).items()
                }
                for name, key in _SLICES.items()
            },
            "confusion": confusion(self.gold_N, predicted_N, len(self.labels)).tolist(),
            "reliability": self._reliability(measured) if measured.confident else None,
            "seconds": round(measured.seconds, 2),
        }

    def difference(self, better: Measured, worse: Measured) -> dict[str, float]:
        """Macro-F1 of the one minus that of the other, with its paired bootstrap interval."""
        resamples = self._resamples(np.arange(len(self.gold_N)))
        values, samples = [], []
        for measured in (better, worse):
            predicted_N = measured.probabilities_NL.argmax(axis=1)
            values.append(float(macro_f1(confusion(self.gold_N, predicted_N, len(self.labels)))))
            samples.append(
                macro_f1(resamples.confusions(self.gold_N, predicted_N, len(self.labels)))
            )
        low, high = interval(samples[0] - samples[1], self._confidence)
        return {"value": _round(values[0] - values[1]), "low": _round(low), "high": _round(high)}

    def mistakes(self, measured: Measured) -> list[dict[str, Any]]:
        """The wrong answers, the most confident first."""
        predicted_N = measured.probabilities_NL.argmax(axis=1)
        confidence_N = measured.probabilities_NL.max(axis=1)
        wrong = np.flatnonzero(predicted_N != self.gold_N)
        chosen = wrong[np.argsort(-confidence_N[wrong], kind="stable")][:_MISTAKES]
        return [self._mistake(int(row), measured.probabilities_NL[row]) for row in chosen]

    def _mistake(self, row: int, probabilities_L: NDArray[np.float64]) -> dict[str, Any]:
        item = self.items[row]
        text = item.document.text
        if len(text) > _MISTAKE_CHARACTERS:
            text = text[:_MISTAKE_CHARACTERS].rstrip() + "…"
        return {
            "document_id": item.document.id,
            "text": text,
            "lang": item.document.lang,
            "source": item.document.source,
            "narrative": item.narrative.text if item.narrative else None,
            "gold": item.example.label,
            "predicted": self.labels[int(probabilities_L.argmax())],
            "confidence": _round(float(probabilities_L.max())),
            "probabilities": {
                label: _round(float(p))
                for label, p in zip(self.labels, probabilities_L, strict=True)
            },
        }

    def _slices(self, key: Callable[[LabelledDocument], str]) -> dict[str, NDArray[np.int64]]:
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(self.items):
            rows.setdefault(key(item), []).append(row)
        return {value: np.array(rows[value], dtype=np.int64) for value in sorted(rows)}

    def _resamples(self, rows: NDArray[np.int64]) -> Resamples:
        return Resamples(self._document_N[rows], self._bootstrap, self._seed)

    def _metrics(self, predicted_N: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[str, Any]:
        num_labels = len(self.labels)
        gold, predicted = self.gold_N[rows], predicted_N[rows]
        matrix = confusion(gold, predicted, num_labels)
        samples = None
        if len(rows) >= _FEW:
            samples = self._resamples(rows).confusions(gold, predicted, num_labels)

        def figure(metric: Callable[[NDArray[Any]], NDArray[np.float64]]) -> dict[str, Any]:
            low = high = None
            if samples is not None:
                low, high = (_round(x) for x in interval(metric(samples), self._confidence))
            return {"value": _round(float(metric(matrix))), "low": low, "high": high}

        return {
            "count": len(rows),
            "accuracy": figure(accuracy),
            "macro_f1": figure(macro_f1),
            "f1": {
                label: _round(float(f1))
                for label, f1 in zip(self.labels, f1_per_label(matrix), strict=True)
            },
        }

    def _reliability(self, measured: Measured) -> dict[str, Any]:
        found = reliability(measured.probabilities_NL, self.gold_N)
        bins = []
        for i, count in enumerate(found.counts.tolist()):
            bins.append(
                {
                    "low": i / len(found.counts),
                    "high": (i + 1) / len(found.counts),
                    "count": count,
                    "confidence": _round(float(found.confidence[i])) if count else None,
                    "accuracy": _round(float(found.accuracy[i])) if count else None,
                }
            )
        return {
            "ece": _round(found.ece),
            "brier": _round(brier(measured.probabilities_NL, self.gold_N)),
            "bins": bins,
        }


def compare(measurement: Measurement, systems: Sequence[Measured]) -> dict[str, Any]:
    """The report's ``systems`` (the first is the tuned one), ``differences`` and ``mistakes``."""
    return {
        "systems": [measurement.system(system) for system in systems],
        "differences": [
            {"system": other.id, "macro_f1": measurement.difference(systems[0], other)}
            for other in systems[1:]
        ],
        "mistakes": measurement.mistakes(systems[0]),
    }


def _round(value: float) -> float:
    return round(value, 5)
