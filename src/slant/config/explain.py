"""What slant.yaml can say, for people and for editors; written from the settings themselves."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from slant.config.fields import Key, describe, iter_keys
from slant.config.section import Section
from slant.config.settings import ProjectSettings
from slant.errors import UsageError, did_you_mean

__all__ = ["explain", "json_schema", "reference_markdown"]

_WIDTH = 96
_PLAIN_TEXT = re.compile(r"[A-Za-z][\w./-]*")
_NOT_TEXT = frozenset({"null", "true", "false"})

_INTRODUCTION = """\
# Configuration

<!-- Written by slant.config.explain.reference_markdown(); change src/slant/config/*settings.py. -->

A project is one file, `slant.yaml`, with a section per stage. Only the keys that a table below
calls required have no default. Keys that do not exist are refused, and all mistakes are reported
at once, each with its file and line. A small project:

```yaml
labels: [negative, neutral, positive]
model:
  base: gemma-3-270m
ingest:
  documents:
    - path: data/news/*.jsonl
      columns: {text: body, lang: language}
  examples:
    - path: data/labelled.csv
      columns: {text: sentence, narrative: entity, label: label}
      labels: {"-1": negative, "0": neutral, "1": positive}
adapt:
  tokens: 5_000_000
tune:
  learning_rate: 4e-4
  lora: {rank: 16}
evaluate:
  gate: {macro_f1: {min: 0.70}}
```

## Rules

- **Precedence**: defaults < `slant.yaml` < `--set`. `--set tune.lora.rank=32` works on any command
  and is checked like the file; an item of a list is `--set 'ingest.examples[0].limit=500'`; the
  value is a number, a text, `null`, `[a, b]` or `{a: b}`.
- **Exit code**: 2 when the configuration cannot be used; nothing has been started then.
- **YAML 1.2**: `no` is a text (the language code), `2e-4` a number, `50_000_000` a whole number. A
  number in quotes is a text. A key given twice is refused. Keys of a mapping are taken as written,
  so `-1:` and `"-1":` are the same.
- **Paths** are relative to the file. `${NAME}` in the `path` of a source, in `shard.to` and in
  `export.to` is replaced from the environment and must be set; saved copies keep `${NAME}`.
- **Secrets** have no key here: they come from the environment.
- `slant config explain KEY` prints what this page says about a key.

In the tables, `[]` stands for each item of a list and `*` for each name in a mapping.
"""


def explain(key: str | None = None) -> str:
    """Describe the keys of slant.yaml as plain text.

    Args:
        key: A dotted key, described with all keys below it; None for every key. Indices do not
            matter: ``ingest.examples[0].path`` and ``ingest.examples.path`` are the same.

    Raises:
        UsageError: There is no such key.
    """
    keys = list(iter_keys())
    if key is not None:
        keys = _chosen(keys, key)
    return "\n\n".join(_entry(entry) for entry in keys) + "\n"


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of slant.yaml, for editors that complete and check."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ProjectSettings.model_json_schema(),
        "title": "slant.yaml",
    }


def reference_markdown() -> str:
    """The page docs/configuration.md."""
    by_section = groupby(iter_keys(), key=lambda entry: entry.path.split(".")[0])
    groups = [list(entries) for _, entries in by_section]
    whole_file = [entry for group in groups for entry in group if group[0].shape.section is None]
    parts = [_INTRODUCTION, "## Top level\n\n" + _table(whole_file)]
    for section, *entries in (group for group in groups if group[0].shape.section is not None):
        parts.append(f"## `{section.path}`\n\n{_section_text(section)}\n\n{_table(entries)}")
    return "\n".join(parts)


def _chosen(keys: list[Key], wanted: str) -> list[Key]:
    """The key that ``wanted`` names, and those below it."""
    parts = _parts(wanted)
    chosen = [entry for entry in keys if _begins_with(_parts(entry.path), parts)]
    if not chosen:
        known = [entry.path for entry in keys]
        suggestion = _same_name(known, parts[-1:]) or did_you_mean(wanted, known)
        raise UsageError(
            f"slant.yaml has no key {wanted}{suggestion}",
            hint="`slant config explain` lists every key.",
        )
    return chosen


def _parts(path: str) -> list[str]:
    """Parts of a dotted key without list indices, however they are written."""
    return [part for part in re.sub(r"\[\d*\]", "", path).split(".") if not part.isdecimal()]


def _begins_with(path: list[str], start: list[str]) -> bool:
    return len(start) <= len(path) and all(
        known in ("*", wanted) for known, wanted in zip(path, start, strict=False)
    )


def _same_name(known: Iterable[str], last: list[str]) -> str:
    """Suggests the keys that end like the one asked for: ``rank`` finds ``tune.lora.rank``."""
    found = [path for path in known if path.split(".")[-1:] == last]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _entry(entry: Key) -> str:
    facts = entry.shape.words + _default_text(entry)
    help_lines = textwrap.wrap(entry.help.replace("`", ""), _WIDTH - 4)
    return "\n".join([entry.path, f"    {facts}", *(f"    {line}" for line in help_lines)])


def _default_text(entry: Key) -> str:
    if entry.required:
        return "; required"
    default = _default(entry)
    return f"; default {default}" if default else ""


def _default(entry: Key) -> str:
    """The default as YAML; empty for a section, whose keys have their own."""
    return "" if isinstance(entry.default, Section) else _flow(entry.default)


def _flow(value: object) -> str:
    """``value`` as flow-style YAML on one line."""
    match value:
        case str():
            plain = _PLAIN_TEXT.fullmatch(value) and value.lower() not in _NOT_TEXT
            return value if plain else json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(_flow, value))}]"
        case int() if not isinstance(value, bool) and value >= 10_000:
            return f"{value:_}"
        case _:
            return json.dumps(value)


def _section_text(entry: Key) -> str:
    section = entry.shape.section
    text = describe(section) if section is not None else ""
    return f"{text} `{entry.path}: null` leaves it out." if entry.shape.nullable else text


def _table(entries: Iterable[Key]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|", *map(_row, entries)]
    return "\n".join(rows) + "\n"


def _row(entry: Key) -> str:
    default = "required" if entry.required else _default(entry)
    code = f"`{default}`" if default and not entry.required else default
    cells = (f"`{entry.path}`", entry.shape.words, code, entry.help)
    return f"| {' | '.join(_cell(text) for text in cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
