"""Requests on their way: how many at once, when again, and when to stop.

One thread decides, keeps the answers and counts the money; the others only send a request and wait
for it. Nothing is shared but two queues, so that there is nothing to lock, and Ctrl-C comes through
at once.
"""

from __future__ import annotations

import heapq
import json
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, final

from slant.errors import ModelError
from slant.evaluate.endpoint.answers import AnswerCache, Kept
from slant.evaluate.endpoint.exchange import Answered, Delayed, Outcome, Refused, Spent, exchange
from slant.evaluate.endpoint.ledger import Ledger, Tokens
from slant.evaluate.endpoint.request import Endpoint, open_client

if TYPE_CHECKING:
    import httpx

__all__ = ["Asking", "Item", "Pauses", "encode_body"]

_REFUSED_IN_A_ROW = 5
_FAILED_IN_A_ROW = 20
_DRAIN_S = 5.0
_STEP_S = 1.0  # of waiting, so that no system keeps Ctrl-C back for longer
_BODY_HINT = (
    "check evaluate.endpoints[]: model, max_tokens_name, temperature, answer and logprobs; not "
    "every endpoint takes every one of them."
)

Ending = Literal["answered", "refused", "failed"]


@dataclass(frozen=True)
class Pauses:
    """How long to wait before a request is sent again.

    Attributes:
        first_s: after the first attempt; each later pause is twice as long, and each is shortened
            at random by up to a half, so that requests do not come back together.
        longest_s: of these pauses.
        longest_asked_s: of a pause that the endpoint asks for (``Retry-After``).
    """

    first_s: float = 0.5
    longest_s: float = 60.0
    longest_asked_s: float = 600.0

    def pause_s(self, attempt: int, asked_s: float | None, chance: float) -> float:
        """Seconds after attempt number ``attempt`` (from 1); ``chance``: random, below 1."""
        pause = min(self.first_s * 2.0 ** min(attempt - 1, 60), self.longest_s)
        return max(pause * (1.0 - chance / 2), min(asked_s or 0.0, self.longest_asked_s))


@dataclass
class Item:
    """One request to be answered: its key and body, and what it may cost at most."""

    key: str
    body: Callable[[], bytes]
    worst: Tokens
    attempts: int = 0
    lost: int = 0
    """Attempts, in earlier runs too, that may have been billed without bringing an answer."""


@dataclass(order=True)
class _Later:
    ready: float
    order: int
    item: Item = field(compare=False)


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request's body as it is sent."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


