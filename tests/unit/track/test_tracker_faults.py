"""A tracker that is down, slow, wrong or full: training notices nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tracking import (
    HOST,
    QUICK,
    Listener,
    SilentServer,
    answering,
    free_port,
    tensorboard_steps,
    wait_for_step,
)

from slant.config.training_settings import MlflowSettings, TrackSettings, WandbSettings
from slant.track.outbox import Patience
from slant.track.trackers import Trackers, log_report, open_trackers

needs_mlflow = pytest.mark.usefixtures("_mlflow")
EVERYTHING = "the run goes on, events.jsonl has everything"


@pytest.fixture
def _mlflow() -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")


def tracked(
    tmp_path: Path, settings: Mapping[str, Any], listener: Listener, patience: Patience = QUICK
) -> Trackers:
    return open_trackers(
        TrackSettings(**settings),
        folder=tmp_path / "track",
        work=tmp_path,
        name="tune",
        config={"tune": {"epochs": 2}},
        progress=listener,
        patience=patience,
    )


def mlflow(uri: str) -> dict[str, Any]:
    return {"mlflow": MlflowSettings(uri=uri)}


@needs_mlflow
def test_a_server_that_was_never_there_is_told_once_and_costs_nothing(tmp_path: Path) -> None:
    listener, uri = Listener(), f"http://{HOST}:{free_port()}"
    with tracked(tmp_path, mlflow(uri), listener) as trackers:
        for step in range(1, 101):
            trackers.log(step, {"loss": 1 / step})
    assert listener.lines == [
        f"mlflow at {uri}: does not answer; {EVERYTHING}",
        f"mlflow at {uri}: 100 of 100 steps were not sent; events.jsonl has them",
    ]
    assert not (tmp_path / "track" / "track-mlflow.json").exists()


@needs_mlflow
def test_training_does_not_wait_for_a_server_that_accepts_and_never_answers(tmp_path: Path) -> None:
    server, listener = SilentServer(), Listener()
    patience = replace(QUICK, answer_s=600.0, close_s=0.5)
    with tracked(tmp_path, mlflow(server.uri), listener, patience) as trackers:
        assert server.asked.wait(60)
        for step in range(1, 20_001):
            trackers.log(step, {"loss": 1 / step})
        assert not server.left.is_set()  # all of them returned while the question is still open
    assert server.left.wait(60)  # its process was ended, so the block could be left
    assert listener.lines == [
        f"mlflow at {server.uri}: does not answer; {EVERYTHING}",
        f"mlflow at {server.uri}: 20000 of 20000 steps were not sent; events.jsonl has them",
    ]
    server.close()


@needs_mlflow
def test_what_does_not_fit_the_queue_is_dropped_and_counted(tmp_path: Path) -> None:
    """The first three are kept, not the last: they are next to be sent when the server answers."""
    server, listener = SilentServer(), Listener()
    patience = replace(QUICK, answer_s=600.0, close_s=0.1, num_waiting=3)
    with tracked(tmp_path, mlflow(server.uri), listener, patience) as trackers:
        assert server.asked.wait(60)
        [outbox] = trackers._outboxes
        for step in range(1, 11):
            trackers.log(step, {"loss": 1 / step})
        assert [step for step, _, _ in outbox._points] == [1, 2, 3]
    assert "10 of 10 steps were not sent" in listener.lines[-1]
    server.close()


@needs_mlflow
@pytest.mark.parametrize(
    ("status", "reason"),
    [(500, "failed (HTTP 500)"), (401, "refuses the credentials (HTTP 401)")],
)
def test_a_server_that_answers_with_an_error_is_told_with_its_status(
    tmp_path: Path, status: int, reason: str
) -> None:
    listener = Listener()
    with answering(status, b"no") as uri, tracked(tmp_path, mlflow(uri), listener) as trackers:
        trackers.log(1, {"loss": 1.0})
    assert listener.lines == [
        f"mlflow at {uri}: {reason}; {EVERYTHING}",
        f"mlflow at {uri}: 1 of 1 steps were not sent; events.jsonl has them",
    ]


@needs_mlflow
def test_a_server_that_talks_of_something_else_does_not_stop_a_run(tmp_path: Path) -> None:
    listener = Listener()
    with (
        answering(200, b"<html>Welcome to nginx!</html>") as uri,
        tracked(tmp_path, mlflow(uri), listener) as trackers,
    ):
        trackers.log(1, {"loss": 1.0})
    assert EVERYTHING in listener.lines[0]
    assert "nginx" not in "".join(listener.lines)


def test_wandb_without_its_server_does_not_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    uri = f"http://{HOST}:{free_port()}"
    key = "0123456789" * 4
    monkeypatch.setenv("WANDB_BASE_URL", uri)
    monkeypatch.setenv("WANDB_API_KEY", key)
    listener, patience = Listener(), replace(QUICK, answer_s=2.0, close_s=10.0)
    settings = {"wandb": WandbSettings(project="p")}
    with tracked(tmp_path, settings, listener, patience) as trackers:
        trackers.log(1, {"loss": 1.0})
    assert listener.lines[0].startswith(f"wandb at http://{HOST}: ")
    assert listener.lines[0].endswith(EVERYTHING)
    assert "1 of 1 steps were not sent" in listener.lines[1]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if key.encode() in path.read_bytes()]


@needs_mlflow
def test_one_tracker_that_hangs_does_not_keep_another_from_its_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    server, listener = SilentServer(), Listener()
    patience = replace(QUICK, answer_s=600.0, close_s=1.0)
    settings = {**mlflow(server.uri), "tensorboard": True}
    with tracked(tmp_path, settings, listener, patience) as trackers:
        assert server.asked.wait(60)
        for step in range(1, 11):
            trackers.log(step, {"loss": float(step)})
        wait_for_step(tmp_path / "track" / "track-tensorboard.json", "loss", 10)
    [run] = (tmp_path / "tensorboard").iterdir()
    assert tensorboard_steps(run) == {"loss": [(step, float(step)) for step in range(1, 11)]}
    server.close()


@needs_mlflow
def test_a_report_that_cannot_be_sent_is_told_once(tmp_path: Path) -> None:
    listener, uri = Listener(), f"http://{HOST}:{free_port()}"
    log_report(
        TrackSettings(**mlflow(uri)),
        folder=tmp_path / "track",
        work=tmp_path,
        report={"systems": [_system()]},
        html=tmp_path / "report.html",
        progress=listener,
        patience=QUICK,
    )
    [line] = listener.lines
    assert line.endswith("does not answer; the report was not sent, report.html has everything")


def _system() -> dict[str, Any]:
    figure = {"value": 0.5, "low": None, "high": None}
    overall = {
        "count": 3,
        "f1": {"negative": figure},
        **dict.fromkeys(("accuracy", "macro_f1", "mcc"), figure),
        **dict.fromkeys(("f1_polar", "auroc", "ece", "brier")),
    }
    return {
        "id": "tuned",
        "name": "Tuned",
        "overall": overall,
        "slices": {"lang": {}},
        "cost": None,
        "latency": None,
    }


def test_a_full_disk_for_the_memory_does_not_stop_a_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    (tmp_path / "track").write_text("a file where the folder should be", "utf-8")
    listener = Listener()
    with tracked(tmp_path, {"tensorboard": True}, listener) as trackers:
        trackers.log(1, {"loss": 1.0})
    assert any(EVERYTHING in line for line in listener.lines)


@needs_mlflow
def test_only_the_thread_that_trains_speaks_to_progress(tmp_path: Path) -> None:
    """A Progress of the SDK's user need not stand several threads."""
    listener = Listener()
    with tracked(tmp_path, mlflow(f"http://{HOST}:{free_port()}"), listener) as trackers:
        trackers.log(1, {"loss": 1.0})
    assert listener.lines
    assert listener.threads == {threading.current_thread().name}


def test_without_trackers_there_is_no_thread_and_no_process(tmp_path: Path) -> None:
    before = threading.active_count()
    with tracked(tmp_path, {}, Listener()) as trackers:
        trackers.log(1, {"loss": 1.0})
        assert threading.active_count() == before
