"""The near end of a tracker's process: one question at a time, each with a time limit.

The process runs ``slant.track.worker``. It is in a session of its own, so that neither Ctrl-C nor
the end of a process group reaches it before the last numbers are sent. It ends by itself when this
process is gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any, final

from slant.track.failures import Refused, Unreachable

__all__ = ["Link"]

_GOODBYE_S = 2.0


@final
class Link:
    """A running process for one tracker; starts it.

    Args:
        kind: ``"mlflow"``, ``"tensorboard"`` or ``"wandb"``.
        limit_s: longest that an answer may take; the process is ended then.
    """

    def __init__(self, kind: str, limit_s: float) -> None:
        self._limit_s = limit_s
        self._ending = threading.Lock()
        self._connection, far_end = Pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "slant.track.worker", kind, str(far_end.fileno())],
                pass_fds=[far_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # trackers like to talk
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            self._connection.close()
            raise Unreachable(f"its process cannot be started ({error.strerror})") from error
        finally:
            far_end.close()

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message and wait for the answer.

        Raises:
            Unreachable: no answer in time, or the process is gone, or the tracker is.
            Refused: the tracker will never take this message.
        """
        try:
            self._connection.send_bytes(json.dumps(message).encode())
            if not self._connection.poll(self._limit_s):
                self.kill()
                raise Unreachable("does not answer")
            answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise Unreachable("its process ended") from error
        if reason := answer.get("unreachable"):
            raise Unreachable(reason)
        if reason := answer.get("refused"):
            raise Refused(reason)
        return answer

    def kill(self) -> None:
        """End the process and those it started, at once; an ``ask`` in progress fails."""
        with self._ending:
            if self._process.poll() is None:
                with suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Tell the process to leave; ends it if it does not."""
        with suppress(OSError):
            self._connection.send_bytes(b'{"do": "leave"}')
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE_S)
        self.kill()


def _environment() -> dict[str, str]:
    """This process's, and its search path, so that the worker finds the same packages."""
    path = os.pathsep.join(folder for folder in sys.path if folder)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
