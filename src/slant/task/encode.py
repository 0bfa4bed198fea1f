"""Pairs → token ids, within the token limit.

A prompt is a text before it is tokens: the ids of a pair are the ids of one string, so that any
program with the same tokenizer can make them. What becomes of a document that is too long is said
by ``TaskSpec.long_documents``:

    cut       its middle is left out
    passages  what is least related to the narrative is left out
    windows   its parts are asked about one by one, and the logits averaged (``score.pooling``)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from tokenizers import Tokenizer

from slant.errors import TaskError
from slant.task.normalise import normalise_text
from slant.task.passages import choose_passages, join_passages, passage_spans, relatedness
from slant.task.spans import TokenStarts, cut_windows, trim_spans
from slant.task.spec import TaskSpec
from slant.task.verbalizer import encode_text

__all__ = ["MIN_DOCUMENT_TOKENS", "Encoder"]

MIN_DOCUMENT_TOKENS = 8
"""Fewer of a document say nothing; a prompt that has room for fewer is refused."""
# A passage takes a quarter of the room at most, or a single one would be all that is seen.
_PASSAGES_IN_ROOM = 4
_ROOM_STEPS = 16  # a window is a whole number of sixteenths of the token limit


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

    @property
    def padding(self) -> str:
        """Text of the token that fills batches."""
        return str(self._tokenizer.id_to_token(self._spec.pad_token_id) or "")

    def prompt(self, document: str, narrative: str | None) -> str:
        """The prompt, the document shortened where the token limit asks for it.

        Where ``long_documents`` is ``passages``, the passages most related to the narrative stay,
        in the order of the document: a text is read in its order. The marker stands wherever
        something is left out; neighbours stay joined. Otherwise, and where there is no narrative or
        nothing is related to it, head and tail stay. ``windows`` is for ``encode_windows`` alone: a
        single prompt, as in training, is made as under ``cut``.

        Raises:
            TaskError: narrative and cue alone leave no room for the document, or a text cannot be
                encoded (it holds half of a surrogate pair).
        """
        prompt = self._render(document, narrative)
        if self._length(prompt) <= self._spec.token_limit:
            return prompt
        return self._shorten(document, narrative)

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
        ids = self._encode_prompts([self._render(*pair) for pair in pairs])
        return [self._within(one, *pair) for one, pair in zip(ids, pairs, strict=True)]

    def encode_windows(self, pairs: Sequence[tuple[str, str | None]]) -> list[list[list[int]]]:
        """The prompts of each pair, as token ids; their label logits are to be averaged.

        A pair has one prompt, that of ``encode``, where it fits the token limit or where
        ``long_documents`` is not ``windows``. Otherwise it has one for each window: windows follow
        each other through the document and overlap by about a quarter, none lies within another,
        and every token of the document is in at least one of them, except white space at their
        edges. Each prompt is within the limit. A long document takes time and memory in proportion
        to its length.

        Windows of narratives of about the same length begin at the same places, so that an engine
        can share what it computes for them.

        Raises:
            TaskError: as ``prompt``, for any of them.
        """
        ids = self._encode_prompts([self._render(*pair) for pair in pairs])
        if self._spec.long_documents != "windows":
            return [[self._within(one, *pair)] for one, pair in zip(ids, pairs, strict=True)]
        return [
            [one] if len(one) <= self._spec.token_limit else self._windows(*pair)
            for one, pair in zip(ids, pairs, strict=True)
        ]

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

    def _encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """``encode_prompt`` of many, on all cores."""
        bos = [] if self._spec.bos_token_id is None else [self._spec.bos_token_id]
        encodings = self._tokenizer.encode_batch(prompts, add_special_tokens=False)
        return [bos + encoding.ids for encoding in encodings]

    def _within(self, ids: list[int], document: str, narrative: str | None) -> list[int]:
        """``ids`` of a pair's whole prompt where they keep to the limit, else a shorter one's."""
        if len(ids) <= self._spec.token_limit:
            return ids
        return self.encode_prompt(self._shorten(document, narrative))

    def _room(self, narrative: str | None) -> int:
        """Tokens left for the document beside narrative, cue and one marker."""
        around = self._length(self._spec.template.render(self._spec.marker, narrative))
        room = self._spec.token_limit - around
        if room < MIN_DOCUMENT_TOKENS:
            raise TaskError(
                f"narrative and cue take {around} of {self._spec.token_limit} tokens; "
                f"no room is left for the document (narrative: {(narrative or '')[:60]!r}…)",
                hint="Raise task.token_limit or shorten the narrative.",
            )
        return room

    def _offsets(self, document: str) -> list[tuple[int, int]]:
        """Where each token of a document, taken alone, begins and ends in it."""
        encoding = self._tokenizer.encode(document, add_special_tokens=False)
        offsets: list[tuple[int, int]] = encoding.offsets
        return offsets

    def _shorten(self, document: str, narrative: str | None) -> str:
        """The one prompt of a document that is too long."""
        document, room = normalise_text(document).strip(), self._room(narrative)
        offsets = self._offsets(document)
        if self._spec.long_documents == "passages" and narrative:
            prompt = self._related(document, narrative, room, TokenStarts(offsets, len(document)))
            if prompt is not None:
                return prompt
        return self._fit(document, narrative, room, offsets)

    def _related(self, document: str, narrative: str, room: int, tokens: TokenStarts) -> str | None:
        """The prompt with the passages most related to the narrative; None: nothing is related."""
        in_room = room * len(document) // max(1, len(tokens))  # characters, on the average
        spans = passage_spans(document, in_room // _PASSAGES_IN_ROOM)
        scores = relatedness([document[start:end] for start, end in spans], narrative)
        costs = tokens.within(spans)
        marker = self._spec.marker
        gap_cost = len(encode_text(self._tokenizer, marker))
        chosen = choose_passages(scores, costs, gap_cost, room)
        # Costs are those of the whole document's tokens. Cutting changes some; the prompt decides.
        while chosen:
            text = join_passages(document, spans, chosen, marker)
            prompt = self._spec.template.render(text, narrative)
            over = self._length(prompt) - self._spec.token_limit
            if over <= 0:
                return prompt
            while chosen and over > 0:
                over -= max(1, costs[chosen.pop()])
        return None

    def _fit(
        self,
        document: str,
        narrative: str | None,
        room: int,
        offsets: Sequence[tuple[int, int]],
    ) -> str:
        """The longest head and tail of ``document`` around the marker that keep to the limit."""
        spec = self._spec
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

    def _windows(self, document: str, narrative: str | None) -> list[list[int]]:
        """The prompts of the windows of a document that is too long."""
        spec, room = self._spec, self._room(narrative)
        document = normalise_text(document).strip()
        tokens = TokenStarts(self._offsets(document), len(document))
        # Rounded, so that narratives of different lengths get the same windows.
        rounded = room - room % max(1, spec.token_limit // _ROOM_STEPS)
        room = min(rounded if 2 * rounded >= room else room, max(1, len(tokens) - 1))
        # A window on its own can have a few tokens more than within the document.
        smallest = room // 2
        while room > smallest:
            spans = trim_spans(document, cut_windows(tokens, room))
            ids = self._encode_prompts(
                [spec.template.render(document[start:end], narrative) for start, end in spans]
            )
            over = max(map(len, ids)) - spec.token_limit
            if over <= 0:
                return ids
            room -= over
        # Windows of less than half the size would be many, and say little: a text of this kind
        # (thousands of tokens in one character) is cut.
        return [self.encode_prompt(self._shorten(document, narrative))]
