"""kill -9 while models are adapted and tuned, in a process of its own."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_stages
from forking import ForkingWorker, forking
from slant.artifacts import Artifact, digest_file, find, load
from training_worker import PHASES

OFTEN = {"checkpoint_every_s": 1e-6}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    tune = {**OFTEN, "epochs": 4, "validations_per_epoch": 2, "average": 0.9}
    tiny_stages.prepare(folder, tune=tune, adapt={**OFTEN, "epochs": 2})
    return folder


@pytest.fixture(scope="module")
def worker() -> Iterator[ForkingWorker]:
    with forking("training_worker:run_prepared") as process:
        yield process


@pytest.fixture(scope="module")
def whole(
    root: Path, worker: ForkingWorker, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artifact]:
    """Both stages, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    for stage in ("adapt", "tune"):
        assert not worker.run(stage, root, folder / stage)
    return {stage: load(folder / stage, stage) for stage in ("adapt", "tune")}


@pytest.fixture(scope="module")
def prepared(
    root: Path, worker: ForkingWorker, whole: dict[str, Artifact]
) -> tuple[Path, ForkingWorker, Artifact]:
    return root, worker, whole["tune"]


def assert_the_same(resumed: Artifact, whole: Artifact) -> None:
    files = set(whole.manifest["files"])
    assert set(resumed.manifest["files"]) == files
    assert {"events.jsonl"} <= files
    for name in files:
        assert digest_file(resumed.file(name)) == digest_file(whole.file(name)), name
    for fact in ("steps", "tokens", "perplexity", "best_step", "validation", "losses"):
        assert resumed.facts.get(fact) == whole.facts.get(fact), fact
    assert not (resumed.path / "scratch").exists()


@pytest.mark.parametrize("stage", ["tune", "adapt"])
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(
    root: Path, worker: ForkingWorker, whole: dict[str, Artifact], tmp_path: Path, stage: str
) -> None:
    """A killed run goes on from where the last kill left it."""
    kills_wanted = {"tune": 20, "adapt": 5}[stage]
    rng = random.Random(kills_wanted)
    started = time.monotonic()
    worker.run(stage, root, tmp_path / "timed")
    seconds = time.monotonic() - started
    kills, runs, out = 0, 0, tmp_path / "run-0"
    while kills < kills_wanted:
        # Long enough to load the model and to get on a little, short enough not to finish soon.
        if worker.run(stage, root, out, kill_after_s=rng.uniform(0.05, 0.6) * seconds):
            kills += 1
            continue
        assert_the_same(load(out, stage), whole[stage])
        runs += 1
        out = tmp_path / f"run-{runs}"
    worker.run(stage, root, out)
    assert_the_same(load(out, stage), whole[stage])


@pytest.mark.parametrize(("phase", "count"), [(p, c) for p in sorted(PHASES) for c in (1, 4)])
def test_a_run_killed_in_a_phase_ends_in_the_same_bytes(
    prepared: tuple[Path, ForkingWorker, Artifact], tmp_path: Path, phase: str, count: int
) -> None:
    root, worker, whole = prepared
    out = tmp_path / "killed"
    assert worker.run("tune", root, out, phase, count), "it was not killed"
    assert find(out, "tune") is None
    worker.run("tune", root, out)
    assert_the_same(load(out, "tune"), whole)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_a_killed_run_of_compiled_layers_ends_in_the_same_bytes(
    worker: ForkingWorker, tmp_path: Path
) -> None:
    """It compiles anew when it goes on, with another batch at hand."""
    tune = {**OFTEN, "epochs": 1, "lora": {"rank": 4, "alpha": 8}}
    prepared = tmp_path / "root"
    prepared.mkdir()
    tiny_stages.prepare(prepared, "gemma3", tune=tune, train={"compile": True})
    assert not worker.run("tune", prepared, tmp_path / "whole")
    out = tmp_path / "killed"
    assert worker.run("tune", prepared, out, "publishing", 4), "it was not killed"
    worker.run("tune", prepared, out)
    assert_the_same(load(out, "tune"), load(tmp_path / "whole", "tune"))
