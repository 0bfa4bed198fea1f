from __future__ import annotations

import pytest

from slant.task.languages import OTHER_LANGUAGES, language_code, of_language

TABLE = {"pt": 1.0, "zh-tw": 2.0, "*": 9.0}


@pytest.mark.parametrize(
    ("lang", "value"),
    [("pt", 1.0), ("pt-br", 1.0), ("zh-tw", 2.0), ("zh", 9.0), ("en", 9.0), ("", 9.0), (None, 9.0)],
)
def test_a_language_goes_by_its_own_value_then_by_its_first_part_then_by_that_of_others(
    lang: str | None, value: float
) -> None:
    assert of_language(TABLE, lang) == value


def test_where_nothing_fits_there_is_no_value() -> None:
    assert of_language({"pt": 1.0}, "en") is None
    assert of_language({"pt": 1.0}, None) is None
    assert of_language({}, "en") is None


def test_a_value_of_nothing_is_a_value() -> None:
    assert of_language({"pt": 0.0, OTHER_LANGUAGES: 1.0}, "pt") == 0.0


@pytest.mark.parametrize(
    ("lang", "value"), [("PT", 1.0), ("zh-TW", 2.0), ("zh_TW", 2.0), ("pt_BR", 1.0)]
)
def test_a_language_is_the_same_however_it_is_written(lang: str, value: float) -> None:
    assert of_language(TABLE, lang) == value


@pytest.mark.parametrize(
    ("lang", "code"),
    [("pt_BR", "pt-br"), ("EN", "en"), ("zh-Hant-TW", "zh-hant-tw"), (None, "und")],
)
def test_a_code_is_written_as_ingestion_writes_it(lang: str | None, code: str) -> None:
    assert language_code(lang) == code
