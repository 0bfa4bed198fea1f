"""YAML 1.2 to plain values that remember where they were written, and back.

ruamel.yaml reads the syntax; what a scalar means is decided here, by the core schema of YAML 1.2.2
(section 10.3.2) plus ``_`` between digits. So ``no`` is a string, ``2e-4`` a number, ``50_000_000``
a whole number and ``2024-01-01`` a string. Mapping keys are always the text as written: a label
source may say ``-1: negative``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from io import StringIO
from typing import ClassVar, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver

from slant.errors import ConfigError, ConfigProblem

__all__ = ["KeyPath", "Place", "Tree", "dotted", "dump_yaml", "parse_yaml", "split_dotted"]

KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9](?:_?[0-9])*"
# (tag, pattern, characters it can begin with); "" stands for an empty scalar.
_CORE_SCHEMA = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", rf"^(?:[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        rf"^(?:[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
)
_CONVERT: dict[str, Callable[[str], object]] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    # YAML reads 017 as seventeen; Python's base 0 would refuse it.
    "int": lambda text: int(text, 0 if text.startswith(("0x", "0o")) else 10),
    "float": lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
}
# ruamel's wording of common slips, and ours.
_SYNTAX_ADVICE = (
    (r"'\t'", "a tab cannot indent YAML; use spaces"),
    ("mapping values are not allowed", "unexpected ': '; put text that holds ': ' in quotes"),
    ("<block end>", "this does not continue the lines above: check indentation and quotes"),
    ("another document", "a second document ('---') begins here; only one is read"),
    ("undefined alias", "this alias (*name) has no anchor (&name) before it; quote a literal '*'"),
    ("cannot start any token", "a value cannot begin with this character; put it in quotes"),
    ("unexpected end of stream", "a quoted text is never closed"),
    ("<stream end>", "the text ends inside an open bracket"),
    ("maximum depth", "nested too deeply"),
)
_MAX_DEPTH = 40
_NAME = r"[^.\[\]]+"
_DOTTED = re.compile(rf"{_NAME}(?:\.{_NAME}|\[[0-9]{{1,9}}\])*")
_DOTTED_PART = re.compile(rf"\[([0-9]+)\]|{_NAME}")


class Place(NamedTuple):
    """Where something was written: ``text`` for people, ``line`` to sort by."""

    line: int
    text: str


@dataclass
class Tree:
    """A parsed document: plain ``data``, the ``places`` of its parts, and problems met so far.

    The place of a mapping's value is that of its key; list items have their own. ``()`` is the
    whole document. ``unread`` are paths where None stands for a value that could not be read.
    """

    data: object = None
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[tuple[Place, ConfigProblem]] = field(default_factory=list)
    unread: set[KeyPath] = field(default_factory=set)

    def place(self, path: KeyPath) -> Place:
        """Place of ``path``, or of its nearest ancestor that was written."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places[path]

    def report(self, path: KeyPath, message: str, place: Place | None = None) -> None:
        """Note a problem with ``path``, at its own place unless another is given."""
        place = place or self.place(path)
        self.problems.append((place, ConfigProblem(place.text, dotted(path), message)))


