"""A million predictions: metrics, intervals of 1,000 resamples, comparisons and the report.

Four systems on the same invented examples: 500,000 documents of one to three examples, five
languages, 1,000 narratives, 24 months. The peer is how one would write it first: documents drawn
with `numpy.random.choice`, `sklearn.metrics.f1_score` of each draw; some draws are timed, and the
time of 1,000 for one figure of one system is worked out from them.

    python benchmarks/bench_evaluate.py

Writes benchmarks/results/evaluate.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from result import save, stamp
from sklearn.metrics import f1_score

from slant.evaluate.decisions import Asked, Promise, calibrate, describe_calibration, find_decisions
from slant.evaluate.gold import Gold, Slices
from slant.evaluate.report import REPORT_SCHEMA, Measured, Measurement, compare
from slant.evaluate.report_html import render_report
from slant.evaluate.report_markdown import render_markdown
from slant.labels import LabelSet
from slant.score.decision import probabilities

LABELS = LabelSet(("negative", "neutral", "positive"))
LANGUAGES = ("en", "es", "ru", "tl", "zh")
TEXTS = {
    "en": "The trams were late again, and nobody at the company would say why. ",
    "es": "El tranvía volvió a llegar tarde y nadie en la empresa quiso explicar por qué. ",
    "ru": "Трамвай снова опоздал, и никто в компании не захотел объяснить почему. ",
    "tl": "Nahuli na naman ang tram, at walang nagpaliwanag sa kompanya kung bakit. ",
    "zh": "电车又晚点了，公司里没有人愿意解释原因。",
}
PEER_DRAWS = 3


def invented(size: int, seed: int = 0) -> tuple[Gold, dict[str, NDArray[np.float32]], list[str]]:
    """The test split, and the logits of four systems."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 4, size)
    document = np.repeat(np.arange(size), sizes)[:size]
    gold = random.choice(3, size=size, p=(0.3, 0.45, 0.25))
    lang = random.choice(5, size=int(document[-1]) + 1, p=(0.4, 0.2, 0.2, 0.1, 0.1))[document]
    narrative = np.minimum(random.zipf(1.3, size), 1000) - 1
    month = random.integers(0, 24, int(document[-1]) + 1)[document]
    langs = [LANGUAGES[code] for code in lang]

    def show(row: int) -> dict[str, Any]:
        return {
            "document_id": f"d-{document[row]}",
            "text": TEXTS[langs[row]] * 8,
            "lang": langs[row],
            "source": "news",
            "narrative": f"narrative {narrative[row]}",
        }

    def sliced(names: list[str], code: NDArray[np.int64]) -> Slices:
        return Slices(tuple(names), code.astype(np.int64))

    slices = {
        "lang": sliced(list(LANGUAGES), lang),
        "source": sliced(["blog", "news", "social"], document % 3),
        "narrative": sliced([f"narrative {i:04}" for i in range(1000)], narrative),
        "month": sliced([f"{2024 + i // 12}-{i % 12 + 1:02}" for i in range(24)], month),
        "length": sliced(["140 to 499", "under 140"], document % 2),
        "narrative_seen": sliced(["seen", "unseen"], (narrative > 500).astype(np.int64)),
    }
    systems = {}
    for name, skill in (("tuned", 2.2), ("prompted", 0.8), ("tfidf", 1.4), ("embedding", 1.5)):
        logits = random.normal(0, 1, (size, 3))
        logits[np.arange(size), gold] += skill
        systems[name] = (logits * skill).astype(np.float32)
    return Gold(LABELS, gold, document.astype(np.int64), slices, show), systems, langs


