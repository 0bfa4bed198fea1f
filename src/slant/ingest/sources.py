"""The files of the sources, and names for them that say nothing about this machine."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from slant.config.ingest_settings import DocumentSource
from slant.config.load import expand_variables
from slant.errors import InputError, UsageError, did_you_mean
from slant.storage import (
    PATIENCE_S,
    check_url,
    is_url,
    join_url,
    list_urls,
    neighbours,
    read_url,
    url_version,
)
from slant.tables.opening import split_compression
from slant.tables.reader import file_format

__all__ = ["Source", "SourceFile", "find_sources", "source_files"]

_INFO, _STATE, _SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
_NO_ROWS = {_INFO, _STATE, _SPLITS, "dataset_infos.json"}
_ENDINGS_OF = {"label-studio": {"json", "jsonl"}, "doccano": {"json", "jsonl"}}


@dataclass(frozen=True)
class SourceFile:
    """A file at a path or URL, and how it is named in results: by the pattern in slant.yaml, never
    by an absolute path, so that the same data gives the same artifact on any machine."""

    location: str
    name: str

    def fingerprint(self, *, patience_s: float = PATIENCE_S) -> str:
        """A text that changes when the file's content does.

        Of a local file the sha256 of its content; of a URL what its storage tells (``url_version``)
        without reading it.

        Raises:
            UsageError, InputError: The file cannot be read, or its storage does not answer.
        """
        if is_url(self.location):
            return url_version(self.location, patience_s=patience_s)
        try:
            with Path(self.location).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror}") from error


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
    section: str,
    settings: Sequence[DocumentSource],
    start: Path,
    names: dict[str, str],
    *,
    patience_s: float = PATIENCE_S,
) -> list[Source]:
    """Find the files of each entry of ``ingest.<section>``.

    Args:
        section: ``documents`` or ``examples``.
        settings: The entries.
        start: The folder that relative paths start from.
        names: The names given so far and their locations; new ones are added.
        patience_s: How long the storage of a URL may stay away, in seconds.

    Raises:
        UsageError: An entry has no files, names a variable that is not set, or holds credentials.
        InputError: A URL's storage does not answer, or refuses.
    """
    sources = []
    for index, entry in enumerate(settings):
        locations = source_files(entry.path, start, format=entry.format, patience_s=patience_s)
        files = tuple(
            SourceFile(location, _unique(_name(location, entry.path, start), location, names))
            for location in locations
        )
        where = f"ingest.{section}[{index}] ({entry.path})"
        sources.append(Source(where, _dataset(entry.path, files), entry, files))
    return sources


def source_files(
    path: str,
    start: Path,
    *,
    format: str = "auto",  # noqa: A002 - as in slant.yaml
    patience_s: float = PATIENCE_S,
) -> list[str]:
    """Paths and URLs of the files that a source's ``path`` stands for, sorted.

    Args:
        path: File, folder, glob (``*``, ``?``, ``[…]``, ``**``) or URL of one, with ``${NAME}`` for
            environment variables. A file whose own name looks like a glob is found too. Of a
            folder: the files in it and below whose ending tells a known format. Hidden files are
            found only by their own names.
        start: Folder that a relative path starts from.
        format: The source's format; a folder's files of other formats are left out.
        patience_s: How long the storage of a URL may stay away, in seconds.

    Raises:
        UsageError: A variable is not set, no file matches, or a URL holds credentials.
        InputError: The storage does not answer, or refuses.
    """
    expanded = expand_variables(path).removeprefix("file://")
    if is_url(expanded):
        return _remote_files(path, expanded, format, patience_s)
    wanted = start / expanded
    if wanted.is_file():
        return [str(wanted)]
    if wanted.is_dir():
        found = [location.relative_to(wanted).as_posix() for location in _walk(wanted)]
        chosen = _of_folder(found, format, lambda name: _read(wanted / name))
        if not chosen:
            raise _none_in_folder(path, format, str(wanted))
        return [str(wanted / name) for name in chosen]
    # Path.glob would take hidden files and refuse absolute patterns. With root_dir, a folder whose
    # own name holds "[" is not taken for a pattern.
    names = glob.glob(expanded, root_dir=start, recursive=True)  # noqa: PTH207
    matches = sorted({start / name for name in names})
    files = [str(match) for match in matches if match.is_file()]
    if files:
        return files
    raise UsageError(f"{path}: {_nothing_found(expanded, start)}", hint=f"Looked for {wanted}")


def _walk(folder: Path) -> list[Path]:
    """The files in a folder and below; links to folders are not followed."""

    def refuse(error: OSError) -> None:  # os.walk would leave the folder out
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error

    walked = os.walk(folder, onerror=refuse)
    return sorted(Path(parent) / name for parent, _, names in walked for name in names)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _remote_files(path: str, url: str, format_: str, patience_s: float) -> list[str]:
    check_url(url)  # before the message of any other mistake could repeat it
    found = list_urls(url, patience_s=patience_s)
    folder = url.rstrip("/")
    if found in ([url], [folder]):
        return found
    if not found:
        last = folder.rpartition("/")[2]
        raise UsageError(
            f"{path}: no file there{did_you_mean(last, neighbours(folder))}",
            hint="Give a file, a folder or a glob, e.g. s3://bucket/folder/*.jsonl",
        )
    if glob.has_magic(url):
        fixed = len(_fixed(url)) + 1
        return [each for each in found if not _is_hidden(each[fixed:])]
    chosen = _of_folder(
        [each[len(folder) + 1 :] for each in found],
        format_,
        lambda name: read_url(join_url(folder, name), patience_s=patience_s),
    )
    if not chosen:
        raise _none_in_folder(path, format_, url)
    return [join_url(folder, name) for name in chosen]


# --- folders -------------------------------------------------------------------------------------


def _of_folder(found: list[str], format_: str, read: Callable[[str], bytes]) -> list[str]:
    """Which of a folder's files to read: names relative to it, sorted.

    Args:
        found: The names of all files in it and below.
        format_: The source's format.
        read: The content of one of them.
    """
    visible = [name for name in found if not _is_hidden(name)]
    if format_ in ("auto", "datasets") and {_INFO, _STATE, _SPLITS} & set(visible):
        arrow = _of_dataset(visible, read)
        if arrow:
            return sorted(arrow)
    wanted = _ENDINGS_OF.get(format_, {format_})
    return sorted(
        name
        for name in visible
        if (kind := file_format(name)) is not None
        and (kind in wanted or format_ == "auto")
        and PurePosixPath(name).name not in _NO_ROWS
        and not _is_cache(name)
    )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _is_cache(name: str) -> bool:
    """Whether ``datasets`` left the file beside its own when it computed something."""
    return PurePosixPath(name).match("cache-*.arrow")


def _of_dataset(found: list[str], read: Callable[[str], bytes]) -> list[str]:
    """The Arrow files of a folder that Hugging Face ``save_to_disk`` wrote.

    ``dataset_dict.json`` names its splits, each a folder; ``state.json`` the files of one split.
    """
    names = set(found)
    folders = [""]
    if _SPLITS in names:
        folders = [f"{split}/" for split in _texts(_parsed(read(_SPLITS)), "splits")]
    files: list[str] = []
    for folder in folders:
        state = _parsed(read(folder + _STATE)) if folder + _STATE in names else {}
        entries = state.get("_data_files")
        listed = [
            f"{folder}{entry.get('filename')}"
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
        ]
        if missing := [name for name in listed if name not in names]:
            raise InputError(
                f"{missing[0]}: is missing, but {folder}{_STATE} names it",
                hint="Copy the whole folder that save_to_disk wrote.",
            )
        files += listed or [
            name
            for name in found
            if name.startswith(folder) and name.endswith(".arrow") and not _is_cache(name)
        ]
    return files


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _texts(value: dict[str, Any], key: str) -> list[str]:
    found = value.get(key)
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


# --- nothing found -------------------------------------------------------------------------------


def _none_in_folder(path: str, format_: str, where: str) -> UsageError:
    what = "in a known format" if format_ == "auto" else f"of format '{format_}'"
    return UsageError(
        f"{path}: the folder has no file {what}",
        hint=f"Looked in {where}. Name the files, e.g. {path.rstrip('/')}/*.jsonl",
    )


def _nothing_found(pattern: str, start: Path) -> str:
    """What is wrong with ``pattern``, and what is there instead."""
    wanted = start / pattern
    if wanted.parent.is_dir() or glob.has_magic(str(Path(pattern).parent)):
        what = "no file matches" if glob.has_magic(pattern) else "there is no such file"
        if not wanted.parent.is_dir():
            return what
        return what + did_you_mean(wanted.name, _names_in(wanted.parent))
    # The deepest folder that exists tells which part of the path is wrong.
    existing = next(parent for parent in wanted.parents if parent.is_dir())
    missing = wanted.relative_to(existing).parts[0]
    folders = (name for name in _names_in(existing) if (existing / name).is_dir())
    return f"there is no folder {existing / missing}{did_you_mean(missing, folders)}"


def _names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# --- names ---------------------------------------------------------------------------------------


def _name(location: str, pattern: str, start: Path) -> str:
    """The pattern's own words as far as it has no wildcard, then the rest of the location."""
    expanded = expand_variables(pattern)
    if not is_url(expanded) or expanded.startswith("file://"):
        return _local_name(Path(location), pattern.removeprefix("file://"), start)
    fixed, fixed_as_written = _fixed(expanded.rstrip("/")), _fixed(pattern.rstrip("/"))
    if glob.has_magic(expanded) and not glob.has_magic(pattern):
        fixed_as_written = fixed  # the wildcard is in a variable
    return fixed_as_written + location.removeprefix(fixed)


