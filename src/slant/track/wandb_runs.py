"""A run in Weights & Biases (extra ``wandb``).

Online, a run that was stopped or killed goes on under its id. Offline, wandb begins a folder of its
own for every part, all with the same run id and with steps that do not overlap; ``wandb sync``
uploads them in order. wandb's own process sends again what a server that was gone did not take. It
writes to the disk in blocks of 32 KiB: where the machine itself dies, the last of them is lost.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from slant.track.figures import Table
from slant.track.worker import Point

__all__ = ["WandbRun"]


@final
class WandbRun:
    """See ``slant.track.worker.TrackedRun``. ``where`` is the run's page, or its folder offline."""

    def __init__(self) -> None:
        self._run: Any = None

    def open(self, target: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, str]:
        """Go on with a run or make one; nothing is printed, asked for or read from git."""
        folder = Path(target["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"):
            os.environ.setdefault(name, str(folder / "wandb" / "cache"))
        import wandb

        offline = target["mode"] == "offline"
        self._run = wandb.init(
            project=target["project"],
            entity=target["entity"],
            id=run["id"] or uuid.uuid4().hex[:8],
            name=run["name"],
            config=dict(run["config"]),
            dir=str(folder),
            mode=target["mode"],
            resume=None if offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(
                allow_val_change=True,
                console="off",
                disable_code=True,
                disable_git=True,  # a remote's URL may hold a token
                finish_timeout=target["close_s"],
                finish_timeout_raises=True,
                init_timeout=target["answer_s"],
                silent=True,
                x_stats_pid=target["process"],
            ),
        )
        where = str(Path(self._run.dir).parent) if offline else self._run.url
        return {"id": self._run.id, "where": where}

    def log(self, points: Sequence[Point]) -> None:
        """Send values; wandb drops a step below the last one, which ``RunMemory`` never sends."""
        for step, _, values in points:
            self._run.log(dict(values), step=step)

    def report(self, report: Mapping[str, Any]) -> None:
        """Metrics into the run's summary; tables and the page as media."""
        import wandb

        self._run.summary.update(dict(report["metrics"]))
        media: dict[str, Any] = {
            f"report/{table.name}": wandb.Table(
                columns=list(table.columns), data=[list(row) for row in table.rows]
            )
            for table in map(Table.from_json, report["tables"])
        }
        if Path(report["html"]).is_file():
            media["report/page"] = wandb.Html(Path(report["html"]).read_text("utf-8"), inject=False)
        self._run.log(media, step=report["step"] + 1)

    def end(self, status: str | None) -> None:
        """Finished, failed, or preempted (what was stopped can be resumed)."""
        if status == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if status in ("finished", None) else 1)
