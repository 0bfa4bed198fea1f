"""Values by language, as calibration and decisions have them."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OTHER_LANGUAGES", "UNKNOWN_LANGUAGE", "language_code", "language_names", "of_language"]

OTHER_LANGUAGES = "*"
"""Names the value of languages that have none of their own."""


UNKNOWN_LANGUAGE = "und"
"""Names the language of documents that do not tell it (undetermined, in BCP 47)."""


def language_code(lang: str | None) -> str:
    """A BCP 47 code as ingestion writes it, however it was written: ``pt-br``; ``und`` for None."""
    return (lang or UNKNOWN_LANGUAGE).lower().replace("_", "-")


def language_names(lang: str | None) -> tuple[str, str, str]:
    """What a language may be found under, the first that is there: its own code, that without its
    variant, and ``*``."""
    code = language_code(lang)
    return code, code.partition("-")[0], OTHER_LANGUAGES


def of_language(table: Mapping[str, float], lang: str | None) -> float | None:
    """The value of a language (BCP 47, however it is written).

    ``pt-BR`` goes by ``pt`` where it has none of its own, and by ``*`` where that has none either.
    None where nothing fits.

    The table's languages are written as ``language_code`` does.
    """
    return next((table[name] for name in language_names(lang) if name in table), None)
