"""Trackers that write files: TensorBoard, and wandb offline; each read back by its own format."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sample_of_evaluation import REPORT
from tracking import QUICK, Listener, tensorboard_steps, wandb_history, wandb_records

from slant.config.training_settings import TrackSettings, WandbSettings
from slant.track.trackers import log_report, open_trackers

OFFLINE = TrackSettings(wandb=WandbSettings(project="p", mode="offline"))
BOARD = TrackSettings(tensorboard=True)


@pytest.fixture
def board() -> TrackSettings:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    return BOARD


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> TrackSettings:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return OFFLINE


def train(
    tmp_path: Path, settings: TrackSettings, first: int, last: int, **options: Any
) -> Listener:
    listener = Listener()
    with open_trackers(
        settings,
        folder=tmp_path / "track",
        work=tmp_path,
        name="tune",
        config={"tune": {"learning_rate": 2e-4, "lora": {"rank": 16}}},
        progress=listener,
        patience=QUICK,
        **options,
    ) as trackers:
        for step in range(first, last + 1):
            trackers.log(step, {"loss": 1 / step, "learning_rate": 2e-4})
        trackers.log(last, {"validation/es/macro_f1": 0.5})
    return listener


def evaluate(tmp_path: Path, settings: TrackSettings) -> None:
    html = tmp_path / "report.html"
    html.write_text("<!doctype html><p>A report, ¡ya!", "utf-8")
    log_report(
        settings,
        folder=tmp_path / "track",
        work=tmp_path,
        report=REPORT,
        html=html,
        progress=Listener(),
        patience=QUICK,
    )


def test_tensorboard_reads_the_curves_and_the_report(tmp_path: Path, board: TrackSettings) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    listener = train(tmp_path, board, 1, 20)
    evaluate(tmp_path, board)
    [run] = (tmp_path / "tensorboard").iterdir()
    assert listener.lines == [f"tensorboard: {run}"]
    found = tensorboard_steps(run)
    assert found["loss"] == [(step, pytest.approx(1 / step)) for step in range(1, 21)]
    assert found["validation/es/macro_f1"] == [(20, 0.5)]
    assert [step for step, _ in found["test/es/macro_f1"]] == [20]
    reader = EventAccumulator(str(run))
    reader.Reload()
    [shown] = reader.Tensors("report/languages")
    assert b"| language | examples |" in shown.tensor_proto.string_val[0]
    assert reader.PluginTagToContent("text").keys() == {"report/languages", "report/systems"}


def test_a_run_with_another_key_is_another_run(tmp_path: Path, board: TrackSettings) -> None:
    train(tmp_path, board, 1, 3, key="a")
    train(tmp_path, board, 1, 3, key="b")
    runs = list((tmp_path / "tensorboard").iterdir())
    assert [[step for step, _ in tensorboard_steps(run)["loss"]] for run in runs] == [[1, 2, 3]] * 2


def test_wandb_offline_needs_no_network_no_key_and_prints_nothing(
    tmp_path: Path, offline: TrackSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    listener = train(tmp_path, offline, 1, 20)
    evaluate(tmp_path, offline)
    assert capfd.readouterr() == ("", "")
    first, second = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert listener.lines == [f"wandb: {first}"]
    history = wandb_history(next(first.glob("*.wandb")))
    assert [step for step, _ in history] == list(range(1, 21))
    assert [float(row["loss"]) for _, row in history] == [1 / step for step in range(1, 21)]
    assert history[-1][1]["validation/es/macro_f1"] == "0.5"
    [run] = [r.run for r in wandb_records(next(first.glob("*.wandb"))) if r.HasField("run")]
    assert (run.project, run.display_name) == ("p", "tune")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["tune"] == {"learning_rate": 2e-4, "lora": {"rank": 16}}
    # The report is a part of the same run, after its last step.
    [again] = [r.run for r in wandb_records(next(second.glob("*.wandb"))) if r.HasField("run")]
    assert again.run_id == run.run_id
    [(step, row)] = wandb_history(next(second.glob("*.wandb")))
    assert step == 21
    for name in ("page", "languages", "systems"):
        assert any(key.startswith(f"report/{name}/") for key in row)
    [page] = second.rglob("*.html")
    assert "A report, ¡ya!" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("error", "code"), [(None, 0), (KeyboardInterrupt, 1), (RuntimeError, 1)]
)  # fmt: skip
def test_wandb_is_told_how_a_run_ended(
    tmp_path: Path, offline: TrackSettings, error: type[BaseException] | None, code: int
) -> None:
    try:
        with open_trackers(
            offline,
            folder=tmp_path / "track",
            work=tmp_path,
            name="tune",
            config={},
            progress=Listener(),
            patience=QUICK,
        ) as trackers:
            trackers.log(1, {"loss": 1.0})
            if error is not None:
                raise error
    except (KeyboardInterrupt, RuntimeError):
        pass
    [path] = tmp_path.rglob("*.wandb")
    records = wandb_records(path)
    [end] = [record.exit for record in records if record.HasField("exit")]
    assert end.exit_code == code
    assert any(r.HasField("preempting") for r in records) == (error is KeyboardInterrupt)


_TRAINING = """
import os, signal, sys, time
from pathlib import Path
from slant.config.training_settings import TrackSettings
from slant.progress import SilentProgress
from slant.track.outbox import Patience
from slant.track.trackers import open_trackers

