"""Releases in the model registry of a real MLflow server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_server import Server, mlflow_server
from slant.errors import ArtifactError, GateError, StorageError, UsageError
from slant.patience import at_most
from slant.progress import SilentProgress
from slant.publish.mlflow_model import MlflowAddress, mlflow_address
from slant.publish.mlflow_registry import publish_to_mlflow
from slant.publish.publish import publish_bundle
from slant.publish.pull import pull_bundle
from slant.publish.release import Entry, Published, Release
from tiny_release import write_release

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return write_release(tmp_path / "bundle", weights_bytes=50_000)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model for each test, on one server."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


def publish(
    server: Server,
    name: str,
    release: Release,
    *,
    dry_run: bool = False,
    aliases: Sequence[str] = (),
) -> Published:
    target = f"mlflow+{server.uri}/{name}"
    return publish_to_mlflow(
        release, target, dry_run=dry_run, aliases=aliases, progress=SilentProgress()
    )


def versions(server: Server, name: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(server.uri, server.uri).search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda item: int(item.version))


def stored(server: Server, name: str) -> dict[str, bytes]:
    """What the artifacts of the model's only version hold, fetched over HTTP."""
    from mlflow.tracking import MlflowClient

    (version,) = versions(server, name)
    client = MlflowClient(server.uri, server.uri)
    folder = Path(client.download_artifacts(version.run_id, "bundle"))
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def content(release: Release) -> dict[str, bytes]:
    return {name: release.path(name).read_bytes() for name in release.files}


def aliases_of(server: Server, name: str) -> dict[str, str]:
    from mlflow.tracking import MlflowClient

    model = MlflowClient(server.uri, server.uri).get_registered_model(name)
    return {alias: str(number) for alias, number in model.aliases.items()}


def test_a_release_becomes_a_version_with_its_files_and_tags(
    server: Server, name: str, release: Release, capfd: pytest.CaptureFixture[str]
) -> None:
    published = publish(server, name, release, aliases=["champion"])
    assert capfd.readouterr() == ("", "")  # the client likes to print
    (version,) = versions(server, name)
    assert version.status == "READY"
    assert version.tags["slant.version"] == release.version
    assert version.tags["slant.fingerprint"] == release.facts["fingerprint"]
    assert stored(server, name) == content(release)
    assert published.url == f"{server.uri}/#/models/{name}/versions/{version.version}"
    assert (published.sent_bytes, published.was_there) == (release.num_bytes, False)


def test_publishing_again_sends_and_registers_nothing(
    server: Server, name: str, release: Release
) -> None:
    publish(server, name, release)
    published = publish(server, name, release)
    assert (published.sent_bytes, published.was_there) == (0, True)
    assert len(versions(server, name)) == 1


def test_a_dry_run_writes_nothing(server: Server, name: str, release: Release) -> None:
    from mlflow.tracking import MlflowClient

    published = publish(server, name, release, dry_run=True, aliases=["champion"])
    assert published.sent_bytes == release.num_bytes
    assert versions(server, name) == []
    assert MlflowClient(server.uri).get_experiment_by_name(name) is None


def test_the_figure_of_the_evaluation_is_a_tag(server: Server, name: str, release: Release) -> None:
    report = {"systems": [{"overall": {"macro_f1": {"value": 0.71234}}}]}
    release.path("report.json").write_text(json.dumps(report), "utf-8")
    files = {"report.json": Entry.of(release.path("report.json")), **release.files}
    publish(server, name, replace(release, files=files))
    assert versions(server, name)[0].tags["slant.macro_f1"] == "0.7123"


def test_an_alias_moves_to_the_new_release_and_back(
    server: Server, name: str, release: Release, tmp_path: Path
) -> None:
    publish(server, name, release, aliases=["champion"])
    second = write_release(tmp_path / "second", seed=2, weights_bytes=1000)
    publish(server, name, second, aliases=["champion", "candidate"])
    assert aliases_of(server, name) == {"champion": "2", "candidate": "2"}
    publish(server, name, release, aliases=["champion"])
    assert aliases_of(server, name) == {"champion": "1", "candidate": "2"}
    assert len(versions(server, name)) == 2


def test_without_a_passed_proof_nothing_is_registered(
    server: Server, name: str, tmp_path: Path
) -> None:
    with pytest.raises(GateError):
        write_release(tmp_path / "bundle", proof='{"passed": false}')
    with pytest.raises(GateError, match="nothing was published"):
        publish_bundle(tmp_path / "bundle", f"mlflow+{server.uri}/{name}", aliases=["champion"])
    assert versions(server, name) == []


_PUBLISH = """
import os, signal, sys
from contextlib import contextmanager
from slant.publish.mlflow_registry import publish_to_mlflow
from slant.publish.release import Release

class Killer:
    # Ends the process once as many files are sent as it is told, or at the end of the last one.
    def __init__(self, files):
        self.left = files
    def say(self, message):
        pass
    @contextmanager
    def task(self, *_):
        yield self
        os.kill(os.getpid(), signal.SIGKILL)
    def advance(self, count=1, **_):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

publish_to_mlflow(Release.of(sys.argv[1]), sys.argv[2], dry_run=False, aliases=["champion"],
                  progress=Killer(int(sys.argv[3])))
"""


