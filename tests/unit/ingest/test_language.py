from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from slant.config.ingest_settings import LanguageSettings
from slant.errors import UsageError
from slant.ingest.language import LANGUAGES, LanguageIdentifier

IDENTIFIER = LanguageIdentifier(LanguageSettings().candidates)

TEXTS = {
    "es": "El Gobierno anunció ayer que no subirá los impuestos este año.",
    "en": "The government said yesterday that taxes will not rise this year.",
    "pt": "O governo anunciou ontem que não vai aumentar os impostos este ano.",
    "fr": "Le gouvernement a annoncé hier que les impôts n'augmenteront pas.",
    "de": "Die Regierung hat gestern angekündigt, dass die Steuern nicht steigen.",
    "id": "Pemerintah mengumumkan kemarin bahwa pajak tidak akan naik tahun ini.",
    "vi": "Hôm qua chính phủ thông báo sẽ không tăng thuế trong năm nay.",
    "tl": "Sinabi kahapon ng pamahalaan na hindi tataas ang buwis ngayong taon.",
    "ru": "Правительство вчера объявило, что налоги в этом году не вырастут.",
    "zh": "政府昨天宣布今年不会加税。",
    "ar": "أعلنت الحكومة أمس أن الضرائب لن ترتفع هذا العام.",
    "hi": "सरकार ने कल घोषणा की कि इस साल कर नहीं बढ़ेंगे।",
}


@pytest.mark.parametrize("lang", TEXTS)
def test_a_sentence_is_recognised_and_sure(lang: str) -> None:
    found, confidence = IDENTIFIER.identify(TEXTS[lang])
    assert found == lang
    assert 0.8 <= confidence <= 1


@pytest.mark.parametrize("text", ["", "  \n", "123 456,00 €", "😀😀 !!!", "https://t.co/abc @ana"])
def test_a_text_without_letters_of_its_own_has_no_language(text: str) -> None:
    assert IDENTIFIER.identify(text) == (None, 0.0)


def test_a_script_that_no_candidate_is_written_in_has_no_language() -> None:
    for text in ("Η κυβέρνηση ανακοίνωσε χθες", "Η Apple ανακοίνωσε χθες το iPhone Pro"):
        assert IDENTIFIER.identify(text) == (None, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "good quality yung product and low price kaya sulit thank you seller",
        "super ganda ng color and very comfortable i will order again",
        "fast delivery naman po thank you so much seller and rider",
        "HELLO PO PWEDE PO BA MAKISABAY SA PAGPUNTA",
        "What you see is what you get pero ang liit lang ng size for me",
    ],
)
def test_taglish_is_tagalog(text: str) -> None:
    found, confidence = IDENTIFIER.identify(text)
    assert found == "tl"
    assert 0.5 < confidence <= 1


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("The director Ang Lee and Professor Andrew Ng met Siya Kolisi at the office", "en"),
        ("Send it to PO Box 12, Kansas City, MO, and to the KO league in PA, they said", "en"),
        ("She said that he would nag his pa about the din, and wag the dog", "en"),
        ("La ley no pasó: para ella, la sala no es la solución, sino la mesa", "es"),
        ("Die Strasse ist lang und das Wetter war auch nicht gut", "de"),
    ],
)
def test_small_words_elsewhere_make_no_tagalog(text: str, lang: str) -> None:
    assert IDENTIFIER.identify(text)[0] == lang


def test_one_small_word_is_not_enough_to_be_sure() -> None:
    found, confidence = IDENTIFIER.identify("good item and fast delivery naman seller")
    assert found == "tl"
    assert confidence < LanguageSettings().min_confidence


def test_without_tagalog_among_the_candidates_taglish_is_english() -> None:
    text = "good quality yung product and low price kaya sulit thank you seller"
    assert LanguageIdentifier(["en", "es"]).identify(text)[0] == "en"


def test_foreign_names_do_not_change_the_script_of_a_text() -> None:
    for text, lang in (
        ("iPhone 12 Pro Max 和 MacBook Pro 今天正式发布了", "zh"),
        ("Шварц работал над Open Library и watchdog.net", "ru"),
        ("Xi Jinping (习近平) said on Monday that trade talks would go on", "en"),
        ("Vladímir Putin (Владимир Путин) dijo que las negociaciones continúan", "es"),
    ):
        assert IDENTIFIER.identify(text)[0] == lang


