"""A server that speaks the chat-completions protocol, in its own process, and fails on purpose.

It answers the label that stands in double brackets in the last user message: ``[[negative]]``. What
goes wrong is drawn for each request from its document, how often its key came before, and the seed,
so that a run can be repeated. It keeps a bill: one entry for each answer that it made. A server
that honours ``Idempotency-Key`` makes the answer to a key once, and gives it again where it is
asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, final
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

__all__ = ["ChatServer"]

_HOST = "127.0.0.1"
_LABEL = re.compile(r"\[\[(.+?)\]\]")
_GARBAGE: tuple[Any, ...] = (
    [],
    {"object": "chat.completion"},
    {"choices": []},
    {"choices": [{"message": {"role": "assistant", "content": None}}]},
    {"choices": "none", "usage": {"prompt_tokens": "many"}},
)
_STATUS = {"429": 429, "429_date": 429, "500": 500, "503": 503, "400": 400, "402": 402}


@final
class ChatServer:
    """Starts the server; ``url`` is its address up to the version.

    Options:
        seed: of what goes wrong.
        rates: how often each thing goes wrong: ``429`` (with Retry-After in seconds), ``429_date``
            (with a date), ``500``, ``503``, ``400``, ``402``, ``hang`` (no answer), ``drop`` (the
            connection is closed), ``drop_billed`` (in the middle of an answer), ``html`` (a page
            instead), ``garbage`` (JSON of another shape, billed), ``unreadable`` (no label),
            ``filtered``.
        script: what goes wrong with the first requests, in order; ``ok`` for nothing.
        retry_after_s: of ``429``; of ``429_date`` too, from the next full second.
        hang_s: how long ``hang`` takes.
        delay_s: of every answer.
        honours: Idempotency-Key.
        usage: tell the tokens of each answer.
        key: what the header authorization or api-key must hold.
        query: what the address must hold.
        message: of errors; ``{user}`` is what was asked.
    """

    def __init__(self, **options: Any) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), json.dumps(options)]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=environment
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().decode().strip()
        assert port, "the server did not start"
        self._root = f"http://{_HOST}:{port}"
        self.url = f"{self._root}/v1"

    def stats(self) -> dict[str, Any]:
        """``requests``: [[time, key, fate], …]; ``billed``, ``delivered``: {key: times};
        ``tokens``: [input, output] billed; ``most``: requests at once; ``bodies``: {key: body}."""
        with urlopen(f"{self._root}/stats", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _State:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.lock = threading.Lock()
        self.requests: list[tuple[float, str, str]] = []
        self.made: dict[str, Any] = {}
        self.bodies: dict[str, Any] = {}
        self.times: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.tokens = [0, 0]
        self.now = self.most = 0

    def fate(self, key: str, text: str) -> str:
        with self.lock:
            self.times[key] += 1
            count = self.times[key]
            number = len(self.requests)
            script = self.options.get("script", [])
            fate = script[number] if number < len(script) else self._draw(text, count)
            self.requests.append((time.time(), key, fate))
            return fate

    def _draw(self, text: str, count: int) -> str:
        drawn = hashlib.sha256(f"{self.options.get('seed', 0)} {count} {text}".encode()).digest()
        chance = int.from_bytes(drawn[:8], "big") / 2**64
        for fate, rate in self.options.get("rates", {}).items():
            chance -= rate
            if chance < 0:
                return str(fate)
        return "ok"

    def answer(self, key: str, body: dict[str, Any], fate: str) -> Any:
        """The answer; made, and billed, once for each key where the server honours it."""
        with self.lock:
            if key in self.made and self.options.get("honours", True):
                return self.made[key]
            asked = sum(len(m["content"].encode()) for m in body["messages"]) // 3 + 5
            self.billed[key] += 1
            self.tokens[0] += asked
            self.tokens[1] += 2
            number = int(key[:4], 16) if re.match("[0-9a-f]{4}", key) else 0
            self.made[key] = (
                _GARBAGE[number % len(_GARBAGE)]
                if fate == "garbage"
                else _completion(body, fate, asked if self.options.get("usage", True) else None)
            )
            return self.made[key]


def _completion(body: dict[str, Any], fate: str, asked: int | None) -> dict[str, Any]:
    found = _LABEL.findall(body["messages"][-1]["content"])
    label = found[-1] if found else "neutral"
    content = json.dumps({"label": label}) if "response_format" in body else label.capitalize()
    if fate == "unreadable":
        content = "It depends on whom you ask."
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": content, "refusal": None},
        "finish_reason": "content_filter" if fate == "filtered" else "stop",
        "logprobs": None,
    }
    if body.get("logprobs"):
        top = [(label[:3], -0.2), ("neutral", -2.5), ("The", -4.0)][: body["top_logprobs"]]
        entries = [{"token": token, "logprob": logprob} for token, logprob in top]
        choice["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
    answer: dict[str, Any] = {"id": "c", "object": "chat.completion", "choices": [choice]}
    if asked is not None:
        answer["usage"] = {"prompt_tokens": asked, "completion_tokens": 2}
    return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    state: _State

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        state = self.state
        with state.lock:
            stats = {
                "requests": state.requests,
                "billed": state.billed,
                "delivered": state.delivered,
                "tokens": state.tokens,
                "most": state.most,
                "bodies": state.bodies,
            }
            content = json.dumps(stats)
        self._send(200, content.encode())

    def do_POST(self) -> None:
        state = self.state
        raw = self.rfile.read(int(self.headers["content-length"]))
        with state.lock:
            state.now += 1
            state.most = max(state.most, state.now)
        try:
            self._answer(raw)
        finally:
            with state.lock:
                state.now -= 1

    def _answer(self, raw: bytes) -> None:
        options = self.state.options
        problem = self._problem(raw)
        if problem is not None:
            self._error(*problem, raw)
            return
        body = json.loads(raw)
        key = self.headers["idempotency-key"] or hashlib.sha256(raw).hexdigest()
        with self.state.lock:
            self.state.bodies.setdefault(key, body)
        fate = self.state.fate(key, body["messages"][-1]["content"])
        if fate in _STATUS:
            self._error(_STATUS[fate], None, raw, fate)
        elif fate == "hang":
            time.sleep(options.get("hang_s", 2.0))
            self.close_connection = True
        elif fate == "drop":
            self.close_connection = True
        elif fate == "html":
            self._send(200, b"<html><body>Please log in</body></html>", **{"Content-Type": "t/h"})
        else:
            time.sleep(options.get("delay_s", 0.0))
            content = json.dumps(self.state.answer(key, body, fate)).encode()
            self._send(200, content, cut=fate == "drop_billed")
            if fate != "drop_billed":
                with self.state.lock:
                    self.state.delivered[key] += 1

    def _problem(self, raw: bytes) -> tuple[int, str | None] | None:
        """Status and message if the request is none of this protocol, or not allowed."""
        options = self.state.options
        address = urlsplit(self.path)
        if address.path != "/v1/chat/completions":
            return 404, "no such path"
        if dict(parse_qsl(address.query)) != options.get("query", {}):
            return 404, "Resource not found"
        if (key := options.get("key")) and key not in (
            self.headers.get("authorization"),
            self.headers.get("api-key"),
        ):
            return 401, f"Incorrect API key provided: {self.headers.get('authorization')}"
        body = json.loads(raw)
        roles = [message["role"] for message in body["messages"]]
        turns = ["user", "assistant"] * len(roles)
        if roles[0] != "system" or roles[1:] != turns[: len(roles) - 1] or roles[-1] != "user":
            return 400, "the roles do not alternate"
        if body.get("temperature") == 9 and "max_tokens" in body:
            return 400, "Unsupported value: 'temperature'"
        return None

    def _error(self, status: int, message: str | None, raw: bytes, fate: str = "") -> None:
        options = self.state.options
        headers = {}
        after_s = options.get("retry_after_s", 0)
        if fate == "429":
            headers["Retry-After"] = str(after_s)
        elif fate == "429_date":
            headers["Retry-After"] = formatdate(int(time.time()) + 1 + after_s, usegmt=True)
        message = message or options.get("message", "The server had an error")
        user = json.loads(raw)["messages"][-1]["content"]
        error = {"message": message.replace("{user}", user), "code": options.get("code")}
        self._send(status, json.dumps({"error": error}).encode(), **headers)

    def _send(self, status: int, content: bytes, *, cut: bool = False, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
        if cut:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed are what the tests are about."""


def _main() -> None:
    handler = type("Handler", (_Handler,), {"state": _State(json.loads(sys.argv[1]))})
    server = _Server((_HOST, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()  # ends with the process that started this one


if __name__ == "__main__":
    _main()
