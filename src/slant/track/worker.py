"""The process that talks to one tracker: ``python -m slant.track.worker KIND DESCRIPTOR``.

It answers JSON messages on an inherited connection, one at a time. A message names what to do:

``open``    target, run → the run's id and where a person finds it
``log``     points, each ``[step, unix time in s, {name: value}]``, in order of step
``report``  metrics, tables, path of the HTML page, step
``end``     status: ``finished``, ``failed``, ``stopped`` (can be resumed), or null: as it was
``leave``   end the process; there is no answer

When the other end is gone without a word, training was killed. The run is then closed as stopped:
wandb keeps what it was sent in memory until then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

from slant.track.failures import Refused, explain

__all__ = ["Point", "TrackedRun", "answer", "main", "tracked_run"]

Point = tuple[int, float, Mapping[str, float]]
"""Step, unix time in seconds, values."""
_NICENESS = 10
_LAST_WORDS_S = 10.0


class TrackedRun(Protocol):
    """One run in one tracker; methods raise whatever the tracker's library raises."""

    def open(self, target: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, str]:
        """Go on with the run of ``run["id"]``, or make one; returns ``id`` and ``where``."""
        ...

    def log(self, points: Sequence[Point]) -> None:
        """Send points, in order of step."""
        ...

    def report(self, report: Mapping[str, Any]) -> None:
        """Send the figures and the page of an evaluation."""
        ...

    def end(self, status: str | None) -> None:
        """Close the run."""
        ...


def tracked_run(kind: str) -> TrackedRun:
    """The run of a tracker by its name in slant.yaml."""
    if kind == "mlflow":
        from slant.track.mlflow_runs import MlflowRun

        return MlflowRun()
    if kind == "wandb":
        from slant.track.wandb_runs import WandbRun

        return WandbRun()
    from slant.track.tensorboard_runs import TensorboardRun

    return TensorboardRun()


def answer(run: TrackedRun, message: Mapping[str, Any]) -> dict[str, Any]:
    """Do what a message says. Whatever goes wrong is part of the answer."""
    try:
        match message["do"]:
            case "open":
                return dict(run.open(message["target"], message["run"]))
            case "log":
                run.log(message["points"])
            case "report":
                run.report(message["report"])
            case "end":
                run.end(message["status"])
    except Refused as error:
        return {"refused": str(error)}
    except (Exception, SystemExit) as error:  # a library's failure must not end the process
        return {"unreachable": explain(error)}
    return {}


def main() -> None:
    """Answer until the other end is closed."""
    kind, descriptor = sys.argv[1:]
    os.nice(_NICENESS)  # training comes first
    for number in (signal.SIGINT, signal.SIGTERM):  # the other end says when it is over
        signal.signal(number, signal.SIG_IGN)
    connection: Connection[Any, Any] = Connection(int(descriptor))
    run = tracked_run(kind)
    while True:
        try:
            message = json.loads(connection.recv_bytes())
            if message["do"] == "leave":
                break
            connection.send_bytes(json.dumps(answer(run, message)).encode())
        except (EOFError, OSError):
            threading.Timer(_LAST_WORDS_S, os._exit, [1]).start()
            answer(run, {"do": "end", "status": "stopped"})
            break
    os._exit(0)  # no farewell of a library's own, which may wait for its server


if __name__ == "__main__":
    main()