tmp_path, settings, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
patience = Patience(close_s=60, interval_s=0.02)
memory = tmp_path / "track" / f"track-{sys.argv[5]}.json"
with open_trackers(
    TrackSettings.model_validate_json(settings), folder=tmp_path / "track", work=tmp_path,
    name="tune", config={}, progress=SilentProgress(), patience=patience,
) as trackers:
    for step in range(first, last + 1):
        trackers.log(step, {"loss": 1 / step, "learning_rate": 2e-4})
    while not (memory.exists() and f'"learning_rate": {last}\\n' in memory.read_text()):
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def train_and_be_killed(
    tmp_path: Path, settings: TrackSettings, first: int, last: int, kind: str
) -> None:
    arguments = [str(tmp_path), settings.model_dump_json(), str(first), str(last), kind]
    ended = subprocess.run([sys.executable, "-c", _TRAINING, *arguments], timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_a_killed_run_goes_on_in_the_same_tensorboard_run(
    tmp_path: Path, board: TrackSettings
) -> None:
    train_and_be_killed(tmp_path, board, 1, 30, "tensorboard")
    train(tmp_path, board, 21, 50)  # from a checkpoint ten steps before the kill
    [run] = (tmp_path / "tensorboard").iterdir()
    assert [step for step, _ in tensorboard_steps(run)["loss"]] == list(range(1, 51))


def test_a_killed_run_goes_on_in_the_same_wandb_run(tmp_path: Path, offline: TrackSettings) -> None:
    train_and_be_killed(tmp_path, offline, 1, 30, "wandb")
    train(tmp_path, offline, 21, 50)
    first, second = (
        next(part.glob("*.wandb")) for part in sorted((tmp_path / "wandb").glob("offline-run-*"))
    )
    assert first.name == second.name  # named after the run's id
    assert [step for step, _ in wandb_history(first)] == list(range(1, 31))
    assert [step for step, _ in wandb_history(second)] == list(range(31, 51))


def test_the_worker_of_a_killed_run_ends(tmp_path: Path, board: TrackSettings) -> None:
    train_and_be_killed(tmp_path, board, 1, 3, "tensorboard")
    train(tmp_path, board, 4, 5)
    assert not _workers_of(tmp_path)


def _workers_of(folder: Path) -> list[int]:
    """Processes that hold a file in ``folder`` open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (process / "fd").iterdir()]  # noqa: PTH115
        except OSError:
            continue
        if any(link.startswith(str(folder)) for link in links):
            found.append(int(process.name))
    return found
