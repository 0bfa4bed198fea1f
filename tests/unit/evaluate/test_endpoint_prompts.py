"""What an endpoint is asked."""

from __future__ import annotations

import json

import pytest

from slant.evaluate.endpoint.ask import Endpoint, Question, Shot
from slant.evaluate.endpoint.prompts import LONGEST_SHOT, LONGEST_TEXT, ShotPool, messages
from slant.evaluate.endpoint.request import request_body, request_key

LABELS = ("negative", "neutral", "positive")
QUESTION = Question("Трамвай опять стоит.", "Мэр города", "ru")


def system(lang: str | None, **options: str) -> str:
    question = Question("x", options.pop("narrative", "n"), lang)
    return messages(question, LABELS, instructions="document", **options)[0]["content"]  # type: ignore[arg-type]


def pool_of(*langs: str | None) -> list[Shot]:
    return [
        Shot(f"{label} text {i}", "n", lang, label)
        for i, lang in enumerate(langs)
        for label in LABELS
    ]


def test_the_question_follows_the_instruction() -> None:
    assert messages(QUESTION, LABELS) == [
        {
            "role": "system",
            "content": "You read a text and a narrative: a storyline, a claim or a name. Judge the "
            "attitude of the text toward the narrative. Answer with exactly one of these words and "
            "nothing else: negative, neutral, positive.",
        },
        {"role": "user", "content": "Text: Трамвай опять стоит.\n\nNarrative: Мэр города"},
    ]


def test_the_instruction_is_in_the_language_of_the_document_where_there_is_a_translation() -> None:
    assert messages(QUESTION, LABELS, instructions="document") == [
        {
            "role": "system",
            "content": "Ты читаешь текст и нарратив: сюжет, утверждение или имя. Определи "
            "отношение текста к нарративу. Ответь ровно одним из этих слов, не переводя его, и "
            "ничем больше: negative, neutral, positive.",
        },
        {"role": "user", "content": "Текст: Трамвай опять стоит.\n\nНарратив: Мэр города"},
    ]
    assert system("es-MX").startswith("Lees un texto y una narrativa")
    assert system("zh-Hant-TW").endswith("negative、neutral、positive。")
    assert system("fil") == system("tl") != system("en")
    assert system("sw") == system(None) == system("en")


@pytest.mark.parametrize("lang", ["en", "es", "ru", "zh", "tl"])
@pytest.mark.parametrize("answer", ["word", "json"])
@pytest.mark.parametrize("narrative", ["n", None])
def test_every_translation_names_every_label_and_the_form(
    lang: str, answer: str, narrative: str | None
) -> None:
    found = system(lang, answer=answer, narrative=narrative)  # type: ignore[arg-type]
    assert all(label in found for label in LABELS)
    assert ('{"label": "…"}' in found) == (answer == "json")
    assert "{form}" not in found
    assert "{labels}" not in found


def test_without_a_narrative_the_overall_sentiment_is_asked_for() -> None:
    for nothing in (None, "", "  "):
        asked = messages(Question("Fine.", nothing, "en"), LABELS)
        assert asked[0]["content"].startswith("You read a text. Judge its overall sentiment.")
        assert asked[1]["content"] == "Text: Fine."


def test_of_a_long_document_the_middle_is_left_out() -> None:
    text = "a" * LONGEST_TEXT + "z" * LONGEST_TEXT
    shot = Shot(text, None, "en", "neutral")
    _, shown, _, asked = messages(Question(text, None, "en"), LABELS, shots=[shot])
    assert asked["content"].startswith("Text: aaa")
    assert asked["content"].endswith("zzz")
    assert len(asked["content"]) == LONGEST_TEXT + len("Text: ")
    assert asked["content"].count("a") == LONGEST_TEXT * 3 // 4
    assert "\n[…]\n" in asked["content"]
    assert len(shown["content"]) == LONGEST_SHOT + len("Text: ")
    whole = "b" * LONGEST_TEXT
    assert messages(Question(whole, None, "en"), LABELS)[1]["content"] == f"Text: {whole}"


def test_text_that_no_request_can_carry_is_mended() -> None:
    assert messages(Question("a\ud800\x00b\r\n", "c\udfff", "en"), LABELS)[1]["content"] == (
        "Text: a?b\n\nNarrative: c?"
    )


