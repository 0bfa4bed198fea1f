"""The passages of a text, and how related each is to a narrative. Knows text, no tokens.

It works in every script: passages end where sentences do, or at a bounded length where there is no
punctuation; what they share with a narrative is counted in groups of characters, not in words.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["choose_passages", "join_passages", "passage_spans", "relatedness"]

# Characters of the longest passage: some three sentences, or a paragraph in Chinese.
_LONGEST, _LEAST_LONGEST = 300, 12
_SHORTEST = 20  # "No.", "Dr." and the like stay with what follows them
# Every part is bounded or cannot fail after it began, so that no text takes quadratic time.
_SENTENCE_END = re.compile(
    r"""[.!?…؟۔።։]["'”’»)\]]{0,3}\s+"""  # followed by a space, unlike the point in 3.5
    r"""|[。！？｡।॥။]{1,8}["”’」』）]{0,3}\s*"""  # scripts that put no space after it
    r"""|\n\s*"""
)
_PAUSES = " \t,;:，、；：،؛"
_PUNCTUATION = re.compile(r"""[\s!-/:-@\[-`{-~¡¿«»“”„‘’…–—。，、！？：；「」『』（）｡؟،؛۔।॥]+""")
# Pairs of characters are words in Chinese; groups of four tell words apart in alphabets, and with
# the spaces around it a word of two letters is one.
_GROUP_SIZES = (2, 4)
# Passages less related than this share of the most related one count as not related: a few groups
# of letters are shared by any two sentences of a language.
_RELATED_SHARE = 0.25


def passage_spans(text: str, longest: int = _LONGEST) -> list[tuple[int, int]]:
    """Beginning and end of each passage of ``text``, in order.

    They cover the text without gaps; white space after a passage is part of it. Takes time in
    proportion to the text.

    Args:
        text: in any script.
        longest: most characters of a passage; less than 12 is taken for 12, more than 300 for 300.
            A longer sentence is cut after a pause or a space in its second half, or else where it
            gets too long.
    """
    longest = min(_LONGEST, max(_LEAST_LONGEST, longest))
    shortest = min(_SHORTEST, longest // 2)
    spans: list[tuple[int, int]] = []
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        if end - start >= shortest or (end == len(text) and end > start):
            spans += _bounded(text, start, end, longest)
            start = end
    return spans


def _bounded(text: str, start: int, end: int, longest: int) -> list[tuple[int, int]]:
    spans = []
    while end - start > longest:
        middle, most = start + longest // 2, start + longest
        cut = max(text.rfind(pause, middle, most) for pause in _PAUSES) + 1
        cut = cut if cut > start else _before_marks(text, middle, most)
        spans.append((start, cut))
        start = cut
    return [*spans, (start, end)]


def _before_marks(text: str, least: int, cut: int) -> int:
    """``cut``, or a little before it, so that vowel signs and accents stay with their letter."""
    for place in range(cut, max(least, cut - 8), -1):
        if not unicodedata.category(text[place]).startswith("M"):
            return place
    return cut


def relatedness(passages: Sequence[str], narrative: str) -> list[float]:
    """How related each passage is to the narrative: 0 or more, 0 for not at all.

    Both are compared as sets of groups of characters, without regard to case and width (NFKC). A
    group counts by how few of the passages have it (inverse document frequency), so that what is
    everywhere in the document, common words among it, counts for little. A passage's sum is
    divided by the square root of its number of groups: long passages share more by chance.

    Args:
        passages: all passages of one document.
        narrative: any text.

    Returns:
        A number for each passage; the same numbers in every process.
    """
    group_sizes: tuple[int, ...] = _GROUP_SIZES
    wanted = _groups(narrative, group_sizes)
    if all(" " in group for group in wanted):
        # A single letter, which in Chinese is a word: running text has no spaces around it.
        group_sizes = (1,)
        wanted = _groups(narrative, group_sizes) - {" "}
    shared, sizes = [], []
    for passage in passages:
        groups = _groups(passage, group_sizes)
        shared.append(wanted & groups)
        sizes.append(max(1, len(groups)))
    counts = Counter(group for groups in shared for group in groups)
    weights = {group: math.log(len(passages) / count) for group, count in counts.items()}
    # fsum: the order of a set differs between processes, and the sum must not.
    return [
        math.fsum(weights[group] for group in groups) / math.sqrt(size)
        for groups, size in zip(shared, sizes, strict=True)
    ]


def _groups(text: str, sizes: Sequence[int]) -> set[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = " ".join(_PUNCTUATION.sub(" ", folded).split())
    framed = f" {words} " if words else ""
    return {
        framed[start : start + size] for size in sizes for start in range(len(framed) - size + 1)
    }


def choose_passages(
    scores: Sequence[float], costs: Sequence[int], gap_cost: int, room: int
) -> list[int]:
    """Places of the passages that are kept, the ones to give up first last.

    The most related first, then those from the beginning of the document on, as long as they fit.

    Args:
        scores: relatedness of each passage.
        costs: its tokens.
        gap_cost: tokens of a marker; one stands in each gap.
        room: tokens that there are, beside one marker.

    Returns:
        None of them where nothing is related or no related passage fits.
    """
    if max(scores, default=0.0) <= 0:
        return []
    least = max(scores) * _RELATED_SHARE
    related = sorted(
        (place for place, score in enumerate(scores) if score >= least),
        key=lambda place: (-scores[place], place),
    )
    chosen: dict[int, None] = {}
    left = _take(related, chosen, costs, gap_cost, room)
    if not chosen:
        return []
    is_related = set(related)
    others = (place for place in range(len(scores)) if place not in is_related)
    _take(others, chosen, costs, gap_cost, left)
    return list(chosen)


def _take(
    places: Iterable[int], chosen: dict[int, None], costs: Sequence[int], gap_cost: int, left: int
) -> int:
    """Add the ``places`` that fit to ``chosen``; returns what is left of the room."""
    last = len(costs) - 1
    for place in places:
        joins_before = place == 0 or place - 1 in chosen
        joins_after = place == last or place + 1 in chosen
        # In the middle of a gap it makes two of it, at an end it makes it shorter.
        cost = costs[place] + (1 - joins_before - joins_after) * gap_cost
        if cost <= left:
            chosen[place] = None
            left -= cost
    return left


def join_passages(
    document: str, spans: Sequence[tuple[int, int]], chosen: Iterable[int], marker: str
) -> str:
    """The chosen passages in the order of the document, the marker where something is left out."""
    parts: list[str] = []
    end = 0
    run_start = 0
    for place in sorted(chosen):
        start = spans[place][0]
        if start != end:
            parts.append(document[run_start:end].strip())
            run_start = start
        end = spans[place][1]
    parts.append(document[run_start:end].strip())
    if end < len(document):
        parts.append("")
    return marker.join(parts)
