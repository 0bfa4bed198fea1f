"""``slant run`` and the commands of the stages, on a tiny project."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import Cli, run_alone, start, wait_for_steps, write_project

from slant.artifacts import digest_file, load

STAGES = ["ingest", "shard", "tune", "evaluate", "export"]
UNREACHABLE = "evaluate.gate={macro_f1: {min: 0.999}, accuracy: {min: 0.001}}"


def test_a_second_run_has_nothing_to_do_and_says_so(cli: Cli, project: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (project / "work").rglob("manifest.json")}
    done = cli("run", "slant.yaml")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == STAGES
    assert all("up to date" in line for line in lines[:5])
    assert lines[5] == "Nothing to do: every stage is up to date."
    assert lines[-2:] == ["report  work/evaluate/report.html", "bundle  work/bundle"]
    assert before == {
        path: path.stat().st_mtime_ns for path in (project / "work").rglob("manifest.json")
    }


@pytest.mark.parametrize(("set_to", "expected"), [(None, "128"), ("7", "7")])
def test_few_shapes_of_products_are_kept_unless_somebody_says_how_many(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, set_to: str | None, expected: str
) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.delenv(name, raising=False)
    if set_to is not None:
        monkeypatch.setenv(name, set_to)
    assert cli("--version").code == 0
    assert os.environ[name] == expected


def test_a_changed_setting_repeats_the_stages_that_it_has_a_say_in(cli: Cli, project: Path) -> None:
    done = cli("run", "slant.yaml", "--json", "--set", "export.parity_examples=5")
    assert done.code == 0, done.err
    *stages, report = map(json.loads, done.out.splitlines())
    assert [record["stage"] for record in stages] == STAGES
    assert [record["stage"] for record in stages if record["made"]] == ["export"]
    assert [record["folder"] for record in stages] == [
        str(project / "work" / name) for name in [*STAGES[:-1], "bundle"]
    ]
    assert report.keys() == {
        "systems",
        "comparisons",
        "latency",
        "calibration",
        "decisions",
        "gate",
    }
    assert all(isinstance(json.loads(line), dict) for line in done.err.splitlines())


def test_the_resolved_configuration_is_saved_and_loads(cli: Cli, project: Path) -> None:
    assert cli("config", "check", project / "work" / "slant.resolved.yaml").code == 0
    shown = cli("config", "show", "slant.yaml").out
    assert shown == (project / "work" / "slant.resolved.yaml").read_text("utf-8")


def test_a_stage_before_the_one_it_needs_says_which_to_run(cli: Cli, tmp_path: Path) -> None:
    write_project(tmp_path)
    done = cli("tune", "slant.yaml")
    assert done.code == 1
    assert "the ingest artifact is not there" in done.err
    assert "Run `slant ingest` first." in done.err
    assert cli("ingest", "slant.yaml").code == 0
    done = cli("tune", "slant.yaml")
    assert done.code == 1
    assert "the shard artifact is not there\n  Run `slant shard` first." in done.err


def test_a_stage_on_artifacts_of_other_settings_is_refused(cli: Cli, project: Path) -> None:
    done = cli("export", "slant.yaml", "--set", "tune.epochs=3")
    assert done.code == 1
    assert "was made from other data or settings than the present ones" in done.err
    assert "Run `slant tune` again" in done.err
    load(project / "work" / "bundle", "export").verify()


def test_a_stage_that_is_left_out_cannot_be_run(cli: Cli, tmp_path: Path) -> None:
    write_project(tmp_path)
    done = cli("adapt", "slant.yaml")
    assert done.code == 2
    assert "adapt is null in the configuration" in done.err


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_below_the_gate_there_is_a_report_and_no_bundle(
    command: str, cli: Cli, project: Path
) -> None:
    shutil.rmtree(project / "work" / "bundle")
    done = cli(command, "slant.yaml", "--set", UNREACHABLE)
    assert done.code == 3
    assert "error: macro_f1 is 0." in done.err
    assert "the gate asks for at least 0.999" in done.err
    assert "accuracy is" not in done.err
    assert "report  work/evaluate/report.html" in done.out
    assert (project / "work" / "evaluate" / "report.html").is_file()
    assert not (project / "work" / "bundle").exists()
    assert cli("export", "slant.yaml", "--set", UNREACHABLE).code == 3
    assert not (project / "work" / "bundle").exists()


def test_below_the_gate_an_earlier_bundle_is_kept_but_not_shown_as_the_result(
    cli: Cli, project: Path
) -> None:
    done = cli("run", "slant.yaml", "--set", UNREACHABLE)
    assert done.code == 3
    assert "bundle" not in done.out
    load(project / "work" / "bundle", "export").verify()


@pytest.mark.parametrize("to", ["tune", "tune/bundle", ".", "evaluate/../ingest"])
def test_a_bundle_in_the_place_of_another_artifact_is_refused(
    to: str, cli: Cli, project: Path
) -> None:
    done = cli("run", "slant.yaml", "--set", f"export.to={to}")
    assert done.code == 2
    assert f"export.to: {to!r} is not a folder of its own" in done.err
    for stage in STAGES[:-1]:
        load(project / "work" / stage, stage).verify()


def test_a_run_that_is_killed_while_it_tunes_ends_in_the_same_adapter(project: Path) -> None:
    longer = ["--set", "tune.epochs=10"]
    often = [*longer, "--set", "tune.checkpoint_every_s=0.000001"]
    for name in ("killed", "whole"):
        for stage in ("ingest", "shard"):
            shutil.copytree(project / "work" / stage, project / name / stage)
    killed = project / "killed" / "tune"

    process = start("run", "slant.yaml", "--set", "work=killed", *often, cwd=project)
    wait_for_steps(process, killed / "events.jsonl", 17)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list(killed.rglob("checkpoints/step-*"))
    assert not (killed / "manifest.json").exists()

    resumed = run_alone("tune", "slant.yaml", "--set", "work=killed", *longer, cwd=project)
    whole = run_alone("tune", "slant.yaml", "--set", "work=whole", *longer, cwd=project)
    assert resumed.code == whole.code == 0, resumed.err + whole.err
    for name in ("adapter/adapter_model.safetensors", "events.jsonl", "slant.json"):
        assert digest_file(killed / name) == digest_file(project / "whole" / "tune" / name), name


def test_two_processes_do_not_work_in_one_folder(project: Path) -> None:
    arguments = ["run", "slant.yaml", "--set", "tune.epochs=200"]
    process = start(*arguments, cwd=project)
    try:
        while not (project / "work" / "tune" / ".lock").exists():
            assert process.poll() is None, process.communicate()
        second = run_alone(*arguments, cwd=project)
    finally:
        process.kill()
        process.communicate()
    assert second.code == 1
    assert "another process is at work here" in second.err
