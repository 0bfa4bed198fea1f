"""Releases in a real server that speaks Google Cloud Storage's protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from counting_proxy import CountingProxy, counting_proxy
from gcs_server import GcsServer, gcs_environment, gcs_server
from publishing import (
    WEIGHTS_BYTES,
    assert_is_published,
    files_by_arrival,
    kill_at_write,
    publish,
    pull,
    tracebacks,
)
from slant.config.ingest_settings import DocumentSource
from slant.errors import ArtifactError, InputError, StorageError, UsageError
from slant.ingest.sources import find_sources
from slant.patience import at_most
from slant.publish.release import Release
from slant.tables.reader import read_rows
from tiny_release import write_release

pytest.importorskip("gcsfs", reason="the extra gcs is not installed")
pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

AWAY = "127.0.0.1:9"
"""Where no server listens."""


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with gcs_server() as server:
        server.put("models", b"")
        yield server


@pytest.fixture
def proxy(server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingProxy]:
    with counting_proxy(server.endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.endpoint)
        yield proxy


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(tmp_path_factory.mktemp("a") / "bundle", weights_bytes=WEIGHTS_BYTES)


@pytest.fixture
def to(tmp_path: Path, server: GcsServer) -> str:
    """A place of its own for each test."""
    return f"gs://models/{tmp_path.name}"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """gcsfs itself asks six times, within half a minute; here it does so at once."""

    async def sleep(seconds: float) -> None:
        pass

    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=sleep))


@pytest.fixture
def new_connections() -> Iterator[None]:
    """fsspec makes file systems anew, with the credentials of this test."""
    from gcsfs.core import GCSFileSystem

    GCSFileSystem.clear_instance_cache()
    yield
    GCSFileSystem.clear_instance_cache()


def key_of(release: Release, to: str, name: str) -> str:
    return f"{to.removeprefix('gs://')}/versions/{release.version}/{name}"


def test_a_release_comes_back_as_it_went(to: str, release: Release, tmp_path: Path) -> None:
    published = publish(release, to, "champion")
    assert (published.sent_bytes, published.was_there) == (release.num_bytes, False)
    assert published.url == f"{to}/versions/{release.version}"
    assert_is_published(release, to, tmp_path / "pulled")
    assert pull(to, tmp_path / "pulled", "champion").fetched_bytes == 0
    again = publish(release, to)
    assert (again.sent_bytes, again.was_there) == (0, True)


def test_the_manifest_is_the_last_file_and_latest_comes_after_it(
    to: str, server: GcsServer, proxy: CountingProxy, tmp_path: Path
) -> None:
    release = write_release(tmp_path / "bundle", weights_bytes=1000)
    server.put("ordered", b"")
    arrived = files_by_arrival(server, proxy, release, "gs://ordered/a")
    folder = f"a/versions/{release.version}"
    assert arrived == [*(f"{folder}/{name}" for name in release.files), "a/latest.json"]
    assert list(release.files)[-1] == "manifest.json"


def test_a_dry_run_sends_nothing(
    to: str, release: Release, proxy: CountingProxy, server: GcsServer
) -> None:
    planned = publish(release, to, dry_run=True)
    assert planned.sent_bytes == release.num_bytes
    assert {request.method for request in proxy.requests} == {"GET"}
    assert not [key for key in server.keys("models") if f"gs://models/{key}".startswith(to)]


def test_a_published_version_is_never_overwritten(
    to: str, release: Release, server: GcsServer
) -> None:
    publish(release, to)
    key = key_of(release, to, "manifest.json")
    server.put(key, b"{}")
    with pytest.raises(ArtifactError, match="other contents are published under this version"):
        publish(release, to)
    assert server.get(key) == b"{}"


@pytest.mark.parametrize("name", ["slant.json", "causal-lm/model.safetensors"])
def test_a_flipped_byte_is_found_by_whoever_pulls_and_whoever_publishes(
    name: str, to: str, release: Release, server: GcsServer, tmp_path: Path
) -> None:
    publish(release, to)
    content = bytearray(server.get(key_of(release, to, name)))
    content[-1] ^= 1
    server.put(key_of(release, to, name), bytes(content))
    with pytest.raises(ArtifactError, match=rf"{name}: is damaged"):
        pull(to, tmp_path / "pulled")
    assert not (tmp_path / "pulled" / "manifest.json").exists()
    with pytest.raises(ArtifactError, match=rf"{name}: is not what was published"):
        publish(release, to)


def test_a_file_that_was_cut_off_is_found_by_whoever_pulls(
    to: str, release: Release, server: GcsServer, tmp_path: Path
) -> None:
    publish(release, to)
    server.put(key_of(release, to, "causal-lm/model.safetensors"), b"short")
    with pytest.raises(ArtifactError, match=r"model\.safetensors: is damaged \(it is shorter"):
        pull(to, tmp_path / "pulled")


# README, two of causal-lm (the second is announced first), …; the 10th the manifest, then latest.
@pytest.mark.parametrize(("write", "finished"), [(4, 2), (10, 7), (11, 8)])
def test_an_upload_that_was_killed_goes_on_and_sends_no_finished_file_again(
    *,
    write: int,
    finished: int,
    to: str,
    release: Release,
    server: GcsServer,
    proxy: CountingProxy,
    tmp_path: Path,
) -> None:
    kill_at_write(write, release, to, proxy, {**os.environ, **gcs_environment(proxy.endpoint)})
    prefix = key_of(release, to, "").removeprefix("models/")
    there = [key.removeprefix(prefix) for key in server.keys("models") if key.startswith(prefix)]
    assert sorted(there) == sorted(list(release.files)[:finished])
    with pytest.raises(ArtifactError, match=r"latest\.json: is not there"):
        pull(to, tmp_path / "pulled")
    published = publish(release, to)
    assert sorted(file.name for file in published.files if not file.sent_bytes) == sorted(there)
    assert_is_published(release, to, tmp_path / "pulled")


def test_a_bucket_that_is_not_there_is_an_error_that_names_it(
    release: Release, server: GcsServer, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="gs://nobody-has-it/a: there is no such file") as error:
        publish(release, "gs://nobody-has-it/a")
    assert error.value.hint == "Make the bucket nobody-has-it first."
    with pytest.raises(ArtifactError, match=r"latest\.json: is not there"):
        pull("gs://nobody-has-it/a", tmp_path / "pulled")


def test_a_refusal_is_an_error_at_once(
    to: str,
    release: Release,
    proxy: CountingProxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy.refuses = lambda request: True
    for attempt in (lambda: publish(release, to), lambda: pull(to, tmp_path / "pulled")):
        with pytest.raises(InputError, match=r"latest\.json: access is refused") as error:
            attempt()
        assert "Check the credentials" in error.value.hint
    assert not tracebacks(caplog)


def test_who_may_write_objects_need_not_have_the_right_to_ask_for_the_bucket(
    to: str, release: Release, proxy: CountingProxy, tmp_path: Path
) -> None:
    proxy.refuses = lambda request: request.path.split("?")[0] == "/storage/v1/b/models"
    publish(release, to)
    assert_is_published(release, to, tmp_path / "pulled")


@pytest.mark.usefixtures("no_waiting", "new_connections")
def test_a_key_that_is_not_taken_is_an_error_that_says_so(
    *,
    to: str,
    release: Release,
    server: GcsServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {
        "type": "service_account",
        "project_id": "test",
        "private_key": pem,
        "client_email": "nobody@test.example",
        "token_uri": f"{server.endpoint}/token/none",  # where no token is given for it
    }
    (tmp_path / "key.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(InputError, match=r"access is refused \(Invalid Credentials"):
        publish(release, to)
    assert not tracebacks(caplog)


@pytest.mark.usefixtures("new_connections")
def test_a_token_that_gcsfs_cannot_use_is_an_error_that_does_not_repeat_it(
    to: str, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    (tmp_path / "key.json").write_text('{"refresh": "secret"}')
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": str(tmp_path / "key.json")})
    with pytest.raises(UsageError, match=r"gs://models/.*: cannot be used") as error:
        publish(release, to)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in error.value.hint
    assert "secret" not in str(error.value)


@pytest.mark.usefixtures("no_waiting")
def test_a_server_that_does_not_answer_is_an_error_that_names_it(
    to: str,
    release: Release,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{AWAY}")
    for attempt in (lambda: publish(release, to), lambda: pull(to, tmp_path / "pulled")):
        with at_most(0.1), pytest.raises(InputError, match=r"no answer for 0\.1 s") as error:
            attempt()
        assert AWAY in error.value.message
        assert "Check the network" in error.value.hint
    assert not tracebacks(caplog)


def test_nothing_published_is_told_in_a_line(to: str, server: GcsServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("slant"), "pull", to, tmp_path / "pulled"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "300", "NO_COLOR": "1"},
    )
    assert done.returncode == 1
    assert f"{to}/latest.json: is not there" in done.stderr
    assert "slant publish BUNDLE TO" in done.stderr
    assert "Traceback" not in done.stderr


def test_documents_are_read_from_a_bucket(server: GcsServer, tmp_path: Path) -> None:
    texts = [f"text {i} привет" for i in range(500)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    for name in ("a.jsonl", "sub/b.jsonl", "sub/c d.jsonl"):
        server.put(f"documents/in/{name}", lines)
    for path, expected in [
        ("gs://documents/in", ["a.jsonl", "sub/b.jsonl", "sub/c d.jsonl"]),
        ("gs://documents/in/*.jsonl", ["a.jsonl"]),
        ("gcs://documents/in/sub/c d.jsonl", ["sub/c d.jsonl"]),
    ]:
        (source,) = find_sources("documents", [DocumentSource(path=path)], tmp_path, {})
        assert [file.location.partition("/in/")[2] for file in source.files] == expected
        for file in source.files:
            rows = read_rows(file.location, name="a", columns=("text",), block_bytes=4000)
            assert [row.values["text"] for row in rows if row.values] == texts
