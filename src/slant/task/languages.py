"""Values by language, as calibration and decisions have them."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OTHER_LANGUAGES", "UNKNOWN_LANGUAGE", "language_code", "of_language"]

OTHER_LANGUAGES = "*"
"""Names the value of languages that have none of their own."""


UNKNOWN_LANGUAGE = "und"
"""Names the language of documents that do not tell it (undetermined, in BCP 47)."""


def language_code(lang: str | None) -> str:
    """A BCP 47 code as ingestion writes it, however it was written: ``pt-br``; ``und`` for None."""
    return (lang or UNKNOWN_LANGUAGE).lower().replace("_", "-")


def of_language(table: Mapping[str, float], lang: str | None) -> float | None:
    """The value of a language (BCP 47, however it is written).

    ``pt-BR`` goes by ``pt`` where it has none of its own, and by ``*`` where that has none either.
    None where nothing fits.

    The table's languages are written as ``language_code`` does.
    """
    code = language_code(lang)
    names = (code, code.partition("-")[0], OTHER_LANGUAGES)
    return next((table[name] for name in names if name in table), None)
