from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import processors

from slant.config.settings import TaskSettings
from slant.errors import TaskError
from slant.task.encode import Encoder
from slant.task.template import Template
from tiny import BOS, tiny_spaceless_tokenizer, tiny_tokenizer
from tiny_task import TEMPLATE, tiny_encoder, tiny_spec

LONG = "".join(f"Sentence number {i}. " for i in range(200)).strip()
CUE = "\n\nNarrative: the bridge\nSentiment toward the narrative:"
BOTH = pytest.mark.parametrize("make", [tiny_tokenizer, tiny_spaceless_tokenizer])


@BOTH
def test_a_short_document_is_encoded_as_the_tokenizer_itself_encodes_its_prompt(make):
    tokenizer = make()
    encoder = tiny_encoder(tokenizer)
    prompt = encoder.prompt("Short.", "the bridge")
    assert prompt == TEMPLATE.render("Short.", "the bridge") == "Short." + CUE
    ids = encoder.encode("Short.", "the bridge")
    assert ids == tokenizer.encode(prompt).ids == encoder.encode_prompt(prompt)
    assert ids[0] == BOS


@BOTH
def test_a_long_document_loses_its_middle_and_nothing_else(make):
    encoder = tiny_encoder(make(), token_limit=160)
    prompt = encoder.prompt(LONG, "the bridge")
    assert prompt.endswith(CUE)
    head, tail = prompt.removesuffix(CUE).split(" […] ")
    assert LONG.startswith(head)
    assert LONG.endswith(tail)
    # Three quarters of what is kept are from the beginning.
    assert 0.6 < len(head) / len(head + tail) < 0.9
    ids = encoder.encode(LONG, "the bridge")
    assert ids == encoder.encode_prompt(prompt)
    assert 150 <= len(ids) <= 160


@BOTH
def test_a_prompt_of_exactly_the_limit_is_whole_and_one_token_less_cuts_it(make):
    tokenizer = make()
    length = len(tiny_encoder(tokenizer, token_limit=10_000).encode(LONG, "x"))
    assert "[…]" not in tiny_encoder(tokenizer, token_limit=length).prompt(LONG, "x")
    shorter = tiny_encoder(tokenizer, token_limit=length - 1)
    assert "[…]" in shorter.prompt(LONG, "x")
    assert len(shorter.encode(LONG, "x")) <= length - 1


@pytest.mark.parametrize("limit", range(75, 130, 3))
def test_a_document_just_over_the_limit_is_cut_and_not_repeated(limit):
    # Here the document alone has fewer tokens than at its place in the prompt.
    encoder = tiny_encoder(tiny_spaceless_tokenizer(), token_limit=limit)
    for size in range(20, 60):
        document = "".join(chr(ord("a") + i % 26) for i in range(size))
        prompt = encoder.prompt(document, "N")
        kept = prompt.split("\n\nNarrative")[0].replace(" […] ", "")
        assert len(kept) <= len(document)


def test_without_a_narrative_the_cue_asks_for_overall_sentiment():
    encoder = tiny_encoder(token_limit=120)
    assert encoder.prompt("Short.", None) == "Short.\n\nOverall sentiment:"
    assert encoder.prompt(LONG, None).endswith("\n\nOverall sentiment:")
    assert encoder.encode("Short.", "  ") == encoder.encode("Short.", None)


def test_an_empty_document_is_encoded_too():
    assert tiny_encoder().prompt("", "x").startswith("\n\nNarrative: x")


def test_a_narrative_that_leaves_no_room_is_an_error_that_names_it():
    encoder = tiny_encoder(token_limit=100)
    with pytest.raises(TaskError, match="no room is left for the document") as raised:
        encoder.encode(LONG, "a narrative of many words " * 5)
    assert "a narrative of many words" in raised.value.message
    assert "token_limit" in raised.value.hint
    with pytest.raises(TaskError, match="no room"):
        encoder.encode_batch([("Short.", None), (LONG, "long " * 50)])


def test_a_long_narrative_with_a_document_that_fits_beside_it_is_no_error():
    encoder = tiny_encoder(token_limit=100)
    narrative = "n" * 45
    assert encoder.prompt("Hi", narrative) == TEMPLATE.render("Hi", narrative)


