"""The answers that were paid for, in an SQLite file: asking again costs nothing.

A row of ``answers`` is what an endpoint answered to one request, under the request's key (see
``endpoint_request.request_key``). A row of ``sends`` is a request without an answer that may have
been billed all the same: it is written before the request is sent, so that a killed process knows
what it may owe. No document, prompt or key is stored.

Every change is committed at once, in a write-ahead log (https://www.sqlite.org/wal.html): after
kill -9 none is missing; a power cut may take the last ones. Several processes may use one file.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from slant.disk import storage_errors
from slant.errors import ArtifactError, StorageError
from slant.evaluate.endpoint.ledger import Tokens
from slant.evaluate.endpoint.replies import Reply, TokenChoice

__all__ = ["AnswerCache", "Kept"]

_APPLICATION = 0x736C6E74  # "slnt": tells the file from any other SQLite file
_VERSION = 1
_BUSY_S = 60.0
_KEYS_AT_ONCE = 500  # SQLite takes no more than 999 parameters in old versions
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS answers (
        key TEXT PRIMARY KEY, content TEXT, refused INTEGER NOT NULL, finish_reason TEXT,
        tokens TEXT, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        counted INTEGER NOT NULL, latency_ms REAL, checksum INTEGER NOT NULL,
        lost_input_tokens INTEGER NOT NULL, lost_output_tokens INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS sends (
        key TEXT PRIMARY KEY, sends INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL
    ) WITHOUT ROWID""",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)
_COLUMNS = (
    "key, content, refused, finish_reason, tokens, input_tokens, output_tokens, counted, "
    "latency_ms, checksum, lost_input_tokens, lost_output_tokens"
)
_DAMAGED = (
    "Move the file away and run again: its answers have to be asked, and paid for, once more."
)
_OF_THE_PLACE = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)


@dataclass(frozen=True)
class Kept:
    """An answer as it is kept.

    Attributes:
        reply: what was answered.
        tokens: as the endpoint counted them, or what they are at most where it did not.
        counted: whether it did.
        lost: what requests for this answer whose own answers were lost may have been billed.
        latency_ms: from sending the request to the end of its answer; None where nothing was
            computed.
    """

    reply: Reply
    tokens: Tokens
    counted: bool
    lost: Tokens
    latency_ms: float | None


