"""What training and evaluation talk to: ``open_trackers`` and ``log_report``.

    with open_trackers(settings.track, folder=…, work=…, name="tune", config=…,
                       progress=progress) as trackers:
        trackers.log(step, {"loss": 0.7, "learning_rate": 2e-4})

Nothing here waits for a tracker but the end of the block, and that at most ``Patience.close_s``.
What is sent again after a kill was sent before: of each value only the steps after the last
acknowledged one are sent (see ``slant.track.memory``), so no tracker doubles a step, but for the
few seconds before a kill, whose answers were not yet noted: MLflow and TensorBoard then show two
equal points at one step, and Weights & Biases keeps the first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from slant.config.training_settings import TrackSettings
from slant.progress import Progress
from slant.track import figures
from slant.track.memory import RunMemory
from slant.track.outbox import Outbox, Patience, Status
from slant.track.targets import check_trackers, targets

__all__ = ["Trackers", "log_report", "open_trackers"]


@final
class Trackers:
    """The trackers of a run, as a context manager.

    The block's end is the run's: ``finished``; ``stopped`` if it ends by KeyboardInterrupt (Ctrl-C
    or SIGTERM: the run can be resumed); ``failed`` if by another error. ``progress`` is only
    spoken to from the thread that calls.
    """

    def __init__(self, outboxes: Sequence[Outbox], progress: Progress, patience: Patience) -> None:
        self._outboxes, self._progress, self._patience = outboxes, progress, patience

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand over what was measured at a step; returns at once, whatever the trackers do.

        Args:
            step: number of finished updates; never smaller than in the call before.
            values: by name, e.g. ``loss``, ``tokens_per_s``, ``validation/es/macro_f1``.
        """
        point = (step, time.time(), {name: float(value) for name, value in values.items()})
        for outbox in self._outboxes:
            outbox.put(point)
        self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._close("finished")
        else:
            self._close("stopped" if issubclass(kind, KeyboardInterrupt) else "failed")

    def _close(self, status: Status) -> None:
        close(self._outboxes, status, self._patience.close_s)
        self._tell()

    def _tell(self) -> None:
        tell(self._outboxes, self._progress)


def open_trackers(
    settings: TrackSettings,
    *,
    folder: Path,
    work: Path,
    name: str,
    config: Mapping[str, Any],
    progress: Progress,
    key: str = "",
    patience: Patience | None = None,
) -> Trackers:
    """Open the run in every tracker that the settings name; does not wait for any.

    Args:
        settings: the ``track`` section.
        folder: keeps ``track-<tracker>.json``, by which a killed run goes on in the same tracker
            run, and ``log_report`` finds it.
        work: folder of local files: ``wandb/``, ``tensorboard/``.
        name: of the run, for people; e.g. ``"tune"``.
        config: what the run is made with, as plain JSON values without secrets.
        progress: told where the runs are, and once of each tracker that fails.
        key: digest of what the run is made from; with another key another tracker run is begun.
        patience: the limits.

    Raises:
        UsageError: see ``check_trackers``.
    """
    check_trackers(settings)
    patience = patience or Patience()
    run = {"name": name, "config": dict(config), "goes_on": True}
    outboxes = [
        Outbox(target, _memory(folder, target.kind, target.identity, key), run, patience)
        for target in targets(settings, work)
    ]
    return Trackers(outboxes, progress, patience)


def log_report(
    settings: TrackSettings,
    *,
    folder: Path,
    work: Path,
    report: Mapping[str, Any],
    html: Path,
    progress: Progress,
    patience: Patience | None = None,
) -> None:
    """Send an evaluation's figures, tables and page into the runs that ``folder`` knows.

    Where a tracker has none, because it was added to slant.yaml after training, one named
    ``evaluate`` is made. Waits at most ``patience.close_s``; never fails because of a tracker.

    Args:
        settings: the ``track`` section.
        folder: the ``folder`` that training was tracked with.
        work: as in ``open_trackers``.
        report: the value of report.json.
        html: report.html.
        progress: told of each tracker that did not take the report.
        patience: the limits.

    Raises:
        UsageError: see ``check_trackers``.
    """
    check_trackers(settings)
    patience = patience or Patience()
    content = {
        "metrics": figures.metrics(report),
        "tables": [table.as_json() for table in figures.tables(report)],
        "html": str(html.resolve()),
        "time_s": time.time(),
    }
    run = {"name": "evaluate", "config": {}, "goes_on": False}
    outboxes = []
    for target in targets(settings, work):
        memory = _memory(folder, target.kind, target.identity, None)
        outboxes.append(Outbox(target, memory, run, patience))
        outboxes[-1].put_report(content)
    close(outboxes, None, patience.close_s)
    tell(outboxes, progress)


def close(outboxes: Sequence[Outbox], status: Status | None, limit_s: float) -> None:
    """End all runs at once, within ``limit_s`` in all."""
    until = time.monotonic() + limit_s
    for outbox in outboxes:
        outbox.end(status)
    for outbox in outboxes:
        outbox.join(until - time.monotonic())


def tell(outboxes: Sequence[Outbox], progress: Progress) -> None:
    """Say what there is to say of the trackers."""
    for outbox in outboxes:
        for notice in outbox.notices():
            progress.say(notice)


def _memory(folder: Path, kind: str, target: str, key: str | None) -> RunMemory:
    return RunMemory(folder, kind, target=target, key=key)
