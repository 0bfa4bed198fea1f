"""The files of the repository, without those that .gitignore names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files() -> Iterator[Path]:
    patterns = [line.strip() for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()]
    patterns = [".git", *(pattern for pattern in patterns if pattern)]
    for folder, subfolders, names in os.walk(ROOT):
        here = Path(folder)
        subfolders[:] = sorted(s for s in subfolders if not _is_ignored(here / s, patterns))
        yield from (here / n for n in sorted(names) if not _is_ignored(here / n, patterns))


def pages() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def _is_ignored(path: Path, patterns: list[str]) -> bool:
    relative = "/" + path.relative_to(ROOT).as_posix()
    return any(
        fnmatch(relative, pattern.rstrip("/"))
        if pattern.startswith("/")
        else fnmatch(path.name, pattern.rstrip("/"))
        for pattern in patterns
    )


def section(page: str, heading: str) -> str:
    """What stands below the line ``heading`` of a page, up to the next heading."""
    _, found, rest = f"\n{page}".partition(f"\n{heading}\n")
    assert found, f"there is no heading {heading!r}"
    return rest.partition("\n#")[0]
