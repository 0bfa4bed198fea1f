"""An invented report in the shape of docs/report-schema.md, for tests and for looking at."""

from __future__ import annotations

import math
import random
from typing import Any

from unit.evaluate.sample_systems import (
    LANGUAGES,
    LEVELS,
    NARRATIVES,
    SOURCES,
    SYSTEMS,
    TEST,
    bins_with_a_gap,
    interval,
    sample_comparison,
    sample_system,
)

__all__ = ["LANGUAGES", "NARRATIVES", "TEXTS", "sample_report"]

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
    """A plausible report: six languages, five systems, some slices too small for an interval."""
    rng = random.Random(17)
    systems = [sample_system(rng, system_id, labels) for system_id in SYSTEMS]
    return {
        "schema": "slant.report/2",
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
            "train": 9120,
            "validation": 640,
            "calibration": 898,
            "test": TEST,
            "test_documents": 968,
            "languages": list(LANGUAGES),
            "narratives": 46,
            "rejected": 12,
        },
        "systems": systems,
        "comparisons": [sample_comparison(systems[0], other) for other in systems[1:]],
        "unfinished": [
            {
                "name": "gpt-4.1",
                "reason": "its budget of $5.00 is spent",
                "answered": 431,
                "of": TEST,
                "usd": 4.99,
            }
        ],
        "latency": {
            "documents": 40,
            "dtype": "bfloat16",
            "label_scoring": {"p50": 38.4, "p95": 61.2},
            "generation": {"p50": 153.0, "p95": 201.7},
        },
        "calibration": _calibration(rng),
        "decisions": _decisions(),
        "gate": [
            {"metric": "macro_f1", "where": "overall", "bound": 0.7, "value": 0.7899, "met": True},
            {"metric": "macro_f1", "where": "tl", "bound": 0.7, "value": 0.68, "met": False},
            {"metric": "ece", "where": "overall", "bound": 0.05, "value": 0.028, "met": True},
        ],
        "mistakes": _mistakes(rng, labels, min(num_mistakes, 400)),
        "num_mistakes": num_mistakes,
        "training": _training(rng),
        "machine": {
            "processor": "AMD EPYC 9254",
            "cores": 16,
            "dtype": "bfloat16",
            "torch": "2.9.0",
            "transformers": "5.20.1",
        },
    }


def _calibration(rng: random.Random) -> dict[str, Any]:
    temperatures = {"es": 1.48, "ru": 1.66, "zh": 1.71, "tl": 2.14}
    before = {"es": 0.098, "ru": 0.119, "zh": 0.124, "tl": 0.187, "en": 0.071, "ca": 0.22}
    return {
        "temperature": 1.62,
        "temperatures": temperatures,
        "examples": 299,
        "ece_before": 0.118,
        "ece_after": 0.028,
        "bins_before": bins_with_a_gap(rng, 0.12),
        "languages": {
            lang: {
                "examples": round(count * 0.245),
                "temperature": temperatures.get(lang, 1.62),
                "ece_before": before[lang],
                "ece_after": before[lang] * 0.3,
                "count": count,
            }
            for lang, count in LANGUAGES.items()
        },
    }


def _error(lang: str, coverage: float) -> float:
    """Share of wrong answers among the most confident ones, up to ``coverage``."""
    accuracy = dict(zip(LANGUAGES, LEVELS["tuned"], strict=True)).get(lang, 0.785) + 0.02
    return (1 - accuracy) * coverage**1.6


def _outcome_on_test(count: int, accepted: int, error: float) -> dict[str, Any]:
    wrong = round(error * accepted)
    half_width = 1.96 * math.sqrt(max(error * (1 - error), 0.01) / max(accepted, 1))
    figure = interval(wrong / accepted, min(half_width, wrong / accepted)) if accepted else None
    return {"count": count, "accepted": accepted, "wrong": wrong, "error": figure}


def _group(name: str, languages: list[str], like: str = "") -> dict[str, Any]:
    count = sum(LANGUAGES[lang] for lang in languages)
    examples = round(0.49 * count)
    group = {"name": name, "languages": languages, "examples": examples}
    group |= {"documents": round(0.8 * examples), "most": 5, "cut": False}
    if name == "tl":
        return group | {
            "threshold": None,
            "accepted": 43,
            "wrong": 5,
            "p_value": 0.74,
            "reason": "too many of the most confident answers are wrong",
            "test": _outcome_on_test(count, 0, 0.0),
        }
    like = like or languages[0]
    coverage = min((0.072 / _error(like, 1.0)) ** (1 / 1.6), 1.0)
    accepted = round(coverage * examples)
    return group | {
        "threshold": 0.99 - 0.55 * coverage**2,
        "accepted": accepted,
        "wrong": math.floor(0.04 * accepted),
        "p_value": 0.031,
        "reason": "",
        "test": _outcome_on_test(count, round(coverage * count), _error(like, coverage)),
    }


def _decisions() -> dict[str, Any]:
    groups = [_group(lang, [lang]) for lang in ("es", "ru", "zh", "tl")]
    groups.append(_group("*", ["en", "ca"]))
    accepted = sum(group["test"]["accepted"] for group in groups)
    wrong = sum(group["test"]["wrong"] for group in groups)
    grid = [(i + 1) / 60 for i in range(60)]
    return {
        "max_error": 0.1,
        "confidence": 0.95,
        "by": "language",
        "counting": "answers",
        "counted": "",
        "examples": 599,
        "documents": 480,
        "groups": groups,
        "pooled": _group("*", list(LANGUAGES), "all"),
        "test": _outcome_on_test(TEST, accepted, wrong / accepted),
        "review_usd_per_1000": 250 * (1 - accepted / TEST),
        "curve": {
            lang: [[c, _error(lang, c), 0.99 - 0.55 * c**2] for c in grid]
            for lang in ("all", *LANGUAGES)
        },
    }


def _mistakes(rng: random.Random, labels: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    mistakes = []
    for i in range(count):
        lang = list(TEXTS)[i % len(TEXTS)]
        gold = labels[i % len(labels)]
        predicted = labels[(i + 1) % len(labels)]
        confidence = 0.98 - 0.6 * i / max(count, 30)
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
