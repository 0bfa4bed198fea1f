"""Packs documents of any length into rows of nearly one length, without losing a token.

A row holds whole pieces one after another. A piece is a document, or a part of one that is longer
than a row. ``lengths`` says where pieces end: attention must not cross from one into the next, and
``positions`` restart with each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

__all__ = ["PackedRow", "pack_documents", "positions"]

_BUFFER_PIECES = 512


@final
@dataclass(frozen=True)
class PackedRow:
    """One row of packed pieces, without padding.

    Attributes:
        tokens: int32 ``(num_tokens,)``.
        lengths: int32 ``(num_pieces,)``, each at least 1; they add up to ``num_tokens``.
    """

    tokens: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]


def pack_documents(
    documents: Iterable[Sequence[int] | npt.NDArray[np.integer]],
    sequence_tokens: int,
) -> Iterator[PackedRow]:
    """Pack documents into rows of at most ``sequence_tokens`` tokens.

    First-fit decreasing (Johnson 1973), one row at a time over a buffer: a row takes the longest
    waiting piece that still fits, until none does, and then the buffer is filled up again. It
    holds 512 pieces, or more where those would not fill one row, so memory stays flat; nearly all
    rows are full, since short pieces wait for the gaps.

    Args:
        documents: token ids of each document, read lazily; empty documents vanish.
        sequence_tokens: 1 or more.

    Yields:
        Rows, determined by the documents and their order. Every token is in exactly one row; the
        pieces of a cut document are all ``sequence_tokens`` long except its last.

    Raises:
        ValueError: ``sequence_tokens`` is not positive, or a document is not one list of token ids
            (integers from 0 to 2³¹ − 1).
    """
    if sequence_tokens < 1:
        raise ValueError(f"sequence_tokens must be at least 1, got {sequence_tokens}")
    return _pack(_pieces(documents, sequence_tokens), sequence_tokens)


def positions(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Position of each token within its piece.

    Args:
        lengths: ``(num_pieces,)``, in tokens.

    Returns:
        int64 ``(sum(lengths),)``: 0, 1, 2, … restarting with each piece.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum(), dtype=np.int64) - np.repeat(starts, sizes)


def _pieces(
    documents: Iterable[Sequence[int] | npt.NDArray[np.integer]], sequence_tokens: int
) -> Iterator[npt.NDArray[np.int32]]:
    for number, document in enumerate(documents):
        tokens = _token_array(document, number)
        if len(tokens) <= sequence_tokens:
            if len(tokens):
                yield tokens
            continue
        for start in range(0, len(tokens), sequence_tokens):
            # Copied, or a short remainder that waits for a gap would keep the whole document.
            yield tokens[start : start + sequence_tokens].copy()


def _token_array(document: Any, number: int) -> npt.NDArray[np.int32]:
    tokens = np.asarray(document)
    if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
        raise ValueError(f"document {number} is not a list of token ids: {tokens.dtype}")
    # Checked, because a cast to int32 wraps without a word.
    if tokens.size and not (tokens.min() >= 0 and tokens.max() < 2**31):
        raise ValueError(f"document {number} has token ids outside 0 … 2**31 - 1")
    return tokens.astype(np.int32)


def _pack(pieces: Iterator[npt.NDArray[np.int32]], sequence_tokens: int) -> Iterator[PackedRow]:
    # Longest first; among equals the one that came first. The pieces lie beside their sort keys.
    keys: list[tuple[int, int]] = []
    waiting: list[npt.NDArray[np.int32]] = []
    num_pieces = waiting_tokens = 0
    while True:
        while len(waiting) < _BUFFER_PIECES or waiting_tokens < sequence_tokens:
            piece = next(pieces, None)
            if piece is None:
                break
            key = (-len(piece), num_pieces)
            place = bisect_left(keys, key)
            keys.insert(place, key)
            waiting.insert(place, piece)
            num_pieces += 1
            waiting_tokens += len(piece)
        if not waiting:
            return
        row: list[npt.NDArray[np.int32]] = []
        space = sequence_tokens
        while (place := bisect_left(keys, (-space, 0))) < len(keys):
            space += keys.pop(place)[0]
            row.append(waiting.pop(place))
        waiting_tokens -= sequence_tokens - space
        lengths = np.array([len(piece) for piece in row], dtype=np.int32)
        yield PackedRow(np.concatenate(row), lengths)
