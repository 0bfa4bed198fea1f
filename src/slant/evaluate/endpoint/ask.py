"""A language model behind an OpenAI-compatible endpoint, asked for the label of each question.

Shape letters: N questions, L labels. docs/endpoints.md tells what is sent, kept and counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from slant.errors import UsageError
from slant.evaluate.endpoint.answers import AnswerCache, Kept
from slant.evaluate.endpoint.asking import Asking, Ending, Item, Pauses, encode_body
from slant.evaluate.endpoint.ledger import Ledger, Tokens
from slant.evaluate.endpoint.prompts import Question, Shot, ShotPool, messages
from slant.evaluate.endpoint.replies import label_of, probabilities_of
from slant.evaluate.endpoint.request import Endpoint, request_body, request_key
from slant.progress import Progress

__all__ = ["Answers", "Endpoint", "Pauses", "Question", "Shot", "ask"]

_PAUSES = Pauses()


@final
@dataclass(frozen=True)
class Answers:
    """What an endpoint answered to N questions.

    Attributes:
        probabilities_NL: ``(N, L)``; a row of NaN where there is no label.
        confident: rows are the probabilities that the endpoint told, for every answered question;
            otherwise each holds a one for the label of the answer.
        answered: questions with a label. The four counts add up to N unless ``unfinished``.
        unreadable: questions whose answer names no label, or several.
        refused: questions that the endpoint or its filter declined.
        failed: questions that got no answer in all attempts; a later run asks them again.
        input_tokens: of all prompts, as the endpoint counted them, each distinct request once,
            answers of earlier runs included. Where it did not count: the most they can be.
        output_tokens: likewise of the answers.
        usd: price of those tokens, US dollars; None where no price is set. Requests that were lost
            on their way, which some endpoints bill, are not in it (in the budget they are).
        seconds: wall time spent asking in this run; 0 where all answers were there before.
        latency_p50_ms: median over requests, from sending to the end of the answer, without waiting
            for another attempt; of answers of earlier runs as it was then. None without answers.
        latency_p95_ms: likewise the 95th percentile.
        unfinished: why asking stopped before the end, without a full stop; None where it did not.
    """

    probabilities_NL: NDArray[np.float64]  # noqa: N815
    confident: bool
    answered: int
    unreadable: int
    refused: int
    failed: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    seconds: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    unfinished: str | None


@dataclass
class _State:
    """What is known so far; keys are those of requests."""

    rows: dict[str, list[int]]
    kept: dict[str, Kept]
    refused: set[str]
    failed: set[str]
    seconds: float = 0.0
    unfinished: str | None = None


def ask(
    endpoint: Endpoint,
    questions: Sequence[Question],
    labels: Sequence[str],
    *,
    shots: Sequence[Shot] = (),
    cache: Path,
    progress: Progress,
    seed: int,
    pauses: Pauses = _PAUSES,
) -> Answers:
    """Ask an endpoint for the label of each question.

    Every answer is kept in ``cache`` as it comes. Killed at any moment, a second call goes on from
    there; called again at the end, it asks nothing that was answered. Questions that make the same
    request are asked once.

    Args:
        endpoint: whom and how.
        questions: N of them.
        labels: L names in label order.
        shots: what ``endpoint.shots`` examples of each label are chosen from.
        cache: an SQLite file; made if it does not exist. Others may use it at the same time.
        progress: told of each question that has an ending.
        seed: of the choice of examples and of the random part of pauses.
        pauses: between attempts.

    Raises:
        UsageError: the endpoint's ``url`` is no address, or its key cannot be sent.
        ModelError: httpx is not installed; the endpoint does not take the key, the model or the
            address, or refuses the first five requests.
        ArtifactError: ``cache`` is damaged or another kind of file.
        StorageError: it cannot be written.
    """
    if endpoint.budget_usd is not None and not (
        endpoint.usd_per_million_input or endpoint.usd_per_million_output
    ):
        raise UsageError(
            f"{endpoint.title} has a budget but no prices",
            hint="Set usd_per_million_input and usd_per_million_output.",
        )
    pool = ShotPool(shots, labels, endpoint.shots, seed)
    rows, items = _items(endpoint, questions, labels, pool)
    with AnswerCache(cache) as answers:
        state = _State(rows, answers.answers(list(rows)), set(), set())
        _ask_the_rest(
            state,
            endpoint,
            items=items,
            cache=answers,
            progress=progress,
            pauses=pauses,
            seed=seed,
        )
    return _summary(state, endpoint, len(questions), labels)


def _items(
    endpoint: Endpoint, questions: Sequence[Question], labels: Sequence[str], pool: ShotPool
) -> tuple[dict[str, list[int]], dict[str, Item]]:
    """The rows of each distinct request, and the request, by its key."""
    rows: dict[str, list[int]] = {}
    items: dict[str, Item] = {}

    def body_of(question: Question) -> bytes:
        return encode_body(_body(endpoint, question, labels, pool))

    for row, question in enumerate(questions):
        body = _body(endpoint, question, labels, pool)
        key = request_key(endpoint, body)
        rows.setdefault(key, []).append(row)
        if key not in items:
            # A token is at least a byte; what a chat template adds to each message is less than
            # the names and brackets of its JSON.
            worst = Tokens(len(encode_body(body)), endpoint.max_tokens)
            items[key] = Item(key, partial(body_of, question), worst)
    return rows, items


def _body(
    endpoint: Endpoint, question: Question, labels: Sequence[str], pool: ShotPool
) -> dict[str, object]:
    asked = messages(
        question,
        labels,
        shots=pool.choose(question),
        answer=endpoint.answer,
        instructions=endpoint.instructions,
    )
    return request_body(endpoint, asked, labels)


def _ask_the_rest(
    state: _State,
    endpoint: Endpoint,
    *,
    items: dict[str, Item],
    cache: AnswerCache,
    progress: Progress,
    pauses: Pauses,
    seed: int,
) -> None:
    """Ask what has no answer yet; fills ``state``."""
    ledger = Ledger(
        endpoint.usd_per_million_input, endpoint.usd_per_million_output, endpoint.budget_usd
    )
    for kept in state.kept.values():
        ledger.take(kept.tokens + kept.lost)
    left = [item for key, item in items.items() if key not in state.kept]
    for key, (sends, worst) in cache.sends([item.key for item in left]).items():
        items[key].lost = sends
        ledger.take(worst.times(sends))
    total = sum(map(len, state.rows.values()))
    done = sum(len(state.rows[key]) for key in state.kept)
    with progress.task(f"ask {endpoint.title}", total, "documents", done=done) as task:

        def on_end(item: Item, ending: Ending, kept: Kept | None) -> None:
            if kept is not None:
                state.kept[item.key] = kept
            elif ending == "refused":
                state.refused.add(item.key)
            else:
                state.failed.add(item.key)
            task.advance(len(state.rows[item.key]))

        if not left:
            return
        asking = Asking(
            endpoint,
            left,
            cache=cache,
            ledger=ledger,
            pauses=pauses,
            seed=seed,
            known=bool(state.kept),
            on_end=on_end,
        )
        started = time.monotonic()
        state.unfinished = asking.run()
        state.seconds = time.monotonic() - started
    if asking.unaffordable_usd is not None:
        ended = sum(len(state.rows[key]) for key in state.kept)
        state.unfinished = (
            f"the budget of ${endpoint.budget_usd:g} is reached after {ended:,} of {total:,} "
            f"answers; {state.unfinished}: raise budget_usd and run again, it goes on from there"
        )
    if state.failed or state.refused:
        progress.say(
            f"{endpoint.title}: {len(state.failed):,} requests failed and {len(state.refused):,} "
            f"were refused; the last: {asking.last_problem}"
        )


def _summary(state: _State, endpoint: Endpoint, num: int, labels: Sequence[str]) -> Answers:
    """The answers as rows, and the sums."""
    probabilities_NL = np.full((num, len(labels)), np.nan)
    one_hot_NL = np.full((num, len(labels)), np.nan)
    counts = {"answered": 0, "unreadable": 0, "refused": 0, "failed": 0}
    confident = True
    for key, rows in state.rows.items():
        kept = state.kept.get(key)
        if kept is None:
            if key in state.refused or key in state.failed:
                counts["refused" if key in state.refused else "failed"] += len(rows)
            continue
        if kept.reply.refused:
            counts["refused"] += len(rows)
            continue
        label = label_of(kept.reply.content, labels, endpoint.answer)
        counts["unreadable" if label < 0 else "answered"] += len(rows)
        if label < 0:
            continue
        one_hot_NL[rows] = np.eye(len(labels))[label]
        told = probabilities_of(kept.reply, label, labels) if endpoint.answer == "word" else None
        if told is None:
            confident = False
        else:
            probabilities_NL[rows] = told
    confident = confident and counts["answered"] > 0
    spent = sum((kept.tokens for kept in state.kept.values()), Tokens())
    prices = endpoint.usd_per_million_input, endpoint.usd_per_million_output
    latencies = [k.latency_ms for k in state.kept.values() if k.latency_ms is not None]
    p50, p95 = np.percentile(latencies, [50, 95]).tolist() if latencies else (None, None)
    return Answers(
        probabilities_NL=probabilities_NL if confident else one_hot_NL,
        confident=confident,
        **counts,
        input_tokens=spent.input,
        output_tokens=spent.output,
        usd=Ledger(*prices, None).usd(spent) if any(prices) else None,
        seconds=state.seconds,
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        unfinished=state.unfinished,
    )
