"""Whether anything that is learned from stands in what is measured, found from the texts alone.

Nothing that made the splits is relied on: no cluster, no stored digest, no MinHash. Pairs of texts
are found by prefix filtering (Chaudhuri, Ganti & Kaushik 2006, "A primitive operator for similarity
joins in data cleaning"): a text with a share t of the shingles of A has at least one of any
(1 - t)·|A| + 1 of them. Of the rarest, few texts have one; those are compared in full. So no pair
is missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, groupby
from typing import final

import numpy as np
from numpy.typing import NDArray

from slant.config.ingest_settings import IngestSettings, SplitShares
from slant.corpus import Corpus, LabelledDocument
from slant.ingest.near import shingle_hashes
from slant.ingest.split import heldout_narratives
from slant.progress import Progress
from slant.records import SPLITS
from slant.task.normalise import text_digest

__all__ = ["CONTAINED", "KINDS", "Leak", "describe", "find_leaks"]

KINDS = (
    "same document",
    "equal text",
    "near-duplicate",
    "contained text",
    "held-out narrative",
    "held-out data set",
    "later than test",
)
_SAME, _EQUAL, _NEAR, CONTAINED, _NARRATIVE, _DATASET, _LATER = KINDS
_ADAPTATION = "adaptation"
_CONTAINED_SHARE = 0.9
_CONTAINED_SHINGLES = 20  # fewer are a phrase that anyone may use
_LISTED = 20

Shingles = NDArray[np.uint64]


@dataclass(frozen=True)
class Leak:
    """Something on two sides.

    Attributes:
        kind: one of KINDS.
        splits: the two sides: of SPLITS, or ``adaptation`` for what domain adaptation reads.
        places: row and file on either side; of what adaptation reads, in ``documents.parquet``.
        similarity: of near-duplicates the Jaccard similarity, of contained text the share of the
            shorter one's shingles that the longer one has; None for other kinds.
    """

    kind: str
    splits: tuple[str, str]
    places: tuple[str, str]
    similarity: float | None = None


def find_leaks(
    corpus: Corpus, settings: IngestSettings, progress: Progress, *, seed: int
) -> list[Leak]:
    """Everything in the corpus that stands on two sides and should not.

    Looked for are, in two splits: a document, a text (equal by ``text_digest``), two texts that are
    nearly the same (by ``settings.duplicates``), a text of 20 shingles or more of which 90 % stand
    in another one. In a held-out split and in what domain adaptation reads: a text, two texts that
    are nearly the same. Outside the test split: a held-out narrative or data set. And in
    a split by time: training documents that are later than the test split's earliest cluster.

    Texts that are equal are one text in the list, named by the first place in each split.

    Args:
        corpus: what ingestion wrote.
        settings: what it was made with.
        progress: told of each document.
        seed: of the project; it decides which narratives are held out. Where ``sizes`` left out
            every example of one of those, the choice cannot be told, and another may be named.

    Returns:
        The leaks in the order of KINDS; empty if there is none.

    Raises:
        ArtifactError: a file of the corpus is missing or damaged.
    """
    items = [item for split in SPLITS for item in corpus.split(split)]
    texts = _distinct_texts(items)
    leaks = [
        *_same_documents(items),
        *_equal_texts(texts.values()),
        *_similar_texts(texts, corpus, settings, progress),
        *_held_out(items, settings.split, seed),
    ]
    if settings.split.by == "time":
        leaks += _later_than_test(items, _Heldout.of(items, settings.split, seed))
    return sorted(leaks, key=lambda leak: KINDS.index(leak.kind))


def _place(item: LabelledDocument) -> str:
    return f"row {item.example.row} of {item.example.file}"


def _same_documents(items: Iterable[LabelledDocument]) -> Iterator[Leak]:
    places: dict[str, dict[str, str]] = {}
    for item in items:
        places.setdefault(item.document.id, {}).setdefault(item.example.split, _place(item))
    for of_document in places.values():
        yield from _across(_SAME, of_document)


def _across(kind: str, places: Mapping[str, str]) -> Iterator[Leak]:
    for (split, place), (other, other_place) in combinations(places.items(), 2):
        yield Leak(kind, (split, other), (place, other_place))


@final
@dataclass
class _Text:
    """A text of labelled documents: by split its first place and that document's id."""

    text: str
    places: dict[str, str]
    ids: dict[str, str]


def _distinct_texts(items: Iterable[LabelledDocument]) -> dict[str, _Text]:
    texts: dict[str, _Text] = {}
    for item in items:
        found = texts.setdefault(text_digest(item.document.text), _Text(item.document.text, {}, {}))
        found.places.setdefault(item.example.split, _place(item))
        found.ids.setdefault(item.example.split, item.document.id)
    return texts


