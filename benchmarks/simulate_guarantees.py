"""Do the promises hold? Populations whose truth is known, evaluated thousands of times.

Intervals: how often the 95 % interval of a test split covers the figure that all documents of the
population would give. Decisions: how often what a threshold accepts is wrong more often than was
promised; everything from the calibration of the temperatures on is done anew each time, as
`slant evaluate` does it.

    python benchmarks/simulate_guarantees.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from result import save, stamp

from slant.evaluate.decisions import Asked, Promise, calibrate, find_decisions
from slant.evaluate.gold import Gold
from slant.evaluate.metrics import (
    accuracy,
    auroc,
    brier_scores,
    confusion,
    macro_f1,
    mcc,
    mean_f1_of,
    predicted_labels,
    reliability,
)
from slant.evaluate.report import Measured, Measurement
from slant.labels import LabelSet
from slant.score.decision import probabilities

LABELS = LabelSet(("negative", "neutral", "positive"))
PRIOR = (0.3, 0.45, 0.25)
POPULATION = 400_000
LANGUAGES = ("en", "es", "ru", "tl", "zh")


def population(
    random: np.random.Generator, size: int, *, skill: float, sharpness: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits and gold labels; with ``sharpness`` above 1 the model is too sure of itself."""
    gold = random.choice(3, size=size, p=PRIOR)
    logits = random.normal(0, 1, (size, 3)) + np.log(PRIOR)
    hard = random.random(size) < 0.3  # three in ten are much harder than the others
    logits[np.arange(size), gold] += np.where(hard, 0.3, 1.5) * skill
    return (logits * skill * sharpness).astype(np.float32), gold


def clustered(
    random: np.random.Generator, num_documents: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Documents of one to four examples that share their difficulty."""
    sizes = random.choice([1, 1, 2, 4], size=num_documents)
    document = np.repeat(np.arange(num_documents), sizes)
    gold = random.choice(3, size=len(document), p=PRIOR)
    ease = random.normal(1.6, 1.2, num_documents)[document]
    logits = random.normal(0, 1, (len(document), 3))
    logits[np.arange(len(document)), gold] += ease
    return probabilities(logits.astype(np.float32), 1.0), gold, document


def uneven(
    random: np.random.Generator, num_documents: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Documents of one to five examples; the more, the harder, and they are wrong together."""
    sizes = random.choice([1, 1, 1, 2, 5], size=num_documents)
    document = np.repeat(np.arange(num_documents), sizes)
    gold = random.choice(3, size=len(document), p=PRIOR)
    ease = (random.normal(2.2, 1.0, num_documents) - 0.2 * (sizes - 1))[document]
    logits = random.normal(0, 1, (len(document), 3)) + np.log(PRIOR)
    logits[np.arange(len(document)), gold] += ease
    return logits.astype(np.float32) * 1.4, gold, document


METRICS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.float64]]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "f1_polar": lambda matrix: mean_f1_of(matrix, (0, 2)),
    "mcc": mcc,
}


def coverage(num_documents: int, samples: int) -> dict[str, float]:
    """How often the interval of each figure covers the truth."""
    found_NL, gold, _ = clustered(np.random.default_rng(0), POPULATION)
    matrix = confusion(gold, predicted_labels(found_NL), 3)
    truth = {name: float(metric(matrix)) for name, metric in METRICS.items()}
    area = auroc(found_NL, gold)
    assert area is not None
    truth |= {"auroc": area.value, "brier": float(brier_scores(found_NL, gold).mean())}
    truth["ece"] = reliability(found_NL, gold).ece
    covered = dict.fromkeys(truth, 0)
    for sample in range(samples):
        found_NL, gold, document = clustered(np.random.default_rng([1, sample]), num_documents)
        everything = Gold(LABELS, gold, document, {}, lambda row: {})
        measurement = Measurement(everything, bootstrap=1000, confidence=0.95, seed=sample)
        figures = measurement.metrics(Measured("tuned", "", "", found_NL), slice(None))
        for name, value in truth.items():
            low, high = figures[name]["low"], figures[name]["high"]
            covered[name] += low is not None and low <= value <= high
    return {name: hits / samples for name, hits in covered.items()}


