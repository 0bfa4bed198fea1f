"""An invented ingest.json: five languages, six sources, annotators who do not always agree."""

from __future__ import annotations

import random
from typing import Any

LABELS = ("negative", "neutral", "positive")
SPLITS = {"train": 0.65, "validation": 0.05, "calibration": 0.1, "test": 0.2}
DOCUMENTS = {"es": 4210, "ru": 3105, "zh": 2480, "tl": 1190, "en": 695}
# Share of each label in each language; positive is rare in Russian.
MIX = {
    "es": (0.38, 0.34, 0.28),
    "ru": (0.47, 0.45, 0.08),
    "zh": (0.30, 0.42, 0.28),
    "tl": (0.33, 0.33, 0.34),
    "en": (0.41, 0.32, 0.27),
}
NARRATIVES = {
    "La transición energética destruye empleo": 412,
    "NATO expansion provokes the war": 389,
    "Вакцины опаснее самой болезни": 351,
    "外国势力操纵抗议活动": 307,
    "Ang halalan ay dinaya": 288,
    "(overall sentiment)": 260,
    "الهجرة تهدد الاقتصاد": 143,
    "5G damages health": 97,
    "The new tram line": 64,
}
STARTS = {
    "en": "Grabe yung traffic sa EDSA today, late na naman ako sa meeting, sana all naka-WFH",
    "es": "El ministro aseguró que la reforma «no costará ni un solo puesto de trabajo», pero",
    "zh": "发言人在例行记者会上表示，有关报道“毫无根据”，并呼吁各方保持冷静。",
    "ar": "قال المتحدث إن التقارير لا أساس لها من الصحة ودعا إلى الهدوء",
}


def _counts(number: int, mix: tuple[float, ...]) -> dict[str, int]:
    return {label: round(number * part) for label, part in zip(LABELS, mix, strict=True)}


def _slice(value: str, documents: int, examples: int, mix: tuple[float, ...]) -> dict[str, Any]:
    return {"value": value, "documents": documents, "examples": _counts(examples, mix)}


