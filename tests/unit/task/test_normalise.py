from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from slant.task.normalise import normalise_text, text_digest

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def test_letters_are_composed() -> None:
    assert normalise_text("cafe\u0301") == "café"


def test_control_characters_go_and_tab_and_newline_stay() -> None:
    assert normalise_text("a\0b\x07c\x9fd\te\nf") == "abcd\te\nf"


def test_every_line_end_becomes_a_newline_so_that_no_words_join() -> None:
    assert normalise_text("a\r\nb\rc\x0bd\x0ce\x85f") == "a\nb\nc\nd\ne\nf"


def test_spaces_case_emoji_and_joiners_stay() -> None:
    text = "  Hello   WORLD \u200d \u200c 👩\u200d👩\u200d👧 \u00a0 ﬁ "
    assert normalise_text(text) == text


@given(TEXTS)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert unicodedata.is_normalized("NFC", once)


@given(TEXTS)
def test_the_digest_is_that_of_the_decomposed_upper_cased_spaced_out_text(text: str) -> None:
    assert text_digest(text) == text_digest(unicodedata.normalize("NFD", text))
    assert text_digest(text) == text_digest(f"  {text}\n")


def test_texts_that_differ_in_case_and_space_only_have_one_digest() -> None:
    assert text_digest("Straße  am\nFluss") == text_digest("STRASSE am Fluss")
    assert text_digest("Strasse am Fluss.") != text_digest("Strasse am Fluss")
