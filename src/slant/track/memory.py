"""What is remembered of a run in a tracker, so that a killed run goes on in it.

One small JSON file per tracker, ``track-<kind>.json``: ``schema``; ``key`` and ``target``, which
must be the same for the run to go on; ``id`` of the run in the tracker; ``sent``, the last step of
each value that the tracker acknowledged. docs/formats.md describes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from slant.disk import write_atomically
from slant.track.worker import Point

__all__ = ["RunMemory"]

_SCHEMA = "slant.track/1"


@final
class RunMemory:
    """The run's id and what was sent; reads what an earlier process left in ``folder``.

    Args:
        folder: holds the file.
        kind: the tracker.
        target: digest of where the run lies; with another one it is another run.
        key: digest of what the run is made from; with another one it is another run. None: any.
    """

    def __init__(self, folder: Path, kind: str, *, target: str, key: str | None) -> None:
        self._path = folder / f"track-{kind}.json"
        found = _read(self._path)
        self._head = {"target": target, "key": found.get("key", "") if key is None else key}
        if any(found.get(name) != value for name, value in self._head.items()):
            found = {}
        self.id: str | None = found.get("id")
        self._sent: dict[str, int] = dict(found.get("sent", {}))
        self._sent_before = dict(self._sent)

    @property
    def last_step(self) -> int:
        """The last step of which anything was sent; 0 if nothing was."""
        return max(self._sent.values(), default=0)

    def opened(self, run_id: str) -> None:
        """Note the id of the run; another run has been sent nothing."""
        if run_id != self.id:
            self.id, self._sent, self._sent_before = run_id, {}, {}
            self._save()

    def fresh(self, points: Sequence[Point]) -> list[Point]:
        """The points without what an earlier process sent: a step that was undone by a kill is
        the same when it is done again."""
        kept: list[Point] = []
        for step, time_s, values in points:
            rest = {k: v for k, v in values.items() if step > self._sent_before.get(k, -1)}
            if rest:
                kept.append((step, time_s, rest))
        return kept

    def sent(self, points: Sequence[Point]) -> None:
        """Note what the tracker acknowledged."""
        for step, _, values in points:
            for name in values:
                self._sent[name] = max(step, self._sent.get(name, -1))
        self._save()

    def _save(self) -> None:
        content = {"schema": _SCHEMA, **self._head, "id": self.id, "sent": self._sent}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _read(path: Path) -> Mapping[str, Any]:
    """The file's content; empty where there is none that can be used: a new run is begun then."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
        return {}
    sent, run_id = content.get("sent"), content.get("id")
    if not isinstance(sent, dict) or not all(isinstance(step, int) for step in sent.values()):
        return {}
    return content if isinstance(run_id, str) else {}
