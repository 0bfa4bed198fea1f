"""The systems of the invented report, and the tuned one against the others."""

from __future__ import annotations

import math
import random
from typing import Any

SYSTEMS = {
    "tuned": (
        "tuned",
        "Tuned model",
        "The base model tuned on the training split; label scores, calibrated.",
    ),
    "endpoint:gpt-4": (
        "endpoint",
        "gpt-4",
        "Asked over its interface with 2 examples of each label; English instructions.",
    ),
    "prompted": (
        "prompted",
        "Prompted base model",
        "The same base model, not tuned, reading the same prompt; label scores.",
    ),
    "tfidf": (
        "tfidf",
        "TF-IDF and logistic regression",
        "Words and character n-grams of document and narrative, fitted on the training split.",
    ),
    "majority": (
        "majority",
        "Majority class",
        "Always the most frequent label of the training split.",
    ),
}
# Macro-F1 in es, ru, zh, tl, en and ca; accuracy lies a little higher.
LEVELS = {
    "tuned": (0.83, 0.81, 0.78, 0.68, 0.84, 0.6),
    "endpoint:gpt-4": (0.71, 0.63, 0.67, 0.49, 0.82, 0.7),
    "prompted": (0.5, 0.44, 0.47, 0.33, 0.61, 0.5),
    "tfidf": (0.6, 0.57, 0.55, 0.49, 0.58, 0.4),
    "majority": (0.22, 0.21, 0.23, 0.22, 0.21, 0.2),
}
USD_PER_1000 = {"tuned": 0.0136, "endpoint:gpt-4": 10.42, "prompted": 0.0134, "tfidf": 0.0006}
LATENCIES = {
    "tuned": (38.4, 61.2),
    "endpoint:gpt-4": (612.0, 1483.0),
    "prompted": (38.1, 60.8),
    "tfidf": (0.6, 1.1),
}
LANGUAGES = {"es": 340, "ru": 290, "zh": 246, "tl": 206, "en": 134, "ca": 6}
SOURCES = {"news": 520, "social": 450, "blog": 243, "review": 9}
NARRATIVES = {
    "NATO expansion provokes the war": 236,
    "Вакцины опаснее самой болезни": 198,
    "外国势力操纵抗议活动": 171,
    "La transición energética destruye empleo": 160,
    "Ang halalan ay dinaya": 141,
    "Central banks have lost control of prices": 120,
    "5G damages health": 8,
    "(overall sentiment)": 188,
}
SLICES = {
    "lang": LANGUAGES,
    "source": SOURCES,
    "narrative": NARRATIVES,
    "month": {
        "2025-05": 190,
        "2025-06": 205,
        "2025-07": 212,
        "2025-08": 214,
        "2025-09": 201,
        "2025-10": 183,
        "unknown": 17,
    },
    "length": {
        "under 140": 412,
        "140 to 499": 401,
        "500 to 1,999": 310,
        "2,000 and more": 99,
    },
    "narrative_seen": {"seen": 806, "unseen": 228, "(overall sentiment)": 188},
}
TEST = sum(LANGUAGES.values())


def bins_with_a_gap(rng: random.Random, gap: float) -> list[dict[str, float | None]]:
    bins: list[dict[str, float | None]] = []
    for i, count in enumerate((0, 0, 0, 21, 79, 118, 144, 187, 251, 422)):
        confidence = (i + 0.5) / 10 + rng.uniform(-0.02, 0.02)
        bins.append(
            {
                "low": i / 10,
                "high": (i + 1) / 10,
                "count": count,
                "confidence": confidence if count else None,
                "accuracy": confidence - gap + rng.uniform(-0.02, 0.02) if count else None,
            }
        )
    return bins


def interval(value: float, half_width: float | None) -> dict[str, float | None]:
    if half_width is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": value - half_width, "high": value + half_width * 0.9}


def _metrics(
    count: int, macro_f1: float, labels: tuple[str, ...], *, believes: bool = True
) -> dict[str, Any]:
    half_width = None if count < 10 else min(0.9 / count**0.5, macro_f1, 1 - macro_f1)
    f1 = {label: macro_f1 + (0.04 if i % 2 else -0.04) for i, label in enumerate(labels)}
    polar = [value for label, value in f1.items() if label != "neutral"]
    return {
        "count": count,
        "documents": math.ceil(count * 0.79),
        "accuracy": interval(min(macro_f1 + 0.02, 1.0), half_width),
        "macro_f1": interval(macro_f1, half_width),
        "f1": {label: interval(value, half_width) for label, value in f1.items()},
        "f1_polar": interval(sum(polar) / len(polar), half_width) if len(polar) > 1 else None,
        "mcc": interval(max(1.3 * macro_f1 - 0.35, -0.05), half_width),
        "auroc": interval(0.55 + 0.42 * macro_f1, half_width) if believes else None,
        "ece": interval(0.028, half_width and min(half_width, 0.014)) if believes else None,
        "brier": interval(1.28 * (1 - macro_f1), half_width) if believes else None,
    }


