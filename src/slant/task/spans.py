"""Where the tokens of a text begin, and the overlapping windows that a text is cut into.

Positions are places in the text, so that what is cut out of it is text again and never half a
character, however many tokens a character takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

__all__ = ["TokenStarts", "cut_windows", "trim_spans"]

_OVERLAP = 0.25


@final
class TokenStarts:
    """Counts the tokens of a text's parts without encoding them again.

    A part may have a few tokens more or less when it stands alone or elsewhere.

    Args:
        offsets: of each token, its first place in the text and the one after its last.
        length: of the text.
    """

    def __init__(self, offsets: Sequence[tuple[int, int]], length: int) -> None:
        starts = np.fromiter((start for start, _ in offsets), np.int64, len(offsets))
        # Some tokenizers put what they add to a text at place 0, wherever it stands.
        self._starts = np.maximum.accumulate(starts)
        self.length = length

    def __len__(self) -> int:
        """Tokens of the whole text."""
        return len(self._starts)

    def within(self, spans: Sequence[tuple[int, int]]) -> list[int]:
        """How many tokens begin in each of the spans."""
        places_N2 = np.array(spans, dtype=np.int64).reshape(-1, 2)
        counts_N2 = np.searchsorted(self._starts, places_N2, side="left")
        counts: list[int] = (counts_N2[:, 1] - counts_N2[:, 0]).tolist()
        return counts

    def place(self, token: int) -> int:
        """Where a token begins; the end of the text for any after the last."""
        return int(self._starts[token]) if token < len(self._starts) else self.length


def cut_windows(tokens: TokenStarts, room: int) -> list[tuple[int, int]]:
    """Windows of about ``room`` tokens that cover a text, each overlapping the next.

    They are of one size, the last ending where the text ends: a short rest would count as much as
    a whole window when their answers are averaged. So they overlap by a quarter or a little more.

    Args:
        tokens: of a text that has at least one.
        room: tokens of a window, at least 1; a window that begins within a character of several
            tokens has a few more.

    Returns:
        First place and the place after the last of each, in order. Every place of the text from
        its first token on is in at least one of them; none is contained in another.
    """
    spare = max(0, len(tokens) - room)
    stride = room - int(room * _OVERLAP)
    count = 1 + -(-spare // stride)
    windows: list[tuple[int, int]] = []
    for number in range(count):
        first = spare * number // max(1, count - 1)
        is_last = number == count - 1
        start = tokens.place(first) if number else 0
        end = tokens.length if is_last else tokens.place(first + room)
        if windows and end <= windows[-1][1]:
            continue  # both within one character
        if windows and start == windows[-1][0]:
            windows.pop()
        if end > start:
            windows.append((start, end))
    return windows


def trim_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans without white space at their ends, and without those that then say nothing new.

    Args:
        text: what they are places in.
        spans: in order, none contained in another.

    Returns:
        In order; none is empty or contained in another, and all that is no white space and was in
        one of the spans still is.
    """
    trimmed: list[tuple[int, int]] = []
    for start, end in spans:
        part = text[start:end]
        first = start + len(part) - len(part.lstrip())
        last = start + len(part.rstrip())
        if first >= last or (trimmed and last <= trimmed[-1][1]):
            continue
        while trimmed and first <= trimmed[-1][0]:
            trimmed.pop()
        trimmed.append((first, last))
    return trimmed
