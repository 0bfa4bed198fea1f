"""kill -9 in the middle of adaptation and of tuning, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny_stages
from slant.artifacts import digest_file, find, load

WORKER = Path(tiny_stages.__file__)
PATIENCE_S = 90


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    often = {"checkpoint_every_s": 1e-6, "epochs": 4}
    tiny_stages.prepare(folder, tune=often, adapt={**often, "epochs": 2})
    return folder


def kill_at(stage: str, root: Path, out: Path, lines: int) -> None:
    """Run ``stage`` in a process of its own and SIGKILL it once ``lines`` steps are on disk."""
    events = out / "events.jsonl"
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), stage, str(root), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (events.exists() and events.read_bytes().count(b"\n") >= lines):
            assert worker.poll() is None, worker.communicate()[0].decode()
            assert time.monotonic() < deadline, "the worker never came that far"
            time.sleep(0.001)
        os.kill(worker.pid, signal.SIGKILL)
    finally:
        worker.kill()
        worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    assert find(out, stage) is None, "the worker was faster than the kill"


@pytest.fixture(scope="module")
def single_thread() -> None:
    """Sums are only equal to the bit where they are taken in the same order."""
    import torch

    torch.set_num_threads(1)


@pytest.mark.usefixtures("single_thread")
def test_tuning_that_was_killed_twice_ends_in_the_same_bytes(root: Path, tmp_path: Path) -> None:
    whole = tiny_stages.run_stage("tune", root, tmp_path / "whole")
    for lines in (4, 21):
        kill_at("tune", root, tmp_path / "killed", lines)
        assert list((tmp_path / "killed" / "scratch" / "checkpoints").glob("step-????????"))
    resumed = tiny_stages.run_stage("tune", root, tmp_path / "killed")

    for name in ("adapter/adapter_model.safetensors", "events.jsonl", "slant.json"):
        assert digest_file(resumed.file(name)) == digest_file(whole.file(name)), name
    assert resumed.digest == whole.digest
    assert resumed.facts["steps"] == whole.facts["steps"] > 21
    assert resumed.facts["tokens"] == whole.facts["tokens"]
    assert not (tmp_path / "killed" / "scratch" / "checkpoints").exists()


@pytest.mark.usefixtures("single_thread")
def test_adaptation_that_was_killed_ends_in_the_same_bytes(root: Path, tmp_path: Path) -> None:
    whole = tiny_stages.run_stage("adapt", root, tmp_path / "whole")
    kill_at("adapt", root, tmp_path / "killed", 9)
    resumed = tiny_stages.run_stage("adapt", root, tmp_path / "killed")

    assert resumed.digest == whole.digest
    assert resumed.facts["perplexity"] == whole.facts["perplexity"]
    assert resumed.facts["steps"] == whole.facts["steps"] > 9
    assert (resumed.path / "model" / "model.safetensors").is_file()
    assert set(load(resumed.path, "adapt").manifest["files"]) == set(whole.manifest["files"])
