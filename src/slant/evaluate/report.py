"""report.json: arrays and facts in, one JSON value out. docs/report-schema.md describes it.

Shape letters: N examples, L labels, R resamples, P columns of a confusion matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slant.evaluate.comparison import compare_systems
from slant.evaluate.gold import Gold
from slant.evaluate.metrics import (
    NO_ANSWER,
    Reliability,
    accuracy,
    auroc,
    brier_scores,
    confusion,
    f1_per_label,
    macro_f1,
    mcc,
    mean_f1_of,
    predicted_labels,
    reliability,
)
from slant.evaluate.resampling import (
    FEW_DOCUMENTS,
    FEW_FOR_BELIEFS,
    Interval,
    Resamples,
    area_interval,
    error_interval,
    figure,
    rounded,
    share_interval,
)

__all__ = ["REPORT_SCHEMA", "Measured", "Measurement", "compare", "reliability_bins"]

REPORT_SCHEMA = "slant.report/2"
NEUTRAL = "neutral"
_MOST_SLICES = 200
_MISTAKES = 400
_MISTAKE_CHARACTERS = 600

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Measured:
    """One system's answers on the test split, and what they took.

    Attributes:
        kind: ``tuned``, ``prompted``, ``tfidf``, ``embedding``, ``majority``, ``endpoint``,
            ``bundle`` or ``predictions``.
        name: for people.
        description: for people.
        probabilities_NL: ``(N, L)``; a row of NaN where there is no answer.
        seconds: that it took to answer, None where that is not known.
        confident: whether the probabilities are the system's own degree of belief, so that a
            reliability diagram makes sense.
        missing: why answers are missing: ``unreadable``, ``refused``, ``failed``; their counts.
        latency: ``p50`` and ``p95`` of one document at a time, ms.
        cost: ``usd``, ``usd_per_1000``, ``basis``.
        tokens: ``input``, ``output``.
    """

    kind: str
    name: str
    description: str
    probabilities_NL: Floats  # noqa: N815
    seconds: float | None = None
    confident: bool = True
    missing: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[str, float] | None = None
    cost: Mapping[str, Any] | None = None
    tokens: Mapping[str, int] | None = None

    @property
    def id(self) -> str:
        """Unlike any other system's of a report."""
        named = self.kind in ("endpoint", "bundle", "predictions")
        return f"{self.kind}:{self.name}" if named else self.kind


