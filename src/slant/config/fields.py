"""The fields of the settings in plain words; messages and the reference page both use them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from pydantic.fields import FieldInfo

from slant.config.section import Section
from slant.config.settings import ProjectSettings

__all__ = ["Key", "Shape", "describe", "iter_keys", "shape_at"]


@dataclass(frozen=True)
class Shape:
    """What a value may be.

    ``words`` completes "must be …". ``kind`` is its Python type, and ``Section`` for a section.
    ``choices`` are the allowed texts, of the items for a list and of the keys for a mapping; empty
    where they are not a finite set.
    """

    words: str
    kind: type
    section: type[Section] | None = None
    choices: tuple[str, ...] = ()
    item: Shape | None = None
    """Shape of a list's items or of a mapping's values."""
    nullable: bool = False


@dataclass(frozen=True)
class Key:
    """One key that slant.yaml can hold.

    ``path`` has ``[]`` for the items of a list and ``*`` for names that the user chooses.
    """

    path: str
    shape: Shape
    help: str
    required: bool
    default: object

    @property
    def is_section(self) -> bool:
        """Whether other keys lie below this one."""
        return self.shape.section is not None or (
            self.shape.item is not None and self.shape.item.section is not None
        )


def _shape_of(field: FieldInfo) -> Shape:
    """Shape of a field of a section."""
    return _shape(field.annotation, field.metadata)


def shape_at(path: Iterable[str | int]) -> Shape | None:
    """Shape of the value at ``path`` in slant.yaml; None where the settings have no such key."""
    shape: Shape | None = Shape("a section", Section, ProjectSettings)
    for part in path:
        if shape is None:
            return None
        if shape.section is not None:
            field = shape.section.model_fields.get(str(part))
            shape = _shape_of(field) if field else None
        else:
            shape = shape.item
    return shape


def iter_keys(section: type[Section] = ProjectSettings, prefix: str = "") -> Iterator[Key]:
    """All keys below ``section``: each field, followed by the fields below it."""
    for name, field in section.model_fields.items():
        shape = _shape_of(field)
        path = f"{prefix}{name}"
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        yield Key(path, shape, _one_line(field.description), field.is_required(), default)
        if shape.section is not None:
            yield from iter_keys(shape.section, f"{path}.")
        elif shape.item is not None and shape.item.section is not None:
            step = "[]." if shape.kind is list else ".*."
            yield from iter_keys(shape.item.section, path + step)


def describe(section: type[Section]) -> str:
    """The section's docstring as one paragraph per paragraph."""
    return "\n\n".join(
        _one_line(paragraph) for paragraph in inspect.cleandoc(section.__doc__ or "").split("\n\n")
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _shape(annotation: Any, metadata: Iterable[object]) -> Shape:
    """Shape of a type; ``Any`` because Python has no common type for type expressions."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [
            part
            for extra in arguments[1:]
            for part in (extra.metadata if isinstance(extra, FieldInfo) else [extra])
        ]
        return _shape(arguments[0], [*metadata, *inner])
    if origin in (Union, types.UnionType):
        return _union(arguments, metadata)
    if origin in (list, dict):
        return _collection(origin, arguments, metadata)
    if origin is Literal:
        return Shape(f"one of {', '.join(arguments)}", str, choices=arguments)
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return Shape("a section", Section, annotation)
    nouns = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return Shape(nouns[annotation] + _range(metadata), annotation)


def _union(arguments: tuple[Any, ...], metadata: Iterable[object]) -> Shape:
    shapes = [_shape(value, metadata) for value in arguments if value is not type(None)]
    words = ", or ".join(shape.words for shape in shapes)
    if len(shapes) == len(arguments):
        return Shape(words, object)
    words += f"{',' if shapes[0].choices else ''} or null"
    return replace(shapes[0], words=words, nullable=True)


def _collection(kind: type, arguments: tuple[Any, ...], metadata: Iterable[object]) -> Shape:
    item = _shape(arguments[-1], ())
    if kind is dict:
        key = _shape(arguments[0], ())
        words = f"a mapping of {_plural(key)} to {_plural(item)}"
        return Shape(words, dict, choices=key.choices, item=item)
    least = next((part.min_length for part in metadata if isinstance(part, bounds.MinLen)), 0)
    words = f"a list of {_plural(item)}" + (f" (at least {least})" if least else "")
    return Shape(words, list, choices=item.choices, item=item)


def _plural(shape: Shape) -> str:
    if shape.section is not None:
        return "sections"
    return f"any of {', '.join(shape.choices)}" if shape.choices else shape.words


def _range(metadata: Iterable[object]) -> str:
    """``" greater than 0 and less than 1"`` for a number's bounds; empty without any."""
    parts = list(metadata)
    low = next((part.ge for part in parts if isinstance(part, bounds.Ge)), None)
    high = next((part.le for part in parts if isinstance(part, bounds.Le)), None)
    if low is not None and high is not None:
        return f" between {low} and {high}"
    words = []
    for part in parts:
        match part:
            case bounds.Gt(gt=bound):
                words.append(f"greater than {bound}")
            case bounds.Ge(ge=bound):
                words.append(f"of at least {bound}")
            case bounds.Lt(lt=bound):
                words.append(f"less than {bound}")
            case bounds.Le(le=bound):
                words.append(f"of at most {bound}")
    return "".join(f" {word}" if index == 0 else f" and {word}" for index, word in enumerate(words))