@pytest.mark.parametrize("pair", [("half \ud83d", "x"), ("x", "\udc00 half")])
def test_half_a_surrogate_pair_is_an_error_of_the_text_and_not_a_crash(pair):
    encoder = tiny_encoder()
    for call in (encoder.prompt, encoder.encode):
        with pytest.raises(TaskError, match="half of a surrogate pair"):
            call(*pair)
    with pytest.raises(TaskError, match="half of a surrogate pair"):
        encoder.encode_batch([("fine", None), pair])


@BOTH
def test_special_tokens_in_a_document_stay_text_in_short_and_long_ones(make):
    encoder = tiny_encoder(make(), token_limit=120)
    for document in ("a <eos> b <bos><pad>", "<eos> " * 100):
        ids = encoder.encode(document, "<eos> narrative")
        assert ids[0] == BOS
        assert not {256, 257, 258} & set(ids[1:])
    assert encoder.prompt("a <eos> b", None).startswith("a <eos> b")


def test_a_tokenizer_without_bos_gets_none():
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    encoder = tiny_encoder(tokenizer, token_limit=100)
    assert encoder.encode("Short.", None) == tokenizer.encode("Short.\n\nOverall sentiment:").ids
    assert len(encoder.encode(LONG, None)) <= 100


def test_padding_and_truncation_settings_of_the_tokenizer_do_not_count():
    tokenizer = tiny_tokenizer()
    spec = tiny_spec(tokenizer)
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=500)
    assert Encoder(tokenizer, spec).encode("Short.", "x") == tiny_encoder().encode("Short.", "x")


def test_another_tokenizer_than_the_contracts_is_refused():
    with pytest.raises(TaskError, match="digest"):
        Encoder(tiny_spaceless_tokenizer(), tiny_spec(tiny_tokenizer()))


def test_a_batch_keeps_its_order_and_may_be_empty():
    encoder = tiny_encoder(token_limit=100)
    pairs = [(LONG, None), ("b", "x"), ("", None), (LONG, "y"), ("b", "x")]
    assert encoder.encode_batch(pairs) == [encoder.encode(*pair) for pair in pairs]
    assert encoder.encode_batch([]) == []


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_the_head_can_be_all_or_nothing(share):
    tokenizer = tiny_tokenizer()
    encoder = Encoder(tokenizer, replace(tiny_spec(tokenizer, token_limit=120), head_share=share))
    kept = encoder.prompt(LONG, None).removesuffix("\n\nOverall sentiment:")
    head, tail = (part.strip() for part in kept.split("[…]"))
    assert LONG.startswith(head)
    assert LONG.endswith(tail)
    assert bool(head) == (share > 0)
    assert bool(tail) == (share < 1)


def test_a_very_long_document_takes_no_more_than_a_moment():
    encoder = tiny_encoder(token_limit=512)
    started = time.monotonic()
    encoder.encode("слово " * 100_000, "x")
    assert time.monotonic() - started < 20


NEEDLE = "The new bridge over the river fell down on Tuesday."
FILLER = [f"Chapter {i} tells of weather and of cattle in the hills." for i in range(40)]
STORY = " ".join([*FILLER[:20], NEEDLE, *FILLER[20:]])


@BOTH
def test_passages_keep_what_names_the_narrative_and_cut_does_not(make):
    kept = tiny_encoder(make(), token_limit=300, long_documents="passages").prompt(
        STORY, "the new bridge"
    )
    assert NEEDLE in kept
    assert NEEDLE not in tiny_encoder(make(), token_limit=300).prompt(STORY, "the new bridge")


@BOTH
def test_passages_stand_in_the_order_of_the_document_and_the_room_left_goes_to_its_beginning(make):
    prompt = tiny_encoder(make(), token_limit=350, long_documents="passages").prompt(
        STORY, "the new bridge"
    )
    parts = prompt.split("\n\nNarrative")[0].split("[…]")
    assert parts[0].startswith(FILLER[0])
    assert parts[-1] == ""  # the end was left out
    places = [STORY.index(part.strip()) for part in parts[:-1]]
    assert places == sorted(places)
    assert len(places) >= 2


@pytest.mark.parametrize("narrative", [None, "", "  ", "\x00", "桥", "?!"])
def test_passages_without_a_narrative_or_with_nothing_related_are_head_and_tail(narrative):
    passages = tiny_encoder(token_limit=200, long_documents="passages")
    assert passages.prompt(STORY, narrative) == tiny_encoder(token_limit=200).prompt(
        STORY, narrative
    )


