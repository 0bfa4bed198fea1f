"""Whatever is written in a document or a narrative: the contract's prompt is kept."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slant.errors import TaskError
from slant.task.normalise import normalise_text
from tiny import BOS, tiny_spaceless_tokenizer, tiny_tokenizer
from tiny_task import TEMPLATE, tiny_encoder

LIMIT = 96
MARKER = " […] "
TOKENIZERS = {"bytes": tiny_tokenizer(), "spaceless": tiny_spaceless_tokenizer()}
ENCODERS = {name: tiny_encoder(t, token_limit=LIMIT) for name, t in TOKENIZERS.items()}
NAMES = st.sampled_from(sorted(TOKENIZERS))
OPTIONS = ("cut", "passages", "windows")
BY_OPTION = {
    (name, option): tiny_encoder(t, token_limit=LIMIT, long_documents=option)
    for name, t in TOKENIZERS.items()
    for option in OPTIONS
}

# Anything at all, and pieces that merge, look special or count twice.
MERGING = (" negative", "\n\n", "   ", "the ", "ing the", "в сто", "[…", MARKER)
SPECIAL = ("<eos>", "<bos>", "<pad>", "{document}", "{narrative}", "\u202e", "\x00")
COMPOSED = ("👩\u200d👩\u200d👧", "नमस्ते", "ﬁ", "e\u0301")
PIECES = st.sampled_from(MERGING + SPECIAL + COMPOSED)
TEXTS = st.lists(st.one_of(st.text(max_size=30), PIECES), max_size=30).map("".join)
NARRATIVES = st.one_of(
    st.none(), st.lists(st.one_of(st.text(max_size=4), PIECES), max_size=3).map("".join)
)
SCRIPTS = st.sampled_from(
    (
        "The bridge is new. ", "Мост новый, и он упал! ", "新桥很好。", "人们说话没有标点符号",
        "الجسر الجديد؟ ", "สะพานใหม่มากจริงๆ", "पुल नया है। ", "a" * 40, "\n \n", "Brücke; ",
        " \u3000",
    )
)  # fmt: skip
LONG_TEXTS = st.lists(st.one_of(SCRIPTS, st.text(max_size=30), PIECES), max_size=40).map("".join)
SHORTER_TEXTS = st.lists(st.one_of(SCRIPTS, PIECES), max_size=20).map("".join)
SUBJECTS = st.one_of(NARRATIVES, st.sampled_from(("the bridge", "мост", "新桥", "الجسر", "สะพาน")))
UNHURRIED = settings(deadline=None, max_examples=300)


def ending(narrative: str | None) -> str:
    return TEMPLATE.render("", narrative)


@UNHURRIED
@given(name=NAMES, document=TEXTS, narrative=NARRATIVES)
def test_an_encoded_pair_is_its_prompt_within_the_limit(name, document, narrative):
    encoder, tokenizer = ENCODERS[name], TOKENIZERS[name]
    try:
        prompt = encoder.prompt(document, narrative)
    except TaskError:
        # Only ever because narrative and cue leave less than eight tokens.
        assert len(encoder.encode_prompt(TEMPLATE.render(MARKER, narrative))) > LIMIT - 8
        return
    ids = encoder.encode(document, narrative)
    assert len(ids) <= LIMIT
    assert ids == tokenizer.encode(prompt, add_special_tokens=True).ids
    assert ids[0] == BOS
    # Neither BOS nor any other special token comes from a text.
    assert not {256, 257, 258} & set(ids[1:])
    assert prompt.endswith(ending(narrative))


@UNHURRIED
@given(name=NAMES, document=TEXTS, narrative=NARRATIVES)
def test_a_document_is_whole_or_keeps_its_head_and_tail_around_the_marker(
    name, document, narrative
):
    encoder = ENCODERS[name]
    whole = TEMPLATE.render(document, narrative)
    fits = len(encoder.encode_prompt(whole)) <= LIMIT
    try:
        prompt = encoder.prompt(document, narrative)
    except TaskError:
        assert not fits
        return
    if fits:
        assert prompt == whole
        return
    kept, text = prompt.removesuffix(ending(narrative)), normalise_text(document).strip()
    cuts = [i for i in range(len(kept)) if kept.startswith(MARKER, i)]
    pairs = [(kept[:i], kept[i + len(MARKER) :]) for i in cuts]
    assert any(
        text.startswith(head) and text.endswith(tail) and 0 < len(head) + len(tail) <= len(text)
        for head, tail in pairs
    )


@UNHURRIED
@given(name=NAMES, pairs=st.lists(st.tuples(TEXTS, NARRATIVES), max_size=6))
def test_a_batch_is_the_same_as_one_by_one(name, pairs):
    encoder = ENCODERS[name]
    try:
        single = [encoder.encode(*pair) for pair in pairs]
    except TaskError:
        assume(False)
    assert encoder.encode_batch(pairs) == single


@UNHURRIED
@given(name=NAMES, option=st.sampled_from(OPTIONS), document=LONG_TEXTS, narrative=SUBJECTS)
def test_every_prompt_keeps_to_the_limit_under_every_option_and_is_made_alike_again(
    name, option, document, narrative
):
    encoder, tokenizer = BY_OPTION[name, option], TOKENIZERS[name]
    try:
        ids = encoder.encode(document, narrative)
    except TaskError:
        assume(False)
    assert len(ids) <= LIMIT
    prompt = encoder.prompt(document, narrative)
    assert ids == tokenizer.encode(prompt, add_special_tokens=True).ids
    assert prompt.endswith(ending(narrative))
    (windows,) = encoder.encode_windows([(document, narrative)])
    assert all(len(window) <= LIMIT for window in windows)
    if option != "windows":
        assert windows == [ids]
    again = tiny_encoder(tokenizer, token_limit=LIMIT, long_documents=option)
    assert again.encode_windows([(document, narrative)]) == [windows]


@UNHURRIED
@given(name=NAMES, document=LONG_TEXTS, narrative=SUBJECTS)
def test_passages_are_parts_of_the_document_in_its_order_and_nothing_comes_twice(
    name, document, narrative
):
    assume(MARKER.strip() not in document)
    try:
        prompt = BY_OPTION[name, "passages"].prompt(document, narrative)
    except TaskError:
        assume(False)
    kept, text = prompt.removesuffix(ending(narrative)), normalise_text(document).strip()
    place = 0
    for part in kept.split(MARKER.strip()):
        found = text.find(part.strip(), place)
        assert found >= 0
        place = found + len(part.strip())
    assert len(kept.replace(MARKER.strip(), "")) <= len(text) + 2 * kept.count(MARKER.strip())


@UNHURRIED
@given(name=NAMES, document=SHORTER_TEXTS, narrative=SUBJECTS)
def test_windows_cover_the_document_and_none_lies_within_another(name, document, narrative):
    encoder, tokenizer = BY_OPTION[name, "windows"], TOKENIZERS[name]
    try:
        (windows,) = encoder.encode_windows([(document, narrative)])
    except TaskError:
        assume(False)
    text = normalise_text(document).strip()
    parts = [
        tokenizer.decode(ids[1:], skip_special_tokens=False).removesuffix(ending(narrative))
        for ids in windows
    ]
    # Where a text repeats itself a window may stand at several places; some must fit together.
    ends = [(-1, 0)]
    for part in parts:
        places = [i for i in range(len(text) + 1) if text.startswith(part, i)]
        ends = [
            (i, i + len(part))
            for i in places
            if len(parts) == 1
            or any(
                begun < i and end < i + len(part) and not text[end:i].strip() for begun, end in ends
            )
        ]
    assert any(end == len(text) for _, end in ends)


@UNHURRIED
@given(name=NAMES, before=st.integers(25, 60), after=st.integers(25, 60), subject=st.integers(0, 3))
def test_passages_find_the_sentence_in_the_middle_that_names_the_narrative(
    name, before, after, subject
):
    filler, sentence, narrative = (
        ("It rained on the hills and fields. ", "Zoltan Quix won the vote. ", "Zoltan Quix"),
        ("Весь день шёл сильный дождь. ", "Юрий Щукин победил там. ", "Юрий Щукин"),
        ("整天都在下着很大的雨没有人出门。", "王晓明赢得了选举。", "王晓明"),
        ("ฝนตกหนักตลอดทั้งวัน ", "สมชายชนะเลือกตั้ง ", "สมชาย"),
    )[subject]
    tokenizer = TOKENIZERS[name]
    document = filler * before + sentence + filler * after
    found = tiny_encoder(tokenizer, token_limit=250, long_documents="passages")
    assert narrative in found.prompt(document, narrative).removesuffix(ending(narrative))
    cut = tiny_encoder(tokenizer, token_limit=250)
    assert narrative not in cut.prompt(document, narrative).removesuffix(ending(narrative))
