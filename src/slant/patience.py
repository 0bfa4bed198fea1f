"""Requests over a network that go on after a failure.

What was asked for is asked for again, with growing pauses, until it answers or the patience is
over: ``PATIENCE_S``, or less inside ``at_most``, or until ``abandoned_by`` says that nobody waits
for the answer any more.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from slant.errors import InputError, SlantError, StorageError, UsageError

__all__ = ["PATIENCE_S", "abandoned_by", "at_most", "patiently"]

PATIENCE_S = 120.0
"""How long a network file system may stay away before work is given up."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0

# Errors of a request that would fail again however often it is sent.
_LASTING_ERRORS = {errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENOSPC}
_LASTING_ERRORS |= {errno.ENOSYS}  # a store that speaks S3, but not all of it
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError"}
_REFUSALS = {"ClientAuthenticationError", "NonRetryableError"}  # of Azure; of gcsfs
_BUSY = {408, 425, 429}  # HTTP's own words for "ask again later"

_Result = TypeVar("_Result")
_most_s: ContextVar[float] = ContextVar("most_s", default=float("inf"))
_abandoned: ContextVar[threading.Event] = ContextVar("abandoned")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Less patience for the requests of this block, whatever they ask for."""
    token = _most_s.set(seconds)
    try:
        yield
    finally:
        _most_s.reset(token)


@contextmanager
def abandoned_by(event: threading.Event) -> Iterator[None]:
    """Requests of this block are not sent again once the event is set: nobody waits for them."""
    token = _abandoned.set(event)
    try:
        yield
    finally:
        _abandoned.reset(token)


def patiently(
    ask: Callable[[], _Result],
    url: str,
    patience_s: float = PATIENCE_S,
    *,
    writes: bool = False,
) -> _Result:
    """What ``ask`` returns; asked again while the storage is away.

    Args:
        ask: A request to the storage that may be sent more than once.
        url: What it is about, for errors.
        patience_s: How long the storage may stay away, in seconds.
        writes: Whether it writes.

    Raises:
        UsageError: the storage cannot do this.
        InputError, or StorageError if it ``writes``: no answer, or a refusal.
    """
    started, pause_s = time.monotonic(), _FIRST_PAUSE_S
    patience_s, abandoned = min(patience_s, _most_s.get()), _abandoned.get(threading.Event())
    kind = StorageError if writes else InputError
    while True:
        try:
            return ask()
        # Every library has exceptions of its own for a server that is away; few are OSErrors.
        except Exception as caught:
            error = _os_error(caught)
            lasting = _lasting_error(error, url, kind)
            if lasting is not None:
                raise lasting from error
            if time.monotonic() - started + pause_s > patience_s:
                raise kind(
                    f"{url}: no answer for {patience_s:g} s: "
                    f"{type(error).__name__}: {_first_line(error)}",
                    hint="Check the network and the address, then run the same command again: it "
                    "goes on from here.",
                ) from error
            if abandoned.wait(pause_s):
                raise kind(
                    f"{url}: given up: {type(error).__name__}: {_first_line(error)}"
                ) from error
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _os_error(error: Exception) -> Exception:
    """The error by Python's own name, where a library has another for a refusal or no file."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return error
    status, text = _status(error), _first_line(error)
    if type(error) is OSError and str(error).startswith("Forbidden: "):  # gcsfs has no status
        status = 403
    found: Exception
    if status in (401, 403) or _is_one_of(error, _REFUSALS):
        found = PermissionError(text)
    elif status == 404:
        found = FileNotFoundError(text)
    else:
        return error
    found.__cause__ = error
    return found


def _status(error: Exception) -> int | None:
    """The HTTP status in an error of Azure's library, aiohttp or gcsfs; None if it has none."""
    found = (getattr(error, name, None) for name in ("status_code", "status", "code"))
    return next((status for status in found if isinstance(status, int)), None)


def _is_one_of(error: Exception, names: set[str]) -> bool:
    """Whether the error's class has such a name; the libraries may not be installed."""
    return not names.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _first_line(error: Exception) -> str:
    """What a person needs to know: libraries add the request, and the answer as it came."""
    first, _, rest = str(error).strip().partition("\n")
    # gcsfs says which file first, and why on the next line.
    is_heading = first.startswith(("Bad Request: ", "Forbidden: "))
    return (rest.strip().partition("\n")[0] if is_heading and rest.strip() else first).strip()


def _lasting_error(error: Exception, url: str, kind: type[SlantError]) -> SlantError | None:
    """What to raise for an error that will not pass by waiting; None if it may."""
    if isinstance(error, FileNotFoundError):
        return kind(f"{url}: there is no such file or bucket")
    if isinstance(error, PermissionError):
        return kind(
            f"{url}: access is refused ({_first_line(error)})",
            hint="Check the credentials in the environment, and the rights they give.",
        )
    if _is_one_of(error, _NO_CREDENTIALS):
        return kind(
            f"{url}: no credentials were found",
            hint="Set them in the environment, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    if isinstance(error, NotImplementedError):
        return UsageError(f"{url}: this kind of storage cannot do what is asked of it")
    # Subclasses of ValueError tell of a garbled answer; the class itself, of a request.
    is_mistake = type(error) is ValueError or type(error).__name__ == "ParamValidationError"
    is_refused = 400 <= (_status(error) or 0) < 500 and _status(error) not in _BUSY
    if is_mistake or is_refused or getattr(error, "errno", None) in _LASTING_ERRORS:
        return kind(f"{url}: cannot be used: {_first_line(error)}")
    if isinstance(error, TypeError | AttributeError):
        raise error  # a mistake of a program, not of the network
    return None
