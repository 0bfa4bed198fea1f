"""VllmEngine against a small server on a socket that speaks vLLM's protocol."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slant.errors import ModelError, UsageError
from slant.score.vllm_engine import Retries, VllmEngine
from tiny import LABEL_WORDS
from tiny_task import tiny_spec

pytest.importorskip("httpx", reason="the extra vllm is not installed")

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
HOST = "127.0.0.1"
RETRIES = Retries(attempts=4, first_pause_s=0.01, longest_pause_s=0.05)


def logits_of(ids: list[int]) -> list[float]:
    """Different for every prompt of these tests, and for every label."""
    return [float(len(ids)), float(sum(ids) % 17), float(ids[0])]


class Server:
    """Answers as vLLM does; ``instead`` may answer a request to /classify in its place."""

    def __init__(self) -> None:
        self.model: dict[str, Any] = {"id": "m", "root": "m", "max_model_len": 100}
        self.labels = list(LABEL_WORDS)
        self.instead: Callable[[dict[str, Any]], Answer | None] = lambda body: None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.engines: list[VllmEngine] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        ours = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                found = self.path == "/v1/models"
                content = {"data": [ours.model]} if found else {"detail": "Not Found"}
                self.answer(200 if found else 404, content)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with ours.lock:
                    ours.requests.append(body)
                    ours.headers.append({name.lower(): x for name, x in self.headers.items()})
                    ours.at_once += 1
                    ours.most_at_once = max(ours.most_at_once, ours.at_once)
                answer = ours.instead(body) or (200, ours.classify(body))
                with ours.lock:
                    ours.at_once -= 1
                self.answer(*answer)

            def answer(
                self, status: int, content: Any, headers: dict[str, str] | None = None
            ) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def classify(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = []
        for index, ids in enumerate(body["input"]):
            values = logits_of(ids)[: len(self.labels)]
            label = self.labels[int(np.argmax(values))]
            rows.append({"index": index, "label": label, "probs": values})
        return {"data": rows}

    def scored(self) -> list[list[list[int]]]:
        """The prompts of each request, without the first, which only asks what is served."""
        return [request["input"] for request in self.requests[1:]]

    def close(self) -> None:
        for own in self.engines:
            own.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def engine(server: Server, **changes: Any) -> VllmEngine:
    settings: dict[str, Any] = {"labels": LABEL_WORDS, "temperature": 2.0, "retries": RETRIES}
    own = VllmEngine(server.url, **settings | changes)
    server.engines.append(own)
    return own


def prompts(count: int = 50) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, rng.integers(1, 90)).tolist() for _ in range(count)]


def expected(asked: list[list[int]], temperature: float = 2.0) -> np.ndarray:
    return np.array([logits_of(ids) for ids in asked], dtype=np.float32) * temperature


def once(answer: Answer, times: int = 1) -> Callable[[dict[str, Any]], Answer | None]:
    """Gives ``answer`` to the first requests after the one that asks what is served."""
    left = iter([None] + [answer] * times)
    return lambda body: next(left, None)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_rows_are_in_input_order_and_undo_the_temperature(server: Server, size: int) -> None:
    server.instead = lambda body: time.sleep(0.02 * (sum(body["input"][0]) % 2))
    logits = engine(server, prompts_per_request=size).label_logits(prompts())
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, expected(prompts()))
    assert all(request["use_activation"] is False for request in server.requests)
    assert {request["model"] for request in server.requests} == {"m"}


def test_no_prompts_give_no_rows_and_ask_nothing(server: Server) -> None:
    assert engine(server).label_logits([]).shape == (0, 3)
    assert server.requests == []


def test_prompts_as_text_get_the_servers_own_probabilities(server: Server) -> None:
    def classify(body: dict[str, Any]) -> Answer | None:
        if body["input"] == [[0]]:
            return None  # what is served?
        assert "use_activation" not in body
        rows = [[len(text) / 10, 0.3, 0.7 - len(text) / 10] for text in body["input"]]
        return 200, {"data": [{"index": i, "probs": row} for i, row in enumerate(rows)]}

    server.instead = classify
    own = engine(server, prompts_per_request=2)
    found = own.text_probabilities(["a", "abc", "abcde"])
    np.testing.assert_allclose(found, [[0.1, 0.3, 0.6], [0.3, 0.3, 0.4], [0.5, 0.3, 0.2]])
    assert sorted(map(len, server.scored())) == [1, 2]
    assert own.text_probabilities([]).shape == (0, 3)


def test_it_tells_how_many_are_done_after_each_request(server: Server) -> None:
    done: list[int] = []
    engine(server, prompts_per_request=8).label_logits(prompts(50), done.append)
    assert sorted(done) == [2, 8, 8, 8, 8, 8, 8]


def test_no_more_requests_are_on_their_way_than_allowed(server: Server) -> None:
    server.instead = lambda body: time.sleep(0.02)
    engine(server, prompts_per_request=1, concurrency=3).label_logits(prompts(30))
    assert server.most_at_once == 3


def test_prompts_of_one_document_go_together_and_in_order(server: Server) -> None:
    asked = [[i, 1] for i in range(12)]
    groups = ["a", "b", "c"] * 4
    own = engine(server, prompts_per_request=5, concurrency=1)
    np.testing.assert_array_equal(own.label_logits(asked, groups=groups), expected(asked))
    found = [[ids[0] for ids in request] for request in server.scored()]
    assert found == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_a_document_with_more_prompts_than_a_request_holds_goes_in_several(server: Server) -> None:
    asked = [[i, 1] for i in range(12)]
    own = engine(server, prompts_per_request=5, concurrency=1)
    np.testing.assert_array_equal(own.label_logits(asked, groups=["a"] * 12), expected(asked))
    assert [len(request) for request in server.scored()] == [5, 5, 2]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_it_asks_again_when_the_server_could_not(server: Server, status: int) -> None:
    server.instead = once((status, {"error": {"message": "busy"}}), times=3)
    logits = engine(server).label_logits(prompts(5))
    np.testing.assert_array_equal(logits, expected(prompts(5)))
    assert len(server.requests) == 1 + 3 + 1


def test_it_waits_as_long_as_the_server_asks_for(server: Server) -> None:
    server.instead = once((429, {}, {"Retry-After": "1"}))
    began = time.monotonic()
    engine(server, retries=Retries(2, 0.01, 5.0)).label_logits(prompts(5))
    assert time.monotonic() - began >= 1


def test_no_pause_is_longer_than_the_longest() -> None:
    retries = Retries(attempts=9, first_pause_s=1, longest_pause_s=10)
    assert [retries.pause_s(n) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 8, 10]
    assert retries.pause_s(1, 7.0) == 7
    assert retries.pause_s(1, 86400.0) == 10


def test_it_gives_up_after_all_attempts_and_says_what_the_server_said(server: Server) -> None:
    server.instead = once((503, {"error": {"message": "overloaded"}}), times=99)
    with pytest.raises(ModelError, match=r"status 503: overloaded \(4 attempts\)") as caught:
        engine(server).label_logits(prompts(5))
    assert server.url in caught.value.message
    assert "vllm serve" in caught.value.hint
    assert len(server.requests) == 1 + 4


def test_a_failure_ends_the_requests_that_wait(server: Server) -> None:
    server.instead = lambda body: (400, {}) if len(server.requests) > 1 else None
    with pytest.raises(ModelError, match="status 400"):
        engine(server, prompts_per_request=1, concurrency=2).label_logits(prompts(50))
    assert len(server.requests) < 10


def test_a_server_that_is_not_there() -> None:
    with socket.create_server((HOST, 0)) as found:
        url = f"http://{HOST}:{found.getsockname()[1]}"
    with (
        VllmEngine(url, labels=LABEL_WORDS, temperature=1.0, retries=RETRIES) as own,
        pytest.raises(ModelError, match=r"does not answer /v1/models: .*refused.*4 attempts"),
    ):
        own.label_logits(prompts(5))


def test_a_server_that_takes_too_long(server: Server) -> None:
    server.instead = lambda body: time.sleep(0.5)
    own = engine(server, timeout_s=0.1, retries=Retries(2, 0.01, 0.01))
    with pytest.raises(ModelError, match=r"does not answer /classify: .*timed out \(2 attempts\)"):
        own.label_logits(prompts(5))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"<html>", "did not answer with JSON"),
        ([1], "a JSON object"),
        ({}, "no list of 1 answers"),
        ({"data": []}, "no list of 1 answers"),
        ({"data": [5]}, "holds no numbers"),
        ({"data": [{"index": 0, "label": "neutral", "probs": "AAAA"}]}, "holds no numbers"),
        ({"data": [{"index": 0, "label": "neutral", "probs": [1, None, 2]}]}, "holds no numbers"),
        ({"data": [{"index": 1, "label": "neutral", "probs": [1, 3, 2]}]}, "not in the order"),
    ],
)
def test_an_answer_that_is_none(server: Server, answer: Any, says: str) -> None:
    server.instead = once((200, answer))
    with pytest.raises(ModelError, match=says):
        engine(server).label_logits(prompts(1))
    assert len(server.requests) == 2  # asking again would not help


@pytest.mark.parametrize(
    ("status", "hint"),
    [(400, "printed"), (401, "VLLM_API_KEY"), (404, "vLLM"), (501, "classifier")],
)
def test_a_refusal_is_not_asked_again(server: Server, status: int, hint: str) -> None:
    server.instead = once((status, {"error": {"message": "no\nway" + "x" * 1000}}))
    with pytest.raises(ModelError, match=rf"{server.url}: .*status {status}: no wayx") as caught:
        engine(server).label_logits(prompts(1))
    assert hint in caught.value.hint
    assert len(caught.value.message) < 500
    assert len(server.requests) == 2


def test_a_model_with_another_number_of_labels(server: Server) -> None:
    server.labels = ["negative", "positive"]
    with pytest.raises(ModelError, match="has 2 labels, the bundle has 3"):
        engine(server).check()


def test_a_model_with_other_labels(server: Server) -> None:
    server.labels = ["positive", "neutral", "negative"]
    with pytest.raises(ModelError, match=r"answers 'positive' where the bundle has .*'negative'"):
        engine(server).label_logits(prompts(5))


def test_a_server_of_another_kind(server: Server) -> None:
    with (
        VllmEngine(f"{server.url}/x", labels=LABEL_WORDS, temperature=1.0) as own,
        pytest.raises(ModelError, match="refused /v1/models with status 404"),
    ):
        own.check()


def test_a_prompt_that_is_too_long_is_not_sent(server: Server) -> None:
    with pytest.raises(ModelError, match="a prompt has 101 tokens, the server takes at most 100"):
        engine(server).label_logits([[1], [1] * 101])
    assert server.scored() == []
    assert engine(server).label_logits([[1] * 100]).shape == (1, 3)


def test_for_bundle_takes_labels_and_temperature_from_the_contract(server: Server) -> None:
    spec = tiny_spec(token_limit=100).with_temperature(0.5)
    with VllmEngine.for_bundle(server.url, spec, retries=RETRIES) as own:
        logits = own.label_logits(prompts(5))
    np.testing.assert_array_equal(logits, expected(prompts(5), 0.5))


def test_for_bundle_refuses_a_server_that_takes_less_than_the_token_limit(server: Server) -> None:
    with pytest.raises(ModelError, match="token limit has 101 tokens") as caught:
        VllmEngine.for_bundle(server.url, tiny_spec(token_limit=101))
    assert "--max-model-len 101" in caught.value.hint


def test_for_bundle_refuses_the_folder_of_another_bundle(server: Server, tmp_path: Path) -> None:
    spec = tiny_spec(token_limit=100)
    server.model["root"] = str(tmp_path / "classifier")
    spec.with_temperature(3.0).save(tmp_path)
    with pytest.raises(ModelError, match=r"classifier, whose fingerprint is"):
        VllmEngine.for_bundle(server.url, spec)
    spec.save(tmp_path)
    VllmEngine.for_bundle(server.url, spec).close()


def test_the_api_key_comes_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "k")
    engine(server).label_logits(prompts(1))
    assert server.headers[-1]["authorization"] == "Bearer k"


def test_no_proxy_leads_to_this_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{HOST}:9")
    assert engine(server).label_logits(prompts(1)).shape == (1, 3)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://h", "http://", "http://a:secret@h"])
def test_what_is_not_the_address_of_a_server(url: str) -> None:
    with pytest.raises(UsageError, match="address of a vLLM server") as caught:
        VllmEngine(url, labels=LABEL_WORDS, temperature=1.0)
    assert "secret" not in str(caught.value)
