"""Language identification: accuracy on short texts and speed, beside plain py3langid.

    SLANT_PUBLIC_DATA=… python benchmarks/bench_language.py

Every second row of the public labelled sets: the thresholds of the Tagalog rule were chosen on the
other half. Both identifiers read the same rows in the same run, with the default candidates.

Writes benchmarks/results/language.md.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from py3langid.langid import MODEL_FILE
from py3langid.langid import LanguageIdentifier as Model
from result import save, stamp

from slant.config.ingest_settings import LanguageSettings
from slant.ingest.language import LanguageIdentifier

SOURCES = (
    "labelled/es_elecciones_headlines", "labelled/ru_rusentne", "labelled/zh_cstance",
    "labelled/tl_firecs", "labelled/en_newsmtsc", "unlabelled/es", "unlabelled/ru",
    "unlabelled/zh", "unlabelled/tl",
)  # fmt: skip
MOST = 5000
Identify = Callable[[str], tuple[str | None, float]]


class Outcome(NamedTuple):
    accuracy: float
    used: float
    wrong: int
    rate: float
    answers: Counter[str | None]


def measure(identify: Identify, texts: Sequence[str], lang: str) -> Outcome:
    least = LanguageSettings().min_confidence
    started = time.process_time()
    found = [identify(text) for text in texts]
    seconds = time.process_time() - started
    used = [code for code, confidence in found if confidence >= least]
    return Outcome(
        sum(code == lang for code, _ in found) / len(texts),
        len(used) / len(texts),
        sum(code != lang for code in used),
        len(texts) / seconds,
        Counter(code for code, _ in found if code != lang),
    )


def read(path: Path) -> tuple[str, list[str]]:
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    texts = list(dict.fromkeys(row["text"] for row in rows))
    return rows[0]["lang"], texts[1::2][:MOST]


def main() -> None:
    data = os.environ.get("SLANT_PUBLIC_DATA")
    if not data:
        raise SystemExit("SLANT_PUBLIC_DATA is not set; examples/public/README.md says how to")
    settings = LanguageSettings()
    plain = Model.from_model_file(MODEL_FILE, norm_probs=True)
    plain.set_languages(settings.candidates)
    ours = LanguageIdentifier(settings.candidates)
    ours.identify("the model is loaded by the first text")
    rows, long_rows = [], []
    for source in SOURCES:
        lang, texts = read(Path(data) / f"{source}.jsonl")
        length = sum(map(len, texts)) / len(texts)
        for name, identify in (("slant", ours.identify), ("py3langid", plain.classify)):
            got = measure(identify, texts, lang)
            others = ", ".join(f"{code} {count}" for code, count in got.answers.most_common(3))
            rows.append(
                f"| {source} | {lang} | {len(texts):,} | {length:.0f} | {name} "
                f"| **{got.accuracy:.4f}** | {got.used:.3f} | {got.wrong} | {got.rate:,.0f} "
                f"| {others} |"
            )
        if source.startswith("unlabelled"):
            joined = "\n".join(texts)
            documents = [joined[at : at + 2000] for at in range(0, min(len(joined), 10**6), 2000)]
            for name, identify in (("slant", ours.identify), ("py3langid", plain.classify)):
                got = measure(identify, documents, lang)
                long_rows.append(
                    f"| {lang} | {name} | {got.accuracy:.4f} | {1e6 / got.rate:.0f} µs |"
                )
    lines = [
        "# Language identification",
        "",
        f"{stamp()}, one core used: `python benchmarks/bench_language.py`.",
        "",
        f"Candidates: {', '.join(settings.candidates)}. Used: share of the answers with a "
        f"confidence of {settings.min_confidence} or more, which is what ingestion goes by; wrong: "
        "how many of those are. Rows: per second of processor time. Labels are of whole sets: some "
        "rows of tl_firecs are English, some of unlabelled/zh too.",
        "",
        "| set | language | rows | characters | by | accuracy | used | wrong | rows/s | instead |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|---|",
        *rows,
        "",
        "Documents of 2,000 characters (slant reads 500 of them; a script that one candidate "
        "alone is written in needs no model):",
        "",
        "| language | by | accuracy | time each |",
        "|---|---|---:|---:|",
        *long_rows,
    ]
    save("language", lines)


if __name__ == "__main__":
    main()
