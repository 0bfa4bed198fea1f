"""The calibration split at work: temperatures, thresholds, and what they come to on the test split.

A third of the calibration documents fits the temperatures and proposes thresholds, the others prove
them: so no example does both, and the promise of ``selective`` holds for the calibrated model.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slant.evaluate.calibration import Temperatures, fit_temperatures
from slant.evaluate.metrics import reliability
from slant.evaluate.proofs import Answered
from slant.evaluate.report import reliability_bins
from slant.evaluate.resampling import Interval, Resamples, figure, rounded, share_interval
from slant.evaluate.selective import (
    Threshold,
    accepted_of,
    find_threshold,
    least_examples,
    risk_coverage,
)
from slant.score.decision import probabilities
from slant.task.languages import (
    OTHER_LANGUAGES,
    UNKNOWN_LANGUAGE,
    language_code,
    language_names,
    of_language,
)

__all__ = ["Asked", "Decisions", "Promise", "calibrate", "describe_calibration", "find_decisions"]

_SCOUTS = 1 / 3
_MOST = 10
"""Answers that a document counts with at most: one with hundreds would leave nothing to prove."""
_LEFT_OUT = 0.05
"""Share of the answers that may go uncounted, so that a few large documents do not do that."""
_POINTS = 100
_RESAMPLES = 2000
_NEVER = 2.0
"""A threshold that no confidence reaches: everything in the language goes to people."""


@final
@dataclass(frozen=True)
class Asked:
    """A split, as the tuned model answered.

    Attributes:
        logits_NL: before calibration.
        gold_N: label indices.
        langs: of the documents; None: not known.
        keys: of the documents: equal for examples that must not be torn apart.
    """

    logits_NL: NDArray[np.float32]  # noqa: N815
    gold_N: NDArray[np.int64]  # noqa: N815
    langs: Sequence[str | None]
    keys: Sequence[str]

    def at(self, rows: NDArray[np.int64]) -> Asked:
        """Some of the examples."""
        langs, keys = [self.langs[i] for i in rows], [self.keys[i] for i in rows]
        return Asked(self.logits_NL[rows], self.gold_N[rows], langs, keys)

    def __add__(self, other: Asked) -> Asked:
        """The examples of both."""
        return Asked(
            np.concatenate([self.logits_NL, other.logits_NL]),
            np.concatenate([self.gold_N, other.gold_N]),
            [*self.langs, *other.langs],
            [*self.keys, *other.keys],
        )

    def answered(self, temperatures: Temperatures) -> Answered:
        """Confidences after calibration, and which answers are right."""
        probabilities_NL = probabilities(self.logits_NL, temperatures.of(self.langs))
        right_N = probabilities_NL.argmax(axis=1) == self.gold_N
        return Answered(probabilities_NL.max(axis=1, initial=0.0), right_N, _drawn(self.keys))

    @property
    def num_documents(self) -> int:
        """Documents that the examples are about."""
        return len(set(self.keys))


@final
@dataclass(frozen=True)
class Promise:
    """What was asked for: see ``evaluate.decisions`` in the configuration."""

    max_error: float
    confidence: float
    by: str
    review_usd: float
    counting: str = "answers"


@final
@dataclass(frozen=True)
class Decisions:
    """Thresholds by language (``*``: others), for slant.json, and the part of the report."""

    thresholds: Mapping[str, float]
    report: dict[str, Any]


def calibrate(
    calibration: Asked, promise: Promise | None, seed: int
) -> tuple[Temperatures, Asked, Asked]:
    """Temperatures, the examples that they were fitted on, and those that are left for proofs.

    All examples fit temperatures where there are too few to prove anything, or nothing to prove.
    """
    scouts, proofs = _parts(calibration.keys, seed)
    fitted, proving = calibration.at(scouts), calibration.at(proofs)
    if promise is None or proving.num_documents < least_examples(
        promise.max_error, promise.confidence
    ):
        fitted, proving = calibration, calibration.at(np.arange(0))
    temperatures = fit_temperatures(fitted.logits_NL, fitted.gold_N, fitted.langs)
    return temperatures, fitted, proving


def _drawn(keys: Sequence[str]) -> NDArray[np.int64]:
    """``(N,)`` numbers of documents, given out by lot, whatever the order of the examples."""
    place = {key: number for number, key in enumerate(_by_lot(keys, "order"))}
    return np.array([place[key] for key in keys], dtype=np.int64)


def _by_lot(keys: Sequence[str], lot: str) -> list[str]:
    """Documents, each once, in an order of their own for each lot."""
    return sorted(set(keys), key=lambda key: hashlib.sha256(f"{lot}/{key}".encode()).digest())


def _parts(keys: Sequence[str], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of a third of the documents, and of the others."""
    order = _by_lot(keys, str(seed))
    scouts = set(order[: round(_SCOUTS * len(order))])
    is_scout_N = np.array([key in scouts for key in keys], dtype=bool)
    return np.flatnonzero(is_scout_N), np.flatnonzero(~is_scout_N)