def _local_name(path: Path, pattern: str, start: Path) -> str:
    wanted = start / expand_variables(pattern)
    if PurePosixPath(pattern).is_absolute():
        if path.is_relative_to(start):
            return path.relative_to(start).as_posix()
        # Of the folder only its own name, which is no more than the source's.
        is_inside = path != wanted and not glob.has_magic(pattern)
        return path.relative_to(wanted.parent).as_posix() if is_inside else path.name
    if path == wanted:
        return pattern
    fixed = PurePosixPath(_fixed(pattern))
    rest = path.relative_to(start / expand_variables(fixed.as_posix()))
    return (fixed / rest.as_posix()).as_posix()


def _fixed(pattern: str) -> str:
    """The leading folders of a pattern that hold no wildcard."""
    parts = pattern.split("/")
    fixed: list[str] = []
    for part in parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return "/".join(fixed)


def _unique(name: str, location: str, names: dict[str, str]) -> str:
    """``name``, or with a number if another file has it: of absolute paths only the end is kept."""
    stem, number = name, 1
    while names.setdefault(name, location) != location:
        number += 1
        name = f"{stem}#{number}"
    return name


def _dataset(pattern: str, files: Sequence[SourceFile]) -> str:
    """The file's name without its endings; for a pattern or folder, the folder looked in."""
    pattern = pattern.rstrip("/")
    own_name = split_compression(PurePosixPath(pattern).name)[0]
    stem = PurePosixPath(own_name).stem
    if len(files) == 1 and not glob.has_magic(pattern):
        return stem
    folder = PurePosixPath(_fixed(pattern)).name.strip("${}")  # of a variable, its name
    return folder or stem or pattern