def violations(
    num_calibration: int, samples: int, *, sharpness: float, skill: float, by: str
) -> tuple[float, float, float]:
    """How often more than a tenth of what is accepted is wrong; how often a threshold was found;
    and the mean share that it accepts."""
    promise = Promise(max_error=0.10, confidence=0.95, by=by, review_usd=0.0)
    truth = [
        population(np.random.default_rng([2, i]), POPULATION, skill=skill, sharpness=sharpness)
        for i in range(2)
    ]
    broken = found = 0
    shares = []
    for sample in range(samples):
        random = np.random.default_rng([3, sample])
        logits, gold = population(random, num_calibration, skill=skill, sharpness=sharpness)
        keys = [str(i) for i in range(num_calibration)]
        calibration = Asked(logits, gold, ["en"] * num_calibration, keys)
        temperatures, scouts, proofs = calibrate(calibration, promise, sample)
        nothing = Asked(logits[:0], gold[:0], [], [])
        decisions = find_decisions(scouts, proofs, nothing, temperatures, promise)
        threshold = decisions.thresholds.get("en", decisions.thresholds.get("*", 2.0))
        if threshold > 1:
            continue
        found += 1
        known_NL = probabilities(truth[sample % 2][0], temperatures.by_language["en"])
        accepted = known_NL.max(axis=1) >= threshold
        shares.append(accepted.mean())
        wrong = known_NL.argmax(axis=1) != truth[sample % 2][1]
        broken += wrong[accepted].mean() > promise.max_error
    return broken / samples, found / samples, float(np.mean(shares)) if shares else 0.0


def violations_of_uneven(
    num_calibration: int, samples: int, counting: str
) -> tuple[float, float, float]:
    """As ``violations``, of all accepted answers, where documents have one to five."""
    promise = Promise(0.10, 0.95, "language", 0.0, counting)
    known, gold, _ = uneven(np.random.default_rng(4), POPULATION // 2)
    broken = found = 0
    shares = []
    for sample in range(samples):
        logits, calibration_gold, document = uneven(
            np.random.default_rng([5, sample]), num_calibration
        )
        keys = [str(number) for number in document.tolist()]
        calibration = Asked(logits, calibration_gold, ["en"] * len(keys), keys)
        temperatures, scouts, proofs = calibrate(calibration, promise, sample)
        nothing = Asked(logits[:0], calibration_gold[:0], [], [])
        decisions = find_decisions(scouts, proofs, nothing, temperatures, promise)
        threshold = decisions.thresholds.get("en", 2.0)
        if threshold > 1:
            continue
        found += 1
        known_NL = probabilities(known, temperatures.by_language["en"])
        accepted = known_NL.max(axis=1) >= threshold
        shares.append(accepted.mean())
        broken += (known_NL.argmax(axis=1) != gold)[accepted].mean() > promise.max_error
    return broken / samples, found / samples, float(np.mean(shares)) if shares else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    samples = parser.parse_args().samples
    started = time.perf_counter()
    lines = [
        "# Do the promises hold?",
        "",
        stamp(),
        "",
        f"`python benchmarks/simulate_guarantees.py --samples {samples}`",
        "",
        f"Intervals: the share of {samples:,} simulated test splits whose 95 % interval covers the "
        "truth. Documents have one, two or four examples that are hard or easy together. Areas, "
        "Brier scores and calibration errors have no interval for fewer than 100 documents.",
        "",
        "| documents | " + " | ".join([*METRICS, "auroc", "brier", "ece"]) + " |",
        "|---|" + "---|" * 7,
    ]
    for num_documents in (10, 30, 100, 300, 1000):
        found = coverage(num_documents, samples)
        names = [*METRICS, "auroc", "brier", "ece"]
        cells = [f"{100 * found[name]:.1f} %" if found[name] else "none" for name in names]
        lines.append(f"| {num_documents} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    lines += [
        "",
        f"Decisions: the share of {samples:,} simulated calibrations after which more than 10 % of "
        "what is accepted is wrong. It was promised to be at most 5 %. Temperatures are fitted "
        'anew each time, on other examples than thresholds. "Too sure": logits twice as large as '
        "they should be.",
        "",
        "| calibration examples of the language | model | promise broken | a threshold was found "
        "| accepted then |",
        "|---|---|---|---|---|",
    ]
    for num in (50, 200, 500, 2000):
        for name, sharpness, skill in (
            ("good", 1.0, 1.4),
            ("good, too sure", 2.0, 1.4),
            ("poor", 1.0, 1.0),
        ):
            broken, found_share, share = violations(
                num, samples, sharpness=sharpness, skill=skill, by="language"
            )
            lines.append(
                f"| {num:,} | {name} | {100 * broken:.2f} % | {100 * found_share:.1f} % | "
                f"{100 * share:.0f} % |"
            )
            print(lines[-1], flush=True)
    lines += [
        "",
        "The same where documents have one, two or five answers, those with more are harder, and "
        "answers about one document are wrong together. By documents the promise is another one "
        "(each counts once), so it says nothing of this share.",
        "",
        "| calibration documents | counting | more than 10 % of all accepted answers wrong | a "
        "threshold was found | accepted then |",
        "|---|---|---|---|---|",
    ]
    for num in (200, 500, 2000):
        for counting in ("answers", "documents"):
            broken, found_share, share = violations_of_uneven(num, samples, counting)
            lines.append(
                f"| {num:,} | {counting} | {100 * broken:.2f} % | {100 * found_share:.1f} % | "
                f"{100 * share:.0f} % |"
            )
            print(lines[-1], flush=True)
    lines += ["", f"{(time.perf_counter() - started) / 60:.1f} minutes."]
    save("guarantees", lines)


if __name__ == "__main__":
    main()
