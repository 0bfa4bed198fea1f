"""One system against another on the same examples: differences, tests, a sentence.

Shape letters: N examples, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slant.evaluate.gold import Gold
from slant.evaluate.metrics import accuracy, confusion, macro_f1
from slant.evaluate.resampling import FEW_DOCUMENTS, Resamples, figure
from slant.evaluate.significance import holm, mcnemar_exact, paired_p_value
from slant.page.words import listed

__all__ = ["compare_systems", "sentence"]

Ints = NDArray[np.int64]
_Metric = Callable[[NDArray[Any]], NDArray[np.float64]]


def compare_systems(
    gold: Gold,
    first_N: Ints,
    second_N: Ints,
    *,
    resamples: Callable[[Any], Resamples],
    confidence: float,
) -> dict[str, Any]:
    """The first system minus the second, overall and by language; see docs/report-schema.md.

    Args:
        gold: the examples.
        first_N: labels predicted by the one; NO_ANSWER where it has none.
        second_N: by the other.
        resamples: of the documents of some rows.
        confidence: of intervals and outcomes.
    """

    def on(rows: Any) -> dict[str, Any]:
        return _difference(
            gold.gold_N[rows],
            np.stack([first_N[rows], second_N[rows]]),
            len(gold.labels),
            resamples(rows),
            confidence,
        )

    overall = on(slice(None))
    overall["outcome"] = _outcome(overall, overall["p_value"], confidence)
    slices = gold.slices["lang"]
    languages = {lang: on(rows) for lang, rows in slices.largest(len(slices.values))}
    tested = [lang for lang, found in languages.items() if found["p_value"] is not None]
    for lang, p in zip(tested, holm([languages[x]["p_value"] for x in tested]), strict=True):
        languages[lang]["p_adjusted"] = p
    mcnemar = holm([languages[lang]["mcnemar"]["p_value"] for lang in tested])
    for lang, p in zip(tested, mcnemar, strict=True):
        languages[lang]["mcnemar"]["p_adjusted"] = p
    for found in languages.values():
        found.setdefault("p_adjusted", None)
        found["mcnemar"].setdefault("p_adjusted", None)
        found["outcome"] = _outcome(found, found["p_adjusted"], confidence)
        del found["accuracy"]
    del overall["count"]
    return {**overall, "languages": languages, "sentence": sentence(overall["outcome"], languages)}


def _difference(
    gold_N: Ints, predicted_2N: Ints, num_labels: int, resamples: Resamples, confidence: float
) -> dict[str, Any]:
    matrices = np.stack([confusion(gold_N, predicted, num_labels) for predicted in predicted_2N])
    right_2N = predicted_2N == gold_N
    only_first = int((right_2N[0] & ~right_2N[1]).sum())
    only_second = int((right_2N[1] & ~right_2N[0]).sum())
    found: dict[str, Any] = {"count": len(gold_N)}
    draws = None
    if resamples.num_documents >= FEW_DOCUMENTS:
        draws = resamples.confusions(gold_N, predicted_2N, num_labels)
    for name, metric in (("macro_f1", macro_f1), ("accuracy", accuracy)):

        def difference(counts: NDArray[Any], metric: _Metric = metric) -> NDArray[np.float64]:
            values = metric(counts)
            return np.asarray(values[..., 0] - values[..., 1])

        bounds = None
        if draws is not None:
            bounds = draws.interval(difference, confidence)
            if name == "macro_f1":
                found["p_value"] = paired_p_value(difference(draws.samples))
        found[name] = figure(float(difference(matrices)), bounds)
    found.setdefault("p_value", None)
    found["mcnemar"] = {
        "only_tuned": only_first,
        "only_other": only_second,
        "p_value": mcnemar_exact(only_first, only_second),
    }
    return found


def _outcome(found: Mapping[str, Any], p_value: float | None, confidence: float) -> str:
    if p_value is None or p_value > 1 - confidence:
        return "unclear"
    return "better" if found["macro_f1"]["value"] > 0 else "worse"


def sentence(overall: str, languages: Mapping[str, Mapping[str, Any]]) -> str:
    """``better overall and in ru and tl; worse in en; no evidence either way in zh``."""
    groups: dict[str, list[str]] = {"better": [], "worse": [], "unclear": []}
    if len(languages) > 1:
        for lang, found in languages.items():
            groups[found["outcome"]].append(lang)
    parts = []
    for outcome in ("better", "worse"):
        where = ["overall"] if overall == outcome else []
        if groups[outcome]:
            where.append(f"in {listed(groups[outcome])}")
        if where:
            parts.append(f"{outcome} {' and '.join(where)}")
    where = ["overall"] if overall == "unclear" else []
    if groups["unclear"]:
        where.append(f"in {listed(groups['unclear'])}")
    if where:
        parts.append(f"no evidence either way {' and '.join(where)}")
    return "; ".join(parts)
