"""Where a language model is asked and how: its address, the body of a request, the HTTP client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, final
from urllib.parse import urlsplit

from slant.artifacts import digest_json
from slant.errors import UsageError
from slant.evaluate.endpoint.prompts import Message
from slant.score import http

if TYPE_CHECKING:
    import httpx

__all__ = ["TOP_LOGPROBS", "Endpoint", "open_client", "request_body", "request_key"]

TOP_LOGPROBS = 20
"""Alternatives of each token that are asked for: as many as OpenAI and vLLM tell at most."""
_PATH = "/chat/completions"
_EXAMPLE = "For example https://api.openai.com/v1 or http://localhost:11434/v1."


@final
@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask; docs/configuration.md describes each field (``evaluate.endpoints``).

    ``key`` is the key itself; it and ``query`` are never shown.
    """

    url: str
    model: str
    name: str | None = None
    key: str | None = field(default=None, repr=False)
    key_header: Literal["authorization", "api-key"] = "authorization"
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    instructions: Literal["english", "document"] = "english"
    shots: int = 0
    answer: Literal["word", "json"] = "word"
    logprobs: bool = False
    temperature: float | None = 0.0
    max_tokens: int = 16
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    concurrency: int = 8
    timeout_s: float = 60.0
    attempts: int = 6
    usd_per_million_input: float = 0.0
    usd_per_million_output: float = 0.0
    budget_usd: float | None = None

    @property
    def address(self) -> str:
        """Where requests go, without ``query``, which may hold secrets."""
        return self.url.rstrip("/") + _PATH

    @property
    def title(self) -> str:
        """What people know it by."""
        return self.name or self.model


def request_body(
    endpoint: Endpoint, messages: Sequence[Message], labels: Sequence[str]
) -> dict[str, Any]:
    """The JSON body of a request, as OpenAI's API reference describes it (chat completions)."""
    body: dict[str, Any] = {"model": endpoint.model, "messages": list(messages)}
    if endpoint.temperature is not None:
        body["temperature"] = endpoint.temperature
    body[endpoint.max_tokens_name] = endpoint.max_tokens
    if endpoint.answer == "json":
        schema = {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": list(labels)}},
            "required": ["label"],
            "additionalProperties": False,
        }
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    elif endpoint.logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = TOP_LOGPROBS
    return body


def request_key(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    """What the answer is kept under: sha256 of the address and the body, in hex."""
    return digest_json([endpoint.address, body])


def open_client(endpoint: Endpoint) -> httpx.Client:
    """An HTTP client with the key in its header; at most ``concurrency`` connections.

    Raises:
        UsageError: ``url`` is not the address of an endpoint, or the key cannot be sent.
        ModelError: httpx is not installed.
    """
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        if not (endpoint.key.isascii() and endpoint.key.isprintable()):
            raise UsageError(
                f"the key of {endpoint.title} holds a character that no HTTP header can",
                hint="Often a line end: check the environment variable that holds it.",
            )
        bearer = endpoint.key_header == "authorization"
        headers[endpoint.key_header] = f"Bearer {endpoint.key}" if bearer else endpoint.key
    client = http.open_client(
        endpoint.url,
        what="an endpoint",
        extra="endpoint",
        example=_EXAMPLE,
        timeout_s=endpoint.timeout_s,
        concurrency=endpoint.concurrency,
        headers=headers,
        query=endpoint.query,
    )
    parts = urlsplit(endpoint.url)
    if parts.query or parts.fragment:
        raise UsageError(
            f"the url of the endpoint {endpoint.title} holds more than an address",
            hint="Put what follows the '?' into `query`.",
        )
    if parts.path.rstrip("/").endswith(_PATH):
        raise UsageError(
            f"{endpoint.url}: {_PATH} is added to the url of an endpoint by itself", hint=_EXAMPLE
        )
    return client
