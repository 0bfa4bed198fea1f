"""What the command line says when something is wrong, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from conftest import SLANT, Cli, environment, run_alone, start, wait_for_steps, write_project

from slant.cli.main import app

GOLDEN = Path(__file__).parents[2] / "golden" / "help"
CONFIG = "ingest: {examples: [{path: a.csv}]}\n"


def test_a_configuration_that_is_not_there_is_named_with_what_is(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "slant.yaml").write_text(CONFIG)
    done = cli("run", "slnt.yaml")
    assert done.code == 2
    assert done.err.startswith("error: there is no file slnt.yaml; did you mean 'slant.yaml'?\n  ")
    assert done.out == ""


def test_every_mistake_in_a_configuration_is_shown_with_its_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "slant.yaml").write_text(CONFIG + "tune:\n  epoch: 3\nsede: 4\n")
    done = cli("run", "slant.yaml")
    assert done.code == 2
    assert "slant.yaml:3: tune.epoch: is not a known key; did you mean 'epochs'?" in done.err
    assert "slant.yaml:4: sede: is not a known key; did you mean 'seed'?" in done.err
    assert not (tmp_path / "work").exists()


def test_an_override_is_checked_like_the_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "slant.yaml").write_text(CONFIG)
    done = cli("config", "check", "slant.yaml", "--set", "tune.epochs=many")
    assert done.code == 2
    assert "--set tune.epochs: tune.epochs: must be a whole number" in done.err


def test_an_unknown_base_model_is_an_error_without_a_traceback(cli: Cli, tmp_path: Path) -> None:
    write_project(tmp_path)
    done = cli("run", "slant.yaml", "--set", "model.base=gemma-3-27m")
    assert done.code == 2
    assert "there is no base model 'gemma-3-27m'; did you mean 'gemma-3-270m'?" in done.err
    assert "Traceback" not in done.err
    assert "defect" not in done.err


def test_a_bundle_that_is_not_there_is_a_mistake_of_the_command(cli: Cli) -> None:
    done = cli("score", "work/bundle", "--text", "x")
    assert done.code == 2
    assert "work/bundle: there is no such folder" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "x", "--in", "a.csv"], "give either --text or --in"),
        ([], "give either --text or --in"),
        (["--in", "a.csv"], "a.csv: no such file"),
        (["--in", "-", "--out", "a.pdf"], "a.pdf: files of type '.pdf' cannot be written"),
        (["--text", "x", "--out", "a.csv"], "--out goes with --in"),
        (["--text", "x", "--dtype", "int8"], "--dtype int8: must be one of auto, bfloat16"),
        (["--text", "x", "--text", " "], "--text is empty"),
        (["--text", "x", "-n", " "], "--narrative is empty"),
        (["--text", "x", "--narratives", "no.txt"], "no.txt: no such file"),
        (["--text", "x", "--quantize", "int4"], "--quantize int4: must be one of none, int8, nf4"),
        (["--text", "x", "--device", "gpu"], "--device gpu: must be cpu, cuda"),
        (["--text", "x", "--engine", "vlm"], "--engine vlm: must be one of torch, vllm; did you"),
        (["--text", "x", "--engine", "vllm"], "--engine vllm needs --url"),
        (["--text", "x", "--url", "http://a"], "--url goes with --engine vllm"),
        (
            ["--text", "x", "--engine", "vllm", "--url", "http://a", "--no-compile"],
            "--compile goes with --engine torch",
        ),
        (["--in", "a.csv", "--out", "b.csv"], "a.csv: no such file"),
    ],
)
def test_options_of_score_that_do_not_go_together(
    arguments: list[str], message: str, cli: Cli
) -> None:
    done = cli("score", "bundle", *arguments)
    assert done.code == 2
    assert done.err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["scor"],
        ["run"],
        ["run", "slant.yaml", "--sett", "a=1"],
        ["score", "bundle", "--in"],
        ["run", "slant.yaml", "another.yaml"],
    ],
)
def test_a_mistake_on_the_command_line_shows_how_to_get_help(
    arguments: list[str], cli: Cli
) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert "-h' for help" in done.err or "Error: Option" in done.err
    assert "defect" not in done.err


def test_an_unknown_command_is_answered_with_the_one_that_is_meant(cli: Cli) -> None:
    assert "Did you mean 'score'?" in cli("scor").err


def test_without_a_command_there_is_help(cli: Cli) -> None:
    done = cli()
    assert done.code == 2
    assert "Commands:" in done.out + done.err


def test_a_traceback_is_shown_only_when_asked_for(cli: Cli) -> None:
    quiet, loud = cli("run", "no.yaml"), cli("--debug", "run", "no.yaml")
    assert quiet.code == loud.code == 2
    assert "Traceback" not in quiet.err
    assert loud.err.startswith("Traceback")
    assert loud.err.endswith(quiet.err)


def test_what_was_not_foreseen_is_called_a_defect(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("by nothing")

    (tmp_path / "slant.yaml").write_text(CONFIG)
    monkeypatch.setattr("slant.config.load.dump_settings", fail)
    done = cli("config", "show", "slant.yaml")
    assert done.code == 1
    assert done.err.startswith("error: ZeroDivisionError: by nothing\n  This is a defect in slant.")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_says_so_and_goes_on_later(
    number: signal.Signals, project: Path
) -> None:
    often = ["--set", "tune.epochs=60", "--set", "tune.checkpoint_every_s=0.000001"]
    process = start("run", "slant.yaml", "--set", "work=new", *often, cwd=project)
    wait_for_steps(process, project / "new" / "tune" / "events.jsonl", 3)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("\ninterrupted; run the same command again: what is finished is kept\n")
    assert "Traceback" not in err
    assert not (project / "new" / "tune" / "manifest.json").exists()
    assert list((project / "new" / "tune").rglob("checkpoints/step-*"))


@pytest.mark.parametrize("arguments", [["config", "explain"], ["run", "slant.yaml"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str], project: Path) -> None:
    process = start(*arguments, cwd=project)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)


def test_colour_is_for_terminals_only(tmp_path: Path) -> None:
    assert "\x1b" not in run_alone("run", "no.yaml", cwd=tmp_path).err


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    command = command or typer.main.get_command(app)
    yield words
    for child, found in getattr(command, "commands", {}).items():
        yield from commands(found, (*words, child))


@pytest.mark.parametrize("words", list(commands()), ids=lambda words: " ".join(words) or "slant")
def test_the_help_text_is_the_golden_one(words: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [SLANT, *words, "--help"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    golden = GOLDEN / f"{'-'.join(('slant', *words))}.txt"
    if os.environ.get("SLANT_WRITE_GOLDEN"):
        golden.write_text(done.stdout, encoding="utf-8")
    assert done.stdout == golden.read_text("utf-8")
    assert done.stderr == ""


def test_there_is_no_golden_help_text_without_its_command() -> None:
    names = {"-".join(("slant", *words)) for words in commands()}
    assert {path.stem for path in GOLDEN.glob("*.txt")} == names
