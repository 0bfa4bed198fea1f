"""Whether domain adaptation helps: examples/public with `adapt` before `tune`, and without.

    SLANT_PUBLIC_DATA=… python benchmarks/bench_adapt.py

Adapts the embedded base model to public unlabelled texts (news and social posts in Spanish,
Russian, Tagalog and Mandarin, a random draw of at most 3,000 of each; languages weighed by
temperature) and tunes it as examples/public/slant.yaml says. Both runs learn from the same examples
and answer the same test examples. Perplexity is of a twentieth of the texts, kept out of
adaptation.

Writes benchmarks/results/adapt.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from result import save, stamp

from slant.cli.table import percent

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "public" / "slant.yaml"
LANGUAGES = ("es", "ru", "tl", "zh")
MOST_TEXTS = 3_000


def draw(folder: Path) -> None:
    """Write the texts to adapt to, the same ones every time."""
    for lang in LANGUAGES:
        path = Path(os.environ["SLANT_PUBLIC_DATA"]) / "unlabelled" / f"{lang}.jsonl"
        lines = path.read_text("utf-8").splitlines()
        drawn = random.Random(lang).sample(lines, min(MOST_TEXTS, len(lines)))
        (folder / f"{lang}.jsonl").write_text("\n".join(drawn) + "\n", "utf-8")


def with_adaptation(text: str, tokens: int) -> str:
    """The example's configuration with the unlabelled texts and a section ``adapt``."""
    documents = "".join(
        f"    - {{path: {lang}.jsonl, columns: {{text: text, lang: lang, source: source}}}}\n"
        for lang in LANGUAGES
    )
    adapt = (
        "shard: {heldout_share: 0.05}\n\n"
        f"adapt: {{tokens: {tokens}, language_temperature: 3, tokens_per_batch: 1024}}"
    )
    for old, new in (
        ("ingest:\n", f"ingest:\n  documents:\n{documents}"),
        ("adapt: null", adapt),
        ("baselines: [prompted, tfidf, majority]", "baselines: [majority]"),  # the same in both
    ):
        assert old in text
        text = text.replace(old, new)
    return text


def run(config: Path) -> dict[str, Any]:
    """``slant run`` up to the report, which it returns."""
    for stage in ("ingest", "shard", "adapt", "tune", "evaluate"):
        if stage == "adapt" and "adapt: null" in config.read_text("utf-8"):
            continue
        command = [sys.executable, "-c", "from slant.cli.main import main; main()", stage]
        subprocess.run([*command, str(config)], check=True)
    report: dict[str, Any] = json.loads(
        (config.parent / "work" / "evaluate" / "report.json").read_text("utf-8")
    )
    return report


def row(name: str, alone: dict[str, Any], adapted: dict[str, Any]) -> str:
    before, after = alone["macro_f1"], adapted["macro_f1"]
    points = 100 * (after["value"] - before["value"])
    return f"| {name} | {alone['count']} | {percent(before)} | {percent(after)} | {points:+.1f} |"


def page(alone: dict[str, Any], adapted: dict[str, Any], command: str) -> list[str]:
    training = adapted["training"]["adapt"]
    perplexity = training["perplexity"]
    ours, theirs = adapted["systems"][0], alone["systems"][0]
    counts = [{k: v["count"] for k, v in s["slices"]["narrative"].items()} for s in (ours, theirs)]
    assert counts[0] == counts[1], "the two runs answer different test examples"
    languages = sorted(ours["slices"]["lang"])
    return [
        "# Domain adaptation",
        "",
        " ".join((__doc__ or "").split("\n\n")[2].split()),
        "",
        f"    {command}",
        "",
        f"{stamp()}. {training['tokens']:,} tokens in {training['seconds']:,.0f} s.",
        "",
        "| perplexity of held-out texts | before | after |",
        "|---|---|---|",
        *(
            f"| {lang} | {found['before']:.1f} | {found['after']:.1f} |"
            for lang, found in sorted(perplexity.items())
        ),
        "",
        "| macro-F1 on the test split | examples | tune alone | adapt, then tune | points |",
        "|---|---|---|---|---|",
        row("all", theirs["overall"], ours["overall"]),
        *(
            row(lang, theirs["slices"]["lang"][lang], ours["slices"]["lang"][lang])
            for lang in languages
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--folder", type=Path, help="of the run with adapt; a temporary one")
    asked = parser.parse_args()
    if "SLANT_PUBLIC_DATA" not in os.environ:
        sys.exit("SLANT_PUBLIC_DATA is not set; examples/public/README.md says how to get the data")
    alone = run(EXAMPLE)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        draw(folder)
        config = folder / "slant.yaml"
        config.write_text(with_adaptation(EXAMPLE.read_text("utf-8"), asked.tokens), "utf-8")
        adapted = run(config)
    command = f"SLANT_PUBLIC_DATA=… python benchmarks/bench_adapt.py --tokens {asked.tokens}"
    save("adapt", page(alone, adapted, command))


if __name__ == "__main__":
    main()
