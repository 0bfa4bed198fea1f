"""An executable that speaks as ``vllm serve`` does and computes nothing.

``write_fake_vllm`` writes it with a plan. Run as a program it follows the plan: it writes down with
which arguments it was started and which processes it is, and answers to prompts what the plan has
for their sha256.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["FakeVllm"]

_GONE_S = 10.0


class FakeVllm:
    """Writes the executable into a folder.

    Args:
        folder: that is made for it.
        plan: ``labels``; ``answers``: sha256 of a prompt → probabilities, all alike where it is not
            there; ``says``: printed at the start; ``exits``: ends with this code at once;
            ``never_ready``; ``status`` and ``content`` of each answer of /classify; ``interrupts``:
            sends Ctrl-C to who started it instead of an answer; ``stays``: takes no SIGTERM.
    """

    def __init__(self, folder: Path, **plan: Any) -> None:
        folder.mkdir()
        self._folder = folder
        (folder / "plan.json").write_text(json.dumps(plan), "utf-8")
        self.path = folder / "vllm"
        command = f'exec "{sys.executable}" "{__file__}" "{folder}" "$@"'
        self.path.write_text(f"#!/bin/sh\n{command}\n", "utf-8")
        self.path.chmod(0o755)

    @property
    def has_started(self) -> bool:
        """Whether it has written down that it was started."""
        path = self._folder / "starts.jsonl"
        return path.exists() and path.stat().st_size > 0

    def starts(self) -> list[list[str]]:
        """The arguments of each start."""
        return [start["arguments"] for start in self._starts()]

    def processes(self) -> list[int]:
        """Those that it became and that are still there some seconds later."""
        found = [pid for start in self._starts() for pid in start["processes"]]
        assert found
        until = time.monotonic() + _GONE_S
        while (alive := [*filter(_is_alive, found)]) and time.monotonic() < until:
            time.sleep(0.05)
        return alive

    def _starts(self) -> list[Any]:
        lines = (self._folder / "starts.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]


def _is_alive(pid: int) -> bool:
    """A zombie is dead: who inherited it has not looked yet."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(found.strip()) and not found.startswith("Z")


class _Handler(BaseHTTPRequestHandler):
    plan: dict[str, Any]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        known = {
            "/health": {},
            "/version": {"version": "0.0.fake"},
            "/v1/models": {"data": [{"id": "m", "root": "m"}]},
        }
        found = self.path in known and not self.plan.get("never_ready")
        self._answer(200 if found else 404, known.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.plan.get("interrupts"):
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)
        labels, rows = self.plan["labels"], []
        for index, prompt in enumerate(body["input"]):
            # Token ids only ask what is served.
            text = prompt if isinstance(prompt, str) else ""
            digest = hashlib.sha256(text.encode()).hexdigest()
            probs = self.plan.get("answers", {}).get(digest, [1 / len(labels)] * len(labels))
            label = labels[probs.index(max(probs))]
            rows.append({"index": index, "label": label, "probs": probs})
        content = self.plan.get("content", {"data": rows})
        self._answer(self.plan.get("status", 200), content)

    def _answer(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _serve(folder: Path, arguments: list[str]) -> None:
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    if plan.get("stays"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # vLLM computes in a process of its own too.
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    start = {"arguments": arguments, "processes": [os.getpid(), worker.pid]}
    with (folder / "starts.jsonl").open("a", encoding="utf-8") as output:
        output.write(json.dumps(start) + "\n")
    sys.stdout.write(plan.get("says", "fake\n"))
    sys.stdout.flush()
    if "exits" in plan:
        sys.exit(plan["exits"])
    _Handler.plan = plan
    port = int(arguments[arguments.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), _Handler).serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2:])
