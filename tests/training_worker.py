"""adapt and tune on small inputs, for a worker that can be killed (see ``forking``)."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft  # noqa: F401  (this and the next few: what each fork would import for itself)
import sklearn.metrics  # noqa: F401
import torch
import transformers.models.mistral.modeling_mistral  # noqa: F401

import tiny_stages
from slant.train import adapt, checkpoints, tune, validation  # noqa: F401

__all__ = ["PHASES", "run_prepared"]


def run_prepared(stage: str, root: str, out: str, phase: str | None = None, count: int = 0) -> None:
    """Run a stage on what ``tiny_stages.prepare`` left in ``root``.

    Args:
        phase: one of ``PHASES``: the process kills itself when it is in it the ``count``-th time.
    """
    torch.set_num_threads(1)  # sums are only equal to the bit where they are taken in one order
    if phase is not None:
        PHASES[phase](_Fuse(count))
    tiny_stages.run_stage(stage, Path(root), Path(out))


class _Fuse:
    """SIGKILLs this process when it is lit for the last time."""

    def __init__(self, count: int) -> None:
        self._left = count

    def light(self, before: Callable[[], None] = lambda: None) -> None:
        """``before`` is what the kill comes too soon after."""
        self._left -= 1
        if self._left == 0:
            before()
            os.kill(os.getpid(), signal.SIGKILL)


def _after(module: Any, name: str, fuse: _Fuse) -> None:
    original = getattr(module, name)

    def with_fuse(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        fuse.light()
        return result

    setattr(module, name, with_fuse)


def _writing(fuse: _Fuse) -> None:
    """Half of the tensors' bytes are there."""
    original = checkpoints._write_tensors

    def write_half(path: Path, tensors: Any) -> None:
        original(path, tensors)
        fuse.light(lambda: os.truncate(path, path.stat().st_size // 2))

    checkpoints._write_tensors = write_half


def _publishing(fuse: _Fuse) -> None:
    """All is written and synced, and has not its name yet."""
    _after(checkpoints, "write_atomically", fuse)


def _rotating(fuse: _Fuse) -> None:
    """The checkpoint has its name; of an older one half of the files are gone."""
    original = shutil.rmtree

    def remove_half(path: Any, *arguments: Any, **options: Any) -> None:
        if Path(path).name.startswith("step-") and (Path(path) / "progress.json").is_file():
            fuse.light(lambda: min(Path(path).iterdir()).unlink())
        original(path, *arguments, **options)

    checkpoints.shutil.rmtree = remove_half  # type: ignore[attr-defined]


def _evaluating(fuse: _Fuse) -> None:
    """In the middle of a validation."""
    _after(validation, "autocast", fuse)


PHASES: dict[str, Callable[[_Fuse], None]] = {
    "writing": _writing,
    "publishing": _publishing,
    "rotating": _rotating,
    "evaluating": _evaluating,
}
