"""A consumer without slant makes the prompt that slant makes, of any text."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from slant.errors import TaskError
from slant.export.chat_template import write_chat_template
from slant.export.snippet import prompt_code
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.template import Template
from tiny import tiny_spaceless_tokenizer, tiny_tokenizer
from tiny_task import TEMPLATE, tiny_spec

# Letters of several scripts, what is stripped or dropped, what a template language may trip over.
ALPHABET = st.one_of(
    st.sampled_from("ab é新桥мост😀\u200d \t\n\r\x00\x0b\x0c\x1c\x85\x9f\u2028\ufeff{}%#'\"\\[]…"),
    st.sampled_from(["{document}", "{narrative}", "{{ x }}", "{% x %}", "<eos>", "<bos>", " […] "]),
    st.characters(codec="utf-8"),
)
TEXTS = st.lists(ALPHABET, max_size=60).map("".join)
WORDINGS = st.lists(
    st.one_of(
        st.sampled_from("a新'\"\\\n\t\r\u2028{}%#\x00"),
        st.sampled_from(["{{", "}}", "{%", "%}", "{#"]),
    ),
    max_size=8,
).map("".join)
CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")


def exported(folder: Path, tokenizer: Tokenizer, spec: TaskSpec) -> Any:
    """The tokenizer as a consumer loads it."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        split_special_tokens=True,
    ).save_pretrained(folder)
    write_chat_template(folder, spec)
    return AutoTokenizer.from_pretrained(folder)


@cache
def consumer(kind: str, token_limit: int) -> tuple[Any, Encoder]:
    """The card's ``make_prompt``, and slant's own encoder."""
    make = {"bytes": tiny_tokenizer, "spaceless": tiny_spaceless_tokenizer}[kind]
    spec = tiny_spec(make(), token_limit=token_limit)
    names: dict[str, Any] = {"re": re, "unicodedata": unicodedata}
    names["tokenizer"] = exported(Path(mkdtemp()), make(), spec)
    exec(prompt_code(spec), names)
    return names["make_prompt"], Encoder(make(), spec)


@pytest.mark.parametrize("kind", ["bytes", "spaceless"])
@settings(deadline=None)
@given(document=TEXTS, narrative=st.none() | TEXTS, token_limit=st.sampled_from([90, 110, 1000]))
@example(document="", narrative=None, token_limit=90)
@example(document="新" * 400, narrative="x", token_limit=110)
@example(document="the … […] ing the\n\n" * 30, narrative=" ", token_limit=110)
def test_the_code_of_the_card_makes_slants_prompt(
    kind: str, document: str, narrative: str | None, token_limit: int
) -> None:
    make_prompt, encoder = consumer(kind, token_limit)
    try:
        expected = encoder.prompt(document, narrative)
    except TaskError:  # no room for the document
        return
    assert make_prompt(document, narrative) == expected


@cache
def with_chat_template() -> Any:
    return exported(Path(mkdtemp()), tiny_tokenizer(), tiny_spec())


def messages(document: str, narrative: str | None) -> list[dict[str, Any]]:
    asked = [{"role": "document", "content": document}]
    return asked if narrative is None else [*asked, {"role": "narrative", "content": narrative}]


def in_nfc(text: str) -> str:
    """A text as the chat template wants it: in NFC, also once its control characters are gone."""
    composed = unicodedata.normalize("NFC", text)
    assume(unicodedata.is_normalized("NFC", CONTROLS.sub("", composed)))
    return composed


@settings(deadline=None)
@given(document=TEXTS.map(in_nfc), narrative=st.none() | TEXTS.map(in_nfc))
@example(document=" \x85", narrative="\x1c ")
@example(document="{{ messages }}{% raw %}", narrative="{document}")
def test_the_chat_template_renders_the_prompt(document: str, narrative: str | None) -> None:
    rendered = with_chat_template().apply_chat_template(
        messages(document, narrative), tokenize=False
    )
    assert rendered == TEMPLATE.render(document, narrative)


@settings(deadline=None, max_examples=50)
@given(parts=st.tuples(*[WORDINGS] * 5))
def test_any_wording_travels(parts: tuple[str, ...]) -> None:
    from slant.export.chat_template import chat_template

    before, between, after, overall_before, overall_after = parts
    template = Template(
        f"{before}{{document}}{between}{{narrative}}{after}",
        f"{overall_before}{{document}}{overall_after}",
    )
    spec = TaskSpec(**{**vars(tiny_spec()), "template": template})
    names: dict[str, Any] = {"re": re, "unicodedata": unicodedata}
    names["tokenizer"] = with_chat_template()
    exec(prompt_code(spec), names)
    for narrative in ("a {document} 'narrative'", None):
        expected = template.render("a\\n 'text' {narrative}", narrative)
        asked = messages("a\\n 'text' {narrative}", narrative)
        rendered = with_chat_template().apply_chat_template(
            asked, tokenize=False, chat_template=chat_template(spec)
        )
        assert rendered == expected
        assert names["make_prompt"]("a\\n 'text' {narrative}", narrative) == expected