@final
class AnswerCache:
    """The file; made if it does not exist. To be used from one thread.

    Raises:
        ArtifactError: it is damaged, or no file of slant's answers, or of a newer slant.
        StorageError: it cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        database = self._database
        self._check()
        _log_ahead(database)
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN IMMEDIATE")
        try:
            self._check()  # another process may have made it just now
            for statement in _SCHEMA:
                database.execute(statement)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _check(self) -> None:
        """Raises ArtifactError if the file is anything but new or of this kind and version."""
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != _APPLICATION and (tables or application or version):
            raise ArtifactError(
                f"{self._path}: is an SQLite file, but not one of answers",
                hint="Move it away, or choose another `work` folder.",
            )
        if version > _VERSION:
            raise ArtifactError(
                f"{self._path}: was written by a newer slant (version {version} of the file, this "
                f"slant knows {_VERSION})",
                hint="Update slant.",
            )

    def answers(self, keys: Sequence[str]) -> dict[str, Kept]:
        """The answers there are to requests, by key."""
        with self._errors():
            rows = list(self._rows(f"SELECT {_COLUMNS} FROM answers WHERE key IN", keys))
        try:
            return {row[0]: _from_row(row) for row in rows}
        except (ValueError, TypeError) as error:  # bytes, where there was text
            raise self._damaged("") from error

    def sends(self, keys: Sequence[str]) -> dict[str, tuple[int, Tokens]]:
        """Requests without an answer that may have been billed: how often, and each at most."""
        with self._errors():
            query = "SELECT key, sends, input_tokens, output_tokens FROM sends WHERE key IN"
            return {row[0]: (row[1], Tokens(row[2], row[3])) for row in self._rows(query, keys)}

    def _rows(self, query: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(some))
            yield from self._database.execute(f"{query} ({marks})", some)

    def sending(self, key: str, worst: Tokens) -> None:
        """Note that a request is about to be sent, and what it may cost at most."""
        with self._errors():
            self._database.execute(
                "INSERT INTO sends VALUES (?, 1, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET sends = sends + 1",
                (key, worst.input, worst.output),
            )

    def not_billed(self, key: str) -> None:
        """Take back one note: the endpoint did not answer it, and said so."""
        with self._errors(), self._transaction():
            self._database.execute("UPDATE sends SET sends = sends - 1 WHERE key = ?", (key,))
            self._database.execute("DELETE FROM sends WHERE key = ? AND sends <= 0", (key,))

    def keep(self, key: str, kept: Kept) -> None:
        """Store an answer, in place of the notes of its requests.

        Where another process has stored one for the same request, that one stays, and this counts
        as lost.
        """
        row = _row(key, kept)
        with self._errors(), self._transaction():
            self._database.execute(
                f"INSERT INTO answers ({_COLUMNS}) VALUES ({','.join('?' * len(row))}) "
                "ON CONFLICT (key) DO UPDATE SET "
                "lost_input_tokens = lost_input_tokens + excluded.input_tokens, "
                "lost_output_tokens = lost_output_tokens + excluded.output_tokens",
                row,
            )
            self._database.execute("DELETE FROM sends WHERE key = ?", (key,))

    def close(self) -> None:
        """Close the file; the log is folded into it where no other process uses it."""
        self._database.close()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite raises into errors of slant."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", -1) & 0xFF not in _OF_THE_PLACE:
                raise self._damaged(f": {error}"[:200]) from error
            raise StorageError(
                f"cannot write {self._path}: {error}",
                hint="Is the disk full, is the folder yours, does another process hold the file?",
            ) from error

    def _damaged(self, why: str) -> ArtifactError:
        return ArtifactError(f"{self._path}: the answers in it cannot be read{why}", hint=_DAMAGED)


def _log_ahead(database: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite does not wait for another process that does so too."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > until:
                raise
            time.sleep(0.05)


def _row(key: str, kept: Kept) -> tuple[Any, ...]:
    """The values of ``_COLUMNS``."""
    reply = kept.reply
    tokens = None
    if reply.tokens is not None:
        tokens = json.dumps([[token.token, token.alternatives] for token in reply.tokens])
    said = (reply.content, int(reply.refused), reply.finish_reason, tokens)
    counts = (kept.tokens.input, kept.tokens.output, int(kept.counted), kept.latency_ms)
    row = (key, *said, *counts)
    return (*row, _checksum(row), kept.lost.input, kept.lost.output)


def _checksum(row: tuple[Any, ...]) -> int:
    # SQLite itself would not notice a flipped byte in an answer.
    return zlib.crc32(json.dumps(row).encode())


def _from_row(row: tuple[Any, ...]) -> Kept:
    """What ``_row`` was made from; raises ValueError if it is anything else."""
    *checked, checksum, lost_input, lost_output = row
    if _checksum(tuple(checked)) != checksum:
        raise ValueError("a checksum does not match")
    _, content, refused, finish_reason, listed, num_input, num_output, counted, latency_ms = checked
    tokens = None
    if listed is not None:
        tokens = tuple(
            TokenChoice(token, tuple((text, logprob) for text, logprob in alternatives))
            for token, alternatives in json.loads(listed)
        )
    usage = (num_input, num_output) if counted else (None, None)
    reply = Reply(content, bool(refused), finish_reason, tokens, *usage)
    lost = Tokens(lost_input, lost_output)
    return Kept(reply, Tokens(num_input, num_output), bool(counted), lost, latency_ms)
