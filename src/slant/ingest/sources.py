"""The files of the sources, and names for them that say nothing about this machine."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slant.config.load import expand_path, source_files
from slant.config.settings import DocumentSource

__all__ = ["Source", "SourceFile", "find_sources"]


@dataclass(frozen=True)
class SourceFile:
    """A file, and how it is named in results: by the pattern in slant.yaml, never by an absolute
    path, so that the same data gives the same artifact on any machine."""

    path: Path
    name: str


@dataclass(frozen=True)
class Source:
    """One entry of ``ingest.documents`` or ``ingest.examples``.

    ``where`` names it in messages and tells it from every other; ``dataset`` names it in results.
    """

    where: str
    dataset: str
    settings: DocumentSource
    files: tuple[SourceFile, ...]


def find_sources(
    section: str, settings: Sequence[DocumentSource], start: Path, names: dict[str, Path]
) -> list[Source]:
    """Find the files of each entry of ``ingest.<section>``.

    Args:
        section: ``documents`` or ``examples``.
        settings: The entries.
        start: The folder that relative paths start from.
        names: The names given so far and their files; new ones are added.

    Raises:
        UsageError: A pattern matches no file, or names a variable that is not set.
    """
    sources = []
    for index, entry in enumerate(settings):
        files = tuple(
            SourceFile(path, _unique(_name(path, entry.path, start), path, names))
            for path in source_files(entry.path, start)
        )
        where = f"ingest.{section}[{index}] ({entry.path})"
        sources.append(Source(where, _dataset(entry.path, files), entry, files))
    return sources


def _name(path: Path, pattern: str, start: Path) -> str:
    """The pattern's own words as far as it has no wildcard, then the rest of the path."""
    if PurePosixPath(pattern).is_absolute():
        return path.relative_to(start).as_posix() if path.is_relative_to(start) else path.name
    if path == expand_path(pattern, start):
        return pattern
    fixed = _fixed_folder(pattern)
    rest = path.relative_to(expand_path(fixed.as_posix(), start))
    return (fixed / rest.as_posix()).as_posix()


def _fixed_folder(pattern: str) -> PurePosixPath:
    """The leading folders of a pattern that hold no wildcard."""
    parts = []
    for part in PurePosixPath(pattern).parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return PurePosixPath(*parts)


def _unique(name: str, path: Path, names: dict[str, Path]) -> str:
    """``name``, or with a number if another file has it: of absolute paths only the end is kept."""
    stem, number = name, 1
    while names.setdefault(name, path) != path:
        number += 1
        name = f"{stem}#{number}"
    return name


def _dataset(pattern: str, files: Sequence[SourceFile]) -> str:
    """The file's name without its extension; for a pattern, the folder that it looks in."""
    if len(files) == 1 and not glob.has_magic(pattern):
        return PurePosixPath(pattern).stem
    folder = _fixed_folder(pattern).name.strip("${}")  # of a variable, its name
    return folder or PurePosixPath(pattern).stem
