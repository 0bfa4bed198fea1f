"""HTTP clients of the servers that models are asked through: vLLM, and prompted endpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from slant.errors import ModelError, UsageError

if TYPE_CHECKING:
    import httpx

__all__ = ["check_httpx", "is_loopback", "open_client", "retry_after_s"]

_CONNECT_S = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_httpx(what: str, extra: str) -> None:
    """Raises ModelError where httpx is not installed; see ``open_client``."""
    try:
        import httpx  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"asking {what} needs httpx, which is not installed",
            hint=f"pip install 'slant[{extra}]'",
        ) from error


def open_client(
    url: str,
    *,
    what: str,
    extra: str,
    example: str,
    timeout_s: float,
    concurrency: int,
    headers: Mapping[str, str],
    query: Mapping[str, str] | None = None,
) -> httpx.Client:
    """A client for one server, which no proxy stands before if it runs on this machine.

    Args:
        url: of the server: ``http://`` or ``https://`` with a host, perhaps a port and a path.
        what: the server, for messages: ``a vLLM server``.
        extra: of slant, that brings httpx.
        example: of such a url, as a sentence.
        timeout_s: how long the server may be silent.
        concurrency: connections at most.
        headers: of every request.
        query: of every request.

    Raises:
        UsageError: ``url`` is not such an address.
        ModelError: httpx is not installed.
    """
    check_httpx(what, extra)
    import httpx

    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"not the address of {what}: {error}", hint=example) from error
    if parts.scheme not in ("http", "https") or not parts.host or parts.userinfo:
        raise UsageError(
            f"the address of {what} is http:// or https:// with a host and no password",
            hint=example,
        )
    return httpx.Client(
        base_url=url,
        headers=dict(headers),
        params=dict(query or {}),
        timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
        limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        trust_env=not is_loopback(url),
    )


def is_loopback(url: str) -> bool:
    """Whether a server's address is one of this machine."""
    import httpx

    return httpx.URL(url).host in _LOOPBACK


def retry_after_s(value: str | None, date: str | None = None) -> float | None:
    """Seconds in a ``Retry-After`` header: a number, or a date (RFC 9110, 10.2.3).

    Args:
        value: the header; None or unreadable: None.
        date: the ``Date`` header of the same answer, so that clocks need not agree.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        then = _time(value)
        if then is None:
            return None
        seconds = (then - (_time(date) or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _time(value: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(value) if value else None
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found
