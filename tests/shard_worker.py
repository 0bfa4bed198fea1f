"""Runs the shard stage in a process that can be killed at any moment, without the wait for imports.

    with shard_worker(root) as worker:              # root: what `prepare_shard` left
        worker.run(out)                             # to the end
        worker.run(out, kill_after_s=0.1)           # SIGKILL; returns whether it came first

The process that imports is started once; for each run it forks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

__all__ = ["ShardWorker", "prepare_shard", "run_prepared", "shard_worker"]


def prepare_shard(root: Path, **sections: dict[str, Any]) -> None:
    """Fill ``root`` with an ingest artifact, a base model and settings."""
    from slant.records import Document
    from tiny_stages import documents_and_examples, save_base, tiny_settings, write_ingest

    documents, narratives, examples = documents_and_examples()
    more = [
        Document(f"m-{i}", f"{i} " + "какой-то текст " * (i % 7), lang=("ru", "en")[i % 2])
        for i in range(800)
    ]
    write_ingest(root / "ingest", (documents + more, narratives, examples))
    save_base(root / "base")
    settings = tiny_settings(shard={"size_limit_bytes": 2500, **sections.pop("shard", {})})
    (root / "settings.json").write_text(settings.model_dump_json(), "utf-8")


def run_prepared(root: Path, out: Path) -> None:
    """Run the stage on what ``prepare_shard`` left in ``root``."""
    from slant.artifacts import load
    from slant.config.settings import ProjectSettings
    from slant.model.base import BaseModel
    from slant.progress import SilentProgress
    from slant.train import shard

    shard._TUNE_CHUNK, shard._ADAPT_CHUNK = 5, 60  # several chunks in streams of a few samples
    shard.run_shard(
        ProjectSettings.model_validate_json((root / "settings.json").read_text("utf-8")),
        ingest=load(root / "ingest", "ingest"),
        base=BaseModel("tiny", root / "base", "0" * 64),
        out=out,
        progress=SilentProgress(),
    )


@contextmanager
def shard_worker(root: Path) -> Iterator[ShardWorker]:
    """A worker on what ``prepare_shard`` left in ``root``."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        worker = ShardWorker(process)
        worker.answer()  # it is ready
        yield worker
    finally:
        process.kill()
        process.communicate()


@final
class ShardWorker:
    """The process that forks; see the module."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self) -> int:
        """The number that the process wrote next."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def run(self, out: Path, kill_after_s: float | None = None) -> bool:
        """Run the stage into ``out``; whether it was killed before it was done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{out}\n")
        self._process.stdin.flush()
        child = self.answer()
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)  # it is a zombie at the latest: its number is its own
        self._process.stdin.write("\n")  # now it may be waited for
        self._process.stdin.flush()
        status = self.answer()
        assert status in (0, -signal.SIGKILL), f"the stage ended with {status}"
        return status != 0


def _serve(root: Path) -> None:
    import slant.train.shard  # noqa: F401  (what the forks would import)

    print(0, flush=True)  # noqa: T201
    while out := sys.stdin.readline().strip():
        child = os.fork()
        if child == 0:
            try:
                run_prepared(root, Path(out))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(child, flush=True)  # noqa: T201
        sys.stdin.readline()  # until then the child is not waited for
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
