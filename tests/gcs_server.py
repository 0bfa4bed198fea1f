"""A Google Cloud Storage server of its own for a test, which can be killed and started again.

It is gcp-storage-emulator in a process of its own, which keeps what was stored on disk. It asks for
no credentials.

    with gcs_server() as server:
        server.put("bucket/a.jsonl", b"...")
        server.kill()      # SIGKILL: requests fail from here on
        server.restart()   # the same port, the same objects

In the block the environment leads gcsfs to the server, without credentials, and gcsfs does not ask
for the kind of a bucket: it would do so over gRPC, which the emulator does not speak.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

__all__ = ["GcsServer", "gcs_environment", "gcs_server"]

_HOST = "127.0.0.1"
_START_S = 60.0


@contextmanager
def gcs_server() -> Iterator[GcsServer]:
    """A running server; the environment and fsspec's connections are put back afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        server = GcsServer(Path(folder))
        before = dict(os.environ)
        os.environ.pop("GOOGLE_APPLICATION_CREDENTIALS", None)
        os.environ.update(gcs_environment(server.endpoint), CLOUDSDK_CONFIG=folder)
        try:
            with _plain_gcsfs():
                yield server
        finally:
            server.kill()
            os.environ.clear()
            os.environ.update(before)


def gcs_environment(endpoint: str) -> dict[str, str]:
    """What leads gcsfs to a server that is not Google's."""
    return {
        "STORAGE_EMULATOR_HOST": endpoint,
        "NO_GCE_CHECK": "true",  # no machine of Google's is asked for credentials
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


@contextmanager
def _plain_gcsfs() -> Iterator[None]:
    """What GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT does, if gcsfs was imported before it was set.

    fsspec keeps file systems by their arguments, of which the environment is none.
    """
    import fsspec
    from gcsfs.core import GCSFileSystem

    before = {name: fsspec.get_filesystem_class(name) for name in ("gs", "gcs")}
    try:
        for name in before:
            fsspec.register_implementation(name, GCSFileSystem, clobber=True)
        GCSFileSystem.clear_instance_cache()
        yield
    finally:
        GCSFileSystem.clear_instance_cache()
        for name, kind in before.items():
            fsspec.register_implementation(name, kind, clobber=True)


@final
class GcsServer:
    """The server's process; ``endpoint`` is its address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server((_HOST, 0)) as found:
            self._port = found.getsockname()[1]
        self.endpoint = f"http://{_HOST}:{self._port}"
        self.restart()

    def put(self, path: str, content: bytes) -> None:
        """Store an object at ``bucket/key``; the bucket is made."""
        bucket, _, key = path.partition("/")
        try:
            self._ask(f"storage/v1/b/{bucket}")
        except HTTPError:
            self._ask("storage/v1/b?project=test", json.dumps({"name": bucket}).encode())
        if key:
            name = quote(key, safe="")
            self._ask(f"upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", content)

    def get(self, path: str) -> bytes:
        """The object at ``bucket/key``."""
        bucket, _, key = path.partition("/")
        return self._ask(f"storage/v1/b/{bucket}/o/{quote(key, safe='')}?alt=media")

    def keys(self, bucket: str) -> list[str]:
        """The keys in a bucket, sorted."""
        found: dict[str, Any] = json.loads(self._ask(f"storage/v1/b/{bucket}/o"))
        return sorted(item["name"] for item in found["items"])

    def kill(self) -> None:
        """End the server with SIGKILL, in the middle of whatever it does."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start a killed server again, at the same address and with the same objects."""
        command = [sys.executable, "-m", "gcp_storage_emulator"]
        command += ["--data-dir", str(self._folder.resolve() / "objects")]
        command += ["start", "--host", _HOST, "--port", str(self._port), "--quiet"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + _START_S
        while not self._answers():
            log_text = (self._folder / "server.log").read_text()
            assert self._process.poll() is None, f"the server ended:\n{log_text}"
            assert time.monotonic() < until, f"the server does not start:\n{log_text}"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self._ask("") == b"OK"
        except (URLError, OSError):
            return False

    def _ask(self, path: str, content: bytes | None = None) -> bytes:
        kind = "application/json" if path.startswith("storage") else "application/octet-stream"
        request = Request(f"{self.endpoint}/{path}", content, {"Content-Type": kind})
        with urlopen(request, timeout=60) as answer:
            return bytes(answer.read())
