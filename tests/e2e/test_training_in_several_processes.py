"""adapt and tune in two real processes on the CPU, against one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import tiny_stages
from slant.artifacts import Artifact, find, load
from slant.config.settings import ProjectSettings
from slant.errors import ModelError, UsageError

NO_DROPOUT = {"lora": {"rank": 4, "alpha": 8}}
PATIENCE_S = 240


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    tiny_stages.prepare(folder, "gemma3", tune={**NO_DROPOUT, "average": 0.9}, adapt=NO_DROPOUT)
    return folder


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def project(root: Path, folder: Path, **sections: dict[str, Any]) -> Path:
    """A copy of ``root`` with other settings."""
    folder.mkdir()
    for name in ("base", "shard", "base.json"):
        (folder / name).symlink_to(root / name)
    content = json.loads((root / "settings.json").read_text("utf-8"))
    for name, values in sections.items():
        content[name] = {**content[name], **values}
    settings = ProjectSettings.model_validate(content)
    (folder / "settings.json").write_text(settings.model_dump_json(), "utf-8")
    return folder


def trained(root: Path, folder: Path, stage: str, **sections: dict[str, Any]) -> Artifact:
    return tiny_stages.run_stage(stage, project(root, folder, **sections), folder / "out")


def events(artifact: Artifact) -> list[dict[str, float]]:
    return [json.loads(line) for line in artifact.file("events.jsonl").read_text().splitlines()]


def assert_same_training(ours: Artifact, theirs: Artifact) -> None:
    """Equal but for the order of sums."""
    pairs = list(zip(events(ours), events(theirs), strict=True))
    for mine, other in pairs:
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-6)
    for path in ours.path.rglob("*.safetensors"):
        expected = load_file(theirs.path / path.relative_to(ours.path))
        for name, value in load_file(path).items():
            assert value == pytest.approx(expected[name], abs=2e-4), name


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("alone")
    return {stage: trained(root, folder / stage, stage) for stage in ("adapt", "tune")}


@pytest.mark.parametrize(
    ("stage", "strategy"), [("tune", "ddp"), ("tune", "fsdp"), ("adapt", "ddp"), ("adapt", "fsdp")]
)
def test_two_processes_train_what_one_trains(
    root: Path, alone: dict[str, Artifact], tmp_path: Path, stage: str, strategy: str
) -> None:
    train = {"devices": 2, "strategy": strategy}
    both = trained(root, tmp_path / "both", stage, train=train)
    assert both.facts["devices"] == 2
    assert both.facts["tokens"] == alone[stage].facts["tokens"]
    assert_same_training(both, alone[stage])


def test_full_training_in_split_weights_is_full_training(root: Path, tmp_path: Path) -> None:
    tune = {"method": "full", "lora": {}, "learning_rate": 1e-4, "epochs": 2}

    one = trained(root, tmp_path / "one", "tune", tune=tune)
    split = {"devices": 2, "strategy": "fsdp"}
    both = trained(root, tmp_path / "both", "tune", tune=tune, train=split)
    assert (one.path / "model" / "model.safetensors").is_file()
    assert_same_training(both, one)


def test_split_label_rows_are_those_of_the_best_average(root: Path, tmp_path: Path) -> None:
    """What lies outside the layers is gathered by a validation and must not stay so."""
    tune = {"label_head": "trained", "epochs": 4, "learning_rate": 2e-2, "average": 0.5}
    one = trained(root, tmp_path / "one", "tune", tune=tune)
    split = {"devices": 2, "strategy": "fsdp"}
    both = trained(root, tmp_path / "both", "tune", tune=tune, train=split)
    assert one.facts["best_step"] == both.facts["best_step"]
    name = "label_head.safetensors"
    ours, theirs = load_file(both.file(name)), load_file(one.file(name))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=2e-4), key


_WITNESS = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
import tiny_stages
from slant.train import loop, tune
from slant.train.parallel import World
from torch.distributed.tensor import DTensor

original = tune.train

def witness(objective, schedule, plan, folder, progress, *, world, **rest):
    rows = [p.to_local().shape[0] for p in objective.parameters() if isinstance(p, DTensor)]
    whole = [p.shape[0] for p in objective.parameters() if isinstance(p, DTensor)]
    plain = sum(not isinstance(p, DTensor) for p in objective.parameters())
    note = dict(pid=os.getpid(), rank=world.rank, rows=sum(rows), whole=sum(whole), plain=plain)
    Path({notes!r}, str(world.rank)).write_text(json.dumps(note))
    return original(objective, schedule, plan, folder, progress, world=world, **rest)

tune.train = witness
root = Path({root!r})
tiny_stages.run_stage("tune", root, root / "out")
"""


