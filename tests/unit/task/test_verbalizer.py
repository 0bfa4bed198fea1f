import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from slant.errors import TaskError
from slant.labels import LabelSet
from slant.task.template import Template
from slant.task.verbalizer import Verbalizer, encode_text, find_bos
from tiny import BOS, tiny_spaceless_tokenizer, tiny_tokenizer

TEMPLATE = Template("{document}\nNarrative: {narrative}\nSentiment:", "{document}\nSentiment:")
LABELS = LabelSet(["negative", "neutral", "positive"])


def verbalize(tokenizer=None, template=TEMPLATE, labels=LABELS, **words):
    return Verbalizer.from_tokenizer(tokenizer or tiny_tokenizer(), template, labels, words)


@pytest.mark.parametrize("make", [tiny_tokenizer, tiny_spaceless_tokenizer])
def test_the_id_of_a_label_is_the_first_token_of_its_word_after_the_prompt(make):
    tokenizer = make()
    verbalizer = verbalize(tokenizer)
    assert verbalizer.words == ("negative", "neutral", "positive")
    for word, token_id in zip(verbalizer.words, verbalizer.token_ids, strict=True):
        prompt = TEMPLATE.render("Какой-то текст", "x")
        before, after = encode_text(tokenizer, prompt), encode_text(tokenizer, f"{prompt} {word}")
        assert after[: len(before)] == before
        assert after[len(before)] == token_id
        assert tokenizer.decode([token_id]) == f" {word}"


def test_words_may_differ_from_labels_and_space_around_them_does_not_count():
    tokenizer = tiny_tokenizer()
    verbalizer = verbalize(
        tokenizer, labels=LabelSet(["-1", "1"]), **{"-1": " negative ", "1": "positive"}
    )
    assert verbalizer.words == ("negative", "positive")
    assert (
        verbalizer.token_ids
        == verbalize(tokenizer, labels=LabelSet(["negative", "positive"])).token_ids
    )


def test_words_that_begin_with_the_same_token_are_refused_by_name():
    with pytest.raises(TaskError, match="'for' and 'against' begin with the same token") as raised:
        verbalize(labels=LabelSet(["for", "against"]))
    assert "label_words" in raised.value.hint


def test_an_empty_word_is_refused():
    with pytest.raises(TaskError, match="empty"):
        verbalize(neutral="  ")


@pytest.mark.parametrize("cue", ["Sentiment ", "Answer: "])
def test_a_word_that_merges_with_the_end_of_the_prompt_is_refused(cue):
    # Two spaces are one token in this tokenizer, so the prompt's last token changes.
    tokenizer = tiny_tokenizer()
    spaces = Tokenizer(
        models.BPE(
            vocab={**tokenizer.get_vocab(), "ĠĠ": tokenizer.get_vocab_size()}, merges=[("Ġ", "Ġ")]
        )
    )
    spaces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    with pytest.raises(TaskError, match="merges with the end of the prompt"):
        verbalize(spaces, Template(f"{{document}} {{narrative}} {cue}", f"{{document}} {cue}"))


def test_a_word_whose_token_depends_on_the_prompt_is_refused():
    template = Template("{document} {narrative}:", "{document}?")
    vocab = {**tiny_tokenizer().get_vocab()}
    merges = []
    for merged in ("Ġx", "?Ġx"):
        vocab[merged] = len(vocab)
    merges = [("Ġ", "x")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # After "?" the space is a piece of its own.
            pre_tokenizers.Split("? ", "merged_with_previous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    with pytest.raises(TaskError, match="different tokens in different contexts"):
        verbalize(tokenizer, template, labels=LabelSet(["x", "negative"]))


def test_special_tokens_in_a_text_are_plain_text():
    tokenizer = tiny_tokenizer()
    ids = encode_text(tokenizer, "a<eos><bos><pad>b")
    assert not {BOS, BOS + 1, BOS + 2} & set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a<eos><bos><pad>b"


def test_the_bos_rule_is_the_tokenizers_own():
    assert find_bos(tiny_tokenizer()) == BOS
    bare = tiny_tokenizer()
    bare.post_processor = processors.ByteLevel(trim_offsets=False)
    assert find_bos(bare) is None


@pytest.mark.parametrize("form", ["<bos> $A <eos>", "$A <eos>", "<bos> <bos> $A"])
def test_a_tokenizer_that_puts_anything_else_around_a_text_is_refused(form):
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=form, special_tokens=[("<bos>", BOS), ("<eos>", 258)]
    )
    with pytest.raises(TaskError, match="only a single token before"):
        find_bos(tokenizer)
