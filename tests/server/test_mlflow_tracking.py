"""Runs in a real MLflow server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from mlflow_server import Server, mlflow_server
from slant.config.training_settings import MlflowSettings, TrackSettings
from slant.track.outbox import Patience
from slant.track.trackers import Trackers, log_report, open_trackers

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")

PATIENCE = Patience(answer_s=60.0, close_s=240.0, pause_s=0.2, interval_s=0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


class Listener:
    """A Progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def task(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def tracked(server: Server, tmp_path: Path, listener: Listener) -> Trackers:
    return open_trackers(
        _settings(server),
        folder=tmp_path / "track",
        work=tmp_path,
        name="tune",
        config={"tune": {"learning_rate": 2e-4, "lora": {"rank": 16}}, "word": "за"},
        progress=listener,
        patience=PATIENCE,
    )


def _settings(server: Server) -> TrackSettings:
    return TrackSettings(mlflow=MlflowSettings(uri=server.uri, experiment="narratives"))


def found_run(server: Server, tmp_path: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(server.uri).get_run(_remembered(tmp_path)["id"])


def steps(server: Server, tmp_path: Path, name: str) -> list[int]:
    from mlflow.tracking import MlflowClient

    history = MlflowClient(server.uri).get_metric_history(_remembered(tmp_path)["id"], name)
    return [metric.step for metric in sorted(history, key=lambda metric: metric.step)]


def _remembered(tmp_path: Path) -> dict[str, Any]:
    content = json.loads((tmp_path / "track" / "track-mlflow.json").read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def wait_for_step(tmp_path: Path, step: int) -> None:
    """Wait until the server has acknowledged a step."""
    until = time.monotonic() + 60
    memory = tmp_path / "track" / "track-mlflow.json"
    while not memory.exists() or _remembered(tmp_path)["sent"].get("loss", 0) < step:
        assert time.monotonic() < until, f"step {step} is not sent"
        time.sleep(0.05)


def test_curves_parameters_and_state_of_a_run(server: Server, tmp_path: Path) -> None:
    listener = Listener()
    with tracked(server, tmp_path, listener) as trackers:
        for step in range(1, 1201):  # more than one request holds
            trackers.log(step, {"loss": 1 / step, "validation/zh-Hant/macro_f1": 0.5})
    run = found_run(server, tmp_path)
    assert steps(server, tmp_path, "loss") == list(range(1, 1201))
    assert run.data.metrics["validation/zh-Hant/macro_f1"] == 0.5
    assert run.data.params == {"tune.learning_rate": "0.0002", "tune.lora.rank": "16", "word": "за"}
    assert (run.info.run_name, run.info.status) == ("tune", "FINISHED")
    [line] = listener.lines
    with urlopen(line.removeprefix("mlflow: ")) as page:  # a link that a person can follow
        assert page.status == 200
    assert line.endswith(run.info.run_id)


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")]
)
def test_a_run_that_did_not_finish_goes_on_in_the_same_run(
    server: Server, tmp_path: Path, error: type[BaseException], state: str
) -> None:
    with pytest.raises(error):
        train_and_end_with(error, server, tmp_path)
    before = found_run(server, tmp_path).info
    assert before.status == state
    with tracked(server, tmp_path, Listener()) as trackers:
        trackers.log(2, {"loss": 0.5})
        wait_until_running(server, tmp_path)
        trackers.log(3, {"loss": 0.25})
    after = found_run(server, tmp_path).info
    assert (after.run_id, after.status) == (before.run_id, "FINISHED")
    assert steps(server, tmp_path, "loss") == [1, 2, 3]


def train_and_end_with(error: type[BaseException], server: Server, tmp_path: Path) -> None:
    with tracked(server, tmp_path, Listener()) as trackers:
        trackers.log(1, {"loss": 1.0})
        trackers.log(2, {"loss": 0.5})
        raise error


def wait_until_running(server: Server, tmp_path: Path) -> None:
    until = time.monotonic() + 60
    while found_run(server, tmp_path).info.status != "RUNNING":
        assert time.monotonic() < until, "the run is not set to RUNNING"
        time.sleep(0.05)


def test_the_report_goes_into_the_run_that_was_trained(server: Server, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    with tracked(server, tmp_path, Listener()) as trackers:
        trackers.log(7, {"loss": 1.0})
    (tmp_path / "report.html").write_text("<!doctype html><p>¡Un informe!", "utf-8")
    listener = Listener()
    log_report(
        _settings(server),
        folder=tmp_path / "track",
        work=tmp_path,
        report=_report(),
        html=tmp_path / "report.html",
        progress=listener,
        patience=PATIENCE,
    )
    assert listener.lines == []
    run = found_run(server, tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/es/macro_f1"] == 0.5
    assert steps(server, tmp_path, "test/macro_f1") == [7]
    client = MlflowClient(server.uri)
    names = {item.path for item in client.list_artifacts(run.info.run_id, "report")}
    assert names == {"report/languages.csv", "report/report.html", "report/systems.csv"}
    path = client.download_artifacts(run.info.run_id, "report/report.html", str(tmp_path))
    assert Path(path).read_text("utf-8") == "<!doctype html><p>¡Un informe!"


def _report() -> dict[str, Any]:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    names = ("accuracy", "macro_f1", "f1_polar", "mcc", "auroc", "brier", "ece")
    measured = {"count": 30, **dict.fromkeys(names, figure), "f1": {"negative": figure}}
    slices = {"lang": {"es": measured, "tl": measured}}
    tuned = {"id": "tuned", "name": "Tuned", "overall": measured, "slices": slices}
    tuned |= {"cost": None, "latency": None}
    return {"systems": [tuned]}


def test_a_run_that_was_deleted_is_followed_by_a_new_one(server: Server, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    with tracked(server, tmp_path, Listener()) as trackers:
        trackers.log(1, {"loss": 1.0})
    first = _remembered(tmp_path)["id"]
    MlflowClient(server.uri).delete_run(first)
    with tracked(server, tmp_path, Listener()) as trackers:
        trackers.log(1, {"loss": 1.0})
    assert _remembered(tmp_path)["id"] != first
    assert steps(server, tmp_path, "loss") == [1]


def test_what_the_server_refuses_does_not_hold_up_what_follows(
    server: Server, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    listener = Listener()
    with tracked(server, tmp_path, listener) as trackers:
        trackers.log(1, {"loss": 1.0})
        wait_for_step(tmp_path, 1)
        client, run_id = MlflowClient(server.uri), _remembered(tmp_path)["id"]
        client.delete_run(run_id)
        trackers.log(2, {"loss": 0.5})
        while len(listener.lines) < 2:
            trackers.log(3, {"loss": 0.3})
            time.sleep(0.05)
        client.restore_run(run_id)
        trackers.log(4, {"loss": 0.25})
    assert "refuses what it is sent" in listener.lines[1]
    assert steps(server, tmp_path, "loss")[-1] == 4
    assert "steps were not sent" in listener.lines[-1]


def test_a_server_that_is_killed_in_the_middle_gets_everything_when_it_is_back(
    server: Server, tmp_path: Path
) -> None:
    listener = Listener()
    with tracked(server, tmp_path, listener) as trackers:
        for step in range(1, 101):
            trackers.log(step, {"loss": 1 / step})
        wait_for_step(tmp_path, 1)
        server.kill()
        for step in range(101, 201):
            trackers.log(step, {"loss": 1 / step})
        until = time.monotonic() + 60
        while len(listener.lines) < 2 and time.monotonic() < until:
            trackers.log(200, {"loss": 1 / 200})
            time.sleep(0.05)
        server.start()
        trackers.log(201, {"loss": 1 / 201})
        wait_for_step(tmp_path, 201)
    place = f"mlflow at {server.uri}"
    assert listener.lines[1:] == [
        f"{place}: does not answer; the run goes on, events.jsonl has everything",
        f"{place}: answers again; what was waiting is sent",
    ]
    assert sorted(set(steps(server, tmp_path, "loss"))) == list(range(1, 202))
    assert found_run(server, tmp_path).info.status == "FINISHED"


_TRAINING = """
import json, os, signal, sys, time
from pathlib import Path
from slant.config.training_settings import MlflowSettings, TrackSettings
from slant.progress import SilentProgress
from slant.track.outbox import Patience
from slant.track.trackers import open_trackers

folder, last = Path(sys.argv[2]), int(sys.argv[3])
memory = folder / "track" / "track-mlflow.json"
with open_trackers(
    TrackSettings(mlflow=MlflowSettings(uri=sys.argv[1], experiment="narratives")),
    folder=folder / "track", work=folder, name="tune", config={}, progress=SilentProgress(),
    patience=Patience(interval_s=0.02),
) as trackers:
    for step in range(1, last + 1):
        trackers.log(step, {"loss": 1 / step})
    while not (memory.exists() and json.loads(memory.read_text())["sent"].get("loss") == last):
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_killed_with_its_process_goes_on_without_doubled_steps(
    server: Server, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _TRAINING, server.uri, str(tmp_path), "30"],
        timeout=300,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    with tracked(server, tmp_path, Listener()) as trackers:
        for step in range(21, 51):  # from a checkpoint ten steps before
            trackers.log(step, {"loss": 1 / step})
    assert steps(server, tmp_path, "loss") == list(range(1, 51))
    assert found_run(server, tmp_path).info.status == "FINISHED"
