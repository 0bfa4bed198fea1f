"""What one tracker is to get: a bounded queue, and the thread that sends it.

``put`` only appends to the queue, under a lock that is never held while something is sent. A point
leaves the queue when the tracker acknowledged it. After a failure there is a pause, which doubles;
what comes meanwhile waits, and what no longer fits is counted and dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, final

from slant.errors import SlantError
from slant.track.failures import Refused, Unreachable
from slant.track.link import Link
from slant.track.memory import RunMemory
from slant.track.targets import Target
from slant.track.worker import Point

__all__ = ["Outbox", "Patience", "Status"]

Status = Literal["finished", "failed", "stopped"]
_POINTS_PER_MESSAGE = 500
_LONGEST_PAUSE_S = 300.0
_ANSWERS_PER_MESSAGE = 6
_AFTER_KILL_S = 2.0
_TRAINING_GOES_ON = "the run goes on, events.jsonl has everything"
_REPORT_IS_THERE = "the report was not sent, report.html has everything"


@final
@dataclass(frozen=True)
class Patience:
    """How long trackers are waited for; training itself never waits.

    Attributes:
        answer_s: for one answer of a server.
        close_s: for what is still waiting when a run ends, all trackers together.
        pause_s: after a failure; doubled after each further one, up to 300.
        interval_s: between two messages.
        num_waiting: points that may wait for a tracker.
    """

    answer_s: float = 15.0
    close_s: float = 20.0
    pause_s: float = 10.0
    interval_s: float = 2.0
    num_waiting: int = 10_000


@final
class Outbox:
    """Sends to one tracker from a thread of its own; starts it.

    Args:
        target: the tracker.
        memory: what is known of its run.
        run: ``name`` and ``config`` of the run if it has to be made; ``goes_on``: whether training
            goes on in it, or only figures are added.
        patience: the limits.
    """

    def __init__(
        self, target: Target, memory: RunMemory, run: Mapping[str, Any], patience: Patience
    ) -> None:
        self.target = target
        self._memory, self._run, self._patience = memory, dict(run), patience
        self._comfort = _TRAINING_GOES_ON if run["goes_on"] else _REPORT_IS_THERE
        self._changed = threading.Condition()
        self._points: deque[Point] = deque()
        self._report: Mapping[str, Any] | None = None
        self._ending = self._ended = self._given_up = False
        self._status: Status | None = None
        self._link: Link | None = None
        self._where = ""
        self._is_open = self._has_failed = self._has_refused = False
        self._notices: deque[str] = deque()
        self._total = self._lost = 0
        self._thread = threading.Thread(target=self._work, name=f"track-{target.kind}", daemon=True)
        self._thread.start()

    def put(self, point: Point) -> None:
        """Queue a point; drops and counts it where the queue is full."""
        with self._changed:
            self._total += 1
            if len(self._points) >= self._patience.num_waiting:
                self._lost += 1
                return
            self._points.append(point)
            self._changed.notify()

    def put_report(self, report: Mapping[str, Any]) -> None:
        """Queue the figures of an evaluation; they are sent after the points."""
        with self._changed:
            self._report = report
            self._changed.notify()

    def end(self, status: Status | None) -> None:
        """Send what is waiting, then close the run; does not wait."""
        with self._changed:
            self._ending, self._status = True, status
            self._changed.notify()

    def join(self, limit_s: float) -> None:
        """Wait for the end, at most so long; the tracker's process is ended then."""
        self._thread.join(max(0.0, limit_s))
        if self._thread.is_alive():
            with self._changed:
                self._given_up = True
                link = self._link
            if link is not None:
                link.kill()
            self._thread.join(_AFTER_KILL_S)
        self._sum_up()

    def notices(self) -> list[str]:
        """What there is to tell, once."""
        told = []
        while self._notices:
            told.append(self._notices.popleft())
        return told

    def _work(self) -> None:
        pause_s = self._patience.pause_s
        try:
            while not self._ended:
                try:
                    self._deliver()
                except Unreachable as failure:
                    self._fail(str(failure))
                    if self._ending:
                        return
                    self._rest(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                else:
                    pause_s = self._patience.pause_s
                    self._recover()
                    self._rest(self._patience.interval_s)
        except Exception as error:  # e.g. the memory cannot be written
            words = error.message if isinstance(error, SlantError) else type(error).__name__
            self._fail(f"failed ({words})")
        finally:
            self._hang_up()

    def _deliver(self) -> None:
        """Open the run if need be, then send one message, or wait for something to send."""
        if not self._is_open:
            self._open()
        with self._changed:
            self._changed.wait_for(lambda: self._points or self._report or self._ending)
            batch = list(islice(self._points, _POINTS_PER_MESSAGE))
        if batch:
            self._send(batch)
        elif self._report is not None:
            self._send_report(self._report)
        else:
            self._ask({"do": "end", "status": self._status})
            self._ended = True

    def _open(self) -> None:
        run = {**self._run, "id": self._memory.id}
        target = {
            **self.target.facts,
            "answer_s": self._patience.answer_s,
            "close_s": self._patience.close_s,
        }
        opened = self._ask({"do": "open", "target": target, "run": run})
        is_news = self._memory.id != opened["id"] or self._run["goes_on"]
        if is_news and opened["where"] != self._where:
            self._where = opened["where"]
            self._notices.append(f"{self.target.kind}: {self._where}")
        self._memory.opened(opened["id"])
        self._is_open = True

    def _send(self, batch: list[Point]) -> None:
        fresh = self._memory.fresh(batch)
        try:
            if fresh:
                self._ask({"do": "log", "points": fresh})
                self._memory.sent(fresh)
        except Refused as refusal:
            self._tell_refusal(refusal)
            self._lost += len(batch)
        with self._changed:
            for _ in batch:
                self._points.popleft()

    def _send_report(self, report: Mapping[str, Any]) -> None:
        try:
            self._ask({"do": "report", "report": {**report, "step": self._memory.last_step}})
        except Refused as refusal:
            self._tell_refusal(refusal)
        self._report = None

    def _tell_refusal(self, refusal: Refused) -> None:
        if not self._has_refused:
            self._notices.append(f"{self.target}: {refusal}; {self._comfort}")
        self._has_refused = True

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return (self._link or self._connect()).ask(message)

    def _connect(self) -> Link:
        link = Link(self.target.kind, _ANSWERS_PER_MESSAGE * self._patience.answer_s)
        with self._changed:
            self._link = link
            given_up = self._given_up
        if given_up:  # meanwhile; ``join`` saw no link to end
            link.kill()
        return link

    def _fail(self, reason: str) -> None:
        """Tell of the first failure in a row; the next attempt begins with a new process."""
        if self._given_up:
            reason = "does not answer"  # its process ended because we ended it
        if not self._has_failed:
            self._notices.append(f"{self.target}: {reason}; {self._comfort}")
        self._has_failed = True
        self._hang_up()

    def _recover(self) -> None:
        if self._has_failed:
            self._has_failed = False
            self._notices.append(f"{self.target}: answers again; what was waiting is sent")

    def _hang_up(self) -> None:
        link, self._link, self._is_open = self._link, None, False
        if link is not None:
            link.close()

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ending, seconds)

    def _sum_up(self) -> None:
        with self._changed:
            lost = self._lost + len(self._points)
        if lost:
            self._notices.append(
                f"{self.target}: {lost} of {self._total} steps were not sent; events.jsonl has them"
            )