def test_neighbouring_passages_stay_joined_as_in_the_document():
    lines = [f"The bridge, number {i}, is new." for i in range(3)]
    document = "\n\n".join([*FILLER[:20], *lines, *FILLER[20:]])
    prompt = tiny_encoder(token_limit=350, long_documents="passages").prompt(document, "the bridge")
    assert "\n\n".join(lines) in prompt


@pytest.mark.parametrize("option", ["passages", "windows"])
def test_a_document_that_fits_is_whole_under_every_option(option):
    encoder = tiny_encoder(long_documents=option)
    pairs = [("Short.", "x"), ("", None)]
    assert encoder.encode_batch(pairs) == tiny_encoder().encode_batch(pairs)
    assert encoder.encode_windows(pairs) == [[ids] for ids in tiny_encoder().encode_batch(pairs)]


@pytest.mark.parametrize("option", ["cut", "passages"])
def test_without_windows_a_pair_has_the_one_prompt_of_encode(option):
    encoder = tiny_encoder(token_limit=200, long_documents=option)
    pairs = [(STORY, "the new bridge"), ("Short.", None), (STORY, None)]
    assert encoder.encode_windows(pairs) == [[encoder.encode(*pair)] for pair in pairs]


@BOTH
def test_windows_cover_the_document_and_overlap_by_about_a_quarter(make):
    tokenizer = make()
    encoder = tiny_encoder(tokenizer, token_limit=200, long_documents="windows")
    (windows,) = encoder.encode_windows([(STORY, "the bridge")])
    assert len(windows) > 5
    assert all(len(ids) <= 200 for ids in windows)
    texts = [tokenizer.decode(ids[1:]).split(CUE)[0] for ids in windows]
    places = [(STORY.index(text), STORY.index(text) + len(text)) for text in texts]
    assert (places[0][0], places[-1][1]) == (0, len(STORY))
    for (start, end), (next_start, next_end) in pairwise(places):
        assert start < next_start < end < next_end
        assert 0.15 < (end - next_start) / (end - start) < 0.4


def test_a_single_prompt_under_windows_is_that_of_cut():
    encoder = tiny_encoder(token_limit=200, long_documents="windows")
    assert encoder.prompt(STORY, "the bridge") == tiny_encoder(token_limit=200).prompt(
        STORY, "the bridge"
    )
    assert encoder.encode(STORY, "x") == tiny_encoder(token_limit=200).encode(STORY, "x")


@pytest.mark.parametrize("option", ["cut", "passages", "windows"])
def test_what_leaves_no_room_is_refused_under_every_option(option):
    encoder = tiny_encoder(token_limit=100, long_documents=option)
    for call in (encoder.encode_batch, encoder.encode_windows):
        with pytest.raises(TaskError, match="no room"):
            call([("Short.", None), (LONG, "long " * 50)])
        with pytest.raises(TaskError, match="half of a surrogate pair"):
            call([("half \ud83d", "x")])
        assert call([]) == []


@pytest.mark.parametrize("option", ["passages", "windows"])
@pytest.mark.parametrize("text", ["слово " * 100_000, "桥" * 300_000, "a" * 600_000])
def test_a_very_long_document_takes_a_moment_under_every_option(option, text):
    encoder = tiny_encoder(token_limit=512, long_documents=option)
    started = time.process_time()
    (windows,) = encoder.encode_windows([(text, "слово bridge 桥")])
    assert time.process_time() - started < 20
    assert all(len(ids) <= 512 for ids in windows)


GOLDEN = Path(__file__).parents[2] / "golden" / "prompts.jsonl"


@pytest.mark.parametrize(
    "case",
    [json.loads(line) for line in GOLDEN.read_text("utf-8").splitlines()],
    ids=lambda case: f"{case['lang']}-{case['size']}-{'pair' if case['narrative'] else 'overall'}",
)
def test_prompts_are_those_that_were_agreed_on(case):
    settings = TaskSettings()
    template = Template(settings.prompt, settings.prompt_overall)
    encoder = tiny_encoder(template=template, token_limit=case["token_limit"])
    assert encoder.prompt(case["document"], case["narrative"]) == case["prompt"]
    assert len(encoder.encode(case["document"], case["narrative"])) == case["num_tokens"]
