"""An Azure Blob Storage server of its own for a test, which can be killed and started again.

It is Azurite, a program for Node, which keeps what was stored on disk: the executable
``azurite-blob`` that SLANT_AZURITE names (``make azurite`` installs one).

    with azure_server() as server:
        server.put("container/a.jsonl", b"...")
        server.kill()      # SIGKILL: requests fail from here on
        server.restart()   # the same port, the same blobs

In the block the environment leads adlfs to the server, with its credentials.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import pytest

__all__ = ["AzureServer", "azure_server", "connection_string"]

_HOST = "127.0.0.1"
_ACCOUNT = "devstoreaccount1"
_KEY = base64.b64encode(b"a key that only tests know").decode()
_START_S = 120.0


@contextmanager
def azure_server() -> Iterator[AzureServer]:
    """A running server; skips the test where there is none. The environment and fsspec's
    connections are put back afterwards."""
    executable = os.environ.get("SLANT_AZURITE")
    if not executable:
        pytest.skip("no Azure server: SLANT_AZURITE names no azurite-blob executable")
    with tempfile.TemporaryDirectory() as folder:
        server = AzureServer(executable, Path(folder))
        before = dict(os.environ)
        for name in [name for name in os.environ if name.startswith("AZURE_")]:
            del os.environ[name]
        os.environ["AZURE_STORAGE_CONNECTION_STRING"] = connection_string(server.endpoint)
        _forget_connections()
        try:
            yield server
        finally:
            server.kill()
            os.environ.clear()
            os.environ.update(before)
            _forget_connections()


def connection_string(endpoint: str, key: str = _KEY) -> str:
    """What AZURE_STORAGE_CONNECTION_STRING holds for a server at an address."""
    return (
        f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={key};"
        f"BlobEndpoint={endpoint}/{_ACCOUNT};"
    )


def _forget_connections() -> None:
    """fsspec keeps file systems by their arguments; the environment is not among them."""
    import adlfs

    adlfs.AzureBlobFileSystem.clear_instance_cache()


@final
class AzureServer:
    """The server's process; ``endpoint`` is its address."""

    def __init__(self, executable: str, folder: Path) -> None:
        self._executable, self._folder = executable, folder
        with socket.create_server((_HOST, 0)) as found:
            self._port = found.getsockname()[1]
        self.endpoint = f"http://{_HOST}:{self._port}"
        self.restart()

    def put(self, path: str, content: bytes) -> None:
        """Store a blob at ``container/name``; the container is made."""
        from azure.core.exceptions import ResourceExistsError

        container, _, name = path.partition("/")
        with self._client() as client:
            with suppress(ResourceExistsError):
                client.create_container(container)
            if name:
                client.get_blob_client(container, name).upload_blob(content, overwrite=True)

    def get(self, path: str) -> bytes:
        """The blob at ``container/name``."""
        container, _, name = path.partition("/")
        with self._client() as client:
            return bytes(client.get_blob_client(container, name).download_blob().readall())

    def keys(self, container: str) -> list[str]:
        """The names in a container, sorted."""
        with self._client() as client:
            return sorted(client.get_container_client(container).list_blob_names())

    def kill(self) -> None:
        """End the server with SIGKILL, in the middle of whatever it does."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start a killed server again, at the same address and with the same blobs."""
        command = [self._executable, "--blobHost", _HOST, "--blobPort", str(self._port)]
        command += ["--location", str(self._folder), "--silent", "--disableTelemetry"]
        command += ["--skipApiVersionCheck"]  # the client may be newer
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "AZURITE_ACCOUNTS": f"{_ACCOUNT}:{_KEY}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _START_S
        while not self._answers():
            log_text = (self._folder / "server.log").read_text()
            assert self._process.poll() is None, f"the server ended:\n{log_text}"
            assert time.monotonic() < until, f"the server does not start:\n{log_text}"
            time.sleep(0.1)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((_HOST, self._port), timeout=5):
            return True
        return False

    def _client(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(connection_string(self.endpoint))
