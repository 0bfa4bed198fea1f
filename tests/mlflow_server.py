"""A real MLflow server for tests: its own process, its own database, over HTTP.

The full ``mlflow`` need not be installed beside slant, whose extra is the client alone: the server
is the ``mlflow`` executable that SLANT_MLFLOW_SERVER names, or the one of this environment.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import final
from urllib.error import URLError
from urllib.request import urlopen

import pytest

__all__ = ["Server", "mlflow_server"]

HOST = "127.0.0.1"
_START_S = 180.0


@contextmanager
def mlflow_server(folder: Path) -> Iterator[Server]:
    """A running server that keeps everything in ``folder``; skips the test where there is none."""
    executable = _executable()
    if executable is None:
        pytest.skip("no MLflow server: SLANT_MLFLOW_SERVER names no mlflow executable")
    server = Server(executable, folder)
    try:
        yield server
    finally:
        server.kill()


def _executable() -> str | None:
    named = os.environ.get("SLANT_MLFLOW_SERVER")
    if named or not (find_spec("sqlalchemy") and find_spec("alembic")):
        return named
    return shutil.which("mlflow", path=str(Path(sys.executable).parent))


@final
class Server:
    """``mlflow server`` with ``runs.db`` and ``artifacts/`` in a folder of its own."""

    def __init__(self, executable: str, folder: Path) -> None:
        self._executable, self.folder = executable, folder
        with socket.create_server((HOST, 0)) as found:
            self._port = found.getsockname()[1]
        self.uri = f"http://{HOST}:{self._port}"
        self.start()

    def start(self) -> None:
        """Start; returns when it answers."""
        options = {
            "--host": HOST,
            "--port": str(self._port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self.folder / 'runs.db'}",
            "--artifacts-destination": str(self.folder / "artifacts"),
        }
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._executable, "server", *(x for pair in options.items() for x in pair)],
                cwd=self.folder,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, "the MLflow server ended"
            assert time.monotonic() < until, "the MLflow server does not start"
            time.sleep(0.2)

    def kill(self) -> None:
        """End the server and its workers with SIGKILL."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False
