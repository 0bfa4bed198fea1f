"""Runs a function in a process that can be killed at any moment, without the wait for imports.

    with forking("shard_worker:run_prepared") as worker:
        worker.run(root, out)                             # to the end
        worker.run(root, out, kill_after_s=0.1)           # SIGKILL; returns whether it came first

The process that imports is started once; for each run it forks.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

__all__ = ["ForkingWorker", "forking"]


@contextmanager
def forking(target: str) -> Iterator[ForkingWorker]:
    """A worker for ``module:function``; the module is one of the tests' own."""
    process = subprocess.Popen(
        [sys.executable, __file__, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        worker = ForkingWorker(process)
        worker.answer()  # it is ready
        yield worker
    finally:
        process.kill()
        process.communicate()


@final
class ForkingWorker:
    """The process that forks; see the module."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self) -> int:
        """The number that the process wrote next."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def run(self, *arguments: Any, kill_after_s: float | None = None) -> bool:
        """Call the function; whether it was killed, by us or by itself, before it was done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments, default=str))
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        child = self.answer()
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)  # it is a zombie at the latest: its number is its own
        self._process.stdin.write("\n")  # now it may be waited for
        self._process.stdin.flush()
        status = self.answer()
        assert status in (0, -signal.SIGKILL), f"the function ended with {status}"
        return status != 0


def _serve(target: str) -> None:
    module, _, function = target.partition(":")
    called = getattr(importlib.import_module(module), function)
    print(0, flush=True)  # noqa: T201
    while line := sys.stdin.readline().strip():
        child = os.fork()
        if child == 0:
            try:
                called(*json.loads(line))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(child, flush=True)  # noqa: T201
        sys.stdin.readline()  # until then the child is not waited for
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve(sys.argv[1])
