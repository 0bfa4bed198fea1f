"""``--set key=value``: one value put on top of slant.yaml, before anything is checked."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from slant.config.problems import shown
from slant.config.yaml_tree import KeyPath, Place, Tree, dotted, parse_yaml, split_dotted
from slant.errors import ConfigError, ConfigProblem

__all__ = ["apply_overrides"]

_AFTER_THE_FILE = sys.maxsize  # problems of --set are listed behind those of the file
_NOT_A_LIST = "is not a list in the file; set all of it, as [a, b]"


def apply_overrides(tree: Tree, overrides: Iterable[str]) -> None:
    """Put each ``key=value`` into ``tree``, in order; the later one wins.

    What cannot be put is noted in ``tree.problems``, at ``--set key``.

    Args:
        tree: A slant.yaml whose ``data`` is a mapping.
        overrides: The key is dotted (``tune.lora.rank``); an item of a list is
            ``ingest.examples[0].limit`` or ``ingest.examples.0.limit``. The value is a YAML scalar
            or a flow collection. Sections on the way are made where the file has none.
    """
    for number, override in enumerate(overrides):
        key, equals, text = override.partition("=")
        place = Place(_AFTER_THE_FILE + number, f"--set {key.strip()}")
        try:
            if not equals:
                raise _refused(place, "", "must read key=value, e.g. tune.epochs=2")
            _apply(tree, key.strip(), text, place)
        except ConfigError as error:
            tree.problems.extend((place, problem) for problem in error.problems)


def _apply(tree: Tree, key: str, text: str, place: Place) -> None:
    path = split_dotted(key)
    if not path:
        raise _refused(place, "", "is not a dotted key such as tune.lora.rank")
    value = parse_yaml(text, lambda line, column: place)
    if isinstance(value.data, dict | list) and not text.lstrip().startswith(("{", "[")):
        raise _refused(place, key, f"put text in quotes where it looks like YAML: {shown(text)}")
    for _, problem in value.problems:
        within = ".".join(filter(None, (key, problem.key)))
        tree.problems.append((place, replace(problem, key=within)))
    _put(tree, path, value, place)


def _put(tree: Tree, path: KeyPath, value: Tree, place: Place) -> None:
    """Put ``value`` at ``path`` and note where it came from."""
    node: Any = tree.data  # any YAML value; _key_in looks before each step
    at: KeyPath = ()
    for part, next_part in pairwise(path):
        key = _key_in(node, part, at, place)
        at = (*at, key)
        if isinstance(node, dict) and node.get(key) is None:
            if isinstance(next_part, int):
                raise _refused(place, dotted(at), _NOT_A_LIST)
            node[key] = {}
            tree.places[at] = place
        node = node[key]
    key = _key_in(node, path[-1], at, place)
    at = (*at, key)
    node[key] = value.data
    for old in [old for old in tree.places if old[: len(at)] == at]:
        del tree.places[old]
    tree.places |= {(*at, *below): place for below in value.places}


def _key_in(node: object, part: str | int, at: KeyPath, place: Place) -> str | int:
    """``part`` as a key of ``node``, or as an index where ``node`` is a list.

    Raises:
        ConfigError: ``node``, which lies at ``at``, has no such part.
    """
    if isinstance(node, list):
        index = int(part) if str(part).isdecimal() else -1
        if 0 <= index < len(node):
            return index
        there = ", ".join(dotted((*at, known)) for known in range(len(node))) or "no items"
        raise _refused(place, dotted((*at, part)), f"is not in the list, which holds {there}")
    if not isinstance(node, dict):
        raise _refused(place, dotted((*at, part)), f"{dotted(at)} is {shown(node)}, not a section")
    if isinstance(part, int):
        raise _refused(place, dotted(at), _NOT_A_LIST)
    return part


def _refused(place: Place, key: str, message: str) -> ConfigError:
    return ConfigError([ConfigProblem(place.text, key, message)])