def test_kana_tells_japanese_from_chinese() -> None:
    both = LanguageIdentifier(["ja", "zh", "ko"])
    assert both.identify("政府は昨日、今年は増税しないと発表した。")[0] == "ja"
    assert both.identify("政府昨天宣布今年不会加税。")[0] == "zh"
    assert both.identify("정부는 어제 올해 세금을 올리지 않겠다고 발표했다.")[0] == "ko"


def test_candidates_of_one_script_are_told_apart() -> None:
    slavic = LanguageIdentifier(["ru", "uk", "en"])
    assert slavic.identify("Уряд учора оголосив, що податки не зростуть.")[0] == "uk"
    assert slavic.identify(TEXTS["ru"])[0] == "ru"


def test_addresses_names_and_tags_do_not_count() -> None:
    text = f"@TheNewYorkTimes #breakingnews {TEXTS['es']} https://www.nytimes.com/the-new-york"
    assert IDENTIFIER.identify(text)[0] == "es"
    assert IDENTIFIER.identify("#苹果发布会#真的很好看")[0] == "zh"


def test_a_long_text_is_judged_by_its_beginning_and_its_middle() -> None:
    found, confidence = IDENTIFIER.identify(TEXTS["en"] * 6 + TEXTS["tl"] * 200)
    assert found == "tl"
    assert confidence > 0.8
    assert IDENTIFIER.identify(TEXTS["es"] * 5000)[0] == "es"


def test_japanese_and_korean_are_not_called_chinese_where_they_are_no_candidates() -> None:
    assert IDENTIFIER.identify("政府は昨日、今年は増税しないと発表した。")[0] is None
    assert IDENTIFIER.identify("정부는 어제 올해 세금을 올리지 않겠다고 발표했다. 北韓")[0] is None


def test_any_text_has_an_answer() -> None:
    for text in ("a", "\ud800x", "\0", "ａｂｃ", "é", "𝓪𝓫𝓬", "e\u0301" * 400):
        lang, confidence = IDENTIFIER.identify(text)
        assert lang is None or lang in LanguageSettings().candidates
        assert 0 <= confidence <= 1


@pytest.mark.parametrize(
    ("code", "meant"),
    [("eng", "en"), ("fil", "tl"), ("cn", "zh"), ("zh-cn", "zh"), ("EN", "en"), ("qqq", "")],
)
def test_an_unknown_candidate_is_refused_by_name(code: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        LanguageIdentifier(["en", code])
    assert f"'{code}'" in caught.value.message
    assert "ingest.language.candidates" in caught.value.message
    assert (f"did you mean '{meant}'?" in caught.value.message) == bool(meant)


def test_every_known_language_is_in_the_model() -> None:
    everything = LanguageIdentifier(LANGUAGES)
    assert everything.identify(TEXTS["fr"])[0] == "fr"


def test_an_identifier_can_be_sent_to_a_worker() -> None:
    copy = pickle.loads(pickle.dumps(LanguageIdentifier(["en", "es"])))
    assert copy.identify(TEXTS["es"])[0] == "es"


@pytest.mark.public_data
@pytest.mark.skipif(
    not os.environ.get("SLANT_PUBLIC_DATA"),
    reason="SLANT_PUBLIC_DATA is not set; examples/public/README.md says how to get the data",
)
@pytest.mark.parametrize(
    ("dataset", "least"),
    [
        ("en_newsmtsc", 0.995),
        ("es_elecciones_headlines", 0.995),
        ("ru_rusentne", 0.998),
        ("tl_firecs", 0.96),
        ("zh_cstance", 0.998),
    ],
)
def test_short_texts_are_recognised(dataset: str, least: float) -> None:
    path = Path(os.environ["SLANT_PUBLIC_DATA"]) / "labelled" / f"{dataset}.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    sample = texts[1 :: max(1, len(texts) // 500)]
    right = sum(IDENTIFIER.identify(text)[0] == dataset[:2] for text in sample)
    assert right >= least * len(sample)
