from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slant.config.training_settings import MlflowSettings, TrackSettings, WandbSettings
from slant.errors import UsageError
from slant.track.failures import explain
from slant.track.targets import check_trackers, targets


def settings(kind: str) -> TrackSettings:
    return {
        "wandb": TrackSettings(wandb=WandbSettings(project="p", mode="offline")),
        "mlflow": TrackSettings(mlflow=MlflowSettings(uri="http://localhost:5000")),
        "tensorboard": TrackSettings(tensorboard=True),
    }[kind]


@pytest.mark.parametrize("kind", ["wandb", "mlflow", "tensorboard"])
def test_a_package_that_is_missing_is_named_with_what_installs_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)  # as if it were not installed
    with pytest.raises(UsageError) as caught:
        check_trackers(settings(kind))
    assert kind in caught.value.message
    assert caught.value.hint == f"pip install 'slant[{kind}]'"


def test_wandb_online_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UsageError, match="WANDB_API_KEY is not set") as caught:
        check_trackers(TrackSettings(wandb=WandbSettings(project="p")))
    assert "offline" in caught.value.hint
    check_trackers(TrackSettings(wandb=WandbSettings(project="p", mode="offline")))
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    check_trackers(TrackSettings(wandb=WandbSettings(project="p")))


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:hunter2@host:5000",
        "https://me@host",
        "http://host:hunter2/x",
        "http://host:hunt/er2@x",
        "http://host/?token=hunter2",
        "postgresql://me:hunter2@db/mlflow",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(uri: str) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    with pytest.raises(UsageError, match="holds credentials") as caught:
        check_trackers(TrackSettings(mlflow=MlflowSettings(uri=uri)))
    assert "hunt" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "https://host/mlflow", "http://[::1]:5000", "databricks://scope:prefix",
     "sqlite:///runs.db", "databricks"],
)  # fmt: skip
def test_a_plain_address_is_accepted(uri: str) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    check_trackers(TrackSettings(mlflow=MlflowSettings(uri=uri)))


def test_a_run_offline_and_one_online_are_not_the_same_run(tmp_path: Path) -> None:
    found = [
        targets(TrackSettings(wandb=WandbSettings(project=project, mode=mode)), tmp_path)[0]
        for project, mode in (("p", "offline"), ("p", "online"), ("q", "online"))
    ]
    assert len({target.identity for target in found}) == 3


def test_of_a_server_named_in_the_environment_only_the_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://me:hunter2@wandb.example/?key=hunter2")
    [target] = targets(TrackSettings(wandb=WandbSettings(project="p")), tmp_path)
    assert str(target) == "wandb at https://wandb.example"


SECRET = "http://me:hunter2@host/api?token=hunter2"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(SECRET), "does not answer"),
        (TimeoutError(SECRET), "does not answer"),
        (RuntimeError(f"{SECRET}: too many 503 error responses"), "failed (HTTP 503)"),
        (RuntimeError(f"{SECRET} error code 401 != 200"), "refuses the credentials (HTTP 401)"),
        (RuntimeError(SECRET), "failed (RuntimeError)"),
    ],
)
def test_a_failure_is_told_in_plain_words_without_the_library_s(
    error: Exception, reason: str
) -> None:
    assert explain(error) == reason


def test_the_cause_of_a_library_s_error_is_what_is_told() -> None:
    error = RuntimeError(SECRET)
    error.__context__ = ConnectionResetError()  # raised in an except block, as mlflow does
    assert explain(error) == "does not answer"
