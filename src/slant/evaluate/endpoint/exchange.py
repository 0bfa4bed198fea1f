"""One request to an endpoint, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slant.errors import ModelError
from slant.evaluate.endpoint.replies import Reply, read_reply
from slant.evaluate.endpoint.request import Endpoint
from slant.score.http import retry_after_s

if TYPE_CHECKING:
    import httpx

__all__ = ["Answered", "Delayed", "Outcome", "Refused", "Spent", "exchange"]

_LONGEST_BODY = 4_000_000
_LONGEST_SAID = 300
_ECHO = 24  # as many characters in a row of what was sent make a message an echo of it
_FILTERS = ("content_filter", "content_policy_violation")
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")
_ITEM = (400, 413, 422)
_NOT_COMPUTED = (408, 409, 425, 429, 503, 529)  # other failures may come after the answer was made
_HINTS = {
    401: "check evaluate.endpoints[].key_env and url: the endpoint does not take this key.",
    403: "check evaluate.endpoints[].key_env and url: the key may not use this model.",
    404: "check evaluate.endpoints[].url and model (and key_env: some endpoints hide what a key "
    "may not use).",
}
_OTHER_HINT = "check evaluate.endpoints[].url and key_env: no such endpoint answers like this."


@dataclass(frozen=True)
class Answered:
    """A reply, and milliseconds from sending the request to its end (None: nothing computed)."""

    reply: Reply
    latency_ms: float | None


@dataclass(frozen=True)
class Delayed:
    """No answer, but asking again may bring one.

    Attributes:
        problem: why.
        asked_s: how long the endpoint asks to wait; None where it does not.
        everyone: it asks that of every request.
        billed: the answer may have been made, and billed, and then lost.
    """

    problem: str
    asked_s: float | None = None
    everyone: bool = False
    billed: bool = False


@dataclass(frozen=True)
class Refused:
    """The endpoint does not take this request."""

    problem: str


@dataclass(frozen=True)
class Spent:
    """The account has no credit left."""

    problem: str


Outcome = Answered | Delayed | Refused | Spent


def exchange(client: httpx.Client, endpoint: Endpoint, key: str, content: bytes) -> Outcome:
    """Send one request and wait for what comes of it, ``timeout_s`` in all.

    ``key`` goes along as ``Idempotency-Key``: the same for every attempt, so that an endpoint that
    knows the header bills once.

    Raises:
        ModelError: the endpoint will answer no request: wrong key, address or model.
    """
    import httpx

    started = time.monotonic()
    try:
        with client.stream(
            "POST", endpoint.address, content=content, headers={"Idempotency-Key": key}
        ) as response:
            body = _read(response, started + endpoint.timeout_s)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        return Delayed(str(error) or type(error).__name__)
    except (httpx.TimeoutException, TimeoutError):
        return Delayed(f"no answer within {endpoint.timeout_s:g} s", billed=True)
    except httpx.RequestError as error:
        return Delayed(str(error) or type(error).__name__, billed=True)
    latency_ms = 1000.0 * (time.monotonic() - started)
    value = _json(body)
    status = response.status_code
    if 200 <= status < 300:
        if value is None:
            return Delayed("an answer that is no JSON", billed=True)
        return Answered(read_reply(value), latency_ms)
    said = _said(value, endpoint, content)
    return _without_answer(status, response.headers, value, said, endpoint)


def _read(response: httpx.Response, until: float) -> bytes:
    """The body, at most ``_LONGEST_BODY`` bytes; raises TimeoutError."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        # httpx bounds the wait for each piece, not for all of them.
        if time.monotonic() > until:
            raise TimeoutError
        if len(body) > _LONGEST_BODY:
            break
    return bytes(body)


def _json(body: bytes) -> Any:
    """A JSON value, or None."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _without_answer(
    status: int, headers: Mapping[str, str], value: Any, said: str, endpoint: Endpoint
) -> Outcome:
    code = _code(value)
    problem = f"status {status}{said}"
    if status == 402 or code in _NO_CREDIT:
        return Spent(problem)
    if status in _ITEM:
        if code in _FILTERS:
            return Answered(Reply(refused=True, input_tokens=0, output_tokens=0), None)
        return Refused(problem)
    if status in (408, 409, 425, 429) or (status >= 500 and status != 501):
        asked_s = retry_after_s(headers.get("retry-after"), headers.get("date"))
        everyone = status == 429 or asked_s is not None
        return Delayed(problem, asked_s, everyone, billed=status not in _NOT_COMPUTED)
    raise ModelError(
        f"{endpoint.address}: refused the request with {problem}",
        hint=_HINTS.get(status, _OTHER_HINT),
    )


def _code(value: Any) -> str | None:
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return None
    code = error.get("code") or error.get("type")
    return code if isinstance(code, str) else None


def _said(value: Any, endpoint: Endpoint, content: bytes) -> str:
    """``": …"`` with what the endpoint says is wrong, unless that repeats what it was sent."""
    error = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail")
    if not isinstance(error, str):
        return ""
    said = " ".join(error[: 10 * _LONGEST_SAID].split())
    if _repeats(said, [message["content"] for message in json.loads(content)["messages"]]):
        return " (its message repeats what it was sent, and is not shown)"
    if endpoint.key:
        said = said.replace(endpoint.key, "…")
    return f": {said[:_LONGEST_SAID]}"


def _repeats(said: str, sent: Sequence[str]) -> bool:
    """Whether a message may hold a line of what was sent, or a part of one."""
    if "\\u" in said:  # letters written as their numbers: nobody can tell
        return True
    lines = [" ".join(line.split()) for text in sent for line in text.splitlines()]
    parts = {said[i : i + _ECHO] for i in range(len(said) - _ECHO + 1)}
    return any(len(line) > 3 and line in said for line in lines) or any(
        part in line for line in lines for part in parts
    )