def find_decisions(
    scouts: Asked, proofs: Asked, test: Asked, temperatures: Temperatures, promise: Promise
) -> Decisions:
    """Thresholds that keep the promise, tried on the test split; see docs/report-schema.md.

    Args:
        scouts: examples that propose thresholds, none of them among the proofs: those that
            temperatures were fitted on, and the validation split, which chose the weights and so
            may prove nothing.
        proofs: examples of other documents.
        test: what the promise is looked at with.
        temperatures: of the calibrated model.
        promise: what is asked for.
    """
    own = _own_threshold(proofs, promise)
    sides = [
        _Side(part.answered(temperatures), [_name(lang, own) for lang in part.langs], part.keys)
        for part in (scouts, proofs, test)
    ]
    langs = {lang or UNKNOWN_LANGUAGE for part in (proofs, test) for lang in part.langs}
    members: dict[str, list[str]] = {}
    for lang in sorted(langs):
        members.setdefault(_name(lang, own), []).append(lang)
    found = [_group(name, among, sides, promise) for name, among in sorted(members.items())]
    everything = [
        _Side(side.answered, [OTHER_LANGUAGES] * len(side.names), side.keys) for side in sides
    ]
    thresholds = {group["name"]: group["threshold"] for group in found}
    answered, names = sides[-1].answered, sides[-1].names
    least = [thresholds[name] for name in names]
    outcome = _outcome(sides[-1], accepted_of(answered, least), promise.confidence)
    rejected = 1 - outcome["accepted"] / max(1, outcome["count"])
    report = {
        "max_error": promise.max_error,
        "confidence": promise.confidence,
        "by": promise.by,
        "counting": promise.counting,
        "counted": _counted(found),
        "examples": len(proofs.keys),
        "documents": proofs.num_documents,
        "groups": found,
        "pooled": _group(OTHER_LANGUAGES, sorted(langs), everything, promise),
        "test": outcome,
        "review_usd_per_1000": round(1000 * rejected * promise.review_usd, 2),
        "curve": _curves(answered, test.langs),
    }
    written = {name: _NEVER if value is None else value for name, value in thresholds.items()}
    if len(written) == 1 and OTHER_LANGUAGES not in written:
        # A project in one language: documents need not say so.
        written[UNKNOWN_LANGUAGE] = next(iter(written.values()))
    return Decisions(written, report)


@final
@dataclass(frozen=True)
class _Side:
    """Answers, the group that each is in, and its document."""

    answered: Answered
    names: Sequence[str]
    keys: Sequence[str]

    def only(self, name: str) -> _Side:
        """The answers in one group."""
        return self._at(np.flatnonzero([other == name for other in self.names]))

    def at_most(self, most: int) -> _Side:
        """``most`` answers of a document, drawn by lot, where it has more."""
        rows_of: dict[str, list[int]] = {}
        for row, key in enumerate(self.keys):
            rows_of.setdefault(key, []).append(row)
        kept = [row for rows in rows_of.values() for row in self._drawn(rows)[:most]]
        return self._at(np.array(sorted(kept), dtype=np.int64))

    def _drawn(self, rows: list[int]) -> list[int]:
        """Answers about one document in an order by lot, whatever that of the examples."""
        if len(rows) == 1:
            return rows

        def lot(row: int) -> bytes:
            text = f"{self.keys[row]}/{self.answered.confidence_N[row]!r}"
            return hashlib.sha256(text.encode()).digest()

        return sorted(rows, key=lot)

    def _at(self, rows: NDArray[np.int64]) -> _Side:
        every = self.answered
        answered = Answered(every.confidence_N[rows], every.right_N[rows], every.document_N[rows])
        return _Side(answered, [self.names[i] for i in rows], [self.keys[i] for i in rows])


def _own_threshold(proofs: Asked, promise: Promise) -> set[str]:
    """The languages with documents enough for a threshold of their own."""
    if promise.by == "all":
        return set()
    # Twice what it takes without a mistake: with less a threshold is a matter of luck.
    enough = 2 * least_examples(promise.max_error, promise.confidence)
    documents = set(zip(map(language_code, proofs.langs), proofs.keys, strict=True))
    counts = Counter(lang for lang, _ in documents)
    return {lang for lang, count in counts.items() if count >= enough and lang != UNKNOWN_LANGUAGE}


def _name(lang: str | None, own: set[str]) -> str:
    """The group that a language is in; as ``task.languages`` finds its threshold."""
    return next(name for name in language_names(lang) if name in own or name == OTHER_LANGUAGES)


