"""Pairs → token ids, within the token limit.

A prompt is a text before it is tokens: the ids of a pair are the ids of one string, so that any
program with the same tokenizer can make them. A document that is too long loses its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from tokenizers import Tokenizer

from slant.errors import TaskError
from slant.task.normalise import normalise_text
from slant.task.spec import TaskSpec
from slant.task.verbalizer import encode_text

__all__ = ["Encoder"]

_MIN_DOCUMENT_TOKENS = 8


@final
class Encoder:
    """Turns pairs into prompts and token ids under one TaskSpec.

    Raises:
        TaskError: the tokenizer is not the one the spec was made with.
    """

    def __init__(self, tokenizer: Tokenizer, spec: TaskSpec) -> None:
        spec.check_tokenizer(tokenizer)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._spec = spec

    def prompt(self, document: str, narrative: str | None) -> str:
        """The prompt, the document cut where the token limit asks for it.

        Raises:
            TaskError: narrative and cue alone leave no room for the document, or a text cannot be
                encoded (it holds half of a surrogate pair).
        """
        prompt = self._render(document, narrative)
        if self._length(prompt) <= self._spec.token_limit:
            return prompt
        return self._fit(normalise_text(document).strip(), narrative)

    def encode(self, document: str, narrative: str | None) -> list[int]:
        """Token ids of the prompt, BOS first; at most ``token_limit`` of them.

        Raises:
            TaskError: as ``prompt``.
        """
        return self.encode_batch([(document, narrative)])[0]

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of a prompt that ``prompt`` made, BOS first."""
        bos = [] if self._spec.bos_token_id is None else [self._spec.bos_token_id]
        return bos + encode_text(self._tokenizer, prompt)

    def encode_batch(self, pairs: Sequence[tuple[str, str | None]]) -> list[list[int]]:
        """``encode`` of many (document, narrative) pairs, in order; uses all cores.

        Raises:
            TaskError: as ``prompt``, for any of them.
        """
        prompts = [self._render(document, narrative) for document, narrative in pairs]
        bos = [] if self._spec.bos_token_id is None else [self._spec.bos_token_id]
        encodings = self._tokenizer.encode_batch(prompts, add_special_tokens=False)
        ids = [bos + encoding.ids for encoding in encodings]
        for i, (document, narrative) in enumerate(pairs):
            if len(ids[i]) > self._spec.token_limit:
                ids[i] = self.encode_prompt(self._fit(normalise_text(document).strip(), narrative))
        return ids

    def _render(self, document: str, narrative: str | None) -> str:
        prompt = self._spec.template.render(document, narrative)
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise TaskError(
                f"a text holds {prompt[error.start]!r}, half of a surrogate pair, which is not "
                "a character",
                hint="Broken JSON escapes look like this; repair or replace them.",
            ) from None
        return prompt

    def _length(self, prompt: str) -> int:
        return len(self.encode_prompt(prompt))

    def _fit(self, document: str, narrative: str | None) -> str:
        """The longest head and tail of ``document`` around the marker that keep to the limit."""
        spec = self._spec
        around = self._length(spec.template.render(spec.marker, narrative))
        room = spec.token_limit - around
        if room < _MIN_DOCUMENT_TOKENS:
            raise TaskError(
                f"narrative and cue take {around} of {spec.token_limit} tokens; "
                f"no room is left for the document (narrative: {(narrative or '')[:60]!r}…)",
                hint="Raise task.token_limit or shorten the narrative.",
            )
        offsets = self._tokenizer.encode(document, add_special_tokens=False).offsets
        room = min(room, max(1, len(offsets) - 1))  # something goes, and nothing comes twice
        # Cutting can change the tokens at the cut, so the first guess may be a few tokens over.
        while room > 0:
            head = round(room * spec.head_share)
            end = offsets[head - 1][1] if head else 0
            start = offsets[len(offsets) - (room - head)][0] if room > head else len(document)
            cut = document[:end].rstrip() + spec.marker + document[start:].lstrip()
            prompt = spec.template.render(cut, narrative)
            over = self._length(prompt) - spec.token_limit
            if over <= 0:
                return prompt
            room -= over
        raise TaskError(
            f"a document cannot be cut to {spec.token_limit} tokens",
            hint="Raise task.token_limit.",
        )
