"""pydantic's findings in our own words, each at its place in slant.yaml."""

from __future__ import annotations

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from slant.config.fields import Shape, shape_at
from slant.config.section import Section
from slant.config.yaml_tree import KeyPath, Tree, split_dotted
from slant.errors import did_you_mean

__all__ = ["report_invalid", "shown"]

_SHOWN_CHARACTERS = 60
_NUMBER = re.compile(r"[-+]?[0-9][0-9_.]*(?:[eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[\w.-]+")


def report_invalid(tree: Tree, error: ValidationError) -> None:
    """Add every finding of ``error`` to the problems of ``tree``."""
    for detail in error.errors(include_url=False):
        path = detail["loc"]
        if path in tree.unread:  # reported when it was read
            continue
        match detail["type"]:
            case "missing":
                tree.report(path, f"is missing; it must be {_words(path)}")
            case "extra_forbidden":
                tree.report(path, _unknown_key(path))
            case "literal_error" if path[-1] == "[key]":
                tree.report(path[:-1], _unknown_key(path[:-1]))
            case "secret":  # the value is not repeated
                tree.report(path, detail["msg"])
            case "value_error":
                _report_rule(tree, path, detail)
            case _:
                tree.report(path, _wrong_value(path, detail["input"]))


def shown(value: object) -> str:
    """``value`` as an error message shows it: YAML-like, on one line, about 60 characters."""
    match value:
        case None | True | False:
            text = {None: "null", True: "true", False: "false"}[value]
        case str():
            text = repr(value)
        case list():
            text = f"[{', '.join(shown(item) for item in value)}]"
        case dict():
            text = f"{{{', '.join(f'{key}: {shown(item)}' for key, item in value.items())}}}"
        case _:
            text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _words(path: KeyPath) -> str:
    shape = shape_at(path)
    return shape.words if shape else "something else"


def _unknown_key(path: KeyPath) -> str:
    """The value is left out: it may be a secret that was written to the wrong place."""
    around = shape_at(path[:-1])
    known: tuple[str, ...] = ()
    if around is not None:
        known = tuple(around.section.model_fields) if around.section else around.choices
    suggestion = did_you_mean(str(path[-1]), known) or "."
    return f"is not a known key{suggestion} Known here: {', '.join(known)}"


def _wrong_value(path: KeyPath, value: object) -> str:
    shape = shape_at(path)
    return f"must be {_words(path)}, got {shown(value)}{_advice(shape, value)}"


def _advice(shape: Shape | None, value: object) -> str:
    """What to write instead, where that can be told from the value."""
    if shape is None:
        return ""
    if shape.section is not None:
        keys = ", ".join(shape.section.model_fields)
        return "; leave the key out for its defaults" if value is None else f"; its keys are {keys}"
    if isinstance(value, str):
        return _advice_on_text(shape, value)
    if shape.kind is str and isinstance(value, int | float | list | dict) and not shape.choices:
        return "; put it in quotes"
    if shape.kind is int and isinstance(value, float) and value.is_integer():
        return f"; write {int(value):_}"
    return ""


def _advice_on_text(shape: Shape, value: str) -> str:
    """The same for a text."""
    if shape.kind in (int, float):
        return "; write it without quotes" if _NUMBER.fullmatch(value) else ""
    if shape.kind is list:
        return f"; write [{value}]" if _WORD.fullmatch(value) else ""
    return did_you_mean(value, shape.choices)


def _report_rule(tree: Tree, path: KeyPath, detail: ErrorDetails) -> None:
    """A rule of our own (a validator) was broken.

    A rule about a whole section starts with the key it is about, where there is one; then that
    key's place is given, not the section's.
    """
    message = str(detail["ctx"]["error"])
    shape = shape_at(path)
    if shape is None or shape.kind is not Section:
        tree.report(path, f"{message}, got {shown(detail['input'])}")
        return
    first_word = message.partition(" ")[0]
    about = (*path, *split_dotted(first_word))
    if about in tree.places:
        path, message = about, message.removeprefix(first_word).lstrip()
    tree.report(path, message)
