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

# Anything at all, and pieces that merge, look special or count twice.
MERGING = (" negative", "\n\n", "   ", "the ", "ing the", "в сто", "[…", MARKER)
SPECIAL = ("<eos>", "<bos>", "<pad>", "{document}", "{narrative}", "\u202e", "\x00")
COMPOSED = ("👩\u200d👩\u200d👧", "नमस्ते", "ﬁ", "e\u0301")
PIECES = st.sampled_from(MERGING + SPECIAL + COMPOSED)
TEXTS = st.lists(st.one_of(st.text(max_size=30), PIECES), max_size=30).map("".join)
NARRATIVES = st.one_of(
    st.none(), st.lists(st.one_of(st.text(max_size=4), PIECES), max_size=3).map("".join)
)
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
