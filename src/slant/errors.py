"""Every error that slant raises on purpose, with its exit code.

    SlantError                 1   the work could not be done
    ├── UsageError             2   the command line names something that is not there
    │   └── ConfigError        2   slant.yaml or --set: every problem at once
    ├── InputError             1   an input file cannot be used as a whole
    ├── TaskError              1   the task contract cannot be kept (label words, token limit)
    ├── ModelError             1   a base model or checkpoint cannot be found or loaded
    ├── ArtifactError          1   an artifact is missing, incomplete, damaged or of another kind
    │   └── ShardError         1   an MDS shard or its index is missing, malformed or damaged
    ├── StorageError           1   the disk is full or a file cannot be written
    └── GateError              3   a measured bound was not met; nothing was published

A message says what is wrong, where and with which value; ``hint`` says what to do next.
docs/errors.md describes each; a test keeps the two together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "ArtifactError",
    "ConfigError",
    "ConfigProblem",
    "GateError",
    "InputError",
    "ModelError",
    "ShardError",
    "SlantError",
    "StorageError",
    "TaskError",
    "UsageError",
    "did_you_mean",
]


class SlantError(Exception):
    """Base of all errors raised on purpose: ``message`` (what, where), ``hint`` (what next)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(SlantError):
    """The command names a file, folder, column or option that does not exist."""

    exit_code = 2


@dataclass(frozen=True)
class ConfigProblem:
    """One thing wrong in a configuration.

    ``where`` is ``file:line`` or ``--set key``; ``key`` is the dotted path in the file.
    """

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.key}: {self.message}"
            if self.key
            else (f"{self.where}: {self.message}")
        )


class ConfigError(UsageError):
    """A configuration that cannot be used; ``problems`` holds all of its mistakes."""

    def __init__(self, problems: Iterable[ConfigProblem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class InputError(SlantError):
    """An input file cannot be used as a whole (a single bad row is set aside instead)."""


class TaskError(SlantError):
    """The task contract cannot be kept: label words, prompt template or token limit."""


class ModelError(SlantError):
    """A base model, tokenizer or checkpoint cannot be found or loaded."""


class ArtifactError(SlantError):
    """An artifact folder is missing, incomplete, damaged or of another kind."""


class ShardError(ArtifactError):
    """An MDS shard or index is missing, malformed or damaged; the message names the file."""


class StorageError(SlantError):
    """A file cannot be written: no space left, or no permission."""


class GateError(SlantError):
    """A measured bound was not met; nothing was published."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known word closest to ``word``, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
