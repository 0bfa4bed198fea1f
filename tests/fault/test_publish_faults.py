"""Uploads to a real S3 server that are killed, and readers that come at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from counting_proxy import CountingProxy, Request, counting_proxy
from s3_server import S3Server, s3_server
from slant.artifacts import load
from slant.progress import SilentProgress
from slant.publish.object_store import publish_to_store
from slant.publish.pull import pull_bundle
from slant.publish.release import Release
from slant.publish.s3_store import S3Store
from slant.storage import remove_url
from tiny_release import write_release

WORKER = Path(__file__).parents[1] / "publish_worker.py"
PART_BYTES = 5 << 20
NUM_PARTS = 4  # of each of the two weight files; the last one is smaller
WEIGHTS_BYTES = 3 * PART_BYTES + 12345
LIMIT_S = 60


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        server.put("models", b"")
        yield server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[CountingProxy]:
    with counting_proxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(tmp_path_factory.mktemp("a") / "bundle", weights_bytes=WEIGHTS_BYTES)


def start(
    release: Release, to: str, proxy: CountingProxy, *aliases: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, WORKER, release.folder, to, str(PART_BYTES), *aliases],
        env={**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint},
        stderr=subprocess.PIPE,
    )


def run(release: Release, to: str, proxy: CountingProxy, *aliases: str) -> None:
    process = start(release, to, proxy, *aliases)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors.decode()


def kill_at(
    release: Release, to: str, proxy: CountingProxy, *moment: str, is_lost: bool = False
) -> None:
    """Run the worker and kill it when a request comes in that has these words.

    That request itself ``is_lost``, or is passed on all the same; what follows it is lost.
    """
    started = threading.Event()
    process: subprocess.Popen[bytes] | None = None

    def before(request: Request) -> None:
        if all(word in f"{request.method} {request.path}" for word in moment):
            started.wait(LIMIT_S)
            assert process is not None
            process.send_signal(signal.SIGKILL)
            proxy.cut()
            if is_lost:
                raise ConnectionAbortedError

    proxy.before = before
    process = start(release, to, proxy)
    started.set()
    assert process.wait(LIMIT_S) == -signal.SIGKILL, process.communicate()[1].decode()
    assert process.stderr is not None
    process.stderr.close()
    proxy.before = lambda request: None
    proxy.settle()


def assert_is_published(release: Release, to: str, folder: Path) -> None:
    pulled = pull_bundle(to, folder, progress=SilentProgress())
    assert pulled.version == release.version
    for name in release.files:
        assert (folder / name).read_bytes() == release.path(name).read_bytes(), name
    load(folder, "export").verify()


def test_an_upload_that_is_killed_again_and_again_goes_on_where_it_was(
    release: Release, server: S3Server, proxy: CountingProxy, tmp_path: Path
) -> None:
    to = "s3://models/killed"
    moments = [
        ("POST", "causal-lm/model.safetensors?uploads"),
        ("PUT", "causal-lm", "partNumber=2"),  # lost, so that there is a part left for the next
        ("PUT", "causal-lm", "partNumber="),
        ("POST", "causal-lm/model.safetensors?uploadId="),
        ("PUT", "classifier", "partNumber=3"),
        ("PUT", "manifest.json"),
        ("PUT", "latest.json"),
    ]
    for number, moment in enumerate(moments):
        kill_at(release, to, proxy, *moment, is_lost=number in (1, 2))
        is_there = "killed/latest.json" in server.keys("models")
        assert is_there == (number == len(moments) - 1)
    run(release, to, proxy)
    assert_is_published(release, to, tmp_path / "pulled")
    folder = f"/models/killed/versions/{release.version}"
    assert sorted(proxy.parts()) == [
        (f"{folder}/{name}/model.safetensors", part)
        for name in ("causal-lm", "classifier")
        for part in range(1, NUM_PARTS + 1)
    ]


def test_an_upload_that_was_stopped_sends_no_part_and_no_file_twice(
    release: Release, proxy: CountingProxy
) -> None:
    to = "s3://models/stopped"
    kill_at(release, to, proxy, "PUT", "classifier", "partNumber=4", is_lost=True)
    before = len(proxy.requests)
    run(release, to, proxy)
    written = [
        request.path.partition(f"{release.version}/")[2]
        for request in proxy.requests[before:]
        if request.method == "PUT" and "latest" not in request.path
    ]
    assert all("partNumber" in path for path in written if "model.safetensors" in path)
    assert {path.partition("?")[0] for path in written} == {
        "classifier/model.safetensors",
        "parity.json",
        "slant.json",
        "manifest.json",
    }
    parts = proxy.parts()
    assert len(parts) == len(set(parts)) == 2 * NUM_PARTS


def test_a_part_that_was_damaged_in_the_unfinished_upload_is_sent_again(
    release: Release, server: S3Server, tmp_path: Path
) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=server.endpoint)
    key = f"damaged/versions/{release.version}/causal-lm/model.safetensors"
    upload = client.create_multipart_upload(Bucket="models", Key=key)["UploadId"]
    content = release.path("causal-lm/model.safetensors").read_bytes()
    parts = [content[:PART_BYTES], b"x" * PART_BYTES, content[2 * PART_BYTES :][: PART_BYTES - 1]]
    for number, part in enumerate(parts, 1):
        client.upload_part(Bucket="models", Key=key, UploadId=upload, PartNumber=number, Body=part)
    to = "s3://models/damaged"
    store = S3Store(to, part_bytes=PART_BYTES)
    published = publish_to_store(
        release, to, dry_run=False, aliases=(), progress=SilentProgress(), store=store
    )
    # The upload was another program's, without the sha256: the file is compared by reading it.
    assert published.kept_bytes == PART_BYTES
    assert_is_published(release, to, tmp_path / "pulled")


def test_who_may_not_list_uploads_begins_an_interrupted_file_anew(
    release: Release, proxy: CountingProxy, tmp_path: Path
) -> None:
    to = "s3://models/unlisted"
    kill_at(release, to, proxy, "PUT", "classifier", "partNumber=4")
    begun = [part for part in proxy.parts() if "classifier" in part[0]]
    proxy.refuses = lambda request: request.method == "GET" and "uploads" in request.path
    run(release, to, proxy)
    assert len(proxy.parts()) == 2 * NUM_PARTS + len(begun)
    assert_is_published(release, to, tmp_path / "pulled")


def test_two_processes_may_publish_the_same_release_at_once(
    release: Release, proxy: CountingProxy, tmp_path: Path
) -> None:
    to = "s3://models/both"
    processes = [start(release, to, proxy) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, errors.decode()
    assert_is_published(release, to, tmp_path / "pulled")


def test_a_reader_sees_the_old_version_or_the_new_one_and_never_a_part(
    release: Release, proxy: CountingProxy, tmp_path: Path
) -> None:
    to = "s3://models/read"
    old = write_release(tmp_path / "old", seed=1, weights_bytes=100_000)
    run(old, to, proxy)
    seen: list[str] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                folder = tmp_path / f"read-{len(seen)}"
                seen.append(pull_bundle(to, folder, progress=SilentProgress()).version)
                load(folder, "export").verify()
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    # The first request of every file waits until the reader has read once more.
    waited: set[str] = set()

    def before(request: Request) -> None:
        path = request.path.partition("?")[0]
        if request.method == "PUT" and path not in waited and reader.is_alive():
            waited.add(path)
            count = len(seen)
            while reader.is_alive() and len(seen) < count + 1:
                done.wait(0.01)

    reader.start()
    proxy.before = before
    try:
        run(release, to, proxy)
    finally:
        done.set()
        reader.join(LIMIT_S)
    assert not failures, failures
    assert_is_published(release, to, tmp_path / "last")
    assert len(waited) >= len(release.files)
    first_new = seen.index(release.version) if release.version in seen else len(seen)
    assert set(seen[:first_new]) == {old.version}
    assert set(seen[first_new:]) <= {release.version}


def test_the_manifest_comes_after_all_files_then_aliases_and_latest_at_last(
    release: Release, proxy: CountingProxy
) -> None:
    run(release, "s3://models/order", proxy, "champion")
    writes = [r.path.partition("?")[0] for r in proxy.requests if r.method in ("PUT", "POST")]
    last = [path.rpartition("/")[2] for path in writes[-3:]]
    assert last == ["manifest.json", "champion.json", "latest.json"]
    assert sum("manifest.json" in path for path in writes) == 1


def test_a_server_that_dies_in_the_middle_is_waited_for(
    release: Release, server: S3Server, proxy: CountingProxy, tmp_path: Path
) -> None:
    to = "s3://models/away"
    killed = threading.Event()

    def before(request: Request) -> None:
        if "slant.json" in request.path and request.method == "PUT" and not killed.is_set():
            killed.set()
            server.kill()
            threading.Timer(0.5, server.restart).start()

    proxy.before = before
    run(release, to, proxy)
    assert killed.is_set()
    assert_is_published(release, to, tmp_path / "pulled")


def test_a_version_that_lost_a_file_is_not_mended_in_silence(
    release: Release, proxy: CountingProxy
) -> None:
    to = "s3://models/lost"
    run(release, to, proxy)
    remove_url(f"{to}/versions/{release.version}/slant.json")
    process = start(release, to, proxy)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert b"slant.json: is missing" in errors