def sample_system(rng: random.Random, system_id: str, labels: tuple[str, ...]) -> dict[str, Any]:
    kind, name, description = SYSTEMS[system_id]
    levels = dict(zip(LANGUAGES, LEVELS[system_id], strict=True))
    level = sum(levels[lang] * count for lang, count in LANGUAGES.items()) / TEST
    believes = kind not in ("endpoint", "majority")
    per_1000, latency = USD_PER_1000.get(system_id), LATENCIES.get(system_id)
    unanswered = (8, 3, 1) if kind == "endpoint" else (0, 0, 0)
    return {
        "id": system_id,
        "kind": kind,
        "name": name,
        "description": description,
        "overall": _metrics(TEST, level, labels, believes=believes),
        "slices": {
            attribute: {
                value: _metrics(
                    count,
                    levels[value] if attribute == "lang" else level + rng.uniform(-0.06, 0.06),
                    labels,
                    believes=believes,
                )
                for value, count in values.items()
            }
            for attribute, values in SLICES.items()
        },
        "confusion": _confusion(level + 0.02, len(labels), unanswered),
        "reliability": {"bins": bins_with_a_gap(rng, 0.03)} if believes else None,
        "answers": {
            "answered": TEST - sum(unanswered),
            **dict(zip(("unreadable", "refused", "failed"), unanswered, strict=True)),
        },
        "seconds": None if kind == "endpoint" else 0.01 if kind == "majority" else 12.7,
        "latency": dict(zip(("p50", "p95"), latency, strict=True)) if latency else None,
        "cost": {
            "usd": 0.968 * per_1000,
            "usd_per_1000": per_1000,
            "basis": "1,006,412 tokens of prompts at $10 and 2,448 of answers at $30 per million"
            if kind == "endpoint"
            else "$1.20 an hour",
        }
        if per_1000
        else None,
        "tokens": {"input": 1_006_412, "output": 2_448} if kind == "endpoint" else None,
    }


def _confusion(
    accuracy: float, num_labels: int, unanswered: tuple[int, int, int]
) -> list[list[int]]:
    rows = []
    for gold in range(num_labels):
        total = TEST // num_labels
        missing = sum(unanswered) // num_labels
        right = round(accuracy * total)
        wrong = [0 if j == gold else 1 + abs(gold - j) for j in range(num_labels)]
        rest = total - right - missing
        row = [round(rest * share / sum(wrong)) for share in wrong]
        row[gold] = right
        rows.append([*row, missing])
    return rows


def _p_value(figure: dict[str, float | None]) -> float:
    half_width = ((figure["high"] or 0) - (figure["low"] or 0)) / 2
    return math.erfc(abs(figure["value"] or 0) / half_width * 1.96 / math.sqrt(2))


def _outcome(figure: dict[str, float | None], p_value: float | None) -> str:
    if p_value is None or p_value > 0.05:
        return "unclear"
    return "better" if (figure["value"] or 0) > 0 else "worse"


def _mcnemar(count: int, difference: float) -> dict[str, Any]:
    only_other = round(0.06 * count)
    only_tuned = max(only_other + round(difference * count), 0)
    odds = math.erfc(abs(only_tuned - only_other) / math.sqrt(2 * max(only_tuned + only_other, 1)))
    return {"only_tuned": only_tuned, "only_other": only_other, "p_value": odds}


def sample_comparison(tuned: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    languages: dict[str, dict[str, Any]] = {}
    for lang, metrics in tuned["slices"]["lang"].items():
        count = metrics["count"]
        rival = other["slices"]["lang"][lang]["macro_f1"]["value"]
        value = metrics["macro_f1"]["value"] - rival
        figure = interval(value, None if count < 10 else 0.95 / count**0.5)
        p_value = None if count < 10 else _p_value(figure)
        adjusted = None if p_value is None else min(5 * p_value, 1.0)
        mcnemar = _mcnemar(count, value)
        languages[lang] = {
            "count": count,
            "macro_f1": figure,
            "p_value": p_value,
            "p_adjusted": adjusted,
            "mcnemar": {**mcnemar, "p_adjusted": min(5 * mcnemar["p_value"], 1.0)},
            "outcome": _outcome(figure, adjusted),
        }
    value = tuned["overall"]["macro_f1"]["value"] - other["overall"]["macro_f1"]["value"]
    figure = interval(value, 0.034)
    better = [lang for lang, found in languages.items() if found["outcome"] == "better"]
    unclear = [lang for lang, found in languages.items() if found["outcome"] == "unclear"]
    return {
        "system": other["id"],
        "macro_f1": figure,
        "accuracy": interval(value, 0.031),
        "p_value": _p_value(figure),
        "mcnemar": _mcnemar(TEST, value),
        "outcome": _outcome(figure, _p_value(figure)),
        "languages": languages,
        "sentence": f"better overall and in {', '.join(better)}; no evidence either way in "
        f"{' and '.join(unclear)}",
    }
