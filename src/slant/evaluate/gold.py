"""The test split as arrays: what every system is measured on.

Shape letters: N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slant.corpus import LabelledDocument
from slant.labels import LabelSet
from slant.records import OVERALL
from slant.task.languages import UNKNOWN_LANGUAGE

__all__ = ["Gold", "Slices", "document_key", "gold_of", "numbered"]

Ints = NDArray[np.int64]

UNKNOWN_SOURCE, UNKNOWN_MONTH = "other", "unknown"
_LENGTHS = (140, 500, 2000)
_LENGTH_NAMES = ("under 140", "140 to 499", "500 to 1,999", "2,000 and more")


@final
@dataclass(frozen=True)
class Slices:
    """The values of one attribute, sorted, and which of them each example has: ``(N,)``."""

    values: tuple[str, ...]
    code_N: Ints  # noqa: N815

    @classmethod
    def of(cls, value_N: Sequence[str]) -> Slices:
        """From the value of each example."""
        values = sorted(set(value_N))
        place = {value: code for code, value in enumerate(values)}
        return cls(tuple(values), np.array([place[value] for value in value_N], dtype=np.int64))

    def largest(self, most: int) -> list[tuple[str, Ints]]:
        """The values with the most examples, by name, each with the rows that have it."""
        counts = np.bincount(self.code_N, minlength=len(self.values))
        order = np.argsort(self.code_N, kind="stable")
        ends = np.cumsum(counts)
        chosen = sorted(np.argsort(-counts, kind="stable")[:most].tolist())
        return [(self.values[c], order[ends[c] - counts[c] : ends[c]]) for c in chosen]


@final
@dataclass(frozen=True)
class Gold:
    """What is known of N test examples.

    Attributes:
        labels: the task's labels.
        gold_N: their indices.
        document_N: which document each example is about, any integers.
        slices: by attribute (``lang``, ``source``, ``narrative``, …).
        show: what a person should see of the example at a row: ``document_id``, ``text``, ``lang``,
            ``source``, ``narrative``.
    """

    labels: LabelSet
    gold_N: Ints  # noqa: N815
    document_N: Ints  # noqa: N815
    slices: Mapping[str, Slices]
    show: Callable[[int], dict[str, Any]]

    @property
    def num_documents(self) -> int:
        """Documents that the examples are about."""
        return len(np.unique(self.document_N))

    def __len__(self) -> int:
        return len(self.gold_N)


def document_key(item: LabelledDocument) -> str:
    """Equal for examples that are about the same text, or about near-duplicates."""
    return item.document.cluster or item.document.digest or item.document.id


def numbered(keys: Iterable[str]) -> Ints:
    """A number for each key, equal for equal keys, in the order in which they come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def gold_of(
    items: Sequence[LabelledDocument], labels: LabelSet, trained_narratives: frozenset[str]
) -> Gold:
    """The arrays of a test split; ``trained_narratives``: ids of those in the training split."""

    def seen(item: LabelledDocument) -> str:
        if item.narrative is None:
            return OVERALL
        return "seen" if item.narrative.id in trained_narratives else "unseen"

    attributes: dict[str, Callable[[LabelledDocument], str]] = {
        "lang": lambda item: item.document.lang or UNKNOWN_LANGUAGE,
        "source": lambda item: item.document.source or UNKNOWN_SOURCE,
        "narrative": lambda item: item.narrative.text if item.narrative else OVERALL,
        "month": _month,
        "length": lambda item: _LENGTH_NAMES[
            sum(len(item.document.text) >= bound for bound in _LENGTHS)
        ],
        "narrative_seen": seen,
    }

    def show(row: int) -> dict[str, Any]:
        item = items[row]
        return {
            "document_id": item.document.id,
            "text": item.document.text,
            "lang": item.document.lang,
            "source": item.document.source,
            "narrative": item.narrative.text if item.narrative else None,
        }

    return Gold(
        labels=labels,
        gold_N=np.array([labels.index(item.example.label) for item in items], dtype=np.int64),
        document_N=numbered(document_key(item) for item in items),
        slices={name: Slices.of([of(item) for item in items]) for name, of in attributes.items()},
        show=show,
    )


def _month(item: LabelledDocument) -> str:
    published = item.document.published_at
    return UNKNOWN_MONTH if published is None else f"{published:%Y-%m}"
