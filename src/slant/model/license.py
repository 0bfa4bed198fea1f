"""The licence of a base model: read from its folder, and carried along with what is made of it.

A tuned model is subject to the licence of its base, so its text and the base's own card go into
every folder of weights that is written. One that was made of another's adapter is subject to that
licence too; what belongs to it has names of its own, that begin with ``ADAPTER_``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slant.model.embedded import EMBEDDED

__all__ = [
    "ADAPTER_CARD",
    "BASE_CARD",
    "LICENSE_PATTERNS",
    "License",
    "copy_adapter_license",
    "copy_license",
    "join_licenses",
    "read_license",
]

BASE_CARD = "BASE_MODEL.md"
"""The base model's card, in a folder of what was made of it."""
_ADAPTER = "ADAPTER_"
ADAPTER_CARD = f"{_ADAPTER}MODEL.md"
"""The card of an adapter that someone else made, likewise."""
_TEXTS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
LICENSE_PATTERNS = (*_TEXTS, *(_ADAPTER + pattern for pattern in _TEXTS), ADAPTER_CARD)
_CARD = "README.md"
_FRONT_MATTER = re.compile(r"---\n(.*?)^---", re.DOTALL | re.MULTILINE)
_MAX_BYTES = 1 << 20
_GEMMA = "https://ai.google.dev/gemma/terms"


@dataclass(frozen=True)
class License:
    """What is known of a licence.

    Attributes:
        id: as model hubs name it (``apache-2.0``, ``gemma``, ``other``).
        name: of one that hubs have no name for; empty otherwise.
        link: where its text is; empty where that is not said.
    """

    id: str
    name: str = ""
    link: str = ""


def read_license(name: str, folder: Path) -> License | None:
    """The licence that a base model's card names; None where it names none.

    Where the model was made of an adapter with a licence of its own, it is both.

    Args:
        name: of the base model; those of Google's Gemma are known without a card.
        folder: of the base model, or of one made of it.
    """
    base = _of_card(folder / BASE_CARD) or _of_card(folder / _CARD)
    if base is None and (name in EMBEDDED or name.lower().startswith("google/gemma-3")):
        base = License("gemma", link=_GEMMA)
    return join_licenses(_of_card(folder / ADAPTER_CARD), base)


def join_licenses(first: License | None, second: License | None) -> License | None:
    """Both at once, under a name that hubs take; None where neither is known."""
    if first is None or second is None or first == second:
        return first or second
    return License("other", f"{first.name or first.id}-and-{second.name or second.id}")


def _of_card(path: Path) -> License | None:
    card = _front_matter(path)
    found = card.get("license")
    if not isinstance(found, str) or not found:
        return None
    named = _text(card, "license_link")
    # A link to a file of the base's own repository leads nowhere from another one.
    link = named if named.startswith("https://") else _GEMMA if found == "gemma" else ""
    return License(found, _text(card, "license_name"), link)


def copy_license(source: Path, out: Path) -> None:
    """Copy licence texts, and the card under a name of its own, as far as there are any."""
    files = [path for pattern in LICENSE_PATTERNS for path in sorted(source.glob(pattern))]
    for path in files:
        if path.is_file():
            shutil.copyfile(path, out / path.name)
    for name in (BASE_CARD, _CARD):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / BASE_CARD)
            return


def copy_adapter_license(source: Path, out: Path) -> None:
    """The same of an adapter, under names that leave those of its base alone."""
    for pattern in _TEXTS:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, out / f"{_ADAPTER}{path.name}")
    if (source / _CARD).is_file():
        shutil.copyfile(source / _CARD, out / ADAPTER_CARD)


def _front_matter(path: Path) -> Mapping[str, Any]:
    """What a card says to programs; nothing where it cannot be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8-sig", "replace")
        found = _FRONT_MATTER.match(text.replace("\r\n", "\n"))
        content = YAML(typ="safe").load(found[1]) if found else None
    except (OSError, ValueError, YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(card: Mapping[str, Any], key: str) -> str:
    value = card.get(key)
    return value if isinstance(value, str) else ""
