"""Which label an answer is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from slant.evaluate.endpoint.replies import (
    LONGEST_CONTENT,
    Reply,
    TokenChoice,
    label_of,
    probabilities_of,
    read_reply,
)

LABELS = ("negative", "neutral", "positive")


def completion(content: Any, **choice: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": content}, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }


def replied(*tokens: tuple[str, dict[str, float]]) -> Reply:
    """A reply with these tokens and the probabilities of their alternatives."""
    return Reply(
        tokens=tuple(
            TokenChoice(token, tuple((text, math.log(p)) for text, p in alternatives.items()))
            for token, alternatives in tokens
        )
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("negative", 0),
        (" **Positive**.\n", 2),
        ("NEUTRAL!", 1),
        ("\uff4e\uff45\uff47\uff41\uff54\uff49\uff56\uff45", 0),
        ("The text is negative toward the mayor.", 0),
        ("positive, very positive", 2),
        ("negative or positive", -1),
        ("nonnegative", -1),
        ("negatively", -1),
        ("I cannot say", -1),
        ("", -1),
        (None, -1),
    ],
)
def test_an_answer_is_the_only_label_in_it(content: str | None, expected: int) -> None:
    assert label_of(content, LABELS, "word") == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"label": "neutral"}', 1),
        ('```json\n{"label": "Negative"}\n```', 0),
        ('Here it is: {"label": "positive"}.', 2),
        ("positive", 2),
        ('"positive"', 2),
        ('{"label": "none of them"}', -1),
        ('{"label": ["negative"]}', -1),
        ('{"answer": "negative"}', -1),
        ("It is negative", -1),
        ('{"label": "neg', -1),
        ("[" * 500, -1),
    ],
)
def test_a_json_answer_is_read_with_or_without_a_fence(content: str, expected: int) -> None:
    assert label_of(content, LABELS, "json") == expected


def test_labels_in_any_script_and_within_each_other_are_told_apart() -> None:
    assert label_of("这段文本是负面的。", ("负面", "中性", "正面"), "word") == 0
    assert label_of("Отрицательный.", ("отрицательный", "положительный"), "word") == 0
    assert label_of("отрицательных", ("отрицательный", "положительный"), "word") == -1
    within = ("positive", "very positive", "negative")
    assert label_of("It is very positive", within, "word") == 1
    assert label_of("It is positive", within, "word") == 0
    assert label_of("strongly-against", ("strongly_against", "against"), "word") == 0
    signs = ("-1", "0", "+1")
    assert [label_of(sign, signs, "word") for sign in ("-1", "0", "+1", "1", "-1.")] == [
        *(0, 1, 2, -1),
        0,
    ]
    assert label_of('{"label": -1}', signs, "json") == 0


def test_a_reply_holds_what_the_endpoint_said() -> None:
    assert read_reply(completion("negative")) == Reply(
        "negative", finish_reason="stop", input_tokens=7, output_tokens=2
    )
    assert read_reply(completion([{"type": "text", "text": "neutral"}])).content == "neutral"
    assert read_reply(completion("<think>negative? no</think>\n positive")).content == "positive"
    assert len(read_reply(completion("x" * 5000)).content or "") == LONGEST_CONTENT
    assert read_reply(completion("\ud800")).content == "?"
    assert read_reply(completion("", finish_reason="content_filter")).refused
    declined = {"message": {"content": None, "refusal": "I will not."}}
    assert read_reply(completion(None, **declined)).refused
    assert not read_reply(completion("negative")).refused


@pytest.mark.parametrize(
    "body",
    [
        *(None, [], {}, "text", 3, {"choices": []}, {"choices": "x"}, {"choices": [3]}),
        {"choices": [{"message": "x"}]},
        completion(None),
        completion(7),
        completion("x", logprobs=[]),
        completion("x", logprobs={"content": [3]}),
        completion("x", logprobs={"content": [{"token": "x", "top_logprobs": [{"token": 3}]}]}),
        {**completion("x"), "usage": {"prompt_tokens": -1, "completion_tokens": True}},
        {**completion("x"), "usage": []},
    ],
)
def test_an_answer_of_another_shape_has_no_label(body: Any) -> None:
    reply = read_reply(body)
    assert label_of(reply.content, LABELS, "word") == -1
    assert reply.tokens is None
    if isinstance(body, dict) and "usage" in body and reply.content == "x":
        assert reply.input_tokens in (None, 7)


def test_the_probabilities_are_those_of_the_alternatives_that_begin_one_label() -> None:
    reply = replied(("neg", {"neg": 0.5, " Negative": 0.1, "pos": 0.2, "neut": 0.1, "The": 0.05}))
    found = probabilities_of(reply, 0, LABELS)
    np.testing.assert_allclose(found, np.array([0.6, 0.1, 0.2]) / 0.9)


def test_a_beginning_of_several_labels_stands_for_none() -> None:
    assert probabilities_of(replied(("ne", {"ne": 0.9, "pos": 0.1})), 0, LABELS) is None
    found = probabilities_of(replied(("neg", {"neg": 0.6, "ne": 0.2, "pos": 0.2})), 0, LABELS)
    assert found is not None
    assert found[0] == pytest.approx(3 * found[2])


def test_a_label_that_is_not_listed_has_at_most_the_least_of_what_is() -> None:
    found = probabilities_of(replied(("neg", {"neg": 0.8, "pos": 0.1, "a": 0.02})), 0, LABELS)
    np.testing.assert_allclose(found, np.array([0.8, 0.02, 0.1]) / 0.92)
    # No more than what is left of 1 either: here 0.05, less than the least that is listed.
    found = probabilities_of(replied(("neg", {"neg": 0.85, "pos": 0.1})), 0, LABELS)
    np.testing.assert_allclose(found, np.array([0.85, 0.05, 0.1]))
    found = probabilities_of(replied(("neg", {"neg": 1.0})), 0, LABELS)
    assert found is not None
    assert found[1:].min() > 0


def test_the_token_is_the_one_that_begins_the_answers_label() -> None:
    talk = ("The", {"The": 0.9, "neutral": 0.1})
    reply = replied(("\n", {"\n": 1.0}), talk, (" negative", {" negative": 0.7, " positive": 0.3}))
    found = probabilities_of(reply, 0, LABELS)
    assert found is not None
    assert found[0] == pytest.approx(0.7, abs=1e-6)
    assert probabilities_of(replied(talk), 0, LABELS) is None
    assert probabilities_of(replied(("**", {"**": 1.0})), 0, LABELS) is None
    assert probabilities_of(Reply("negative"), 0, LABELS) is None


def test_alternatives_are_read_as_openai_writes_them_and_infinities_are_bounded() -> None:
    top = [{"token": "neg", "logprob": -0.1}, {"token": "pos", "logprob": -math.inf}]
    entry = {"token": "neg", "logprob": -0.1, "top_logprobs": top}
    reply = read_reply(completion("negative", logprobs={"content": [entry]}))
    assert reply.tokens == (TokenChoice("neg", (("neg", -0.1), ("pos", -9999.0))),)
    found = probabilities_of(reply, 0, LABELS)
    assert found is not None
    assert found.sum() == pytest.approx(1.0)
    assert found.argmax() == 0
