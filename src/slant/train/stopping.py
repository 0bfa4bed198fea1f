"""Ctrl-C and SIGTERM, held back until a step is finished and saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import final

__all__ = ["Stop", "held_back_signals"]


@final
@dataclass
class Stop:
    """Whether the process was asked to stop."""

    requested: bool = False


@contextmanager
def held_back_signals() -> Iterator[Stop]:
    """The first SIGINT or SIGTERM only sets ``requested``; the second interrupts at once.

    Outside the main thread, where Python delivers no signal, nothing is changed.
    """
    stop = Stop()

    def hold_back(signum: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        # A shell starts background jobs with Ctrl-C ignored; that is the shell's to decide.
        if handler is not signal.SIG_IGN:
            signal.signal(number, hold_back)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