def _equal_texts(texts: Iterable[_Text]) -> Iterator[Leak]:
    for text in texts:
        for leak in _across(_EQUAL, text.places):
            first, second = leak.splits
            if text.ids[first] != text.ids[second]:  # else it is told of as one document
                yield leak


# --- similar texts ------------------------------------------------------------------------------


def _similar_texts(
    texts: Mapping[str, _Text], corpus: Corpus, settings: IngestSettings, progress: Progress
) -> Iterator[Leak]:
    least = settings.duplicates.jaccard
    length = settings.duplicates.shingle_characters
    labelled = list(texts.values())
    of_languages = [found.rows for found in corpus.adaptation_rows().values()]
    rows = np.sort(np.concatenate([np.zeros(0, np.int64), *of_languages]))
    with progress.task("compare texts", 2 * len(labelled) + len(rows), "documents") as task:
        index = _Index(
            [shingle_hashes(text.text, length) for text in labelled], min(least, _CONTAINED_SHARE)
        )
        task.advance(len(labelled))
        for number, text in enumerate(labelled):
            yield from _similar_labelled(number, text, labelled, index, least)
            task.advance()
        for row, read in zip(rows.tolist(), corpus.texts(rows), strict=True):
            task.advance()
            place = f"row {row + 1} of documents.parquet"
            equal = texts.get(text_digest(read))
            if equal is not None:
                if "train" not in equal.places:  # else it is told of above, or no leak
                    yield from _read_by_adaptation(_EQUAL, place, equal)
                continue
            for other, jaccard, _ in index.sharing(shingle_hashes(read, length), least):
                if jaccard >= least:
                    yield from _read_by_adaptation(_NEAR, place, labelled[other], jaccard)


def _read_by_adaptation(
    kind: str, place: str, text: _Text, similarity: float | None = None
) -> Iterator[Leak]:
    """A leak if the text stands in a held-out split too."""
    for split, other in text.places.items():
        if split != "train":
            yield Leak(kind, (_ADAPTATION, split), (place, other), similarity)
            return


def _similar_labelled(
    number: int, text: _Text, labelled: Sequence[_Text], index: _Index, least: float
) -> Iterator[Leak]:
    """The leaks between a text and those that are shorter, or as long and before it."""
    own = index.shingles[number]
    for other, jaccard, contained in index.sharing(own, least, contained=True):
        size = len(index.shingles[other])
        if (size, other) >= (len(own), number):
            continue
        sides = _two_sides(labelled[other].places, text.places)
        if sides is None:
            continue
        places = labelled[other].places[sides[0]], text.places[sides[1]]
        if jaccard >= least:
            yield Leak(_NEAR, sides, places, jaccard)
        elif contained >= _CONTAINED_SHARE and size >= _CONTAINED_SHINGLES:
            yield Leak(CONTAINED, sides, places, contained)


def _two_sides(some: Mapping[str, str], others: Mapping[str, str]) -> tuple[str, str] | None:
    return next(((one, other) for one in some for other in others if one != other), None)


@final
class _Index:
    """Finds the texts that share at least a given part of their shingles with another text."""

    def __init__(self, shingles: Sequence[Shingles], least: float) -> None:
        self.shingles = shingles
        everything = np.concatenate([*shingles, np.zeros(0, np.uint64)])
        known, counts = np.unique(everything, return_counts=True)
        prefixes = []
        for own in shingles:
            needed = math.ceil(least * len(own) - 1e-9)
            rarest_first = np.argsort(counts[np.searchsorted(known, own)], kind="stable")
            prefixes.append(own[rarest_first[: len(own) - needed + 1]])
        keys = np.concatenate([*prefixes, np.zeros(0, np.uint64)])
        owners = np.repeat(np.arange(len(prefixes)), [len(prefix) for prefix in prefixes])
        order = np.argsort(keys, kind="stable")
        self._keys, self._owners = keys[order], owners[order]

    def sharing(
        self, own: Shingles, least: float, *, contained: bool = False
    ) -> Iterator[tuple[int, float, float]]:
        """Texts that may be similar: number, Jaccard similarity, share of the shorter one's
        shingles that both have. With ``contained`` texts of any length, else only such as can reach
        a similarity of ``least``."""
        first = np.searchsorted(self._keys, own, side="left")
        last = np.searchsorted(self._keys, own, side="right")
        hit = np.flatnonzero(last > first)
        found = {int(o) for i in hit for o in self._owners[first[i] : last[i]]}
        for other in sorted(found):
            sizes = sorted((len(own), len(self.shingles[other])))
            if sizes[0] < least * sizes[1] and not (contained and sizes[0] >= _CONTAINED_SHINGLES):
                continue
            shared = len(np.intersect1d(own, self.shingles[other], assume_unique=True))
            yield other, shared / (sum(sizes) - shared), shared / sizes[0]


