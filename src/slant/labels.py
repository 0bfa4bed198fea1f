"""Labels and their order, which fixes column order everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

from slant.errors import TaskError, did_you_mean

__all__ = ["LabelSet"]


@final
class LabelSet:
    """The ordered classes of a task, e.g. ``negative, neutral, positive``.

    The position of a label is its index in every probability vector, confusion matrix and
    classifier head that slant writes.

    Raises:
        TaskError: fewer than two labels, an empty one, or one given twice.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names: tuple[str, ...] = tuple(names)
        if len(self.names) < 2:
            raise TaskError(f"a task needs at least two labels, got {list(self.names)}")
        if len(set(self.names)) != len(self.names) or not all(self.names):
            raise TaskError(f"labels must be different and not empty, got {list(self.names)}")
        self._index = {name: i for i, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Position of ``name``; raises TaskError naming the closest label when there is none."""
        try:
            return self._index[name]
        except KeyError:
            raise TaskError(
                f"unknown label {name!r}{did_you_mean(name, self.names)}",
                hint=f"The labels are {', '.join(self.names)}.",
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSet) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"LabelSet({list(self.names)!r})"
