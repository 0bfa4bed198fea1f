"""A server between a program and an HTTP server, which notes every request and can act on one.

with counting_proxy(server.endpoint) as proxy:
    proxy.before = lambda request: ...   # called before a request is passed on
    ...
    proxy.requests                       # [("PUT", "/bucket/key?partNumber=1&uploadId=…"), …]
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, final
from urllib.parse import parse_qsl, urlsplit

__all__ = ["CountingProxy", "Request", "counting_proxy"]

_HOST = "127.0.0.1"
_OF_THE_CONNECTION = {"connection", "transfer-encoding", "content-length"}


class Request(NamedTuple):
    """A method and the path with its query."""

    method: str
    path: str

    @property
    def part(self) -> tuple[str, int] | None:
        """Path and number, if it sends a part of a multipart upload."""
        path, _, query = self.path.partition("?")
        found = dict(parse_qsl(query))
        is_part = self.method == "PUT" and "partNumber" in found
        return (path, int(found["partNumber"])) if is_part else None


@final
class CountingProxy:
    """``endpoint`` is its address; ``requests`` holds what was answered, in order."""

    def __init__(self, target: str) -> None:
        self.requests: list[Request] = []
        self.before: Callable[[Request], object] = lambda request: None
        self.refuses: Callable[[Request], bool] = lambda request: False  # as S3 refuses access
        self._under_way: set[object] = set()
        self._age = 0
        self._target = urlsplit(target).netloc
        self._server = ThreadingHTTPServer((_HOST, 0), self._handler())
        self._server.daemon_threads = True
        self.endpoint = f"http://{_HOST}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def parts(self) -> list[tuple[str, int]]:
        """The parts that were sent, in order."""
        return [request.part for request in self.requests if request.part]

    def cut(self) -> None:
        """Pass on nothing more of what comes over the connections that are open now.

        What a program had sent before it was killed may still be on its way.
        """
        self._age += 1

    def settle(self) -> None:
        """Wait until everything that came in is answered, also what nobody waits for any more."""
        while self._under_way:
            time.sleep(0.01)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self._age = proxy._age

            def _pass_on(self) -> None:
                proxy._under_way.add(self)
                try:
                    self._answer()
                except (OSError, http.client.HTTPException):  # either side may be killed
                    self.close_connection = True
                finally:
                    proxy._under_way.discard(self)

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815

            def _answer(self) -> None:
                request = Request(self.command, self.path)
                if self.headers.get("Expect"):
                    self.send_response_only(100)
                    self.end_headers()
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if len(body) < length or self._age != proxy._age:  # whoever asked is gone
                    self.close_connection = True
                    return
                proxy.before(request)
                if proxy.refuses(request):
                    self._say(403, "AccessDenied")
                    return
                connection = http.client.HTTPConnection(proxy._target, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status == 500 and request.part:
                    # What moto answers where S3 says that the upload is completed or aborted.
                    self._say(404, "NoSuchUpload")
                    return
                proxy.requests.append(request)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _OF_THE_CONNECTION:
                        self.send_header(name, value)
                told = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", told or str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                connection.close()

            def _say(self, status: int, code: str) -> None:
                content = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def handle_expect_100(self) -> bool:
                return True

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@contextmanager
def counting_proxy(target: str) -> Iterator[CountingProxy]:
    """A running proxy to the server at ``target``."""
    proxy = CountingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