# --- what stands in the test split only ---------------------------------------------------------


@final
@dataclass(frozen=True)
class _Heldout:
    """What is held out, by settings."""

    narratives: frozenset[str]
    datasets: frozenset[str]

    @classmethod
    def of(cls, items: Iterable[LabelledDocument], shares: SplitShares, seed: int) -> _Heldout:
        texts = [item.narrative.text for item in items if item.narrative is not None]
        narratives = heldout_narratives(texts, shares.heldout_narratives, seed)
        return cls(narratives, frozenset(shares.heldout_datasets))

    def narrative(self, item: LabelledDocument) -> str | None:
        """The digest of the item's narrative if it is held out."""
        if item.narrative is None or not self.narratives:
            return None
        digest = text_digest(item.narrative.text)
        return digest if digest in self.narratives else None

    def dataset(self, item: LabelledDocument) -> str | None:
        """The item's data set if it is held out."""
        return item.example.dataset if item.example.dataset in self.datasets else None

    def __contains__(self, item: LabelledDocument) -> bool:
        return self.narrative(item) is not None or self.dataset(item) is not None


def _held_out(items: Sequence[LabelledDocument], shares: SplitShares, seed: int) -> Iterator[Leak]:
    held_out = _Heldout.of(items, shares, seed)
    yield from _outside_test(_NARRATIVE, items, held_out.narrative)
    yield from _outside_test(_DATASET, items, held_out.dataset)


def _outside_test(
    kind: str,
    items: Iterable[LabelledDocument],
    held_out: Callable[[LabelledDocument], str | None],
) -> Iterator[Leak]:
    """A leak for each split but test that something held out stands in."""
    places: dict[str, dict[str, str]] = {}
    for item in items:
        key = held_out(item)
        if key is not None:
            places.setdefault(key, {}).setdefault(item.example.split, _place(item))
    for of_key in places.values():
        tested = of_key.get("test", "nowhere")
        for split, place in of_key.items():
            if split != "test":
                yield Leak(kind, (split, "test"), (place, tested))


def _later_than_test(items: Sequence[LabelledDocument], held_out: _Heldout) -> Iterator[Leak]:
    """Training documents later than the earliest cluster of the test split.

    A cluster counts by its latest text, and held-out ones, which are tested on at any time, do not.
    """
    latest: dict[str, tuple[datetime, str]] = {}
    passed_over: set[str] = set()
    for item in items:
        time = item.document.published_at
        if item.example.split != "test":
            continue
        cluster = item.document.cluster or text_digest(item.document.text)
        if item in held_out:
            passed_over.add(cluster)
        if time is not None:
            latest[cluster] = max(latest.get(cluster, (time, "")), (time, _place(item)))
    earliest = min((when for key, when in latest.items() if key not in passed_over), default=None)
    if earliest is None:
        return
    for item in items:
        time = item.document.published_at
        if item.example.split == "train" and time is not None and time > earliest[0]:
            yield Leak(_LATER, ("train", "test"), (_place(item), earliest[1]))


# --- telling ------------------------------------------------------------------------------------


def describe(leaks: Sequence[Leak]) -> str:
    """The leaks as a table, 20 of each kind at most, with totals. Holds no text of documents."""
    if not leaks:
        return "no leaks found"
    lines = [f"{len(leaks)} leak{'s' if len(leaks) > 1 else ''} found"]
    ordered = sorted(leaks, key=lambda leak: KINDS.index(leak.kind))
    for kind, group in groupby(ordered, key=lambda leak: leak.kind):
        of_kind = list(group)
        lines += ["", f"{kind}: {len(of_kind)}"]
        shown = [
            [f"{split}: {place}" for split, place in zip(leak.splits, leak.places, strict=True)]
            + ([] if leak.similarity is None else [f"{leak.similarity:.2f}"])
            for leak in of_kind[:_LISTED]
        ]
        width = max(len(first) for first, *_ in shown)
        second_width = max(len(second) for _, second, *_ in shown)
        for first, second, *similarity in shown:
            row = f"  {first:{width}}  {second:{second_width}}  {''.join(similarity)}"
            lines.append(row.rstrip())
        if len(of_kind) > _LISTED:
            lines.append(f"  … and {len(of_kind) - _LISTED} more")
    return "\n".join(lines)
