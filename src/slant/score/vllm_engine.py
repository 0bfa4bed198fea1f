"""Scoring through a vLLM server, which runs in a Python environment of its own.

vLLM pins an older transformers than slant needs, so that the two meet over HTTP only:
``vllm serve BUNDLE/classifier --runner pooling``. To score, token ids are sent and never text, so
that both engines read the same prompt; ``POST /classify`` with ``use_activation: false`` answers
with the logits of the classifier's float32 head.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from slant.errors import ArtifactError, ModelError
from slant.score.http import is_loopback, open_client, retry_after_s
from slant.task.spec import SPEC_FILE, TaskSpec

if TYPE_CHECKING:
    import httpx

__all__ = ["Retries", "VllmEngine"]

_START = (
    "Start it with `vllm serve BUNDLE/classifier --runner pooling --enable-prefix-caching`, and "
    "wait until it answers."
)
_OTHER_MODEL = "Serve the classifier/ folder of the bundle that you score with."
_LOGITS = {"use_activation": False}
_PROBE = [[0]]  # any token: what is asked for is the number of labels


@dataclass(frozen=True)
class Retries:
    """How long a request is tried again that the server could not take or did not answer.

    Attributes:
        attempts: requests in all; at least 1.
        first_pause_s: before the second attempt; each later pause is twice as long.
        longest_pause_s: of any pause, those that the server asks for (``Retry-After``) too.
    """

    attempts: int = 6
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0

    def pause_s(self, attempt: int, asked_s: float | None = None) -> float:
        """Seconds after attempt number ``attempt`` (from 1); ``asked_s``: by ``Retry-After``."""
        pause = self.first_pause_s * 2.0 ** (attempt - 1)
        return min(max(pause, asked_s or 0.0), self.longest_pause_s)


@final
class VllmEngine:
    """Label logits from a vLLM server that serves the classifier of a bundle.

    The classifier's head has the temperature divided into it, and the logits of an engine are those
    before calibration: what the server answers is multiplied by the temperature.

    What cannot be seen over HTTP are the weights. A server with another model of as many labels of
    the same names is found out only where it runs on this machine (see ``for_bundle``).

    Args:
        url: of the server, without a path: ``http://localhost:8000``. Where the server has an API
            key, it is read from ``VLLM_API_KEY`` in the environment.
        labels: L names in the order of the columns.
        temperature: of the bundle; above 0.
        timeout_s: how long one request may take.
        concurrency: requests on their way at the same time.
        prompts_per_request: at most; prompts of one document are kept in one request if they fit.
        retries: after a refused connection, a lost answer, status 429 or 5xx.

    Raises:
        UsageError: ``url`` is not the address of a server.
        ModelError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        labels: Sequence[str],
        temperature: float,
        timeout_s: float = 120.0,
        concurrency: int = 4,
        prompts_per_request: int = 32,
        retries: Retries = Retries(),
    ) -> None:
        self._url = url.rstrip("/")
        self._client = _client(self._url, timeout_s, concurrency)
        self._labels = tuple(labels)
        self._temperature = temperature
        self._concurrency = concurrency
        self._prompts_per_request = prompts_per_request
        self._retries = retries
        self._served: Mapping[str, Any] | None = None

    @classmethod
    def for_bundle(cls, url: str, spec: TaskSpec, **options: Any) -> VllmEngine:
        """The engine for the bundle that ``spec`` comes from; asks the server whether it fits.

        Args:
            url: of the server.
            spec: its labels, temperature and token limit.
            options: as ``VllmEngine`` takes them.

        Raises:
            UsageError, ModelError: as ``VllmEngine`` and ``check``; prompts of the bundle's token
                limit are longer than the server takes; the server runs on this machine and serves
                a bundle with another fingerprint.
        """
        engine = cls(url, labels=tuple(spec.labels), temperature=spec.temperature, **options)
        try:
            served = engine.check()
            engine._check_length(spec.token_limit, "the bundle's token limit")
            _check_fingerprint(engine._url, served, spec)
        except BaseException:
            engine.close()
            raise
        return engine

    def check(self) -> Mapping[str, Any]:
        """Ask what is served, and for one answer.

        Returns:
            The server's card of the model: ``id``, ``root`` (its folder or hub id) and
            ``max_model_len`` (tokens), where it says so.

        Raises:
            ModelError: the server does not answer, is no vLLM server, serves no classifier, or one
                with other labels.
        """
        stop = threading.Event()
        answer = self._request("GET", "/v1/models", None, stop)
        cards = answer.get("data")
        if not isinstance(cards, list) or not cards or not isinstance(cards[0], dict):
            raise self._malformed("/v1/models lists no model")
        self._served = cards[0]
        self._classify(_PROBE, _LOGITS, stop)
        return self._served

    def label_logits(
        self,
        prompts: Sequence[Sequence[int]],
        on_done: Callable[[int], None] | None = None,
        *,
        groups: Sequence[Hashable] | None = None,
    ) -> NDArray[np.float32]:
        """See Engine.

        ``groups`` names the document of each prompt; a document's prompts are sent together, so
        that the server finds in its cache what they begin with.

        Raises:
            ModelError: the server does not answer (any more), refuses a prompt, or answers for
                another model. Rows that were done are lost; ask again for all of them.
        """
        logits_NL: NDArray[np.float32] = np.empty(
            (len(prompts), len(self._labels)), dtype=np.float32
        )
        if not prompts:
            return logits_NL
        if self._served is None:
            self.check()
        self._check_length(max(map(len, prompts)), "a prompt")
        ids = [list(prompt) for prompt in prompts]
        self._fill(logits_NL, ids, _LOGITS, groups=groups, on_done=on_done)
        logits_NL *= np.float32(self._temperature)
        return logits_NL

    def text_probabilities(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """``(N, L)``: what any client gets who sends the prompts as text.

        The server makes the token ids, and the probabilities of its logits. Scoring does not go
        this way; it is what the proof of an export asks.

        Raises:
            ModelError: as ``label_logits``.
        """
        found_NL: NDArray[np.float32] = np.empty((len(prompts), len(self._labels)), np.float32)
        if self._served is None:
            self.check()
        self._fill(found_NL, prompts, {})
        return found_NL

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_length(self, num_tokens: int, what: str) -> None:
        limit = (self._served or {}).get("max_model_len")
        if isinstance(limit, int) and num_tokens > limit:
            raise ModelError(
                f"{self._url}: {what} has {num_tokens} tokens, the server takes at most {limit}",
                hint=f"Start it with --max-model-len {num_tokens} or more.",
            )

    def _fill(
        self,
        found_NL: NDArray[np.float32],
        prompts: Sequence[list[int]] | Sequence[str],
        options: Mapping[str, Any],
        *,
        groups: Sequence[Hashable] | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> None:
        """Put what the server answers to the prompts into the rows; see ``label_logits``."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._concurrency, "slant-vllm")
        try:
            waiting = {
                pool.submit(self._classify, [prompts[i] for i in members], options, stop): members
                for members in _requests(len(prompts), groups, self._prompts_per_request)
            }
            for future in as_completed(waiting):
                found_NL[waiting[future]] = future.result()
                if on_done:
                    on_done(len(waiting[future]))
        finally:
            # After an error or Ctrl-C, nobody waits for what is still on its way.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _classify(
        self,
        prompts: Sequence[list[int] | str],
        options: Mapping[str, Any],
        stop: threading.Event,
    ) -> NDArray[np.float32]:
        """The server's answers to some prompts, ``(n, L)``."""
        assert self._served is not None
        body = {"model": self._served.get("id"), "input": prompts, **options}
        answer = self._request("POST", "/classify", body, stop)
        rows = answer.get("data")
        if not isinstance(rows, list) or len(rows) != len(prompts):
            raise self._malformed(f"/classify gave no list of {len(prompts)} answers")
        return np.array([self._row(row, i) for i, row in enumerate(rows)], dtype=np.float32)

    def _row(self, row: Any, position: int) -> list[float]:
        """The numbers of one answer if it is for this prompt and from a model with these labels."""
        values = row.get("probs") if isinstance(row, dict) else None
        if not isinstance(values, list) or not all(isinstance(x, int | float) for x in values):
            raise self._malformed("an answer of /classify holds no numbers")
        if row.get("index", position) != position:
            raise self._malformed("the answers of /classify are not in the order of the prompts")
        if len(values) != len(self._labels):
            raise ModelError(
                f"{self._url}: the model that is served has {len(values)} labels, the bundle has "
                f"{len(self._labels)} ({', '.join(self._labels)})",
                hint=_OTHER_MODEL,
            )
        expected = self._labels[int(np.argmax(values))]
        if row.get("label") not in (None, expected):
            raise ModelError(
                f"{self._url}: the model that is served answers {str(row['label'])[:80]!r} where "
                f"the bundle has the label {expected!r}",
                hint=_OTHER_MODEL,
            )
        return values

    def _request(self, method: str, path: str, body: Any, stop: threading.Event) -> dict[str, Any]:
        """The JSON object that the server answers with, after as many attempts as it takes."""
        import httpx

        attempt = 0
        while True:
            attempt += 1
            asked_s = None
            try:
                response = self._client.request(method, path, json=body)
                if not _may_pass(response.status_code):
                    return self._content(path, response)
                problem = f"status {response.status_code}{_reason(response)}"
                headers = response.headers
                asked_s = retry_after_s(headers.get("retry-after"), headers.get("date"))
            except httpx.RequestError as error:
                problem = str(error) or type(error).__name__
            if attempt >= self._retries.attempts or stop.wait(
                self._retries.pause_s(attempt, asked_s)
            ):
                times = f" ({attempt} attempts)" if attempt > 1 else ""
                raise ModelError(
                    f"{self._url}: the vLLM server does not answer {path}: {problem}{times}",
                    hint=_START,
                )

    def _content(self, path: str, response: httpx.Response) -> dict[str, Any]:
        status = response.status_code
        if status != 200:
            hint = {
                401: "Put the server's API key into the environment variable VLLM_API_KEY.",
                404: "Is it a vLLM server that serves a classifier? " + _START,
                501: "The model that is served is no classifier. " + _OTHER_MODEL,
            }.get(status, "See what the server printed. " + _OTHER_MODEL)
            raise ModelError(
                f"{self._url}: refused {path} with status {status}{_reason(response)}", hint=hint
            )
        try:
            content = response.json()
        except ValueError as error:
            raise self._malformed(f"{path} did not answer with JSON") from error
        if not isinstance(content, dict):
            raise self._malformed(f"{path} did not answer with a JSON object")
        return content

    def _malformed(self, what: str) -> ModelError:
        return ModelError(
            f"{self._url}: not the answer of a vLLM server: {what}",
            hint="slant was tested with vLLM 0.32; check the address and the server's version.",
        )


def _client(url: str, timeout_s: float, concurrency: int) -> httpx.Client:
    key = os.environ.get("VLLM_API_KEY")
    return open_client(
        url,
        what="a vLLM server",
        extra="vllm",
        example="For example http://localhost:8000.",
        timeout_s=timeout_s,
        concurrency=concurrency,
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )


def _may_pass(status: int) -> bool:
    """Whether asking again may help: too many requests, or the server failed (501: never will)."""
    return status == 429 or (status >= 500 and status != 501)


def _reason(response: httpx.Response) -> str:
    """``": …"`` with what the server says is wrong; empty where it does not say it in JSON."""
    try:
        content = response.json()
    except ValueError:
        return ""
    error = content.get("error", content) if isinstance(content, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return f": {' '.join(message.split())[:300]}" if isinstance(message, str) else ""


def _requests(count: int, groups: Sequence[Hashable] | None, size: int) -> Iterator[list[int]]:
    """Row numbers of each request: at most ``size``, a group whole where it fits."""
    members: dict[Hashable, list[int]] = {}
    for i in range(count):
        members.setdefault(i if groups is None else groups[i], []).append(i)
    request: list[int] = []
    for group in members.values():
        if request and len(request) + len(group) > size:
            yield request
            request = []
        request += group
        while len(request) >= size:
            yield request[:size]
            request = request[size:]
    if request:
        yield request


def _check_fingerprint(url: str, served: Mapping[str, Any], spec: TaskSpec) -> None:
    """Raises ModelError if a server on this machine serves the folder of another bundle."""
    root = served.get("root")
    if not is_loopback(url) or not isinstance(root, str):
        return
    folder = Path(root)
    if not folder.is_absolute() or not (folder.parent / SPEC_FILE).is_file():
        return  # it runs elsewhere after all, in a container for example, or is no bundle's folder
    try:
        found = TaskSpec.load(folder.parent).fingerprint
    except ArtifactError:
        return
    if found != spec.fingerprint:
        raise ModelError(
            f"{url}: serves {folder}, whose fingerprint is {found[:12]}…; the bundle's is "
            f"{spec.fingerprint[:12]}…",
            hint=_OTHER_MODEL,
        )
