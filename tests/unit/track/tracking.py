"""What the tests of trackers share: short patience, a listener, readers of files, bad servers."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from slant.progress import SilentProgress
from slant.track.outbox import Patience

HOST = "127.0.0.1"
QUICK = Patience(answer_s=60.0, close_s=240.0, pause_s=0.1, interval_s=0.02)


class Listener:
    """A Progress that keeps what is said, and by which thread."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.threads: set[str] = set()
        self._silent = SilentProgress()

    def say(self, message: str) -> None:
        self.lines.append(message)
        self.threads.add(threading.current_thread().name)

    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Any:
        return self._silent.task(name, total, unit, done)


class SilentServer:
    """Accepts connections and never answers. ``asked``: a request has come; ``left``: the one who
    asked is gone."""

    def __init__(self) -> None:
        self.asked, self.left = threading.Event(), threading.Event()
        self._socket = socket.create_server((HOST, 0))
        self.uri = f"http://{HOST}:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(1)
            self.asked.set()
            while connection.recv(4096):
                pass
            self.left.set()

    def close(self) -> None:
        self._socket.close()


@contextmanager
def answering(status: int, body: bytes = b"{}") -> Iterator[str]:
    """A server that answers every request with one status; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815

        def log_request(self, *_: Any) -> None:
            pass

    server = HTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wait_for_step(memory: Path, name: str, step: int, limit_s: float = 60.0) -> None:
    """Wait until a tracker has acknowledged a value up to a step."""
    until = time.monotonic() + limit_s
    while not memory.exists() or json.loads(memory.read_text())["sent"].get(name, 0) < step:
        assert time.monotonic() < until, f"{memory.name}: step {step} of {name} is not sent"
        time.sleep(0.02)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server((HOST, 0)) as found:
        return int(found.getsockname()[1])


def tensorboard_steps(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """name → (step, value) of every scalar in a run's folder, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def wandb_records(path: Path) -> list[Any]:
    """The records of a ``.wandb`` file: LevelDB's log format behind a header of 7 bytes
    (https://github.com/google/leveldb/blob/main/doc/log_format.md)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, offset, parts, records = path.read_bytes(), 7, b"", []
    while offset + 7 <= len(data):
        if (room := 32768 - offset % 32768) < 7:
            offset += room
            continue
        _, length, kind = struct.unpack("<IHB", data[offset : offset + 7])
        parts += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # full, or last
            records.append(Record.FromString(parts))
            parts = b""
    return records


def wandb_history(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Step and values (as JSON) of every row of a run's history."""
    rows = []
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "history":
            items = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
            rows.append((record.history.step.num, items))
    return rows
