"""One answer for each pair, however many prompts it takes to ask about its document.

The pooling rule: the label logits of a pair's windows are averaged, before the temperature is
applied. Up to a constant, a logit is the logarithm of a probability, so the average stands for the
geometric mean of the windows' probabilities, made to add up to 1 again. Every window counts alike.

Shape letters: N pairs, P prompts, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from slant.errors import TaskError
from slant.score.engine import Engine
from slant.task.encode import Encoder

__all__ = ["Block", "ask_block", "encode_blocks", "pair_logits"]

Texts = tuple[str, str | None]

# What a tokenizer returns takes a hundred bytes a token and more, ids in a list about forty.
_CHARACTERS_AT_ONCE = 2_000_000
_TOKENS_AT_ONCE = 1_000_000


def pair_logits(
    engine: Engine,
    encoder: Encoder,
    pairs: Sequence[Texts],
    on_done: Callable[[int], None] | None = None,
    *,
    on_refused: Callable[[int, TaskError], None],
) -> NDArray[np.float32]:
    """Label logits of (document, narrative) pairs, those of windows averaged.

    Texts are encoded and asked about a part at a time, so that memory is bounded by the longest
    document and not by their number. Prompts that may share what they begin with, which are those
    of one window of one document under several narratives, are one group for the engine.

    Args:
        engine: computes the logits of prompts.
        encoder: makes the prompts.
        pairs: N documents with their narrative.
        on_done: told how many more pairs are done; all together N. Within a part, pairs are
            reckoned from the prompts that are done.
        on_refused: told of each pair that cannot be encoded: its place and why. It may raise.

    Returns:
        ``(N, L)`` float32, in input order, columns in label order; NaN for a refused pair.
    """
    blocks = [
        ask_block(engine, block, on_done) for block in encode_blocks(encoder, pairs, on_refused)
    ]
    return np.concatenate(blocks)


@final
@dataclass
class Block:
    """Pairs that are asked about together; a refused one has no prompts.

    Attributes:
        prompts: token ids, those of one pair after those of the one before.
        groups: the document and the number of the window of each prompt.
        counts: prompts of each pair.
        num_tokens: of all prompts.
    """

    prompts: list[list[int]] = field(default_factory=list)
    groups: list[Hashable] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    num_tokens: int = 0

    def add(self, document: str, windows: Sequence[list[int]]) -> None:
        """One more pair, with the prompts of its document."""
        self.prompts += windows
        self.groups += [(document, number) for number in range(len(windows))]
        self.counts.append(len(windows))
        self.num_tokens += sum(map(len, windows))


def encode_blocks(
    encoder: Encoder, pairs: Sequence[Texts], on_refused: Callable[[int, TaskError], None]
) -> Iterator[Block]:
    """All pairs in order, so many in a block as memory should hold at once.

    There is at least one block, so that the number of labels is known. Arguments as ``pair_logits``
    has them; ``on_refused`` is told before the block with that pair comes.
    """
    block, place = Block(), 0
    for part in _parts(pairs):
        for (document, _), windows in zip(part, _encode(encoder, part), strict=True):
            if isinstance(windows, TaskError):
                on_refused(place, windows)
                windows = []  # noqa: PLW2901
            block.add(document, windows)
            place += 1
            if block.num_tokens >= _TOKENS_AT_ONCE:
                yield block
                block = Block()
    if block.counts or not place:
        yield block


def _parts(pairs: Sequence[Texts]) -> Iterator[Sequence[Texts]]:
    """Pairs in order, so many together as are encoded at once."""
    start = num_characters = 0
    for place, (document, _) in enumerate(pairs):
        if place > start and num_characters + len(document) > _CHARACTERS_AT_ONCE:
            yield pairs[start:place]
            start, num_characters = place, 0
        num_characters += len(document)
    if start < len(pairs):
        yield pairs[start:]


def _encode(encoder: Encoder, pairs: Sequence[Texts]) -> list[list[list[int]] | TaskError]:
    """The prompts of each pair, or why there are none."""
    try:
        return list(encoder.encode_windows(pairs))
    except TaskError:
        return [_encode_one(encoder, pair) for pair in pairs]


def _encode_one(encoder: Encoder, pair: Texts) -> list[list[int]] | TaskError:
    try:
        return encoder.encode_windows([pair])[0]
    except TaskError as error:
        return error


def ask_block(
    engine: Engine, block: Block, on_done: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """``(N, L)`` float32 logits of a block's N pairs; see ``pair_logits``."""
    counts_N = np.array(block.counts, dtype=np.int64)
    count = _PairCounter(block, on_done) if on_done else None
    logits_PL = engine.label_logits(block.prompts, count, groups=block.groups)
    if count:
        count.finish()
    pooled_NL = np.full((len(counts_N), logits_PL.shape[1]), np.nan, dtype=np.float32)
    asked = counts_N > 0
    if asked.any():
        firsts = (np.cumsum(counts_N) - counts_N)[asked]
        # In float64: the average of a single window is that window's logits to the bit.
        with np.errstate(invalid="ignore"):  # a logit that is no number stays one
            sums_NL = np.add.reduceat(logits_PL.astype(np.float64), firsts, axis=0)
        pooled_NL[asked] = sums_NL / counts_N[asked, None]
    return pooled_NL


@final
class _PairCounter:
    """Turns numbers of prompts that are done into numbers of pairs."""

    def __init__(self, block: Block, on_done: Callable[[int], None]) -> None:
        self._num_prompts, self._num_pairs = len(block.prompts), len(block.counts)
        self._on_done = on_done
        self._prompts = self._pairs = 0

    def __call__(self, num_prompts: int) -> None:
        self._prompts += num_prompts
        self._report(self._num_pairs * self._prompts // self._num_prompts)

    def finish(self) -> None:
        """The rest: pairs that were refused have no prompts."""
        self._report(self._num_pairs)

    def _report(self, pairs: int) -> None:
        if pairs > self._pairs:
            self._on_done(pairs - self._pairs)
            self._pairs = pairs
