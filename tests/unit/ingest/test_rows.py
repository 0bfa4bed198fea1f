from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import pytest

from slant.config.ingest_settings import Columns, DocumentSource, ExampleSource, IngestSettings
from slant.ingest.rows import Parsed, RowParser, RowRefusedError
from slant.labels import LabelSet
from slant.task.normalise import text_digest

LABELS = LabelSet(["negative", "neutral", "positive"])
ALL = Columns(
    id="id", narrative="target", lang="lang", source="kind", published_at="date", url="url"
)


def parser(**settings: Any) -> RowParser:
    limits = {key: settings.pop(key) for key in list(settings) if key.endswith("_characters")}
    source = ExampleSource(path="x.csv", **{"columns": ALL, **settings})
    return RowParser(source, IngestSettings(examples=[source], **limits), LABELS)


def parse(values: dict[str, Any], **settings: Any) -> Parsed:
    return parser(**settings).parse({"text": "a text", "label": "neutral", **values})


def refusal(values: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(RowRefusedError) as caught:
        parse(values, **settings)
    return caught.value.reason


def test_a_full_row_becomes_a_document_a_narrative_and_a_label() -> None:
    parsed = parse(
        {
            "id": 7,
            "target": " the  claim ",
            "lang": "pt_BR",
            "kind": "News",
            "date": "2024-03-01T12:00:00+02:00",
            "url": "https://example.org",
        }
    )
    document = parsed.document
    assert (document.id, document.lang, document.source) == ("7", "pt-br", "news")
    assert document.published_at == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert document.url == "https://example.org"
    assert document.digest == text_digest("a text")
    assert (parsed.narrative, parsed.label) == ("the  claim", "neutral")


def test_a_document_without_an_id_is_named_by_its_digest() -> None:
    assert parse({}).document.id == f"d-{text_digest('a text')[:16]}"
    assert parse({"id": " "}).document.id.startswith("d-")


@pytest.mark.parametrize("narrative", [None, "", "  ", math.nan])
def test_no_narrative_means_overall_sentiment(narrative: Any) -> None:
    assert parse({"target": narrative}).narrative is None


@pytest.mark.parametrize("value", ["-1", " -1 ", -1, -1.0, "-1.0", "-1.00"], ids=repr)
def test_label_values_are_compared_as_text(value: Any) -> None:
    assert parse({"label": value}, labels={"-1": "negative"}).label == "negative"


def test_an_exact_label_value_wins_over_its_whole_number() -> None:
    assert parse({"label": "1.0"}, labels={"1.0": "positive", "1": "neutral"}).label == "positive"


def test_true_and_false_can_be_labels() -> None:
    assert parse({"label": True}, labels={"true": "positive"}).label == "positive"


def test_an_unknown_label_is_refused_with_the_closest() -> None:
    assert refusal({"label": "positve"}) == "unknown label 'positve'; did you mean 'positive'?"
    assert refusal({"label": "x" * 100}) == f"unknown label '{'x' * 40}…'"
    assert refusal({"label": ""}) == "no label"
    assert refusal({"label": []}) == "column 'label' holds neither text nor a number"


def test_texts_outside_the_length_limits_are_refused() -> None:
    assert refusal({"text": " \0\n"}) == "empty text"
    assert refusal({"text": None}) == "empty text"
    assert refusal({"text": 5}) == "column 'text' holds no text"
    assert "fewer than min_characters (10)" in refusal({"text": " short "}, min_characters=10)
    assert "more than max_characters (3)" in refusal({"text": "long"}, max_characters=3)


def test_the_language_is_that_of_the_column_else_of_the_source_else_unknown() -> None:
    assert parse({"lang": "TL"}, lang="en").document.lang == "tl"
    assert parse({"lang": ""}, lang="en").document.lang == "en"
    assert parse({}).document.lang is None


@pytest.mark.parametrize("lang", ["english", "e", "en us", "中文", 7])
def test_what_is_no_language_code_is_refused(lang: Any) -> None:
    assert "is not a language code" in refusal({"lang": lang})


@pytest.mark.parametrize("lang", ["no", "zh-hans", "sr-latn-rs", "es-419", "fil"])
def test_language_codes_are_kept(lang: str) -> None:
    assert parse({"lang": lang}).document.lang == lang


def test_an_unknown_kind_of_source_is_other_and_counted() -> None:
    rows = parser(source="blog")
    assert (
        rows.parse({"text": "a", "label": "neutral", "kind": "podcast"}).document.source == "other"
    )
    assert rows.parse({"text": "a", "label": "neutral"}).document.source == "blog"
    assert rows.notes.total() == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-03-01", datetime(2024, 3, 1, tzinfo=UTC)),
        ("2024-03-01T10:00:00Z", datetime(2024, 3, 1, 10, tzinfo=UTC)),
        (date(2024, 3, 1), datetime(2024, 3, 1, tzinfo=UTC)),
        (datetime(2024, 3, 1, 10), datetime(2024, 3, 1, 10, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_are_stored_in_utc(value: Any, expected: datetime | None) -> None:
    assert parse({"date": value}).document.published_at == expected


@pytest.mark.parametrize("value", ["yesterday", 1_700_000_000, "0001-01-01T00:00:00+05:00"])
def test_a_time_that_is_not_understood_is_null_and_counted(value: Any) -> None:
    rows = parser()
    parsed = rows.parse({"text": "a", "label": "neutral", "date": value})
    assert parsed.document.published_at is None
    assert rows.notes.total() == 1


def test_unlabelled_sources_need_no_label_and_no_narrative() -> None:
    source = DocumentSource(path="x.csv", columns=ALL)
    example = ExampleSource(path="y.csv")
    rows = RowParser(source, IngestSettings(examples=[example]), LABELS)
    assert "label" not in rows.columns
    assert "target" not in rows.columns
    assert rows.parse({"text": "a", "target": "b"}).narrative is None