@pytest.mark.parametrize("sent", [1, 4, 100])
def test_an_upload_that_was_killed_goes_on_and_is_registered_once(
    sent: int, server: Server, name: str, release: Release
) -> None:
    target = f"mlflow+{server.uri}/{name}"
    ended = subprocess.run(
        [sys.executable, "-c", _PUBLISH, str(release.folder), target, str(sent)],
        timeout=300,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert versions(server, name) == []
    published = publish(server, name, release, aliases=["champion"])
    kept = [file.name for file in published.files if not file.sent_bytes]
    assert kept == list(release.files)[:sent]
    assert len(versions(server, name)) == 1
    assert stored(server, name) == content(release)
    assert aliases_of(server, name) == {"champion": "1"}


def test_a_file_that_arrived_in_part_or_was_lost_is_sent_again(
    server: Server, name: str, release: Release
) -> None:
    publish(server, name, release)
    (version,) = versions(server, name)
    (folder,) = (server.folder / "artifacts").rglob(f"{version.run_id}/artifacts/bundle")
    (folder / "slant.json").unlink()
    (folder / "causal-lm" / "model.safetensors").write_bytes(b"half")
    published = publish(server, name, release)
    sent = {file.name for file in published.files if file.sent_bytes}
    assert sent == {"slant.json", "causal-lm/model.safetensors"}
    assert stored(server, name) == content(release)


def test_the_server_may_be_named_by_mlflows_own_variable(
    server: Server, name: str, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    publish_bundle(release.folder, f"models:/{name}", aliases=["champion"])
    assert aliases_of(server, name) == {"champion": "1"}


def test_what_was_registered_is_pulled_by_version_alias_and_number(
    server: Server, name: str, release: Release, tmp_path: Path
) -> None:
    publish(server, name, release, aliases=["champion"])
    second = write_release(tmp_path / "second", seed=2, weights_bytes=1000)
    publish(server, name, second)

    def pull(version: str | None) -> dict[str, bytes]:
        source, folder = f"mlflow+{server.uri}/{name}", tmp_path / f"pulled-{version}"
        pull_bundle(source, folder, version=version, progress=SilentProgress())
        return content(Release.of(folder))

    assert pull("champion") == pull("1") == pull(release.version) == content(release)
    assert pull(None) == content(second)
    with pytest.raises(UsageError, match="has no version 'other'") as error:
        pull("other")
    assert release.version in error.value.hint


def test_a_file_that_was_changed_on_the_server_is_not_pulled(
    server: Server, name: str, release: Release, tmp_path: Path
) -> None:
    publish(server, name, release)
    (version,) = versions(server, name)
    (folder,) = (server.folder / "artifacts").rglob(f"{version.run_id}/artifacts/bundle")
    weights = folder / "causal-lm" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    source = f"mlflow+{server.uri}/{name}"
    with pytest.raises(ArtifactError, match=r"model\.safetensors: is damaged"):
        pull_bundle(source, tmp_path / "pulled", progress=SilentProgress())
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"model\.safetensors: has 0 bytes instead of 50000"):
        pull_bundle(source, tmp_path / "pulled", progress=SilentProgress())
    assert not (tmp_path / "pulled" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("mlflow+http://host:5000/narratives", "http://host:5000"),
        ("mlflow+https://host/prefix/narratives/", "https://host/prefix"),
    ],
)
def test_an_address_names_a_server_and_a_model(target: str, uri: str) -> None:
    assert mlflow_address(target) == MlflowAddress(uri, "narratives")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mlflow+http://host:5000", "is no registered model"),
        ("mlflow+http://host:5000/a b", "is no registered model"),
        ("models:/narratives@champion", "is no registered model"),
        ("mlflow+http://secret@host/narratives", "is no registered model"),
        ("models:/narratives", "MLFLOW_TRACKING_URI names no server"),
        ("mlflow+http://mia:secret@host:5000/narratives", "the URL holds credentials"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(
    target: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UsageError, match=message) as error:
        mlflow_address(target)
    assert "secret" not in str(error.value)


def sign(release: Release, content: str) -> Release:
    release.path("manifest.json.minisig").write_text(content)
    return Release.of(release.folder)


def test_a_signature_can_be_added_and_is_not_replaced(
    server: Server, name: str, release: Release
) -> None:
    publish(server, name, release)
    signed = publish(server, name, sign(release, "first"))
    assert [file.name for file in signed.files if file.sent_bytes] == ["manifest.json.minisig"]
    assert not signed.was_there
    assert publish(server, name, sign(release, "first")).was_there
    with pytest.raises(ArtifactError, match=r"minisig: is not what was published"):
        publish(server, name, sign(release, "other"))
    assert stored(server, name)["manifest.json.minisig"] == b"first"


def test_a_version_whose_run_was_deleted_is_an_error_that_says_what_to_do(
    server: Server, name: str, release: Release
) -> None:
    from mlflow.tracking import MlflowClient

    publish(server, name, release)
    (version,) = versions(server, name)
    client = MlflowClient(server.uri, server.uri)
    client.delete_run(version.run_id)
    with pytest.raises(ArtifactError, match=f"its run {version.run_id} was deleted") as error:
        publish(server, name, release)
    assert f"mlflow runs restore --run-id {version.run_id}" in error.value.hint
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    assert client.search_runs([experiment.experiment_id]) == []
    client.restore_run(version.run_id)
    assert publish(server, name, release).was_there


def test_a_password_in_mlflows_own_variable_is_used_and_not_shown(
    server: Server, name: str, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = server.uri.replace("http://", "http://mia:secret@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert mlflow_address("models:/x").uri == uri
    published = publish_bundle(release.folder, f"models:/{name}")
    assert published.url == f"{server.uri}/#/models/{name}/versions/1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mia:secret@127.0.0.1:9")
    with at_most(0.1), pytest.raises(StorageError, match="no answer") as error:
        publish_bundle(release.folder, f"models:/{name}")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("alias", ["latest", "1", "v2", "a b"])
def test_an_alias_that_mlflow_would_read_otherwise_is_refused(
    alias: str, name: str, release: Release
) -> None:
    with pytest.raises(UsageError, match="cannot be the name of an alias"):
        publish_bundle(release.folder, f"mlflow+http://host:5000/{name}", aliases=[alias])
