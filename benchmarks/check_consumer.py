"""A consumer without slant: does the code of the model card reproduce the report?

    slant run examples/public/slant.yaml
    python benchmarks/check_consumer.py examples/public/slant.yaml

Takes ``README.md`` out of the project's bundle, runs its code for plain transformers in a process
that has nothing of slant, and asks it about 200 held-out rows, evenly over the test split.
The labels are held against ``predictions.parquet`` of the evaluation, and the accuracy against that
of the same rows there. The card computes in float32. Where the evaluation ran in bfloat16, a label
may flip between two that are nearly as probable: such rows are listed with the two probabilities.

Ends with 1 if the accuracy is not the same.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from result import stamp

from slant.artifacts import load
from slant.corpus import Corpus, LabelledDocument
from slant.project import Project

LOOP = """
import json, sys
assert "slant" not in sys.modules
for line in open(sys.argv[1], encoding="utf-8"):
    answer = ask(*json.loads(line))
    print(json.dumps(answer), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="slant.yaml of a project that was run")
    parser.add_argument("--rows", type=int, default=200)
    options = parser.parse_args()
    project = Project(options.config)
    bundle = load(project.folder("export"), "export")
    items = Corpus(load(project.folder("ingest"), "ingest")).split("test")
    rows = predictions(project, items, options.rows)
    started = time.perf_counter()
    answers = ask(consumer_code(bundle.path), [item.text for item, _ in rows])
    seconds = time.perf_counter() - started
    report(rows, answers, project.report()["machine"]["dtype"], seconds)


def predictions(
    project: Project, items: list[LabelledDocument], count: int
) -> list[tuple[LabelledDocument, dict[str, Any]]]:
    """Test examples and what the evaluation says of each, evenly over the split."""
    table = pq.read_table(load(project.folder("evaluate"), "evaluate").file("predictions.parquet"))
    found = {(row["document_id"], row["narrative_id"]): row for row in table.to_pylist()}
    rows = [
        (item, found[key])
        for item in items
        if (key := (item.document.id, item.example.narrative_id)) in found
    ]
    count = min(count, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


def consumer_code(bundle: Path) -> str:
    """The card's code for plain transformers, without its example."""
    blocks = re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text("utf-8"), re.S)
    (code,) = [block for block in blocks if "from transformers import" in block]
    code = code.replace('"path/to/this/folder/', f'"{bundle.resolve()}/')
    return code[: code.rindex("print(ask(")]


def ask(code: str, texts: list[tuple[str, str | None]]) -> list[dict[str, float]]:
    """What a process of its own answers, which reads no folder of this repository."""
    with tempfile.TemporaryDirectory() as folder:
        script, rows = Path(folder) / "consumer.py", Path(folder) / "rows.jsonl"
        script.write_text(code + LOOP, "utf-8")
        rows.write_text("".join(json.dumps(text) + "\n" for text in texts), "utf-8")
        done = subprocess.run(
            [sys.executable, "-I", script, rows], cwd=folder, stdout=subprocess.PIPE, check=True
        )
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def report(
    rows: list[tuple[LabelledDocument, dict[str, Any]]],
    answers: list[dict[str, float]],
    dtype: str,
    seconds: float,
) -> None:
    right = expected = 0
    for (item, row), answer in zip(rows, answers, strict=True):
        label = max(answer, key=answer.__getitem__)
        right += label == item.example.label
        expected += row["label"] == item.example.label
        if label != row["label"]:
            print(
                f"{row['document_id']}: {label} with {answer[label]:.4f}, and "
                f"{row['label']} with {answer[row['label']]:.4f}; the evaluation has "
                f"{row['p_' + label]:.4f} and {row['p_' + row['label']]:.4f}"
            )
    print(
        f"{stamp()}: accuracy on {len(rows)} rows {right / len(rows):.5f}, in the report "
        f"({dtype}) {expected / len(rows):.5f}; {seconds / len(rows):.2f} s a row with loading"
    )
    sys.exit(0 if right == expected else 1)


if __name__ == "__main__":
    main()
