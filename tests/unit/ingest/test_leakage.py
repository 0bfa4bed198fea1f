from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from slant.artifacts import Recipe, build, load
from slant.config.ingest_settings import ExampleSource, IngestSettings, SplitShares
from slant.corpus import Corpus
from slant.errors import ArtifactError
from slant.ingest.leakage import KINDS, Leak, describe, find_leaks
from slant.ingest.near import shingle_hashes
from slant.ingest.split import heldout_narratives
from slant.progress import SilentProgress
from slant.records import Document, Example, Narrative, write_jsonl, write_parquet
from slant.task.normalise import text_digest

SEED = 17
NARRATIVES = [Narrative(f"n{i}", f"Narrative number {i}") for i in range(10)]


def words(number: int, count: int = 40) -> str:
    """A text that shares next to nothing with one of another number."""
    letters = random.Random(number)
    return " ".join(
        "".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=letters.randint(3, 9)))
        for _ in range(count)
    )


def document(number: int, text: str | None = None, **about: Any) -> Document:
    text = text or words(number)
    digest = text_digest(text)
    return Document(f"d{number}", text, digest=digest, cluster=digest, **about)


def example(number: int, split: str, narrative: str | None = None) -> Example:
    return Example(f"d{number}", narrative, "neutral", split, "news", "labelled.jsonl", number + 1)


# d0 … d39 are for training, d60 … d79 are not labelled.
DOCUMENTS = [document(i) for i in range(80)]
SIDES = ["train"] * 40 + ["validation"] * 5 + ["calibration"] * 5 + ["test"] * 10
EXAMPLES = [example(i, side, f"n{i % 10}") for i, side in enumerate(SIDES)]


def leaks_of(
    folder: Path,
    documents: list[Document] = DOCUMENTS,
    examples: list[Example] = EXAMPLES,
    **split: Any,
) -> list[Leak]:
    with build(folder, Recipe("ingest", {}, {}, SEED)):
        write_parquet(folder / "documents.parquet", Document, documents)
        write_jsonl(folder / "narratives.jsonl", NARRATIVES)
        write_parquet(folder / "examples.parquet", Example, examples)
    settings = IngestSettings(
        examples=[ExampleSource(path="labelled.jsonl")], split=SplitShares(**split)
    )
    corpus = Corpus(load(folder, "ingest"))
    return find_leaks(corpus, settings, SilentProgress(), seed=SEED)


def with_text(number: int, text: str, **about: Any) -> list[Document]:
    """All documents, one of them with another text under its old digest and cluster."""
    planted = replace(DOCUMENTS[number], text=text, **about)
    return [planted if i == number else one for i, one in enumerate(DOCUMENTS)]


def test_a_clean_corpus_has_no_leak_and_says_so(tmp_path):
    assert leaks_of(tmp_path) == []
    assert describe([]) == "no leaks found"


@pytest.mark.parametrize("split", ["validation", "calibration", "test"])
def test_a_document_in_two_splits_is_found(tmp_path, split):
    found = leaks_of(tmp_path, examples=[*EXAMPLES, replace(example(3, split), row=99)])
    assert found == [
        Leak(
            "same document",
            ("train", split),
            ("row 4 of labelled.jsonl", "row 99 of labelled.jsonl"),
        )
    ]


def test_an_equal_text_in_two_splits_is_found_whatever_its_stored_digest(tmp_path):
    text = DOCUMENTS[55].text.upper().replace(" ", "  ")
    found = leaks_of(tmp_path, with_text(3, text))
    places = ("row 4 of labelled.jsonl", "row 56 of labelled.jsonl")
    assert found == [Leak("equal text", ("train", "test"), places)]


def test_an_equal_text_between_two_held_out_splits_is_found(tmp_path):
    found = leaks_of(tmp_path, with_text(42, DOCUMENTS[47].text))
    assert [(leak.kind, leak.splits) for leak in found] == [
        ("equal text", ("validation", "calibration"))
    ]


def test_an_equal_text_within_a_split_is_no_leak(tmp_path):
    assert leaks_of(tmp_path, with_text(3, DOCUMENTS[4].text)) == []


def test_a_near_duplicate_in_another_split_is_found_with_its_similarity(tmp_path):
    found = leaks_of(tmp_path, with_text(3, DOCUMENTS[55].text + " and one more end"))
    assert [(leak.kind, set(leak.splits)) for leak in found] == [
        ("near-duplicate", {"train", "test"})
    ]
    assert set(found[0].places) == {"row 4 of labelled.jsonl", "row 56 of labelled.jsonl"}
    assert found[0].similarity is not None
    assert 0.9 < found[0].similarity < 1


