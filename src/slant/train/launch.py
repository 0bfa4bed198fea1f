"""Training in one process, or in several that torchrun starts on this machine.

The process that the person started holds the artifact, shows progress and passes on Ctrl-C; the
training processes tell it what happens by lines of JSON in a file, which is also what is left to
read when something went wrong.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from slant import errors
from slant.artifacts import SCRATCH, Artifact, Recipe, build, load
from slant.errors import ModelError, SlantError, UsageError
from slant.progress import Progress, Task
from slant.track.targets import check_trackers
from slant.train.environment import in_world
from slant.train.job import Job
from slant.train.parallel import World, join_world
from slant.train.stopping import Stop, held_back_signals

__all__ = ["JOB_FILE", "TALK_FILE", "carry_out"]

JOB_FILE = "job.json"
TALK_FILE = "processes.jsonl"
_POLL_S = 0.1
_LINES = 8  # of a process that died without a word
_OWN = ("torch/distributed/", "torch.distributed.")  # where torchrun's own words begin

Train = Callable[[Job, World, Progress], dict[str, Any]]


def carry_out(job: Job, recipe: Recipe, train: Train, progress: Progress) -> Artifact:
    """Build the artifact of a training stage.

    Under an external torchrun, Slurm or Ray every process calls this: the first one builds, all
    train, and each returns the finished artifact.

    Args:
        job: what is trained.
        recipe: of the artifact.
        train: called in each training process; what it returns on rank 0 are the facts.
        progress: told what happens.

    Raises:
        UsageError: ``train.devices`` is more than there are, or a tracker cannot be used at all.
        SlantError, KeyboardInterrupt: as ``train``.
    """
    devices, strategy = job.settings.train.devices, job.settings.train.strategy
    if in_world():
        with join_world(strategy) as world:
            with _built_by_main(job, recipe, world) as facts:
                facts.update(train(job, world, progress))
            return load(job.out, job.stage)
    _check_devices(devices)
    check_trackers(job.settings.track)
    with build(job.out, recipe) as builder:
        if devices > 1:
            builder.facts.update(_under_torchrun(job, progress))
        else:
            with join_world(strategy) as world:
                builder.facts.update(train(job, world, progress))
    return load(job.out, job.stage)


@contextmanager
def _built_by_main(job: Job, recipe: Recipe, world: World) -> Iterator[dict[str, Any]]:
    """Rank 0 prepares and seals the artifact; the others wait for both."""
    with ExitStack() as stack:
        facts: dict[str, Any] = {}
        if world.is_main:
            facts = stack.enter_context(build(job.out, recipe)).facts
        world.barrier()
        yield facts
    world.barrier()


def _check_devices(devices: int) -> None:
    import torch

    cuda = torch.cuda.is_available()
    there = torch.cuda.device_count() if cuda else os.cpu_count() or 1
    if devices > there:
        raise UsageError(
            f"train.devices is {devices}, and this machine has {there} "
            f"{'GPUs' if cuda else 'processor cores and no GPU'}",
            hint=f"Set train.devices to {there} or less.",
        )


def _under_torchrun(job: Job, progress: Progress) -> dict[str, Any]:
    """Start the processes, show what they say and wait for them; returns the facts."""
    scratch = job.out / SCRATCH
    talk = scratch / TALK_FILE
    talk.write_text("", "utf-8")
    (scratch / JOB_FILE).write_text(job.to_json(), "utf-8")
    log = scratch / "torchrun.log"
    with held_back_signals() as stop, log.open("w", encoding="utf-8") as output:
        # A session of its own: Ctrl-C on the terminal comes to us alone, and we pass it on once.
        launcher = subprocess.Popen(
            _command(job, scratch),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(job),
            start_new_session=True,
        )
        try:
            return _Conversation(progress, talk).until_the_end(launcher, stop, log)
        finally:
            _end(launcher)


def _command(job: Job, scratch: Path) -> list[str]:
    """torchrun, as a module of this Python; any free port of this machine."""
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
        *("--nnodes", "1", "--nproc-per-node", str(job.settings.train.devices)),
        *("--module", "slant.train.worker", str(scratch.resolve()), str(os.getpid())),
    ]


def _environment(job: Job) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // job.settings.train.devices)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}


def _telling_lines(log: str) -> list[str]:
    """What a process said last before torchrun began to speak of it; then what torchrun says."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if any(o in line for o in _OWN)), len(lines))
    return lines[:first][-_LINES:] + lines[first:][-_LINES:]


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """Leave no process behind, whatever happened."""
    if launcher.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGTERM)
        try:
            launcher.wait(10)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()


class _Conversation:
    """Reads what the processes say and repeats it to ``progress``."""

    def __init__(self, progress: Progress, talk: Path) -> None:
        self._progress = progress
        self._talk = talk
        self._stack = ExitStack()
        self._task: Task | None = None
        self._head: tuple[Any, ...] | None = None
        self._done = 0
        self._facts: dict[str, Any] | None = None
        self._errors: list[SlantError] = []
        self._interrupted = False
        self._main_pid: int | None = None

    def until_the_end(
        self, launcher: subprocess.Popen[bytes], stop: Stop, log: Path
    ) -> dict[str, Any]:
        passed_on = False
        with self._talk.open(encoding="utf-8") as file, self._stack:
            while launcher.poll() is None:
                self._read(file)
                if stop.requested and not passed_on and self._main_pid is not None:
                    # One is enough: the processes agree on it after each step.
                    os.kill(self._main_pid, signal.SIGTERM)
                    passed_on = True
                time.sleep(_POLL_S)
            self._read(file)
        if self._errors:
            raise self._errors[0]
        if self._interrupted or (stop.requested and self._facts is None):
            raise KeyboardInterrupt
        if self._facts is None:
            raise ModelError(
                f"the training processes ended with status {launcher.returncode}: "
                + " | ".join(_telling_lines(log.read_text("utf-8", "replace"))),
                hint=f"All they wrote is in {log}. The last checkpoint is kept.",
            )
        return self._facts

    def _read(self, file: TextIO) -> None:
        while True:
            place = file.tell()
            line = file.readline()
            if not line.endswith("\n"):  # not all of it is there yet
                file.seek(place)
                return
            self._hear(json.loads(line))

    def _hear(self, record: dict[str, Any]) -> None:
        if "message" in record:
            self._progress.say(record["message"])
        elif "task" in record:
            self._show(record)
        elif "pid" in record:
            self._main_pid = record["pid"]
        elif "facts" in record:
            self._facts = record["facts"]
        elif "interrupted" in record:
            self._interrupted = True
        elif "error" in record:
            kind = getattr(errors, record["error"], SlantError)
            self._errors.append(kind(record["what"], hint=record["hint"]))

    def _show(self, record: dict[str, Any]) -> None:
        name, total, unit, done = (record.pop(key) for key in ("task", "total", "unit", "done"))
        head = (name, total, unit)
        if head != self._head or done < self._done:
            self._stack.close()
            self._task = self._stack.enter_context(self._progress.task(name, total, unit, done))
            self._head, self._done = head, done
        assert self._task is not None
        self._task.advance(done - self._done, **record)
        self._done = done
