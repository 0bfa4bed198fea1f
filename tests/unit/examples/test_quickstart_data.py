"""The sample data keeps what its README says of it."""

import json
import re
from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "examples" / "quickstart"
LANGS = {"es", "ru", "zh", "tl", "en"}
LABELS = {"negative", "neutral", "positive"}
HAN = re.compile(r"[\u3400-\u9fff]")


def rows(name):
    with (FOLDER / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


EXAMPLES = rows("labelled.jsonl")
UNLABELLED = rows("unlabelled.jsonl")
DOCUMENTS = {row["id"]: row for row in EXAMPLES + UNLABELLED}


def units(row):
    """Words, or characters where the script has no spaces."""
    if row["lang"] == "zh":
        return HAN.findall(row["text"])
    return re.findall(r"\w+", row["text"].lower())


def test_every_row_is_complete():
    for row in EXAMPLES:
        assert set(row) == {
            "id", "text", "narrative", "label", "lang", "source", "published_at",
        }  # fmt: skip
        assert row["label"] in LABELS
    for row in EXAMPLES + UNLABELLED:
        assert row["lang"] in LANGS
        assert row["source"] in {"news", "blog", "social"}
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["published_at"])
        assert row["text"] == row["text"].strip()
        assert row["text"]


def test_there_is_enough_in_every_language():
    assert len(EXAMPLES) >= 900
    per_lang = Counter(row["lang"] for row in EXAMPLES)
    assert set(per_lang) == LANGS
    assert min(per_lang.values()) >= 180
    assert len(UNLABELLED) >= 300
    assert min(Counter(row["lang"] for row in UNLABELLED).values()) >= 60


def test_labels_are_balanced_in_every_language_and_narrative():
    for key in ("lang", "narrative"):
        counts = defaultdict(Counter)
        for row in EXAMPLES:
            counts[row[key]][row["label"]] += 1
        for value, labels in counts.items():
            assert set(labels) == LABELS, value
            assert max(labels.values()) <= 1.5 * min(labels.values()), value


def test_every_narrative_is_asked_in_every_language():
    langs = defaultdict(set)
    for row in EXAMPLES:
        langs[row["narrative"]].add(row["lang"])
    assert len(langs) >= 30
    assert all(found == LANGS for found in langs.values())


def test_many_documents_stand_under_several_narratives_with_different_labels():
    labels = defaultdict(dict)
    for row in EXAMPLES:
        assert row["narrative"] not in labels[row["id"]]
        labels[row["id"]][row["narrative"]] = row["label"]
    several = [found for found in labels.values() if len(found) > 1]
    assert len(several) >= 0.15 * len(labels)
    assert sum(len(set(found.values())) > 1 for found in several) >= 0.5 * len(several)


def test_an_id_is_one_text_and_a_text_one_id():
    texts = defaultdict(set)
    for row in EXAMPLES + UNLABELLED:
        texts[row["id"]].add(row["text"])
    assert all(len(found) == 1 for found in texts.values())
    assert len({next(iter(found)) for found in texts.values()}) == len(texts)


def test_registers_and_lengths_vary():
    documents = list({row["id"]: row for row in EXAMPLES}.values())
    for lang, group in groupby(sorted(documents, key=lambda r: r["lang"]), lambda r: r["lang"]):
        members = list(group)
        shares = Counter(row["source"] for row in members)
        assert min(shares.values()) >= 0.15 * len(members), lang
        sentences = [len(re.findall(r"[.!?。！？…]+", row["text"])) for row in members]
        assert min(sentences) <= 1
        assert max(sentences) >= 6
        assert max(sentences) <= 14


@pytest.mark.parametrize("lang", sorted(LANGS))
def test_no_two_texts_share_a_long_run(lang):
    length = 12 if lang == "zh" else 7
    seen = {}
    for row in DOCUMENTS.values():
        if row["lang"] != lang:
            continue
        parts = units(row)
        for start in range(len(parts) - length + 1):
            run = tuple(parts[start : start + length])
            assert seen.setdefault(run, row["id"]) == row["id"], " ".join(run)