def test_under_an_external_torchrun_two_processes_run_and_each_holds_half_of_every_weight(
    root: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    folder = project(root, tmp_path / "p", train={"devices": 1, "strategy": "fsdp"})
    script = tmp_path / "witness.py"
    tests = str(Path(tiny_stages.__file__).parent)
    script.write_text(_WITNESS.format(tests=tests, notes=str(notes), root=str(folder)))
    torchrun(script)
    found = [json.loads((notes / rank).read_text()) for rank in ("0", "1")]
    assert found[0]["pid"] != found[1]["pid"]
    assert [note["plain"] for note in found] == [0, 0]
    assert found[0]["rows"] + found[1]["rows"] == found[0]["whole"]
    assert abs(found[0]["rows"] - found[1]["rows"]) < 0.2 * found[0]["whole"]
    assert load(folder / "out", "tune").facts["devices"] == 2


def torchrun(script: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"),
            *("--local-addr", "127.0.0.1", str(script)),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def killed(folder: Path, stage: str, lines: int, number: int) -> int:
    """Run a stage, send it a signal once ``lines`` events are there; returns its exit status."""
    log = folder / "out" / "events.jsonl"
    worker = subprocess.Popen(
        [sys.executable, tiny_stages.__file__, stage, str(folder), str(folder / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (log.exists() and log.read_bytes().count(b"\n") >= lines):
            assert worker.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline, "it never came that far"
            time.sleep(0.01)
        worker.send_signal(number)
        return worker.wait(PATIENCE_S)
    finally:
        worker.kill()
        worker.wait()


def resumed_on(folder: Path, **train: Any) -> Artifact:
    """What tuning ends in when it goes on with other devices."""
    settings = json.loads((folder / "settings.json").read_text())
    settings["train"] = train
    (folder / "settings.json").write_text(json.dumps(settings))
    return tiny_stages.run_stage("tune", folder, folder / "out")


def processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_of_two_processes_that_was_ended_goes_on_with_one(
    root: Path, alone: dict[str, Artifact], tmp_path: Path, number: signal.Signals
) -> None:
    often = {"checkpoint_every_s": 1e-6}
    folder = project(root, tmp_path / "p", tune=often, train={"devices": 2, "strategy": "fsdp"})
    killed(folder, "tune", 6, number)
    assert find(folder / "out", "tune") is None
    deadline = time.monotonic() + 30
    while processes_of(folder):
        assert time.monotonic() < deadline, f"left behind: {processes_of(folder)}"
        time.sleep(0.2)
    checkpoints = folder / "out" / "scratch" / "checkpoints"
    assert list(checkpoints.glob("step-*/state-1-of-2.safetensors"))

    resumed = resumed_on(folder, devices=1, strategy="ddp")
    assert resumed.facts["devices"] == 1
    assert_same_training(resumed, alone["tune"])


def test_what_one_process_began_two_can_finish(
    root: Path, alone: dict[str, Artifact], tmp_path: Path
) -> None:
    folder = project(root, tmp_path / "p", tune={"checkpoint_every_s": 1e-6})
    killed(folder, "tune", 6, signal.SIGKILL)
    resumed = resumed_on(folder, devices=2, strategy="fsdp")
    assert resumed.facts["devices"] == 2
    assert_same_training(resumed, alone["tune"])


def test_an_error_in_a_training_process_is_the_error_of_the_stage(
    root: Path, tmp_path: Path
) -> None:
    folder = project(root, tmp_path / "p", train={"devices": 2}, tune={"learning_rate": 1e30})
    with pytest.raises(ModelError, match="training cannot go on") as caught:
        tiny_stages.run_stage("tune", folder, folder / "out")
    assert "learning_rate" in caught.value.hint
    assert find(folder / "out", "tune") is None


def test_more_devices_than_there_are_is_a_usage_error(root: Path, tmp_path: Path) -> None:
    folder = project(root, tmp_path / "p", train={"devices": 4096})
    with pytest.raises(UsageError, match=f"this machine has {os.cpu_count()}"):
        tiny_stages.run_stage("tune", folder, folder / "out")
    shutil.rmtree(folder)
