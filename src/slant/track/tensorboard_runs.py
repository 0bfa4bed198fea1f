"""A run in TensorBoard: a folder of event files, by its own library (extra ``tensorboard``).

A run that was stopped or killed goes on in the same folder, in a file of its own; TensorBoard reads
all files of a folder as one run. It knows no state of a run: whether one finished is not written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, final

from slant.track.figures import Table
from slant.track.worker import Point

__all__ = ["TensorboardRun"]


@final
class TensorboardRun:
    """See ``slant.track.worker.TrackedRun``. The id is the folder's name, ``where`` its path."""

    def __init__(self) -> None:
        self._writer: Any = None

    def open(self, target: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, str]:
        """Open the folder of the run, or make one named after the run and the time."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        run_id = run["id"] or f"{run['name']}-{datetime.now():%Y%m%d-%H%M%S-%f}"
        folder = Path(target["folder"]) / run_id
        if self._writer is None:
            self._writer = EventFileWriter(str(folder))
        return {"id": run_id, "where": str(folder)}

    def log(self, points: Sequence[Point]) -> None:
        """Write values; they are in the file when this returns."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for step, time_s, values in points:
            summary = Summary(
                value=[
                    Summary.Value(tag=name, simple_value=value) for name, value in values.items()
                ]
            )
            self._writer.add_event(Event(wall_time=time_s, step=step, summary=summary))
        self._writer.flush()

    def report(self, report: Mapping[str, Any]) -> None:
        """Metrics as scalars, tables as text; TensorBoard shows no HTML page."""
        self.log([(report["step"], report["time_s"], report["metrics"])])
        for table in map(Table.from_json, report["tables"]):
            self._write_text(f"report/{table.name}", table.as_markdown(), report["step"])
        self._writer.flush()

    def end(self, status: str | None) -> None:
        """Close the file."""
        self._writer.close()

    def _write_text(self, tag: str, text: str, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.plugins.text.metadata import create_summary_metadata

        tensor = TensorProto(
            dtype="DT_STRING",
            string_val=[text.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        metadata = create_summary_metadata(display_name=tag, description="")
        value = Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        self._writer.add_event(
            Event(wall_time=time.time(), step=step, summary=Summary(value=[value]))
        )
