"""A server that speaks the part of the Hugging Face Hub's protocol that publishing needs.

Repositories with commits, branches and tags; large files by Git LFS (basic and multipart) and, for
content that does not compress, by Xet; private repositories that answer only to the token. Commits
are atomic, as on the Hub. What the endpoints take and give is that of huggingface_hub 2.4 and
hf-xet 1.8, https://huggingface.co/docs/hub/api and https://huggingface.co/docs/xet.

    with hub_server() as hub:
        hub.hold = "PUT blob"      # such requests get no answer from here on
        hub.requests               # ["POST create", "PUT blob", …]
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, final
from urllib.parse import unquote, urlsplit

__all__ = ["TOKEN", "Hub", "Repo", "hub_server"]

TOKEN = "hf_test"
_HOST = "127.0.0.1"
_LFS_BYTES = 100_000
_LFS_ENDINGS = (".safetensors", ".parquet")


@dataclass
class File:
    """A file of a commit: a regular blob, or a pointer to a large one."""

    content: bytes
    is_lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def listed(self, path: str) -> dict[str, Any]:
        if not self.is_lfs:
            return _entry(path, self.content, len(self.content))
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\n"
            f"size {len(self.content)}\n"
        ).encode()
        size = len(self.content)
        lfs = {"oid": self.sha256, "size": size, "pointerSize": len(pointer)}
        return {**_entry(path, pointer, size), "lfs": lfs}


def _entry(path: str, blob: bytes, size: int) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
    return {"type": "file", "path": path, "size": size, "oid": oid}


Files = dict[str, File]


@dataclass
class Repo:
    """``commits``: id → files; ``branches`` and ``tags``: name → commit."""

    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: Files) -> str:
        listed = json.dumps([file.listed(path) for path, file in sorted(files.items())])
        text = f"{self.branches.get(branch)} {len(self.commits)} {listed}"
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        known = {**self.branches, **self.tags, **{oid: oid for oid in self.commits}}
        return known.get(revision)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        commit = self.resolve(revision)
        assert commit is not None
        return {path: file.content for path, file in self.commits[commit].items()}


@final
class Hub:
    """What the server knows, and what a test asks of it.

    Attributes:
        repos: ``org/name`` → repository.
        blobs: large files by sha256, whether or not a commit names them.
        requests: what was asked for, in order.
        hold: beginning of the requests that get no answer.
        fails: beginning of the requests that are answered with an error → its status.
        times: how many requests fail; -1: all.
        loses: beginning of a request that is carried out, but whose answer is an error; once.
        before: beginning of a request → what happens before it; once.
        ignored: files that a .gitignore keeps out of commits.
        chunk_bytes: large files are sent in parts of this size; 0 for one part.
    """

    def __init__(self) -> None:
        self.url = ""
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: list[str] = []
        self.hold = ""
        self.fails: dict[str, int] = {}
        self.times = -1
        self.loses = ""
        self.before: dict[str, Callable[[], object]] = {}
        self.ignored: set[str] = set()
        self.chunk_bytes = 0
        self.lock = threading.RLock()
        self.closed = threading.Event()

    def count(self, what: str) -> int:
        return sum(request.startswith(what) for request in self.requests)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A running server at ``hub.url``."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with ThreadingHTTPServer((_HOST, 0), Handler) as server:
        server.daemon_threads = True
        hub.url = f"http://{_HOST}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.closed.set()
            server.shutdown()
            thread.join()


class _FailureError(Exception):
    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(code or str(status))
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    loses = False
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else self._chunks()
        path = unquote(urlsplit(self.path).path)
        try:
            name, act, match = self._route(path)
            with self.hub.lock:
                self.hub.requests.append(f"{self.command} {name}")
            request = f"{self.command} {name}"
            if self.hub.hold and request.startswith(self.hub.hold):
                self.hub.closed.wait()
                return
            for beginning, status in self.hub.fails.items():
                if request.startswith(beginning) and self.hub.times != 0:
                    self.hub.times -= 1
                    raise _FailureError(status)
            for beginning in [name for name in self.hub.before if request.startswith(name)]:
                self.hub.before.pop(beginning)()
            self.loses = bool(self.hub.loses) and request.startswith(self.hub.loses)
            if self.loses:
                self.hub.loses = ""
            with self.hub.lock:
                act(self, body, **match)
        except _FailureError as failure:
            self._send(failure.status, b"{}", {"X-Error-Code": failure.code})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _chunks(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _route(self, path: str) -> tuple[str, Callable[..., None], dict[str, str]]:
        for methods, pattern, name, act in _ROUTES:
            if self.command in methods and (match := re.fullmatch(pattern, path)):
                return name, act, match.groupdict()
        raise _FailureError(404, f"no such endpoint: {self.command} {path}")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(502 if self.loses else status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _may_write(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _FailureError(401)

    def _repo(self, repo: str, *, writes: bool = False) -> Repo:
        found = self.hub.repos.get(repo)
        if writes:
            self._may_write()
        if found is None or (
            found.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        ):
            raise _FailureError(404 if found is None else 401, "RepoNotFound")
        return found

    def _commit(self, repo: str, revision: str) -> tuple[str, Files]:
        found = self._repo(repo)
        commit = found.resolve(revision)
        if commit is None:
            raise _FailureError(404, "RevisionNotFound")
        return commit, found.commits[commit]

    # --- the endpoints ---------------------------------------------------------------------------

    def create(self, body: bytes) -> None:
        self._may_write()
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.hub.repos:
            return self._json({"url": f"{self.hub.url}/{repo}"}, 409)
        self.hub.repos[repo] = Repo(private=asked.get("visibility") == "private")
        self.hub.repos[repo].commit("main", {".gitattributes": File(b"*.safetensors lfs\n", False)})
        return self._json({"url": f"{self.hub.url}/{repo}"})

    def info(self, _: bytes, repo: str, revision: str | None = None) -> None:
        commit, files = self._commit(repo, revision or "main")
        siblings = [{"rfilename": path} for path in files]
        self._json({"id": repo, "sha": commit, "siblings": siblings, "private": True})

    def refs(self, _: bytes, repo: str) -> None:
        found = self._repo(repo)

        def listed(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}
                for name, commit in names.items()
            ]

        branches, tags = listed("heads", found.branches), listed("tags", found.tags)
        self._json({"branches": branches, "tags": tags, "converts": []})

    def tree(self, _: bytes, repo: str, revision: str) -> None:
        _, files = self._commit(repo, revision)
        self._json([file.listed(path) for path, file in files.items()])

    def validate(self, _: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        self._repo(repo, writes=True)
        _, files = self._commit(repo, revision)
        answers = []
        for asked in json.loads(body)["files"]:
            path, size = asked["path"], asked["size"]
            mode = "lfs" if path.endswith(_LFS_ENDINGS) or size > _LFS_BYTES else "regular"
            answers.append(
                {"path": path, "uploadMode": mode, "shouldIgnore": path in self.hub.ignored}
            )
            if path in files:
                listed = files[path].listed(path)
                answers[-1]["oid"] = listed["lfs"]["oid"] if "lfs" in listed else listed["oid"]
        self._json({"files": answers})

    def batch(self, body: bytes, repo: str) -> None:
        self._repo(repo, writes=True)
        objects = []
        for asked in json.loads(body)["objects"]:
            oid, size = asked["oid"], asked["size"]
            objects.append({"oid": oid, "size": size})
            if oid in self.hub.blobs:
                continue
            href, chunk = f"{self.hub.url}/blob/{oid}", self.hub.chunk_bytes
            upload: dict[str, Any] = {"href": href}
            if chunk:
                parts = {str(i + 1): f"{href}/{i + 1}" for i in range(-(-size // chunk))}
                upload["header"] = {"chunk_size": str(chunk), **parts}
            verify = {"href": f"{self.hub.url}/verify"}
            objects[-1]["actions"] = {"upload": upload, "verify": verify}
        self._json({"transfer": "basic", "objects": objects})

    def put_blob(self, body: bytes, oid: str, part: str | None = None) -> None:
        if part is not None:
            self.hub.parts.setdefault(oid, {})[int(part)] = body
        elif hashlib.sha256(body).hexdigest() != oid:
            raise _FailureError(400)
        else:
            self.hub.blobs[oid] = body
        self._send(200, b"", {"ETag": hashlib.md5(body).hexdigest()})

    def complete(self, _: bytes, oid: str) -> None:
        body = b"".join(content for _, content in sorted(self.hub.parts[oid].items()))
        if hashlib.sha256(body).hexdigest() != oid:
            raise _FailureError(400)
        self.hub.blobs[oid] = body
        self._json({})

    def verify(self, body: bytes) -> None:
        if json.loads(body)["oid"] not in self.hub.blobs:
            raise _FailureError(404)
        self._json({})

    def xet_token(self, _: bytes, repo: str, revision: str) -> None:
        self._repo(repo, writes=True)
        expires = int(time.time()) + 3600
        cas = f"{self.hub.url}/xet"
        self._json({"casUrl": cas, "accessToken": "xet_test", "exp": expires})

    def xorb(self, body: bytes, oid: str) -> None:
        """Chunks, each after a header: version, size as sent (3 bytes), compression, size."""
        content = b""
        while body:
            size, compression = int.from_bytes(body[1:4], "little"), body[4]
            if compression:
                raise _FailureError(501)
            content += body[8 : 8 + size]
            body = body[8 + size :]
        self.hub.blobs[hashlib.sha256(content).hexdigest()] = content  # a file in each, here
        self._json({"was_inserted": True})

    def shard(self, _: bytes) -> None:
        self._json({"result": 1})

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        found = self._repo(repo, writes=True)
        head, files = self._commit(repo, revision)
        files = dict(files)
        for line in body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    if value.get("parentCommit", head) != head:
                        raise _FailureError(412)
                case "file":
                    files[value["path"]] = File(base64.b64decode(value["content"]), False)
                case "lfsFile":
                    if value["oid"] not in self.hub.blobs:
                        raise _FailureError(400)
                    files[value["path"]] = File(self.hub.blobs[value["oid"]], True)
                case "deletedFile":
                    del files[value["path"]]
        oid = found.commit(revision, files)
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def tag(self, body: bytes, repo: str, revision: str) -> None:
        found = self._repo(repo, writes=True)
        if self.command == "DELETE":
            if found.tags.pop(revision, None) is None:
                raise _FailureError(404, "RevisionNotFound")
            return self._json({})
        name = json.loads(body)["tag"]
        if name in found.tags:
            raise _FailureError(409)
        found.tags[name] = self._commit(repo, revision)[0]
        return self._json({})

    def branch(self, body: bytes, repo: str, revision: str) -> None:
        found = self._repo(repo, writes=True)
        if revision in found.branches:
            raise _FailureError(409)
        start = json.loads(body).get("startingPoint", "main")
        found.branches[revision] = self._commit(repo, start)[0]
        self._json({})

    def download(self, _: bytes, repo: str, revision: str, path: str) -> None:
        commit, files = self._commit(repo, revision)
        if path not in files:
            raise _FailureError(404, "EntryNotFound")
        file = files[path]
        listed = file.listed(path)
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{file.sha256 if file.is_lfs else listed["oid"]}"',
            "Accept-Ranges": "bytes",
        }
        content = file.content
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(match[1]), int(match[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self._send(206, content[first : last + 1], headers)
        return self._send(200, content, headers)


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_API = rf"/api/models/{_REPO}"
_REVISION = r"(?P<revision>[^/]+)"
_OID = r"(?P<oid>[0-9a-f]{64})"
_ROUTES: tuple[tuple[tuple[str, ...], str, str, Callable[..., None]], ...] = (
    (("POST",), "/api/repos/create", "create", _Handler.create),
    (("POST",), "/api/validate-yaml", "validate", _Handler.validate),
    (("GET",), _API, "info", _Handler.info),
    (("GET",), rf"{_API}/revision/{_REVISION}", "info", _Handler.info),
    (("GET",), rf"{_API}/refs", "refs", _Handler.refs),
    (("GET",), rf"{_API}/tree/{_REVISION}", "tree", _Handler.tree),
    (("POST",), rf"{_API}/preupload/{_REVISION}", "preupload", _Handler.preupload),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", "batch", _Handler.batch),
    (("PUT",), rf"/blob/{_OID}", "blob", _Handler.put_blob),
    (("PUT",), rf"/blob/{_OID}/(?P<part>\d+)", "part", _Handler.put_blob),
    (("POST",), rf"/blob/{_OID}", "complete", _Handler.complete),
    (("POST",), "/verify", "verify", _Handler.verify),
    (("GET",), rf"{_API}/xet-write-token/{_REVISION}", "xet token", _Handler.xet_token),
    (("POST",), rf"/xet/v1/xorbs/default/{_OID}", "xorb", _Handler.xorb),
    (("POST",), "/xet/v1/shards", "shard", _Handler.shard),
    (("POST",), rf"{_API}/commit/{_REVISION}", "commit", _Handler.commit),
    (("POST", "DELETE"), rf"{_API}/tag/{_REVISION}", "tag", _Handler.tag),
    (("POST",), rf"{_API}/branch/{_REVISION}", "branch", _Handler.branch),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/{_REVISION}/(?P<path>.+)", "file", _Handler.download),
)