@final
class Asking:
    """Asks until every item has an ending, or it is of no use to go on.

    Args:
        endpoint: whom.
        items: what, in this order. What earlier runs may owe for them is held in the ledger.
        cache: keeps each answer as it comes.
        ledger: holds what each request may cost before it is sent.
        pauses: between attempts.
        seed: of the random part of the pauses.
        known: whether answers of this endpoint to such questions are already kept.
        on_end: told of each item that has an ending; with its answer if it has one.

    Attributes:
        last_problem: why the last request without an answer had none.
        unaffordable_usd: what the next request could have cost, where the budget stopped it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        items: Sequence[Item],
        *,
        cache: AnswerCache,
        ledger: Ledger,
        pauses: Pauses,
        seed: int,
        known: bool,
        on_end: Callable[[Item, Ending, Kept | None], None],
    ) -> None:
        self._endpoint, self._cache, self._ledger = endpoint, cache, ledger
        self._pauses, self._random = pauses, random.Random(seed)
        self._on_end = on_end
        self._fresh = deque(items)
        self._later: list[_Later] = []
        self._order = 0
        self._in_flight = 0
        self._window = endpoint.concurrency
        self._since_shrunk = 0
        self._not_before = 0.0
        self._any_answer = known
        self._refused_in_a_row = self._failed_in_a_row = 0
        self._stopped: str | None = None
        self._error: BaseException | None = None
        self._give_up_at = 0.0
        self.last_problem = ""
        self.unaffordable_usd: float | None = None
        self._jobs: queue.SimpleQueue[tuple[Item, bytes] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[tuple[Item, Outcome | BaseException]] = (
            queue.SimpleQueue()
        )

    def run(self) -> str | None:
        """Ask; returns why it stopped before every item had an ending, or None.

        Raises:
            UsageError: the address is none.
            ModelError: httpx is not installed, or the endpoint takes no request at all.
        """
        client = open_client(self._endpoint)
        # Daemons: a request that hangs must not keep the process from ending.
        workers = [
            threading.Thread(target=self._work, args=(client,), name="slant-ask", daemon=True)
            for _ in range(min(self._endpoint.concurrency, len(self._fresh)))
        ]
        for worker in workers:
            worker.start()
        try:
            while True:
                next_s = self._send()
                if not self._in_flight and (self._ended or not (self._fresh or self._later)):
                    break
                if self._error is not None and time.monotonic() > self._give_up_at:
                    break
                self._wait(next_s)
        finally:
            for _ in workers:
                self._jobs.put(None)
            client.close()
        if self._error is not None:
            raise self._error
        return self._stopped

    def _work(self, client: httpx.Client) -> None:
        while (job := self._jobs.get()) is not None:
            item, content = job
            try:
                outcome: Outcome | BaseException = exchange(
                    client, self._endpoint, item.key, content
                )
            except BaseException as error:
                outcome = error
            self._outcomes.put((item, outcome))

    @property
    def _ended(self) -> bool:
        return self._stopped is not None or self._error is not None

    def _send(self) -> float:
        """Send as many requests as may go now; returns seconds until another might."""
        while not self._ended and self._in_flight < self._window:
            now = time.monotonic()
            # A question that waits for its next attempt keeps its place: an endpoint that fails
            # must not be asked for more and more.
            starts = self._fresh and self._in_flight + len(self._later) < self._window
            if not (starts or self._later):
                break
            ready = 0.0 if starts else self._later[0].ready
            if max(ready, self._not_before) > now:
                return max(ready, self._not_before) - now
            retried = bool(self._later) and self._later[0].ready <= now
            item = self._later[0].item if retried else self._fresh[0]
            if not self._ledger.fits(item.worst):
                # Requests on their way hold more than they will cost: wait for them.
                if not self._in_flight:
                    self.unaffordable_usd = self._ledger.usd(item.worst)
                    self._stopped = f"the next request could cost ${self.unaffordable_usd:.2g}"
                break
            if retried:
                heapq.heappop(self._later)
            else:
                self._fresh.popleft()
            item.attempts += 1
            self._ledger.take(item.worst)
            self._cache.sending(item.key, item.worst)
            self._in_flight += 1
            self._jobs.put((item, item.body()))
        return _STEP_S

    def _wait(self, at_most_s: float) -> None:
        """Wait for an outcome, and take it."""
        try:
            item, outcome = self._outcomes.get(timeout=min(max(at_most_s, 0.001), _STEP_S))
        except queue.Empty:
            return
        self._in_flight -= 1
        if isinstance(outcome, BaseException):
            if isinstance(outcome, ModelError):  # the endpoint said that it does not answer
                self._not_billed(item)
            self._fail(outcome)
        elif isinstance(outcome, Answered):
            self._keep(item, outcome)
        elif isinstance(outcome, Delayed):
            self._delay(item, outcome)
        else:
            self._decline(item, outcome)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            self._give_up_at = time.monotonic() + _DRAIN_S

    def _keep(self, item: Item, answered: Answered) -> None:
        reply, worst = answered.reply, item.worst
        tokens = Tokens(
            worst.input if reply.input_tokens is None else reply.input_tokens,
            worst.output if reply.output_tokens is None else reply.output_tokens,
        )
        # The same request again: as long a prompt, and an answer of unknown length.
        lost = Tokens(tokens.input, worst.output).times(item.lost)
        counted = reply.input_tokens is not None and reply.output_tokens is not None
        kept = Kept(reply, tokens, counted, lost, answered.latency_ms)
        self._cache.keep(item.key, kept)
        self._ledger.give_back(worst.times(1 + item.lost))
        self._ledger.take(tokens + lost)
        self._any_answer = True
        self._refused_in_a_row = self._failed_in_a_row = 0
        self._since_shrunk += 1
        if self._since_shrunk >= self._window < self._endpoint.concurrency:
            self._window, self._since_shrunk = self._window + 1, 0
        self._on_end(item, "answered", kept)

    def _not_billed(self, item: Item) -> None:
        self._cache.not_billed(item.key)
        self._ledger.give_back(item.worst)

    def _delay(self, item: Item, delayed: Delayed) -> None:
        if delayed.billed:
            item.lost += 1
        else:
            self._not_billed(item)
        self.last_problem = delayed.problem
        pause_s = self._pauses.pause_s(item.attempts, delayed.asked_s, self._random.random())
        now = time.monotonic()
        if delayed.everyone:
            if now >= self._not_before:  # not for every request that was told so at once
                self._window, self._since_shrunk = max(1, self._window // 2), 0
            self._not_before = max(self._not_before, now + pause_s)
        if item.attempts < self._endpoint.attempts:
            self._order += 1
            heapq.heappush(self._later, _Later(now + pause_s, self._order, item))
            return
        self._failed_in_a_row += 1
        self._on_end(item, "failed", None)
        if self._failed_in_a_row >= _FAILED_IN_A_ROW and self._stopped is None:
            self._stopped = (
                f"the endpoint does not answer: {self._failed_in_a_row} questions in a row got no "
                f"answer in {self._endpoint.attempts} attempts each; the last: {delayed.problem}"
            )

    def _decline(self, item: Item, outcome: Refused | Spent) -> None:
        self._not_billed(item)
        self.last_problem = outcome.problem
        if isinstance(outcome, Spent):
            if self._stopped is None:
                self._stopped = f"the account has no credit left: {outcome.problem}"
            return
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= _REFUSED_IN_A_ROW and not self._any_answer:
            self._fail(
                ModelError(
                    f"{self._endpoint.address}: refuses every request with {outcome.problem}",
                    hint=_BODY_HINT,
                )
            )
            return
        self._on_end(item, "refused", None)
