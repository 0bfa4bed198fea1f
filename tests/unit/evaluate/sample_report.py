"""An invented report in the shape of docs/report-schema.md, for tests and for looking at."""

from __future__ import annotations

import random
from typing import Any

SYSTEMS = {
    "tuned": (
        "Tuned model",
        "The base model tuned on the training split; label scores, calibrated.",
        0.72,
    ),
    "prompted": (
        "Prompted base model",
        "The same base model, not tuned, reading the same prompt; label scores.",
        0.48,
    ),
    "tfidf": (
        "TF-IDF and logistic regression",
        "Words and character n-grams of document and narrative, fitted on the training split.",
        0.57,
    ),
    "majority": ("Majority class", "Always the most frequent label of the training split.", 0.22),
}
LANGUAGES = {"es": 61, "ru": 52, "zh": 44, "tl": 37, "en": 24}
SOURCES = {"news": 96, "social": 78, "blog": 35, "review": 9}
NARRATIVES = {
    "NATO expansion provokes the war": 41,
    "Вакцины опаснее самой болезни": 34,
    "外国势力操纵抗议活动": 29,
    "La transición energética destruye empleo": 27,
    "Ang halalan ay dinaya": 22,
    "Central banks have lost control of prices": 19,
    "5G damages health": 8,
    "(overall sentiment)": 38,
}
TEXTS = {
    "es": (
        "El ministro aseguró que la reforma «no costará ni un solo puesto de trabajo», pero los "
        "sindicatos recuerdan que las tres plantas cerradas este año empleaban a más de dos mil "
        "personas. En la comarca, la promesa suena ya a vieja: los cursos de reconversión llegaron "
        "tarde, las nuevas fábricas de baterías se anuncian desde hace cuatro años y, entretanto, "
        "los jóvenes se marchan. «Nadie está en contra del sol ni del viento», dice una vecina, "
        "«estamos en contra de que siempre paguemos los mismos»."
    ),
    "ru": (
        "В министерстве заявили, что побочные эффекты встречаются реже, чем осложнения самой "
        "болезни, однако в комментариях под новостью в это верят немногие."
    ),
    "zh": (
        "发言人在例行记者会上表示，有关报道“毫无根据”，并呼吁各方保持冷静。"
        "分析人士则认为，示威的主要原因是房价上涨与青年失业，而不是所谓的外部干预。"
        "街头的年轻人说：“没有人付钱让我们来，我们只是租不起房子。”"
    ),
    "tl": (
        "Ayon sa komisyon, tugma ang resulta ng mano-manong bilang sa resulta ng makina sa halos "
        "lahat ng presinto. Pero sabi ng isang netizen: sana all tugma, charot!"
    ),
    "en": "Well, of course prices are under control. Just not under *their* control.",
}


def sample_report(
    labels: tuple[str, ...] = ("negative", "neutral", "positive"), num_mistakes: int = 18
) -> dict[str, Any]:
    """A plausible report: five languages, four systems, one slice too small for an interval."""
    rng = random.Random(17)
    systems = [_system(rng, system_id, labels) for system_id in SYSTEMS]
    systems[0]["reliability"] = _reliability(rng)
    return {
        "schema": "slant.report/1",
        "slant_version": "0.1.0",
        "created_at": "2025-11-23T20:58:12Z",
        "seed": 17,
        "confidence": 0.95,
        "bootstrap": 2000,
        "task": {
            "labels": list(labels),
            "base": "mistralai/Mistral-7B-v0.3",
            "fingerprint": "9f3b1c" + "0a7d" * 14 + "e1",
            "prompt": "{document}\n\nNarrative: {narrative}\nSentiment toward the narrative:",
            "prompt_overall": "{document}\n\nOverall sentiment:",
            "token_limit": 1024,
            "long_documents": "cut",
            "quantize": "none",
        },
        "data": {
            "train": 3120,
            "validation": 240,
            "calibration": 236,
            "test": 218,
            "test_documents": 171,
            "languages": list(LANGUAGES),
            "narratives": 46,
            "rejected": 12,
        },
        "systems": systems,
        "differences": [
            {"system": "prompted", "macro_f1": _interval(0.24, 0.07)},
            {"system": "tfidf", "macro_f1": _interval(0.15, 0.06)},
            {"system": "majority", "macro_f1": _interval(0.5, 0.05)},
        ],
        "latency": {
            "documents": 40,
            "dtype": "bfloat16",
            "label_scoring": {"p50": 38.4, "p95": 61.2},
            "generation": {"p50": 153.0, "p95": 201.7},
        },
        "calibration": {
            "temperature": 1.62,
            "examples": 236,
            "ece_before": 0.118,
            "ece_after": 0.041,
        },
        "mistakes": _mistakes(rng, labels, num_mistakes),
        "training": _training(rng),
        "machine": {
            "processor": "AMD EPYC 9254",
            "cores": 16,
            "dtype": "bfloat16",
            "torch": "2.9.0",
            "transformers": "5.20.1",
        },
    }


