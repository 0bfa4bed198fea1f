"""What became of every row."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, final

from slant.ingest.parts import FileParts

__all__ = ["Fate", "FileCount", "Ledger", "Place"]

Place = tuple[int, int, int]
"""Where a row stands: the file, the part of the file, and the row of the part, from 0."""


@dataclass
class FileCount:
    """A file's rows: ``rows`` = ``kept`` + ``rejected`` + ``duplicates`` + ``unused``."""

    file: str
    dataset: str
    kind: str
    rows: int = 0
    kept: int = 0
    rejected: int = 0
    duplicates: int = 0
    unused: int = 0


@dataclass(frozen=True, slots=True)
class Fate:
    """Why a row that can be read is not kept. ``kind`` has no detail of the row."""

    reason: str
    kind: str
    duplicate: str | None = None
    """``exact`` or ``near``, where another row says the same."""


@final
@dataclass
class Ledger:
    """Counts, and the fate of each row that could be read and was set aside all the same.

    Rows that could not be read have their reason in their part.
    """

    files: list[FileCount] = field(default_factory=list)
    fates: dict[Place, Fate] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, files: list[FileParts]) -> Ledger:
        """An empty ledger for these files."""
        return cls([FileCount(f.file.name, f.source.dataset, f.kind) for f in files])

    def unreadable(self, file: int, kind: str) -> None:
        """Count a row that its part refused."""
        self.files[file].rejected += 1
        self.reasons[kind] += 1

    def reject(self, place: Place, fate: Fate) -> None:
        """Set aside a row that could be read."""
        self.fates[place] = fate
        count = self.files[place[0]]
        self.reasons[fate.kind] += 1
        if fate.duplicate:
            count.duplicates += 1
            self.duplicates[fate.duplicate] += 1
        else:
            count.rejected += 1

    def keep(self, place: Place) -> None:
        """Count a row that is part of the result."""
        self.files[place[0]].kept += 1

    def leave(self, place: Place) -> None:
        """Count a row that is good but not asked for (``limit``, ``sizes``)."""
        self.files[place[0]].unused += 1

    def by_part(self) -> dict[tuple[int, int], dict[int, Fate]]:
        """The fates by file and part, then by row of the part."""
        grouped: dict[tuple[int, int], dict[int, Fate]] = {}
        for (file, part, row), fate in self.fates.items():
            grouped.setdefault((file, part), {})[row] = fate
        return grouped

    def files_as_json(self) -> list[dict[str, Any]]:
        """The files' counts, in the order they were read."""
        return [asdict(count) for count in self.files]