def peer_seconds(gold: Gold, predicted_N: NDArray[np.int64]) -> float:
    """Seconds for one draw of documents, as one would write it first."""
    random = np.random.default_rng(0)
    rows_of = np.split(np.arange(len(gold)), np.flatnonzero(np.diff(gold.document_N)) + 1)
    started = time.perf_counter()
    for _ in range(PEER_DRAWS):
        drawn = random.choice(len(rows_of), len(rows_of))
        rows = np.concatenate([rows_of[i] for i in drawn])
        f1_score(gold.gold_N[rows], predicted_N[rows], average="macro")
    return (time.perf_counter() - started) / PEER_DRAWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    gold, logits, langs = invented(arguments.examples)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    keys = [str(number) for number in gold.document_N.tolist()]
    times: dict[str, float] = {}
    started = last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        times[name], last = now - last, now
        print(f"{name}: {times[name]:.1f} s", flush=True)

    test = Asked(logits["tuned"], gold.gold_N, langs, keys)
    small = np.arange(0, len(gold), max(1, len(gold) // 5000))
    promise = Promise(0.10, 0.95, "language", 0.25)
    temperatures, scouts, proofs = calibrate(test.at(small), promise, 17)
    decisions = find_decisions(scouts, proofs, test, temperatures, promise)
    calibration = describe_calibration(scouts, test, temperatures)
    lap("decisions and calibration")
    measured = [
        Measured(name, name, "invented", probabilities(found, 1.0), 1.0)
        for name, found in logits.items()
    ]
    measurement = Measurement(gold, bootstrap=arguments.resamples, confidence=0.95, seed=17)
    found = compare(measurement, measured)
    lap("metrics, intervals, comparisons")
    report = {**shell(gold), **found, "calibration": calibration, "decisions": decisions.report}
    content = json.dumps(report, ensure_ascii=False, indent=1)
    page, markdown = render_report(report), render_markdown(report)
    lap("report.json, report.html, report.md")
    total = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    draw = peer_seconds(gold, measured[0].probabilities_NL.argmax(axis=1))
    num_slices = sum(min(200, len(s.values)) for s in gold.slices.values()) + 1
    save(
        "evaluate",
        [
            "# A million predictions",
            "",
            stamp(),
            "",
            f"`python benchmarks/bench_evaluate.py --examples {arguments.examples} "
            f"--resamples {arguments.resamples}`",
            "",
            f"{len(gold):,} examples of {gold.num_documents:,} documents, 4 systems, "
            f"{num_slices} slices each, {arguments.resamples:,} resamples.",
            "",
            "| step | seconds |",
            "|---|---|",
            *[f"| {name} | {seconds:.1f} |" for name, seconds in times.items()],
            f"| **all** | **{total:.1f}** |",
            "",
            f"Memory: {peak:.2f} GiB at the peak, {before:.2f} GiB of it before the measurement "
            "(the examples themselves).",
            "",
            ", ".join(
                f"{name} {len(text.encode()) / 1e6:.2f} MB"
                for name, text in (
                    ("report.html", page),
                    ("report.json", content),
                    ("report.md", markdown),
                )
            )
            + ".",
            "",
            f"The peer: {draw:.2f} s for one draw of one figure of one system, "
            f"{draw * arguments.resamples / 60:.0f} minutes for {arguments.resamples:,}; all of "
            f"the above takes {100 * total / (draw * arguments.resamples):.1f} % of that.",
        ],
    )


def shell(gold: Gold) -> dict[str, Any]:
    """The facts of a report that are not measured here."""
    sizes = {"train": 1, "validation": 1, "calibration": 5000, "test": len(gold)}
    return {
        "schema": REPORT_SCHEMA,
        "slant_version": "0",
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": 17,
        "confidence": 0.95,
        "bootstrap": 1000,
        "task": {
            "labels": list(LABELS),
            "base": "invented",
            "fingerprint": "0" * 64,
            "prompt": "{document} {narrative}",
            "prompt_overall": "{document}",
            "token_limit": 256,
            "long_documents": "cut",
            "quantize": "none",
        },
        "data": {
            **sizes,
            "test_documents": gold.num_documents,
            "languages": list(LANGUAGES),
            "narratives": 1000,
            "rejected": 0,
        },
        "unfinished": [],
        "gate": [],
        "latency": {
            "documents": 1,
            "dtype": "float32",
            "label_scoring": {"p50": 10.0, "p95": 12.0},
            "generation": {"p50": 40.0, "p95": 50.0},
        },
        "training": {
            "adapt": None,
            "tune": {
                "examples": 1,
                "steps": 1,
                "tokens": 1,
                "seconds": 1.0,
                "losses": [[1, 1.0]],
                "validation": [[1, 1.0, 0.5]],
            },
        },
        "machine": {
            "processor": "invented",
            "cores": 2,
            "dtype": "float32",
            "torch": "0",
            "transformers": "0",
        },
    }


if __name__ == "__main__":
    main()