@final
class Measurement:
    """How every system is measured on the test split.

    Args:
        gold: the test split.
        bootstrap: number of resamples R.
        confidence: of the intervals.
        seed: of the resamples.
    """

    def __init__(self, gold: Gold, *, bootstrap: int, confidence: float, seed: int) -> None:
        self.gold = gold
        self.confidence = confidence
        # With fewer resamples no p-value could be small enough, after Holm's correction.
        languages = len(gold.slices["lang"].values) if "lang" in gold.slices else 1
        self._bootstrap = max(bootstrap, math.ceil(2 * languages / (1 - confidence)))
        self._seed = seed
        self._slices = {name: found.largest(_MOST_SLICES) for name, found in gold.slices.items()}
        names = list(gold.labels)
        polar = [place for place, name in enumerate(names) if name != NEUTRAL]
        self._polar = polar if len(polar) < len(names) and len(polar) > 1 else None

    def resamples(self, rows: Ints | slice) -> Resamples:
        """Draws of the documents of some rows: the same for every system."""
        return Resamples(self.gold.document_N[rows], self._bootstrap, self._seed)

    def system(self, measured: Measured) -> dict[str, Any]:
        """Everything the report says of one system."""
        gold_N, predicted_N = self.gold.gold_N, predicted_labels(measured.probabilities_NL)
        num_missing = int((predicted_N == NO_ANSWER).sum())
        missing = {"unreadable": 0, "refused": 0, "failed": 0, **measured.missing}
        missing["unreadable"] += num_missing - sum(missing.values())
        return {
            "id": measured.id,
            "kind": measured.kind,
            "name": measured.name,
            "description": measured.description,
            "overall": self.metrics(measured, slice(None)),
            "slices": {
                name: {value: self.metrics(measured, rows) for value, rows in found}
                for name, found in self._slices.items()
            },
            "confusion": confusion(gold_N, predicted_N, len(self.gold.labels)).tolist(),
            "reliability": self._reliability(measured) if measured.confident else None,
            "answers": {"answered": len(gold_N) - num_missing, **missing},
            "seconds": None if measured.seconds is None else round(measured.seconds, 2),
            "latency": measured.latency,
            "cost": measured.cost,
            "tokens": measured.tokens,
        }

    def metrics(self, measured: Measured, rows: Ints | slice) -> dict[str, Any]:
        """A metrics object of some rows."""
        gold_N = self.gold.gold_N[rows]
        predicted_N = predicted_labels(measured.probabilities_NL[rows])
        num_labels = len(self.gold.labels)
        matrix = confusion(gold_N, predicted_N, num_labels)
        resamples = self.resamples(rows)
        num_documents = resamples.num_documents
        draws = None
        if num_documents >= FEW_DOCUMENTS:
            draws = resamples.confusions(gold_N, predicted_N[None], num_labels)

        def of(metric: Callable[[NDArray[Any]], Floats]) -> dict[str, Any]:
            bounds = None
            if draws is not None:
                bounds = draws.interval(lambda m: metric(m[..., 0, :, :]), self.confidence)
            return figure(float(metric(matrix)), bounds)

        found = {
            "count": len(gold_N),
            "documents": num_documents,
            "accuracy": of(accuracy),
            "macro_f1": of(macro_f1),
            "f1": {
                label: of(lambda m, place=place: f1_per_label(m)[..., place])  # type: ignore[misc]
                for place, label in enumerate(self.gold.labels)
            },
            "f1_polar": of(lambda m: mean_f1_of(m, self._polar or ())) if self._polar else None,
            "mcc": of(mcc),
            **self._beliefs(measured, rows),
        }
        share = found["accuracy"]["value"]
        if draws is not None and share in (0.0, 1.0):
            # No resample differs from any other; the number of documents still bounds it.
            bounds = share_interval(round(share * num_documents), num_documents, self.confidence)
            found["accuracy"] = figure(share, bounds)
        return found

    def _beliefs(self, measured: Measured, rows: Ints | slice) -> dict[str, Any]:
        """What is made from probabilities, of the answered rows."""
        probabilities_NL = measured.probabilities_NL[rows]
        answered_N = np.isfinite(probabilities_NL).all(axis=1)
        if not measured.confident or not answered_N.any():
            return dict.fromkeys(("auroc", "ece", "brier"))
        probabilities_NL = probabilities_NL[answered_N]
        gold_N = self.gold.gold_N[rows][answered_N]
        document_N = self.gold.document_N[rows][answered_N]
        resamples = Resamples(document_N, self._bootstrap, self._seed)
        scores_N = brier_scores(probabilities_NL, gold_N)
        bounds: dict[str, Interval] = dict.fromkeys(("ece", "brier"))
        if resamples.num_documents >= FEW_FOR_BELIEFS:
            right_N = probabilities_NL.argmax(axis=1) == gold_N
            errors = resamples.calibrations(probabilities_NL.max(axis=1), right_N)
            bounds["ece"] = error_interval(errors, self.confidence)
            sums = resamples.sums(scores_N, top=2.0)
            bounds["brier"] = sums.interval(lambda m: m[..., 0] / m[..., 1], self.confidence)
        area = auroc(probabilities_NL, gold_N)
        return {
            "auroc": area and figure(area.value, area_interval(area, document_N, self.confidence)),
            "ece": figure(reliability(probabilities_NL, gold_N).ece, bounds["ece"]),
            "brier": figure(float(scores_N.mean()), bounds["brier"]),
        }

    def _reliability(self, measured: Measured) -> dict[str, Any]:
        answered_N = np.isfinite(measured.probabilities_NL).all(axis=1)
        found = reliability(measured.probabilities_NL[answered_N], self.gold.gold_N[answered_N])
        return {"bins": reliability_bins(found)}

    def mistakes(self, measured: Measured) -> dict[str, Any]:
        """The wrong answers, the most confident first; all languages get their turn."""
        predicted_N = predicted_labels(measured.probabilities_NL)
        confidence_N = measured.probabilities_NL.max(axis=1)
        is_wrong_N = (predicted_N != self.gold.gold_N) & (predicted_N != NO_ANSWER)
        wrong = np.flatnonzero(is_wrong_N)
        wrong = wrong[np.argsort(-confidence_N[wrong], kind="stable")]
        # The n-th of every language comes before the n+1-th of any.
        lang_N = self.gold.slices["lang"].code_N[wrong]
        by_lang = np.argsort(lang_N, kind="stable")
        starts = np.searchsorted(lang_N[by_lang], lang_N)
        turn = np.empty(len(wrong), dtype=np.int64)
        turn[by_lang] = np.arange(len(wrong))
        chosen = np.sort(np.argsort(turn - starts, kind="stable")[:_MISTAKES])
        return {
            "mistakes": [self._mistake(int(row), measured) for row in wrong[chosen]],
            "num_mistakes": len(wrong),
        }

    def _mistake(self, row: int, measured: Measured) -> dict[str, Any]:
        probabilities_L = measured.probabilities_NL[row]
        shown = self.gold.show(row)
        text = shown["text"]
        if len(text) > _MISTAKE_CHARACTERS:
            text = text[:_MISTAKE_CHARACTERS].rstrip() + "…"
        labels = self.gold.labels
        return {
            **shown,
            "text": text,
            "gold": labels[int(self.gold.gold_N[row])],
            "predicted": labels[int(probabilities_L.argmax())],
            "confidence": rounded(float(probabilities_L.max())),
            "probabilities": {
                label: rounded(float(p)) for label, p in zip(labels, probabilities_L, strict=True)
            },
        }


def compare(measurement: Measurement, systems: Sequence[Measured]) -> dict[str, Any]:
    """The report's ``systems`` (the first is the tuned one), ``comparisons`` and ``mistakes``."""
    tuned, *others = systems
    return {
        "systems": [measurement.system(system) for system in systems],
        "comparisons": [
            {
                "system": other.id,
                **compare_systems(
                    measurement.gold,
                    predicted_labels(tuned.probabilities_NL),
                    predicted_labels(other.probabilities_NL),
                    resamples=measurement.resamples,
                    confidence=measurement.confidence,
                ),
            }
            for other in others
        ],
        **measurement.mistakes(tuned),
    }


def reliability_bins(found: Reliability) -> list[dict[str, Any]]:
    """The bins of a reliability diagram, as the report has them."""
    num_bins = len(found.counts)
    return [
        {
            "low": i / num_bins,
            "high": (i + 1) / num_bins,
            "count": count,
            "confidence": rounded(float(found.confidence[i])) if count else None,
            "accuracy": rounded(float(found.accuracy[i])) if count else None,
        }
        for i, count in enumerate(found.counts.tolist())
    ]
