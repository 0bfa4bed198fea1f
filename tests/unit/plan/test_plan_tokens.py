from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from slant.artifacts import Recipe, build, load
from slant.config.settings import ProjectSettings
from slant.errors import SlantError
from slant.plan.tokens import InputFile, counts_of_files, counts_of_shards


def settings(**sections: Any) -> ProjectSettings:
    content = {
        "ingest": {
            "examples": [{"path": "a.jsonl"}],
            "split": {"validation": 0.1, "calibration": 0.1, "test": 0.2},
        },
        "task": {"prompt": "{document}{narrative}", "token_limit": 200},
        **sections,
    }
    return ProjectSettings.model_validate(content)


def write(path: Path, rows: int, characters: int) -> InputFile:
    lines = [json.dumps({"text": "x" * characters}) for _ in range(rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    kind = "documents" if path.stem.startswith("d") else "examples"
    return InputFile(kind, str(path), path.name, "text", "auto")  # type: ignore[arg-type]


def test_tokens_are_guessed_from_the_texts_and_the_size_of_the_file(tmp_path: Path) -> None:
    files = [write(tmp_path / "d.jsonl", 3000, 400), write(tmp_path / "e.jsonl", 1000, 200)]
    counts = counts_of_files(settings(), files)
    assert counts.examples == pytest.approx(600, rel=0.01)
    # 50 tokens of text, a little template and a narrative
    assert 600 * 60 <= counts.tune <= 600 * 75
    assert counts.validation == pytest.approx(counts.tune / 6, rel=0.01)
    assert counts.adapt + counts.heldout == pytest.approx(3000 * 100 + 600 * 50, rel=0.01)
    assert "guessed" in counts.source


def test_a_prompt_is_no_longer_than_its_limit(tmp_path: Path) -> None:
    counts = counts_of_files(settings(), [write(tmp_path / "e.jsonl", 100, 40_000)])
    assert counts.tune == 60 * 200


def test_sizes_of_a_source_count_and_not_its_rows(tmp_path: Path) -> None:
    plan = settings(
        ingest={
            "examples": [
                {
                    "path": "e.jsonl",
                    "sizes": {"train": 30, "validation": 10, "calibration": 10, "test": 10},
                }
            ]
        }
    )
    write(tmp_path / "e.jsonl", 1000, 100)
    source = plan.ingest.examples[0]
    file = InputFile.of(source, str(tmp_path / "e.jsonl"), "e.jsonl", num_files=1)
    assert counts_of_files(plan, [file]).examples == 30


def test_a_compressed_file_is_taken_for_three_times_its_size(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"{i} {hash(str(i))} " * 20}) for i in range(2000)]
    path = tmp_path / "d.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    file = InputFile("documents", str(path), path.name, "text", "auto")
    guessed = counts_of_files(settings(), [file])
    exact = sum(len(json.loads(row)["text"]) for row in rows) / 4
    assert exact / 8 < guessed.adapt + guessed.heldout < 2 * exact


def test_a_file_that_does_not_tell_its_rows_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"text": "x"}] * 501), "utf-8")
    file = InputFile("documents", str(path), "d.json", "text", "auto")
    with pytest.raises(SlantError, match=r"d\.json: its rows are not known before `slant ingest`"):
        counts_of_files(settings(), [file])


def test_shards_tell_exactly(tmp_path: Path) -> None:
    with build(tmp_path / "shard", Recipe("shard", {}, {}, 0)) as builder:
        builder.facts["tune/train"] = {"examples": 3, "tokens": 90, "refused": 0}
        builder.facts["tune/validation"] = {"examples": 1, "tokens": 20, "refused": 0}
        builder.facts["adapt"] = {
            lang: {"train": 1, "heldout": 1, "train_tokens": 500, "heldout_tokens": 50}
            for lang in ("en", "es")
        }
    counts = counts_of_shards(load(tmp_path / "shard", "shard"))
    assert (counts.adapt, counts.heldout) == (1000, 100)
    assert (counts.tune, counts.examples, counts.validation) == (90, 3, 20)
    assert counts.source == "counted by the shard stage"