def test_a_chinese_near_duplicate_is_found(tmp_path):
    text = "".join(chr(0x4E00 + 17 * i % 5000) for i in range(120))
    documents = with_text(3, text)
    documents[55] = replace(documents[55], text=text[:-3] + "新的句")
    assert [leak.kind for leak in leaks_of(tmp_path, documents)] == ["near-duplicate"]


def test_a_sentence_within_a_longer_text_of_another_split_is_found(tmp_path):
    sentence = words(999, 8)
    documents = with_text(55, sentence)
    documents[3] = replace(documents[3], text=f"{words(1000, 12)} {sentence} {words(1001, 9)}")
    found = leaks_of(tmp_path, documents)
    assert [(leak.kind, leak.splits) for leak in found] == [("contained text", ("test", "train"))]
    assert found[0].similarity is not None
    assert found[0].similarity >= 0.9


def test_a_phrase_of_a_few_words_within_a_longer_text_is_no_leak(tmp_path):
    documents = with_text(55, "thank you all")
    documents[3] = replace(documents[3], text=f"{words(1000)} thank you all {words(1001)}")
    assert leaks_of(tmp_path, documents) == []


def test_a_held_out_text_that_domain_adaptation_reads_is_found(tmp_path):
    # The stored digest is what keeps it from being read; here it is wrong.
    found = leaks_of(tmp_path, with_text(70, DOCUMENTS[55].text))
    places = ("row 71 of documents.parquet", "row 56 of labelled.jsonl")
    assert found == [Leak("equal text", ("adaptation", "test"), places)]


def test_a_near_duplicate_of_a_held_out_text_that_domain_adaptation_reads_is_found(tmp_path):
    found = leaks_of(tmp_path, with_text(70, "so then: " + DOCUMENTS[46].text))
    assert [(leak.kind, leak.splits) for leak in found] == [
        ("near-duplicate", ("adaptation", "calibration"))
    ]


def test_domain_adaptation_may_read_what_is_like_a_training_text(tmp_path):
    assert leaks_of(tmp_path, with_text(70, DOCUMENTS[3].text + " more")) == []


def test_a_held_out_narrative_outside_the_test_split_is_found(tmp_path):
    texts = {one.text: one.id for one in NARRATIVES}
    chosen = heldout_narratives(texts, 0.2, SEED)
    held = sorted(id_ for text, id_ in texts.items() if text_digest(text) in chosen)
    clean = [replace(one, split="test") if one.narrative_id in held else one for one in EXAMPLES]
    assert leaks_of(tmp_path / "clean", examples=clean, heldout_narratives=0.2) == []
    planted = next(i for i, one in enumerate(clean) if one.narrative_id == held[0])
    clean[planted] = replace(clean[planted], split="validation")
    found = leaks_of(tmp_path / "planted", examples=clean, heldout_narratives=0.2)
    assert [(leak.kind, leak.splits) for leak in found] == [
        ("held-out narrative", ("validation", "test"))
    ]
    assert found[0].places[0] == f"row {planted + 1} of labelled.jsonl"


def test_a_held_out_data_set_outside_the_test_split_is_found(tmp_path):
    clean = [replace(one, dataset="blogs") if one.split == "test" else one for one in EXAMPLES]
    assert leaks_of(tmp_path / "clean", examples=clean, heldout_datasets=["blogs"]) == []
    clean[7] = replace(clean[7], dataset="blogs")
    found = leaks_of(tmp_path / "planted", examples=clean, heldout_datasets=["blogs"])
    assert found == [
        Leak(
            "held-out data set",
            ("train", "test"),
            ("row 8 of labelled.jsonl", "row 51 of labelled.jsonl"),
        )
    ]


def day(number: int) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number)


def test_by_time_a_training_document_later_than_the_test_split_is_found(tmp_path):
    dated = [replace(one, published_at=day(i)) for i, one in enumerate(DOCUMENTS)]
    assert leaks_of(tmp_path / "clean", dated, by="time") == []
    dated[3] = replace(dated[3], published_at=day(51))
    dated[4] = replace(dated[4], published_at=day(50))  # the same day as the earliest test document
    assert leaks_of(tmp_path / "planted", dated, by="time") == [
        Leak(
            "later than test",
            ("train", "test"),
            ("row 4 of labelled.jsonl", "row 51 of labelled.jsonl"),
        )
    ]
    assert leaks_of(tmp_path / "by digest", dated) == []


def test_by_time_a_test_cluster_counts_by_its_latest_text(tmp_path):
    dated = [replace(one, published_at=day(i)) for i, one in enumerate(DOCUMENTS)]
    dated[50] = replace(dated[50], published_at=day(2), cluster=dated[51].cluster)
    assert leaks_of(tmp_path, dated, by="time") == []


