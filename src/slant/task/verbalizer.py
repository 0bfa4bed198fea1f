"""Label → label word → the token id whose logit stands for the label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Tokenizer

from slant.errors import TaskError
from slant.labels import LabelSet
from slant.task.template import Template

__all__ = ["Verbalizer", "encode_text", "find_bos"]


@dataclass(frozen=True)
class Verbalizer:
    """Label words and token ids, in label order."""

    words: tuple[str, ...]
    token_ids: tuple[int, ...]

    @classmethod
    def from_tokenizer(
        cls, tokenizer: Tokenizer, template: Template, labels: LabelSet, words: Mapping[str, str]
    ) -> Verbalizer:
        """Find the first token of each label word *in context*.

        The word follows the prompt after one space. In every probed context the ids of
        prompt + word must begin with the ids of the prompt: otherwise the model would be asked at a
        position that does not exist when the prompt stands alone.

        Raises:
            TaskError: the word merges into the prompt, its token depends on the context, or two
                words begin with the same token.
        """
        prompts = [
            template.render(document, narrative)
            for document in ("A text.", "一段文字", "Текст!", "nakakatuwa 😀")
            for narrative in ("the new bridge", "新桥", None)
        ]
        chosen = [words.get(label, label).strip() for label in labels]
        ids = tuple(_first_token(tokenizer, prompts, word) for word in chosen)
        for i, token_id in enumerate(ids):
            if token_id in ids[:i]:
                first = chosen[ids.index(token_id)]
                raise TaskError(
                    f"the label words {first!r} and {chosen[i]!r} begin with the same token "
                    f"(id {token_id})",
                    hint="Set task.label_words to words that begin differently.",
                )
        return cls(tuple(chosen), ids)


def _first_token(tokenizer: Tokenizer, prompts: list[str], word: str) -> int:
    if not word:
        raise TaskError("a label word is empty", hint="Set task.label_words.")
    found: set[int] = set()
    for prompt in prompts:
        before = encode_text(tokenizer, prompt)
        after = encode_text(tokenizer, f"{prompt} {word}")
        if after[: len(before)] != before or len(after) == len(before):
            raise TaskError(
                f"the label word {word!r} merges with the end of the prompt "
                f"({prompt[-20:]!r}) in this tokenizer",
                hint="End the prompt with a character that stays a token of its own, such as ':'.",
            )
        found.add(after[len(before)])
    if len(found) > 1:
        raise TaskError(
            f"the label word {word!r} begins with different tokens in different contexts: "
            f"{sorted(found)}",
            hint="Set task.label_words to another word.",
        )
    return found.pop()


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of ``text`` alone: no BOS, no EOS; ``"<eos>"`` in a document is plain text."""
    tokenizer.encode_special_tokens = True
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def find_bos(tokenizer: Tokenizer) -> int | None:
    """Id that the tokenizer itself puts before a text, or None.

    Raises:
        TaskError: the tokenizer also puts something after the text; a label could not follow.
    """
    plain = encode_text(tokenizer, "a")
    dressed = tokenizer.encode("a", add_special_tokens=True).ids
    if dressed == plain:
        return None
    if len(dressed) == len(plain) + 1 and dressed[1:] == plain:
        return int(dressed[0])
    raise TaskError(
        f"the tokenizer turns the token ids {plain} into {dressed}: only a single token before "
        "the text is supported",
        hint="Use the tokenizer of a causal language model (no EOS or SEP after the text).",
    )
