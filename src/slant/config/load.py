"""slant.yaml and ``--set`` to checked settings, and settings back to YAML.

Precedence: defaults < file < ``--set``. Every mistake is reported at once, with its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from slant.config.overrides import apply_overrides
from slant.config.problems import report_invalid, shown
from slant.config.settings import ProjectSettings
from slant.config.yaml_tree import KeyPath, Place, Tree, dump_yaml, parse_yaml
from slant.errors import ConfigError, ConfigProblem, UsageError, did_you_mean

__all__ = ["dump_settings", "expand_variables", "load_settings"]

_HINT = "`slant config explain` lists every key; docs/configuration.md has an example."
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def load_settings(path: Path, overrides: Sequence[str] = ()) -> ProjectSettings:
    """Read and check a slant.yaml.

    The settings keep ``${NAME}`` in paths and URLs as written, so that a saved copy holds no path
    of this machine; ``expand_variables`` puts their values in.

    Args:
        path: The file.
        overrides: ``key=value`` texts of ``--set``, applied in order on top of the file. The key is
            dotted (``tune.lora.rank``, ``ingest.examples[0].limit``); the value is a YAML scalar
            or a flow collection (``[a, b]``, ``{a: b}``).

    Raises:
        UsageError: ``path`` cannot be read.
        ConfigError: The file or an override is not YAML, or does not fit the settings, or a path
            names an environment variable that is not set. Holds all problems, in file order.
    """
    tree = _read(path)
    apply_overrides(tree, overrides)
    _check_variables(tree)
    settings = None
    try:
        # Strict: YAML has types, so "17" in quotes is text and never a number.
        settings = ProjectSettings.model_validate(tree.data, strict=True)
    except ValidationError as error:
        report_invalid(tree, error)
    if settings is None or tree.problems:
        in_file_order = sorted(tree.problems, key=lambda found: found[0].line)
        raise ConfigError((problem for _, problem in in_file_order), hint=_HINT)
    return settings


def dump_settings(settings: ProjectSettings) -> str:
    """The resolved configuration as YAML, defaults included; it loads to equal settings."""
    return dump_yaml(settings.model_dump())


def expand_variables(value: str) -> str:
    """``value`` with ``${NAME}`` replaced from the environment.

    Raises:
        UsageError: A variable is not set, or is empty.
    """
    for name in _unset_variables(value):
        raise UsageError(
            f"{value}: environment variable {name} is not set", hint=_advice_to_set(name)
        )
    return _VARIABLE.sub(lambda found: os.environ[found[1]], value)


def _suggestion(wanted: Path) -> str:
    """A did-you-mean against the files beside ``wanted``."""
    if not wanted.parent.is_dir():
        return ""
    return did_you_mean(wanted.name, sorted(e.name for e in wanted.parent.iterdir() if e.is_file()))


def _read(path: Path) -> Tree:
    """Parse the file and check that it is a mapping."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        message = f"there is no file {path}{_suggestion(path)}"
        hint = "Give the path of a slant.yaml; docs/configuration.md has one to start from."
        raise UsageError(message, hint=hint) from error
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise UsageError(message, hint="Give the path of a slant.yaml.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = ConfigProblem(f"{path}:{line}", "", "is not UTF-8 text")
        raise ConfigError([problem], hint="Save the file as UTF-8.") from error

    def place(line: int, column: int | None) -> Place:
        return Place(line, f"{path}:{line}" + (f":{column}" if column else ""))

    tree = parse_yaml(text, place)
    if isinstance(tree.data, dict):
        return tree
    what = "is empty" if tree.data is None else f"must be a mapping of keys, got {shown(tree.data)}"
    raise ConfigError([ConfigProblem(tree.place(()).text, "", what)], hint=_HINT)


def _check_variables(tree: Tree) -> None:
    """Note every path that names a variable that is not set: now, not hours later."""
    for key, location in _locations(tree.data):
        for name in _unset_variables(location):
            tree.report(key, f"environment variable {name} is not set; {_advice_to_set(name)}")


def _locations(data: object) -> Iterator[tuple[KeyPath, str]]:
    """The paths and URLs in which variables are replaced, wherever the file has them."""
    sections = data if isinstance(data, dict) else {}
    shard, ingest = sections.get("shard"), sections.get("ingest")
    owners: dict[KeyPath, object] = {("shard", "to"): shard}
    for kind in ("documents", "examples"):
        sources = ingest.get(kind) if isinstance(ingest, dict) else None
        for index, source in enumerate(sources if isinstance(sources, list) else []):
            owners["ingest", kind, index, "path"] = source
    for key, owner in owners.items():
        location = owner.get(key[-1]) if isinstance(owner, dict) else None
        if isinstance(location, str):
            yield key, location


def _unset_variables(value: str) -> list[str]:
    """Names in ``value`` that the environment lacks; an empty one would give a wrong path too."""
    names = dict.fromkeys(_VARIABLE.findall(value))
    return [name for name in names if not os.environ.get(name)]


def _advice_to_set(name: str) -> str:
    return f"run `export {name}=…` first"
