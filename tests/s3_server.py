"""An S3 server of its own for a test, which can be killed and started again.

It is moto's server in a process of its own. What was stored survives a kill, as in real S3: each
write is copied to a database before it is answered, and put back before the server listens again.
(Multipart uploads that were not completed are lost.)

    with s3_server() as server:
        server.put("bucket/a.jsonl", b"...")
        server.kill()      # SIGKILL: requests fail from here on
        server.restart()   # the same port, the same objects

In the block the environment leads fsspec and boto3 to the server.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final
from urllib.parse import quote

__all__ = ["S3Server", "s3_server"]

_HOST = "127.0.0.1"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",  # the patience under test is ours
}


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A running server; the environment and fsspec's connections are put back afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        server = S3Server(Path(folder))
        before = dict(os.environ)
        os.environ.update(_ENVIRONMENT, AWS_ENDPOINT_URL=server.endpoint)
        os.environ.pop("AWS_PROFILE", None)
        _forget_connections()
        try:
            yield server
        finally:
            server.kill()
            os.environ.clear()
            os.environ.update(before)
            _forget_connections()


def _forget_connections() -> None:
    """fsspec keeps file systems by their arguments; the server's address is not among them."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@final
class S3Server:
    """The server's process; ``endpoint`` is its address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = 0
        self._process = self._start()
        self.endpoint = f"http://{_HOST}:{self._port}"

    def put(self, path: str, content: bytes) -> None:
        """Store an object at ``bucket/key``; the bucket is made."""
        import boto3

        bucket, _, key = path.partition("/")
        client = boto3.client("s3", endpoint_url=self.endpoint)
        client.create_bucket(Bucket=bucket)
        if key:
            client.put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, path: str) -> bytes:
        """The object at ``bucket/key``."""
        import boto3

        bucket, _, key = path.partition("/")
        client = boto3.client("s3", endpoint_url=self.endpoint)
        return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())

    def keys(self, bucket: str) -> list[str]:
        """The keys in a bucket, sorted."""
        import boto3

        pages = boto3.client("s3", endpoint_url=self.endpoint).get_paginator("list_objects_v2")
        return sorted(
            found["Key"]
            for page in pages.paginate(Bucket=bucket)
            for found in page.get("Contents", [])
        )

    def kill(self) -> None:
        """End the server with SIGKILL, in the middle of whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def restart(self) -> None:
        """Start a killed server again, at the same address and with the same objects."""
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, str(self._folder / "objects.db"), str(self._port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout is not None
        answer = process.stdout.readline()  # it comes once the server listens
        if not answer:
            raise RuntimeError((self._folder / "server.log").read_text())
        self._port = int(answer)
        return process


# --- the server's process ------------------------------------------------------------------------


@final
class _Durable:
    """moto's application, with a database behind it that outlives the process."""

    _HEADERS = {  # noqa: RUF012
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20240101/us-east-1/s3/aws4_request, "
        "SignedHeaders=host, Signature=0"
    }

    def __init__(self, app: Any, database: str) -> None:
        from werkzeug.test import Client

        self._app = app
        self._client = Client(app)
        self._lock = threading.Lock()
        self._stored = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self._stored.execute("CREATE TABLE IF NOT EXISTS objects (path TEXT PRIMARY KEY, content)")
        rows = self._stored.execute("SELECT path, content FROM objects ORDER BY content NOT NULL")
        for path, content in rows.fetchall():  # buckets, which have no content, come first
            self._ask("PUT", path, content or b"")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("PUT", "POST", "DELETE"):
            answer: Iterable[bytes] = self._app(environ, start_response)
            return answer
        with self._lock:
            whole = list(self._app(environ, start_response))
            path = environ["PATH_INFO"].encode("latin-1").decode().rstrip("/")
            if environ["REQUEST_METHOD"] == "POST" and "delete" in environ["QUERY_STRING"]:
                beside = self._stored.execute(
                    "SELECT path FROM objects WHERE path LIKE ?", (f"{path}/%",)
                )
                for (one,) in beside.fetchall():
                    self._store(one)
            else:
                self._store(path)
        return whole

    def _store(self, path: str) -> None:
        """Make the database hold what the server holds at ``path``."""
        is_bucket = path.count("/") == 1
        status, content = self._ask("HEAD" if is_bucket else "GET", path)
        if status == 200:
            self._stored.execute(
                "REPLACE INTO objects VALUES (?, ?)", (path, None if is_bucket else content)
            )
        else:
            self._stored.execute("DELETE FROM objects WHERE path = ?", (path,))

    def _ask(self, method: str, path: str, content: bytes = b"") -> tuple[int, bytes]:
        answer = self._client.open(
            quote(path),
            method=method,
            data=content,
            headers=self._HEADERS,
            base_url=f"http://{_HOST}",
        )
        return answer.status_code, answer.get_data()


def _serve(database: str, port: int) -> None:
    """Serve until killed, or until the process that started this one is gone."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = _Durable(DomainDispatcherApplication(create_backend_app), database)
    server = make_server(_HOST, port, app, threaded=True)
    print(server.server_port, flush=True)  # noqa: T201
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
