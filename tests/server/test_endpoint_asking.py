"""Endpoints are asked over real sockets, through a server that fails on purpose."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chat_server import ChatServer
from slant.errors import ModelError, UsageError
from slant.evaluate.endpoint.ask import Answers, Endpoint, Pauses, Question, Shot, ask
from slant.progress import SilentProgress

pytest.importorskip("httpx", reason="the extra endpoint is not installed")

HOST = "127.0.0.1"
LABELS = ("negative", "neutral", "positive")
QUICK = Pauses(first_s=0.01, longest_s=0.05)
PRICES = {"usd_per_million_input": 1.0, "usd_per_million_output": 10.0}
FAILING = {
    **{"429": 0.03, "429_date": 0.001, "500": 0.05, "503": 0.02, "hang": 0.005, "html": 0.02},
    **{"drop": 0.03, "drop_billed": 0.025, "garbage": 0.02},
}


def questions(num: int, start: int = 0) -> list[Question]:
    return [
        Question(f"Text {i} of many. [[{LABELS[i % 3]}]]", f"narrative {i % 7}", "en")
        for i in range(start, start + num)
    ]


def asked(
    server: ChatServer | str,
    cache: Path,
    num: int | list[Question],
    *,
    examples: Sequence[Shot] = (),
    **options: Any,
) -> Answers:
    endpoint = Endpoint(server if isinstance(server, str) else server.url, "m", **options)
    chosen = questions(num) if isinstance(num, int) else num
    return ask(
        endpoint,
        chosen,
        LABELS,
        shots=examples,
        cache=cache / "answers.sqlite",
        progress=SilentProgress(),
        seed=1,
        pauses=QUICK,
    )


def comparable(answers: Answers) -> dict[str, Any]:
    """All but the time that this run took."""
    fields = dataclasses.asdict(answers) | {"seconds": None}
    return fields | {"probabilities_NL": str(answers.probabilities_NL.tolist())}  # with NaNs


def total(answers: Answers) -> int:
    return answers.answered + answers.unreadable + answers.refused + answers.failed


def test_2000_requests_through_a_server_that_fails_a_fifth_of_them(tmp_path: Path) -> None:
    options = {"concurrency": 16, "timeout_s": 2.0, **PRICES}
    with ChatServer(seed=5, rates=FAILING, hang_s=2.5) as server:
        first = asked(server, tmp_path, 2000, **options)
        stats = server.stats()
        again = asked(server, tmp_path, 2000, **options)
        assert len(server.stats()["requests"]) - len(stats["requests"]) <= first.failed * 6

    fates = [fate for _, _, fate in stats["requests"]]
    assert 0.18 < 1 - fates.count("ok") / len(fates) < 0.24
    assert set(fates) == {*FAILING, "ok"}
    assert total(first) == 2000
    assert first.unfinished is None
    assert first.answered > 1900
    assert first.unreadable > 20
    assert stats["most"] <= 16
    # No answer was asked for once more after it had come, and none was made twice.
    assert set(stats["delivered"].values()) == {1}
    assert set(stats["billed"].values()) == {1}
    assert len(stats["delivered"]) == first.answered + first.unreadable
    has_label = np.isfinite(first.probabilities_NL).all(axis=1)
    assert has_label.sum() == first.answered
    assert (first.probabilities_NL.argmax(axis=1) == np.arange(2000) % 3)[has_label].all()
    assert first.usd is not None
    assert first.usd == pytest.approx((first.input_tokens + 10 * first.output_tokens) / 1e6)
    if not first.failed:
        assert comparable(again) == comparable(first)
        assert again.seconds == 0.0


def test_a_second_run_costs_nothing_and_says_the_same(tmp_path: Path) -> None:
    with ChatServer() as server:
        first = asked(server, tmp_path, 30, **PRICES)
    second = asked(server, tmp_path, 30, **PRICES)  # the server is gone
    assert comparable(second) == comparable(first)
    assert (first.answered, second.seconds) == (30, 0.0)
    assert first.seconds > 0
    assert first.latency_p50_ms is not None
    assert first.latency_p95_ms is not None
    assert 0 < first.latency_p50_ms <= first.latency_p95_ms < 5000
    assert not first.confident
    assert (tmp_path / "answers.sqlite").stat().st_size > 0


def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    with ChatServer() as server:
        found = asked(server, tmp_path, questions(5) * 4)
        assert len(server.stats()["requests"]) == 5
    assert found.answered == 20
    np.testing.assert_array_equal(found.probabilities_NL[:5], found.probabilities_NL[5:10])


def test_neither_texts_nor_the_key_are_kept(tmp_path: Path) -> None:
    secrets = {"key": "sk-secret", "query": {"code": "query-secret"}}
    with ChatServer(key="Bearer sk-secret", query={"code": "query-secret"}) as server:
        assert asked(server, tmp_path, 5, **secrets).answered == 5
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (b"secret", b"of many", b"narrative", b"Judge", HOST.encode()):
        assert secret not in content


def test_structured_answers_with_examples_and_azures_header(tmp_path: Path) -> None:
    shots = [Shot(f"Example {i}", "n", "en", label) for i in range(4) for label in LABELS]
    azure = {"key": "azure-key", "query": {"api-version": "2024-10-21"}}
    with ChatServer(**azure) as server:
        options = {**azure, "key_header": "api-key", "answer": "json", "shots": 2}
        found = asked(server, tmp_path, 6, examples=shots, **options)
        bodies = list(server.stats()["bodies"].values())
    assert found.answered == 6
    assert all(len(body["messages"]) == 1 + 2 * 2 * len(LABELS) + 1 for body in bodies)
    assert all(body["response_format"]["type"] == "json_schema" for body in bodies)


def test_probabilities_come_from_the_alternatives(tmp_path: Path) -> None:
    with ChatServer() as server:
        found = asked(server, tmp_path, 6, logprobs=True)
        again = asked(server, tmp_path, 6, logprobs=True)
        plain = asked(server, tmp_path, 6)
    assert found.confident
    assert not plain.confident
    np.testing.assert_allclose(found.probabilities_NL.sum(axis=1), 1.0)
    row = np.array([np.exp(-0.2), np.exp(-2.5), np.exp(-4.0)])
    np.testing.assert_allclose(found.probabilities_NL[0], row / row.sum())
    np.testing.assert_array_equal(found.probabilities_NL, again.probabilities_NL)
    np.testing.assert_array_equal(plain.probabilities_NL[0], [1, 0, 0])


@pytest.mark.parametrize("script", ["429", "429_date"])
def test_after_too_many_requests_everyone_waits_as_long_as_asked(
    tmp_path: Path, script: str
) -> None:
    # delay_s: those on their way have no answer yet when the first is told to wait.
    with ChatServer(script=[script], retry_after_s=1, delay_s=0.3) as server:
        assert asked(server, tmp_path, 12, concurrency=4).answered == 12
        times = [at for at, _, _ in server.stats()["requests"]]
    assert len(times) == 13
    after = [at - times[0] for at in times if at - times[0] > 0.25]
    assert len(after) >= 9
    assert 1.0 < min(after) < 3.5


def test_a_request_on_its_way_too_long_is_given_up_even_if_bytes_still_come(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as listening:
        threading.Thread(target=trickle, args=(listening,), daemon=True).start()
        url = f"http://{HOST}:{listening.getsockname()[1]}/v1"
        started = time.monotonic()
        found = asked(url, tmp_path, 1, timeout_s=0.5, attempts=1)
        assert time.monotonic() - started < 2.0
    assert found.failed == 1


def trickle(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(100_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(OSError):
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.05)


def test_the_budget_is_never_exceeded_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    with ChatServer(delay_s=0.005) as server:
        found = asked(server, tmp_path, 300, budget_usd=0.02, **PRICES)
        tokens = server.stats()["tokens"]
        spent = (tokens[0] + 10 * tokens[1]) / 1e6
        assert found.usd == pytest.approx(spent)
        assert 0.019 < spent <= 0.02  # the next one could have been too much
        assert found.unfinished is not None
        assert found.unfinished.startswith(
            f"the budget of $0.02 is reached after {found.answered} of 300 answers; the next "
        )
        assert np.isnan(found.probabilities_NL[found.answered :]).all()

        same = asked(server, tmp_path, 300, budget_usd=0.02, **PRICES)
        assert same.answered == found.answered
        more = asked(server, tmp_path, 300, budget_usd=1.0, **PRICES)
        assert (more.answered, more.unfinished) == (300, None)
        assert set(server.stats()["billed"].values()) == {1}
        nothing = asked(server, tmp_path, questions(5, start=900), budget_usd=0.0, **PRICES)
        assert nothing.answered == 0
        assert "after 0 of 5" in (nothing.unfinished or "")


def test_the_budget_holds_where_lost_answers_are_billed_again(tmp_path: Path) -> None:
    rates = {"drop_billed": 0.4}
    with ChatServer(seed=3, rates=rates, honours=False) as server:
        found = asked(server, tmp_path, 300, budget_usd=0.02, **PRICES)
        again = asked(server, tmp_path, 300, budget_usd=0.03, **PRICES)
        tokens = server.stats()["tokens"]
    assert found.unfinished is not None
    assert again.usd is not None
    assert again.answered > found.answered
    assert again.usd < (tokens[0] + 10 * tokens[1]) / 1e6 <= 0.03


def test_without_usage_the_most_that_it_can_be_is_counted(tmp_path: Path) -> None:
    with ChatServer(usage=False) as server:
        found = asked(server, tmp_path, 4, **PRICES)
        sizes = [len(str(body["messages"])) for body in server.stats()["bodies"].values()]
    assert found.output_tokens == 4 * 16
    assert sum(sizes) < found.input_tokens < sum(sizes) + 4 * 200


def test_a_wrong_key_ends_it_at_once_and_is_not_shown(tmp_path: Path) -> None:
    with ChatServer(key="Bearer right") as server:
        with pytest.raises(ModelError) as raised:
            asked(server, tmp_path, 100, key="sk-wrong")
        assert len(server.stats()["requests"]) == 0
    assert "status 401: Incorrect API key provided: Bearer …" in raised.value.message
    assert "sk-wrong" not in str(raised.value)
    assert "check evaluate.endpoints[].key_env and url" in raised.value.hint


def test_a_wrong_address_ends_it_at_once(tmp_path: Path) -> None:
    with ChatServer() as server, pytest.raises(ModelError, match="status 404: no such path"):
        asked(server.url + "/v2", tmp_path, 3)
    for url in ("h:1/v1", "http://a:b@h/v1", "http://h/v1?x=1", "http://h/v1/chat/completions"):
        with pytest.raises(UsageError):
            asked(url, tmp_path, 3)
    with pytest.raises(UsageError, match="holds a character"):
        asked(f"http://{HOST}:1/v1", tmp_path, 3, key="sk-\n")


@pytest.mark.parametrize("text", ["Трамвай опять стоит, третий раз за неделю.", "Ugh", "a\nbc"])
def test_a_message_that_repeats_the_document_is_not_shown(tmp_path: Path, text: str) -> None:
    with (
        ChatServer(rates={"400": 1.0}, message="cannot take: {user}") as server,
        pytest.raises(ModelError, match="status 400") as raised,
    ):
        asked(server, tmp_path, [Question(text, f"n{i}", None) for i in range(9)])
    assert "message repeats what it was sent" in raised.value.message
    assert text.rsplit(maxsplit=1)[-1] not in str(raised.value)


def test_an_endpoint_that_takes_no_request_ends_it(tmp_path: Path) -> None:
    with ChatServer() as server:
        with pytest.raises(ModelError, match=r"refuses every request .* 'temperature'"):
            asked(server, tmp_path, 100, temperature=9, concurrency=2)
        assert asked(server, tmp_path, 100, temperature=8).answered == 100


def test_refused_questions_are_counted_and_asked_again_only_where_no_filter_did_it(
    tmp_path: Path,
) -> None:
    with ChatServer(script=["ok", *["400"] * 9]) as server:
        found = asked(server, tmp_path, 12, concurrency=1)
        assert (found.answered, found.refused, found.failed) == (3, 9, 0)
        again = asked(server, tmp_path, 12, concurrency=1)
        assert (again.answered, again.refused) == (12, 0)
    with ChatServer(script=["filtered"] * 6) as server:
        found = asked(server, tmp_path, 7, concurrency=1)
        assert (found.answered, found.refused) == (1, 6)
    assert asked(server, tmp_path, 7, concurrency=1).refused == 6  # the server is gone


def test_a_prompt_that_azures_filter_refuses_is_kept_as_refused(tmp_path: Path) -> None:
    with ChatServer(rates={"400": 1.0}, code="content_filter") as server:
        found = asked(server, tmp_path, 20, **PRICES)
    assert (found.refused, found.usd, found.latency_p50_ms) == (20, 0.0, None)
    assert asked(server, tmp_path, 20).refused == 20


def test_unreadable_answers_are_counted_and_not_asked_again(tmp_path: Path) -> None:
    with ChatServer(script=["unreadable", "garbage"]) as server:
        found = asked(server, tmp_path, 6)
        again = asked(server, tmp_path, 6)
        assert len(server.stats()["requests"]) == 6
    assert comparable(found) == comparable(again)
    assert (found.answered, found.unreadable) == (4, 2)
    assert np.isnan(found.probabilities_NL).all(axis=1).sum() == 2


def test_an_endpoint_that_stays_away_is_given_up_and_asked_again_later(tmp_path: Path) -> None:
    with ChatServer(rates={"500": 1.0}, message="boom") as server:
        found = asked(server, tmp_path, 100, attempts=2)
        assert len(server.stats()["requests"]) <= 2 * (20 + 8)
    assert found.unfinished is not None
    assert "does not answer" in found.unfinished
    assert "status 500: boom" in found.unfinished
    assert (found.answered, found.latency_p50_ms) == (0, None)
    assert 20 <= found.failed < 30
    few = asked(server, tmp_path, 5, attempts=2)  # nobody listens any more
    assert (few.failed, few.unfinished) == (5, None)
    with ChatServer() as other:
        assert asked(other, tmp_path, 100).answered == 100


@pytest.mark.parametrize("options", [{"script": ["ok", "ok", "402"]}, {"code": "quota"}])
def test_without_credit_it_stops_with_what_there_is(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    if "code" in options:
        options = {"script": ["ok", "ok", "429"], "code": "insufficient_quota"}
    with ChatServer(**options) as server:
        found = asked(server, tmp_path, 10, concurrency=1)
        assert "no credit left" in (found.unfinished or "")
        assert (found.answered, total(found)) == (2, 2)
        assert asked(server, tmp_path, 10).answered == 10


def test_ctrl_c_comes_through_at_once(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's jobs ignore it
    with ChatServer(script=["ok"] * 5, rates={"hang": 1.0}, hang_s=20) as server:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        try:
            with pytest.raises(KeyboardInterrupt):
                asked(server, tmp_path, 50, timeout_s=10.0)
            assert time.monotonic() - started < 3.0
        finally:
            signal.signal(signal.SIGINT, before)
    found = asked(server, tmp_path, 50, attempts=1)  # nobody listens any more
    assert found.answered == 5
