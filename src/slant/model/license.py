"""The licence of a base model: read from its folder, and carried along with what is made of it.

A tuned model is subject to the licence of its base, so its text and the base's own card go into
every folder of weights that is written.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slant.model.embedded import EMBEDDED

__all__ = ["BASE_CARD", "LICENSE_PATTERNS", "License", "copy_license", "read_license"]

BASE_CARD = "BASE_MODEL.md"
"""The base model's card, in a folder of what was made of it."""
LICENSE_PATTERNS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
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

    Args:
        name: of the base model; those of Google's Gemma are known without a card.
        folder: of the base model, or of one made of it.
    """
    for file in (BASE_CARD, _CARD):
        card = _front_matter(folder / file)
        found = card.get("license")
        if isinstance(found, str) and found:
            named = _text(card, "license_link")
            # A link to a file of the base's own repository leads nowhere from another one.
            link = named if named.startswith("https://") else _GEMMA if found == "gemma" else ""
            return License(found, _text(card, "license_name"), link)
    if name in EMBEDDED or name.lower().startswith("google/gemma-3"):
        return License("gemma", link=_GEMMA)
    return None


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