def test_examples_are_turns_in_the_form_of_the_answer() -> None:
    shots = [Shot("Bad.", "n", "en", "negative"), Shot("Good.", None, "en", "positive")]
    word = messages(QUESTION, LABELS, shots=shots)
    assert [m["role"] for m in word] == ["system"] + ["user", "assistant"] * 2 + ["user"]
    assert [m["content"] for m in word[1:5]] == [
        "Text: Bad.\n\nNarrative: n",
        "negative",
        "Text: Good.",
        "positive",
    ]
    as_json = messages(QUESTION, LABELS, shots=shots, answer="json")
    assert json.loads(as_json[2]["content"]) == {"label": "negative"}


def test_examples_are_of_the_documents_language_where_the_pool_has_some() -> None:
    pool = ShotPool(pool_of("en", "ru", "ru", "es"), LABELS, 2, seed=1)
    chosen = pool.choose(QUESTION)
    assert sorted(shot.label for shot in chosen) == sorted(LABELS * 2)
    assert {shot.lang for shot in chosen} == {"ru"}
    only = ShotPool([*pool_of("en", "en"), Shot("t", "n", "ru", "neutral")], LABELS, 1, seed=1)
    by_label = {shot.label: shot.lang for shot in only.choose(QUESTION)}
    assert by_label == {"negative": "en", "neutral": "ru", "positive": "en"}


def test_the_choice_of_examples_depends_on_seed_and_language_alone() -> None:
    shots = pool_of(*["ru"] * 10, *["en"] * 10)
    first = ShotPool(shots, LABELS, 2, seed=1).choose(QUESTION)
    again = ShotPool(shots[::-1], LABELS, 2, seed=1)
    assert again.choose(Question("another", "other", "ru")) == first
    assert again.choose(Question("another", "other", "en")) != first
    assert again.choose(QUESTION) == first
    assert ShotPool(shots, LABELS, 2, seed=2).choose(QUESTION) != first


def test_no_example_has_the_text_of_the_question_or_of_another_of_its_label() -> None:
    own = [Shot(f" {QUESTION.text.upper()} ", f"n{i}", "ru", "neutral") for i in range(9)]
    twice = [Shot("the same", f"n{i}", "ru", "neutral") for i in range(9)]
    chosen = ShotPool([*own, *twice], LABELS, 3, seed=1).choose(QUESTION)
    assert [shot.text for shot in chosen] == ["the same"]
    assert ShotPool(own, LABELS, 3, seed=1).choose(QUESTION) == []


def test_the_body_asks_for_what_the_endpoint_has() -> None:
    asked = messages(QUESTION, LABELS)
    plain = request_body(Endpoint("http://h/v1", "m"), asked, LABELS)
    assert plain == {"model": "m", "messages": asked, "temperature": 0.0, "max_tokens": 16}
    full = Endpoint(
        "http://h/v1",
        "m",
        temperature=None,
        max_tokens=300,
        max_tokens_name="max_completion_tokens",
        answer="json",
        logprobs=True,
    )
    body = request_body(full, asked, LABELS)
    assert body.keys() == {"model", "messages", "max_completion_tokens", "response_format"}
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["label"]["enum"] == list(LABELS)
    word = request_body(Endpoint("http://h/v1", "m", logprobs=True), asked, LABELS)
    assert (word["logprobs"], word["top_logprobs"]) == (True, 20)


def test_the_key_of_a_request_depends_on_what_changes_the_answer_and_on_no_secret() -> None:
    asked = messages(QUESTION, LABELS)

    def key(**options: object) -> str:
        endpoint = Endpoint(**{"url": "http://h/v1", "model": "m", **options})  # type: ignore[arg-type]
        return request_key(endpoint, request_body(endpoint, asked, LABELS))

    assert key() == key(url="http://h/v1/", key="secret", query={"code": "secret"}, timeout_s=1.0)
    assert len({key(), key(url="http://i/v1"), key(model="n"), key(temperature=1.0)}) == 4


def test_an_endpoint_does_not_show_its_secrets() -> None:
    assert "secret" not in repr(Endpoint("http://h", "m", key="secret", query={"code": "secret"}))
