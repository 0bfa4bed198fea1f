"""kill -9 while a bundle is written and proved."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporting import prepare_evaluated
from forking import ForkingWorker, forking
from slant.artifacts import digest_file, find, load
from slant.errors import ArtifactError
from slant.score.scorer import Scorer

KILLS = 5


@pytest.fixture(scope="module")
def worker() -> Iterator[ForkingWorker]:
    with forking("exporting:run_prepared") as process:
        yield process


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    prepare_evaluated(folder)
    return folder


def test_a_killed_export_loads_nowhere_and_ends_in_the_same_bundle(
    root: Path, worker: ForkingWorker
) -> None:
    started = time.monotonic()
    assert not worker.run(root, root / "whole")
    seconds, draw, killed = time.monotonic() - started, random.Random(7), 0
    whole = load(root / "whole", "export")
    for _ in range(KILLS):
        if worker.run(root, root / "cut", kill_after_s=draw.uniform(0.05, 0.9) * seconds):
            killed += 1
            assert find(root / "cut", "export") is None
            with pytest.raises(ArtifactError):
                Scorer.load(root / "cut")
    assert killed
    assert not worker.run(root, root / "cut")
    resumed = load(root / "cut", "export")
    resumed.verify()
    assert {file: digest_file(resumed.file(file)) for file in resumed.manifest["files"]} == {
        file: digest_file(whole.file(file)) for file in whole.manifest["files"]
    }
    assert not (root / "cut" / "scratch").exists()