def dotted(path: KeyPath) -> str:
    """``("ingest", "examples", 0, "path")`` as ``ingest.examples[0].path``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def split_dotted(text: str) -> KeyPath:
    """``ingest.examples[0].path`` as its parts; empty where ``text`` is no dotted key."""
    if not _DOTTED.fullmatch(text):
        return ()
    return tuple(int(found[1]) if found[1] else found[0] for found in _DOTTED_PART.finditer(text))


_ResolverTable = dict[str, list[tuple[str, re.Pattern[str]]]]


def _resolver_table() -> _ResolverTable:
    table: _ResolverTable = {}
    for name, pattern, first_characters in _CORE_SCHEMA:
        for character in first_characters:
            table.setdefault(character, []).append((_TAG + name, re.compile(pattern)))
    return table


class _CoreResolver(VersionedResolver):
    """The core schema, whatever a ``%YAML`` directive says.

    ruamel's own resolver would make dates of some scalars and binary numbers of others.
    """

    _table: ClassVar[_ResolverTable] = _resolver_table()

    @property
    def versioned_resolver(self) -> _ResolverTable:
        """Tags and patterns by the first character of a scalar (ruamel asks for this)."""
        return self._table


class _Representer(SafeRepresenter):
    """Writes text with line breaks or invisible characters in double quotes, escaped.

    In ruamel's single quotes a NEL (U+0085) would come back as a space.
    """

    def represent_str(self, data: str) -> ScalarNode:
        """A text as a scalar (ruamel asks for this)."""
        style = None if data.isprintable() else '"'
        node: ScalarNode = self.represent_scalar(f"{_TAG}str", data, style=style)
        return node


_Representer.add_representer(str, _Representer.represent_str)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _CoreResolver
    yaml.Representer = _Representer
    yaml.max_depth = _MAX_DEPTH
    return yaml


def parse_yaml(text: str, place: Callable[[int, int | None], Place]) -> Tree:
    """Parse one YAML document.

    Args:
        text: The document.
        place: Makes a place from a line and, for syntax errors, a column (both from 1).

    Returns:
        The tree; ``data`` is None for an empty document. Repeated keys and tags other than
        YAML's own are in ``problems``, so that they are reported beside other mistakes.

    Raises:
        ConfigError: The text is not YAML.
    """
    tree = Tree(places={(): place(1, None)})
    try:
        node = _yaml().compose(text)
    except YAMLError as error:
        line, column, message = _syntax_problem(error, text)
        where = place(line, column).text
        raise ConfigError([ConfigProblem(where, "", f"not valid YAML: {message}")]) from error
    if node is not None:
        _Builder(tree, place).build(node)
    return tree


def _syntax_problem(error: YAMLError, text: str) -> tuple[int, int, str]:
    """Line, column (from 1) and plain words of ruamel's ``error``."""
    if isinstance(error, ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return line, column, f"the control character U+{ord(text[error.position]):04X}"
    problem = str(getattr(error, "problem", None) or error).splitlines()[0]
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    advice = next((ours for theirs, ours in _SYNTAX_ADVICE if theirs in problem), problem)
    return (mark.line + 1, mark.column + 1, advice) if mark else (1, 1, advice)


class _Builder:
    """Turns ruamel's nodes into plain values, noting places and problems in ``tree``."""

    def __init__(self, tree: Tree, place: Callable[[int, int | None], Place]) -> None:
        self._tree = tree
        self._place = place
        self._open: list[Node] = []  # the nodes around the current one

    def build(self, root: Node) -> None:
        # The document's own place is its first key, below any comment at the top.
        self._note((), root)
        self._tree.data = self._value((), root)

    def _note(self, path: KeyPath, node: Node) -> None:
        self._tree.places[path] = self._place(node.start_mark.line + 1, None)

    def _value(self, path: KeyPath, node: Node) -> object:
        tag = str(node.tag)
        if any(node is around for around in self._open):
            return self._unread(path, "refers to itself")
        if tag.removeprefix(_TAG) not in {*_CONVERT, "map", "seq"}:
            return self._unread(path, f"has the tag {tag}; tags are not used here")
        self._open.append(node)
        value: object
        if isinstance(node, MappingNode):
            value = self._mapping(path, node)
        elif isinstance(node, SequenceNode):
            value = self._sequence(path, node)
        else:
            value = self._scalar(path, node)
        self._open.pop()
        return value

    def _mapping(self, path: KeyPath, node: MappingNode) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node.start_mark.line + 1, None)
            if not isinstance(key_node, ScalarNode):
                self._tree.report(path, "a key must be text, not a list or a mapping", place)
                continue
            key = str(key_node.value)
            at = (*path, key)
            if key in mapping:
                first = self._tree.places[at].text
                self._tree.report(at, f"is given twice; the first is at {first}", place)
                continue
            self._tree.places[at] = place
            mapping[key] = self._value(at, value_node)
        return mapping

    def _sequence(self, path: KeyPath, node: SequenceNode) -> list[object]:
        items: list[object] = []
        for index, item in enumerate(node.value):
            self._note((*path, index), item)
            items.append(self._value((*path, index), item))
        return items

    def _scalar(self, path: KeyPath, node: Node) -> object:
        text, tag = str(node.value), str(node.tag)
        try:
            return _CONVERT[tag.removeprefix(_TAG)](text)
        except (KeyError, ValueError):  # an explicit tag that does not fit, or thousands of digits
            return self._unread(path, f"cannot be read as {tag}: {text[:60]!r}")

    def _unread(self, path: KeyPath, message: str) -> object:
        """Note that the value at ``path`` cannot be read; returns what stands for it."""
        self._tree.report(path, message)
        self._tree.unread.add(path)
        return None


def dump_yaml(value: object) -> str:
    """``value`` as block-style YAML that ``parse_yaml`` reads back to an equal value."""
    yaml = _yaml()
    yaml.default_flow_style = False
    # Keys stay in the order of the settings. (ruamel declares the attribute as None.)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = sys.maxsize  # no folding: it loses spaces of long texts
    stream = StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()
