"""What tests of publishing to a bucket of Google's or Azure's have in common."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from counting_proxy import CountingProxy, Request
from slant.artifacts import load
from slant.progress import SilentProgress
from slant.publish.publish import publish_bundle
from slant.publish.pull import pull_bundle
from slant.publish.release import Published, Pulled, Release
from slant.storage import BLOCK_BYTES

__all__ = [
    "WEIGHTS_BYTES",
    "Server",
    "assert_is_published",
    "files_by_arrival",
    "is_write",
    "kill_at_write",
    "publish",
    "pull",
    "tracebacks",
]

WEIGHTS_BYTES = BLOCK_BYTES + 12345
"""Weights that are sent as a file, and not as a block of bytes."""
_WORKER = Path(__file__).with_name("publish_worker.py")
_LIMIT_S = 120


class Server(Protocol):
    """A server of ``gcs_server`` or ``azure_server``."""

    endpoint: str

    def put(self, path: str, content: bytes) -> None: ...

    def get(self, path: str) -> bytes: ...

    def keys(self, bucket: str) -> list[str]: ...


def publish(release: Release, to: str, *aliases: str, dry_run: bool = False) -> Published:
    return publish_bundle(release.folder, to, aliases=aliases, dry_run=dry_run)


def pull(to: str, folder: Path, version: str | None = None) -> Pulled:
    return pull_bundle(to, folder, version=version, progress=SilentProgress())


def assert_is_published(release: Release, to: str, folder: Path) -> None:
    """Pull what is there and compare it byte by byte."""
    assert pull(to, folder).version == release.version
    for name in release.files:
        assert (folder / name).read_bytes() == release.path(name).read_bytes(), name
    load(folder, "export").verify()


def is_write(request: Request) -> bool:
    """Whether a request sends content, or announces some (to Google's server)."""
    return request.method == "PUT" or "/upload/" in request.path


def files_by_arrival(server: Server, proxy: CountingProxy, release: Release, to: str) -> list[str]:
    """Publish through the proxy; the names of the files in the order in which they appeared."""
    bucket = to.split("/")[2]
    arrived: list[str] = []

    def look(request: Request) -> None:
        if is_write(request):
            arrived.extend(key for key in server.keys(bucket) if key not in arrived)

    proxy.before = look
    publish(release, to)
    look(Request("PUT", ""))
    return arrived


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged with a traceback, as libraries do with what they raise as well."""
    return [record.getMessage() for record in caplog.records if record.exc_info]


def kill_at_write(
    number: int, release: Release, to: str, proxy: CountingProxy, environment: Mapping[str, str]
) -> None:
    """Publish in a process of its own, which is killed as it sends its request of this number.

    That request is lost.
    """
    started, counting, count = threading.Event(), threading.Lock(), 0
    process: subprocess.Popen[bytes] | None = None

    def before(request: Request) -> None:
        nonlocal count
        with counting:
            count += is_write(request)
            is_the_one = is_write(request) and count == number
        if is_the_one:
            started.wait(_LIMIT_S)
            assert process is not None
            process.send_signal(signal.SIGKILL)
            proxy.cut()
            raise ConnectionAbortedError

    proxy.before = before
    process = subprocess.Popen(
        [sys.executable, _WORKER, release.folder, to, "0"],
        env=dict(environment),
        stderr=subprocess.PIPE,
    )
    started.set()
    _, errors = process.communicate(timeout=_LIMIT_S)
    assert process.returncode == -signal.SIGKILL, errors.decode()
    proxy.before = lambda request: None
    proxy.settle()