def _interval(value: float, half_width: float | None) -> dict[str, float | None]:
    if half_width is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": value - half_width, "high": value + half_width * 0.9}


def _metrics(
    rng: random.Random, count: int, level: float, labels: tuple[str, ...]
) -> dict[str, Any]:
    macro_f1 = min(max(level + rng.uniform(-0.08, 0.08), 0.05), 0.95)
    half_width = None if count < 10 else min(0.75 / count**0.5, macro_f1, 1 - macro_f1)
    return {
        "count": count,
        "accuracy": _interval(min(macro_f1 + 0.03, 1.0), half_width),
        "macro_f1": _interval(macro_f1, half_width),
        "f1": {label: macro_f1 + (0.04 if i % 2 else -0.04) for i, label in enumerate(labels)},
    }


def _system(rng: random.Random, system_id: str, labels: tuple[str, ...]) -> dict[str, Any]:
    name, description, level = SYSTEMS[system_id]
    overall = _metrics(rng, 218, level, labels)
    overall["macro_f1"] = _interval(level - 0.01, 0.05)
    overall["accuracy"] = _interval(level + 0.02, 0.045)
    return {
        "id": system_id,
        "name": name,
        "description": description,
        "overall": overall,
        "slices": {
            attribute: {
                value: _metrics(rng, count, level - (0.14 if value == "tl" else 0), labels)
                for value, count in values.items()
            }
            for attribute, values in (
                ("lang", LANGUAGES),
                ("source", SOURCES),
                ("narrative", NARRATIVES),
            )
        },
        "confusion": [
            [55 - 4 * j if i == j else 6 + 3 * abs(i - j) + j for j in range(len(labels))]
            for i in range(len(labels))
        ],
        "reliability": None,
        "seconds": 9.7 if system_id != "majority" else 0.01,
    }


def _reliability(rng: random.Random) -> dict[str, Any]:
    bins: list[dict[str, float | None]] = []
    for i, count in enumerate((0, 0, 0, 6, 21, 27, 31, 38, 44, 51)):
        low, high = i / 10, (i + 1) / 10
        confidence = (low + high) / 2 + rng.uniform(-0.02, 0.02)
        accuracy = confidence - rng.uniform(-0.03, 0.09)
        bins.append(
            {
                "low": low,
                "high": high,
                "count": count,
                "confidence": confidence if count else None,
                "accuracy": accuracy if count else None,
            }
        )
    return {"ece": 0.041, "brier": 0.389, "bins": bins}


def _mistakes(rng: random.Random, labels: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    mistakes = []
    for i in range(count):
        lang = list(TEXTS)[i % len(TEXTS)]
        gold = labels[i % len(labels)]
        predicted = labels[(i + 1) % len(labels)]
        confidence = 0.98 - 0.02 * i
        rest = (1 - confidence) / (len(labels) - 1)
        mistakes.append(
            {
                "document_id": f"{lang}-{1000 + i}",
                "text": TEXTS[lang],
                "lang": lang,
                "source": rng.choice(list(SOURCES)),
                "narrative": None if i % 6 == 5 else list(NARRATIVES)[i % 7],
                "gold": gold,
                "predicted": predicted,
                "confidence": confidence,
                "probabilities": {
                    label: confidence if label == predicted else rest for label in labels
                },
            }
        )
    return mistakes


def _training(rng: random.Random) -> dict[str, Any]:
    losses = [
        [step, 0.34 + 0.85 * 0.985**step + rng.uniform(-0.05, 0.05)] for step in range(1, 391, 3)
    ]
    validation = [
        [step, 0.52 + 0.6 * 0.985**step, 0.7 - 0.4 * 0.985**step] for step in range(39, 391, 39)
    ]
    before = {"es": 14.2, "ru": 11.8, "zh": 17.5, "tl": 38.6, "en": 9.1}
    after = {"es": 11.3, "ru": 9.9, "zh": 14.0, "tl": 19.4, "en": 8.8}
    return {
        "adapt": {
            "tokens": 50_000_000,
            "seconds": 9_120.0,
            "perplexity": {
                lang: {"before": value, "after": after[lang]} for lang, value in before.items()
            },
        },
        "tune": {
            "examples": 6240,
            "steps": 390,
            "tokens": 2_914_332,
            "seconds": 1_412.0,
            "losses": losses,
            "validation": validation,
        },
    }
