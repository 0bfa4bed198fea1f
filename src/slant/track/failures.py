"""Why a tracker did not take what it was sent: in plain words, without addresses or secrets.

A library's own message is not repeated: it may hold the URL, and with it whatever the URL holds.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from typing import final

__all__ = ["Refused", "Unreachable", "chain", "explain"]

_STATUS = re.compile(r"(?:too many (\d{3}) error responses|HTTP (\d{3})\b|error code (\d{3})\b)")
_CONNECTIONS: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLError, "its certificate cannot be verified"),
    (socket.gaierror, "its name is not known"),
    (TimeoutError, "does not answer"),
    (ConnectionError, "does not answer"),
)
_NOT_ALLOWED = (
    "CUSTOMER_UNAUTHORIZED",
    "HTTP 401",
    "HTTP 403",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
)


@final
class Unreachable(Exception):  # noqa: N818
    """The tracker did not take anything; it may later."""


@final
class Refused(Exception):  # noqa: N818
    """The tracker will never take this message; it may take others."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those it came from, the outermost first."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def explain(error: BaseException) -> str:
    """One phrase that goes on after the tracker's name, e.g. ``"does not answer"``."""
    for link in chain(error):
        for kind, reason in _CONNECTIONS:
            if isinstance(link, kind):
                return reason
    code = str(getattr(error, "error_code", type(error).__name__))  # mlflow's word for it
    for link in chain(error):
        if match := _STATUS.search(str(link)):
            code = next(f"HTTP {status}" for status in match.groups() if status)
    return f"refuses the credentials ({code})" if code in _NOT_ALLOWED else f"failed ({code})"