def _group(name: str, langs: list[str], sides: Sequence[_Side], promise: Promise) -> dict[str, Any]:
    scouts, proofs, test = (side.only(name) for side in sides)
    # By what the scouts have: the bound may not be chosen by a look at the proofs.
    most = 1 if promise.counting == "documents" else _most_counted(scouts.answered)
    largest = max(side.answered.most_of_one_document for side in (scouts, proofs, test))
    found = find_threshold(
        scouts.at_most(most).answered,
        proofs.at_most(most).answered,
        max_error=promise.max_error,
        confidence=promise.confidence,
        most=most,
    )
    accepted_N = accepted_of(test.answered, [found.value] * len(test.keys))
    return {
        "name": name,
        "languages": langs,
        **_described(found),
        "cut": largest > most,
        "test": _outcome(test, accepted_N, promise.confidence),
    }


def _most_counted(scouts: Answered) -> int:
    """Answers that a document is to count with at most: nearly all of them."""
    sizes_D = np.unique(scouts.document_N, return_counts=True)[1]
    for most in range(1, _MOST):
        if np.maximum(sizes_D - most, 0).sum() <= _LEFT_OUT * len(scouts):
            return most
    return _MOST


def _counted(groups: Sequence[Mapping[str, Any]]) -> str:
    """What is left out of the count where documents have more answers than are counted."""
    mosts = sorted({group["most"] for group in groups if group["cut"]})
    if not mosts:
        return ""
    if mosts == [1]:
        return "counting every document once"
    among = f"{mosts[0]}" if len(mosts) == 1 else f"{mosts[0]} to {mosts[-1]}"
    return f"counting at most {among} answers of a document"


def _described(found: Threshold) -> dict[str, Any]:
    content = asdict(found)
    content["threshold"] = content.pop("value")
    return content


def _outcome(side: _Side, accepted_N: NDArray[np.bool_], confidence: float) -> dict[str, Any]:
    wrong_N = accepted_N & ~side.answered.right_N
    accepted, wrong = int(accepted_N.sum()), int(wrong_N.sum())
    error = None
    if accepted:
        error = figure(
            wrong / accepted, _error_interval(side.keys, accepted_N, wrong_N, confidence)
        )
    return {"count": len(accepted_N), "accepted": accepted, "wrong": wrong, "error": error}


def _error_interval(
    keys: Sequence[str],
    accepted_N: NDArray[np.bool_],
    wrong_N: NDArray[np.bool_],
    confidence: float,
) -> Interval:
    """Exact where every document has one accepted answer, else by resampling documents."""
    document_N = np.unique(np.array(keys, dtype=object)[accepted_N], return_inverse=True)[1]
    if len(set(document_N.tolist())) < len(document_N):
        resamples = Resamples(document_N, _RESAMPLES, seed=0)
        features = np.array([[0.0, 1.0], [1.0, 1.0]])
        draws = resamples.draw(wrong_N[accepted_N].astype(np.int64), features)
        if bounds := draws.interval(lambda sums: sums[..., 0] / sums[..., 1], confidence):
            return bounds
    # Answers about one document may be wrong together: as many as there are documents tell.
    num_documents, share = len(set(document_N.tolist())), wrong_N.sum() / accepted_N.sum()
    return share_interval(round(share * num_documents), num_documents, confidence)


def _curves(answered: Answered, langs: Sequence[str | None]) -> dict[str, Any]:
    named = [lang or UNKNOWN_LANGUAGE for lang in langs]
    side = _Side(answered, named, [""] * len(named))  # no one looks at documents here
    names = sorted(set(named))
    parts = {"all": answered}
    if len(names) > 1:
        parts |= {name: side.only(name).answered for name in names}
    return {
        name: [[rounded(x) for x in point] for point in risk_coverage(part, _POINTS)]
        for name, part in parts.items()
    }


def describe_calibration(fitted: Asked, test: Asked, temperatures: Temperatures) -> dict[str, Any]:
    """The report's ``calibration``; see docs/report-schema.md."""
    before_NL = probabilities(test.logits_NL, 1.0)
    after_NL = probabilities(test.logits_NL, temperatures.of(test.langs))

    def errors(rows: NDArray[np.bool_]) -> dict[str, float]:
        return {
            "ece_before": rounded(reliability(before_NL[rows], test.gold_N[rows]).ece),
            "ece_after": rounded(reliability(after_NL[rows], test.gold_N[rows]).ece),
        }

    langs_N = np.array([lang or UNKNOWN_LANGUAGE for lang in test.langs], dtype=object)
    by_language = {
        lang: {
            "examples": sum((x or UNKNOWN_LANGUAGE) == lang for x in fitted.langs),
            "temperature": of_language(temperatures.by_language, lang) or temperatures.pooled,
            "count": int((langs_N == lang).sum()),
            **errors(langs_N == lang),
        }
        for lang in sorted(set(langs_N))
    }
    return {
        "temperature": temperatures.pooled,
        "temperatures": temperatures.by_language,
        "examples": len(fitted.keys),
        **errors(np.ones(len(langs_N), dtype=bool)),
        "bins_before": reliability_bins(reliability(before_NL, test.gold_N)),
        "languages": by_language,
    }
