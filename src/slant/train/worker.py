"""One training process: ``torchrun --module slant.train.worker SCRATCH LAUNCHER_PID``."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from slant.errors import SlantError
from slant.progress import JsonProgress, SilentProgress
from slant.train.adapt import train_adapt
from slant.train.job import Job
from slant.train.launch import JOB_FILE, TALK_FILE
from slant.train.parallel import World, join_world
from slant.train.tune import train_tune

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> int:
    """Do this process's part of the job in SCRATCH; returns the exit status."""
    scratch, launcher = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_die_with, args=(launcher,), daemon=True).start()
    job = Job.from_json((scratch / JOB_FILE).read_text("utf-8"))
    with (scratch / TALK_FILE).open("a", encoding="utf-8") as talk:
        try:
            with join_world(job.settings.train.strategy) as world:
                _take_part(job, world, talk)
        except KeyboardInterrupt:
            return _INTERRUPTED
        except SlantError as error:
            _tell(talk, error)  # it may be of meeting the others; twice does no harm
            return error.exit_code
    return 0


def _take_part(job: Job, world: World, talk: TextIO) -> None:
    """Train; how it ended is written before this process leaves the others, which may fail."""
    train = {"adapt": train_adapt, "tune": train_tune}[job.stage]
    progress = JsonProgress(talk)
    try:
        if world.is_main:
            progress.write({"pid": os.getpid()})
        facts = train(job, world, progress if world.is_main else SilentProgress())
        if world.is_main:
            print(json.dumps({"facts": facts}), file=talk, flush=True)
    except KeyboardInterrupt:
        if world.is_main:
            progress.write({"interrupted": True})
        raise
    except SlantError as error:
        _tell(talk, error)
        raise


def _tell(talk: TextIO, error: SlantError) -> None:
    content = {"error": type(error).__name__, "what": error.message, "hint": error.hint}
    JsonProgress(talk).write(content)


def _die_with(launcher: int) -> None:
    """End when the process that the person started is gone, by whatever means."""
    while True:
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is written. Taking down the interpreter under threads that are not Python's (of the
    # process group, of OpenMP) now and then ends in an abort, which counts as a failed training.
    os._exit(status)