def test_each_pair_of_texts_is_told_of_once_however_many_rows_have_them(tmp_path):
    rows = [*EXAMPLES, *(replace(example(3, "test"), row=100 + i) for i in range(50))]
    assert len(leaks_of(tmp_path, examples=rows)) == 1


def test_no_text_is_too_short_to_be_compared(tmp_path):
    documents = with_text(3, "a")
    documents[55] = replace(documents[55], text="b")
    documents[56] = replace(documents[56], text="A")
    documents[57] = replace(documents[57], text="!")
    found = leaks_of(tmp_path, documents)
    assert [(leak.kind, leak.places[1]) for leak in found] == [
        ("equal text", "row 57 of labelled.jsonl")
    ]


def test_the_table_lists_twenty_of_a_kind_with_totals_and_no_text():
    leaks = [Leak("equal text", ("train", "test"), (f"row {i}", f"row {i}0")) for i in range(30)]
    near = Leak("near-duplicate", ("test", "train"), ("row 1 of a", "row 2 of b"), 0.8765)
    lines = describe([near, *leaks]).splitlines()
    assert lines[0] == "31 leaks found"
    assert lines[2] == "equal text: 30"
    assert lines[3] == "  train: row 0   test: row 00"
    assert "  … and 10 more" in lines
    assert lines[-2:] == ["near-duplicate: 1", "  test: row 1 of a  train: row 2 of b  0.88"]
    assert len(lines) == 3 + 20 + 1 + 1 + 2
    assert {leak.kind for leak in [near, *leaks]} <= set(KINDS)


def test_a_missing_document_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="d99"):
        leaks_of(tmp_path, examples=[*EXAMPLES, example(99, "test")])


@pytest.mark.parametrize("seed", range(5))
def test_every_pair_that_comparing_all_with_all_finds_is_found(tmp_path, seed):
    choose = random.Random(seed)
    pool = [words(2000 + i, 3) for i in range(8)]
    documents = [
        replace(one, text=f"{i % 2} " + " ".join(choose.choices(pool, k=choose.randint(1, 9))))
        for i, one in enumerate(DOCUMENTS)
    ]
    found = {
        (leak.kind, frozenset(text_at(documents, place) for place in leak.places))
        for leak in leaks_of(tmp_path, documents)
    }
    assert {kind for kind, _ in found} >= {"near-duplicate", "contained text"}
    assert found == set(by_brute_force(documents))


def text_at(documents: list[Document], place: str) -> str:
    return documents[int(place.split()[1]) - 1].text


def by_brute_force(documents: list[Document]) -> Iterator[tuple[str, frozenset[str]]]:
    """The kinds and texts of all pairs of documents on two sides that are alike."""
    sided = zip(documents, [*SIDES, *["adaptation"] * 20], strict=True)
    shingled = [(one.text, side, {*shingle_hashes(one.text, 5).tolist()}) for one, side in sided]
    for (text, side, a), (other, other_side, b) in combinations(shingled, 2):
        sides, texts, size = {side, other_side}, frozenset({text, other}), min(len(a), len(b))
        if len(sides) == 1 or sides == {"train", "adaptation"}:
            continue
        if text == other:
            yield "equal text", texts
        elif len(a & b) >= 0.8 * len(a | b):
            yield "near-duplicate", texts
        elif "adaptation" not in sides and size >= 20 and len(a & b) >= 0.9 * size:
            yield "contained text", texts


@pytest.mark.public_data
@pytest.mark.skipif("SLANT_PUBLIC_DATA" not in os.environ, reason="SLANT_PUBLIC_DATA is not set")
def test_russian_sentences_that_stand_under_another_entity_with_a_few_words_more_are_found(
    tmp_path,
):
    path = Path(os.environ["SLANT_PUBLIC_DATA"]) / "labelled" / "ru_rusentne.jsonl"
    texts = {json.loads(line)["text"] for line in path.open(encoding="utf-8")}
    chosen = sorted(text for text in texts if 60 < len(text) < 300)[:1000]
    planted = [f"Ранее сообщалось, что {text}, передают агентства." for text in chosen[:40]]
    documents = [document(i, text) for i, text in enumerate([*chosen, *planted])]
    examples = [example(i, "train" if i < 1000 else "test") for i in range(len(documents))]
    found = {leak.places for leak in leaks_of(tmp_path, documents, examples)}
    for i in range(40):
        rows = {f"row {i + 1} of labelled.jsonl", f"row {i + 1001} of labelled.jsonl"}
        assert any(rows == set(places) for places in found)
    assert len(found) <= 42  # the set itself has overlaps