def _months(rng: random.Random) -> list[dict[str, Any]]:
    entries = [_slice("unknown", 214, 30, MIX["es"])]
    for index in range(22):
        year, month = divmod(2025 * 12 + index, 12)
        documents = round(300 + 14 * index + rng.uniform(-90, 90))
        if index == 9:
            continue  # a month without a crawl
        entries.append(_slice(f"{year}-{month + 1:02}", documents, documents // 3, MIX["zh"]))
    return entries


def _lengths(rng: random.Random) -> dict[str, Any]:
    by_language = {}
    for code, median in {"es": 210, "ru": 260, "zh": 150, "tl": 46, "en": 90}.items():
        sizes = sorted(round(rng.lognormvariate(0, 0.9) * median) + 1 for _ in range(1000))
        bins: dict[int, int] = {}
        for size in sizes:
            edge = 1 << (size.bit_length() - 1)
            bins[edge] = bins.get(edge, 0) + 1
        by_language[code] = {
            "count": len(sizes),
            "median": sizes[499],
            "p95": sizes[949],
            "max": sizes[-1],
            "over_limit": sum(size > 1024 for size in sizes),
            "histogram": [[edge, count] for edge, count in sorted(bins.items())],
        }
    return {"unit": "tokens", "limit": 1024, "by_language": by_language}


def _sources() -> list[dict[str, Any]]:
    rows = (
        ("crawl/news-2026.jsonl.zst", "news", "documents", 7420, 390, 0, 61),
        ("annotated/es-ru-zh.csv", "annotated", "examples", 4310, 112, 0, 38),
        ("crawl/blogs/", "blogs", "documents", 1675, 71, 240, 19),
        ("exports/label-studio-17.json", "studio", "examples", 860, 12, 0, 3),
        ("social/tl-posts.parquet", "posts", "documents", 702, 88, 0, 402),
        ("annotated/trams.tsv", "trams", "examples", 64, 0, 0, 0),
    )
    keys = ("file", "dataset", "kind", "rows", "duplicates", "unused", "rejected")
    sources = [dict(zip(keys, row, strict=True)) for row in rows]
    for source in sources:
        gone = source["duplicates"] + source["unused"] + source["rejected"]
        source["kept"] = source["rows"] - gone
    return sources


def _duplicates() -> dict[str, Any]:
    return {
        "exact": 402,
        "near": 271,
        "clusters": 188,
        "num_contradictions": 5,
        "contradictions": [
            {
                "places": [
                    "row 3 of annotated/es-ru-zh.csv: negative",
                    "row 907 of exports/label-studio-17.json: positive",
                ],
                "narrative": "La transición energética destruye empleo",
                "start": STARTS["es"],
                "kind": "exact",
            },
            {
                "places": [
                    "row 1,204 of annotated/es-ru-zh.csv: neutral",
                    "row 1,311 of annotated/es-ru-zh.csv: negative",
                ],
                "narrative": "外国势力操纵抗议活动",
                "start": STARTS["zh"],
                "kind": "near",
            },
            {
                "places": ["row 8 of a.csv: neutral", "row 9 of a.csv: positive"],
                "narrative": "الهجرة تهدد الاقتصاد",
                "start": STARTS["ar"],
                "kind": "near",
            },
        ],
    }


def _languages() -> dict[str, Any]:
    samples = [
        {"id": "posts-0a7d31", "start": STARTS["en"], "confidence": 0.971},
        {"id": "posts-91c2ee", "start": "ok fine, ikaw na ang magaling", "confidence": 0.884},
    ]
    pairs = {
        ("tl", "en"): 611,
        ("es", "pt"): 94,
        ("en", "tl"): 41,
        ("ru", "uk"): 33,
        ("zh", "ja"): 7,
    }
    return {
        "given": 10160,
        "identified": 1496,
        "undetermined": 24,
        "disagreements": [
            {
                "given": given,
                "identified": identified,
                "count": count,
                "samples": samples if given == "tl" else samples[:1] if count > 40 else [],
            }
            for (given, identified), count in pairs.items()
        ],
    }


def _judgements() -> dict[str, Any]:
    alphas = {
        "all": (0.71, 0.76, 1720, 5160, 11),
        "es": (0.83, 0.87, 640, 1920, 5),
        "ru": (0.74, 0.79, 520, 1560, 4),
        "zh": (0.69, 0.72, 410, 1230, 4),
        "tl": (0.52, 0.58, 150, 450, 3),
    }
    keys = ("alpha", "alpha_ordinal", "units", "judgements", "annotators")
    return {code: dict(zip(keys, row, strict=True)) for code, row in alphas.items()}


def sample_ingest_report() -> dict[str, Any]:
    """A plausible report with every part that the page knows."""
    rng = random.Random(17)
    examples = {
        split: {code: _counts(round(0.42 * n * part), MIX[code]) for code, n in DOCUMENTS.items()}
        for split, part in SPLITS.items()
    }
    by_language = [_slice(code, n, round(0.42 * n), MIX[code]) for code, n in DOCUMENTS.items()]
    kinds = {"news": 7010, "social": 2450, "blog": 1820, "review": 400}
    sets = {
        "news": 6969,
        "annotated": 2420,
        "blogs": 1345,
        "studio": 690,
        "posts": 212,
        "trams": 44,
    }
    return {
        "schema": "slant.ingest/2",
        "sources": _sources(),
        "documents": {"labelled": 3154, "unlabelled": 8526},
        "examples": examples,
        "narratives": 64,
        "breakdown": {
            "language": by_language,
            "source": [_slice(kind, n, n // 3, MIX["es"]) for kind, n in kinds.items()],
            "dataset": [
                _slice(name, n, n if name in {"annotated", "studio", "trams"} else 0, MIX["tl"])
                for name, n in sets.items()
            ],
            "month": _months(rng),
            "narrative": [
                _slice(text, n, round(1.2 * n), rng.choice(list(MIX.values())))
                for text, n in NARRATIVES.items()
            ],
        },
        "languages": _languages(),
        "lengths": _lengths(rng),
        "duplicates": _duplicates(),
        "cleaning": {
            "documents_changed": 2214,
            "kinds": {
                "urls masked": 1402,
                "users masked": 611,
                "line endings": 388,
                "encoding repaired": 131,
                "zero-width characters removed": 57,
            },
        },
        "judgements": _judgements(),
        "reasons": {
            "exact duplicate of another row": 402,
            "near duplicate of another row": 271,
            "fewer than min_characters (20)": 365,
            "empty text": 88,
            "unknown label 'mixed'": 41,
            "not valid JSON": 29,
        },
        "rejected_samples": [
            {
                "reason": "11 characters, fewer than min_characters (20)",
                "file": "social/tl-posts.parquet",
                "row": 17,
                "start": "charot lang!",
            },
            {"reason": "empty text", "file": "social/tl-posts.parquet", "row": 204, "start": ""},
            {
                "reason": "unknown label 'mixed'",
                "file": "annotated/es-ru-zh.csv",
                "row": 2210,
                "start": STARTS["ar"],
            },
            {
                "reason": "not valid JSON",
                "file": "crawl/news-2026.jsonl.zst",
                "row": 5107,
                "start": '{"title": "Trams", "body": "The new line',
            },
        ],
        "notes": {
            "published_at is no ISO 8601 time; stored as null": 214,
            "source is of no known kind; stored as other": 12,
        },
        "unused": 240,
        "short": ["trams: test has 9 of 10 examples; the others share a text with another split"],
        "warnings": [],
    }
