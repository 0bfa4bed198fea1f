"""``slant plan`` on the command line."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slant.cli import main

CONFIG = """\
model: {base: mistralai/Mistral-7B-v0.3, dtype: bfloat16}
task: {token_limit: 2048}
shard: {sequence_tokens: 2048}
ingest: {examples: [{path: labelled.jsonl}], documents: [{path: unlabelled.jsonl}]}
plan: {card: a10, price_per_hour: {a10: 0.75}}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    for name, value in {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    for name, rows in (("labelled", 40), ("unlabelled", 90)):
        row = {"text": "a text of some words " * 20, "label": "neutral"}
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * rows, "utf-8")
    (tmp_path / "slant.yaml").write_text(CONFIG, "utf-8")
    handler = signal.getsignal(signal.SIGTERM)

    def run_(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slant", "plan", "slant.yaml", *arguments])
        with pytest.raises(SystemExit) as end:
            main.main()
        assert isinstance(end.value.code, int)
        return (end.value.code, *capfd.readouterr())

    yield run_
    signal.signal(signal.SIGTERM, handler)


def test_a_plan_that_fits_is_shown_with_what_was_assumed(run: Run) -> None:
    code, out, err = run("--set", "train.activation_checkpointing=true")
    assert (code, err) == (0, "")
    assert "mistralai/Mistral-7B-v0.3 (7,248 M parameters) on NVIDIA A10 24 GB" in out
    for words in ("weights, frozen", "AdamW moments", "activations", "there is", "22.5 GiB"):
        assert words in out
    assert "guessed: four bytes a token" in out
    assert "published peak: 125 TFLOP/s" in out
    assert "assumed: training reaches 40% of it" in out
    assert "main memory to put the adapters into the base: 41" in out


def test_a_plan_that_does_not_fit_ends_with_1_and_says_what_to_change(run: Run) -> None:
    code, out, err = run()
    assert code == 1
    assert "does not fit" in out
    assert "error: adapt does not fit NVIDIA A10 24 GB" in err
    assert "train.activation_checkpointing: true" in err
    assert "Traceback" not in err


def test_a_tight_plan_is_a_warning(run: Run) -> None:
    code, out, _ = run("--set", "model.quantize=nf4", "--set", "tune.tokens_per_batch=2048")
    assert code == 0
    assert "warning: tune is tight" in " ".join(out.split())


def test_another_card_can_be_named(run: Run) -> None:
    code, out, _ = run("--card", "h200")
    assert code == 0
    assert "NVIDIA H200" in out
    assert "plan.price_per_hour: {h200: …}" in out
    assert run("--card", "h2000")[0] == 2


def test_json_has_the_whole_plan_also_where_it_does_not_fit(run: Run) -> None:
    code, out, err = run("--json")
    content = json.loads(out)
    assert (code, content["fits"]) == (1, False)
    assert content["stages"][0]["advice"]
    assert "does not fit" in err
    assert content["stages"][1]["tokens"] > 1000


def test_inputs_that_are_not_there_leave_memory_and_speed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labelled.jsonl").unlink()
    code, out, _ = run("--card", "h200")
    assert code == 0
    assert "tokens: not known: labelled.jsonl: there is no such file" in " ".join(out.split())


def test_nothing_is_written(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    run("--card", "h200")
    assert sorted(tmp_path.iterdir()) == before
