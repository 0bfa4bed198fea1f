from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slant.artifacts import Recipe, build, load
from slant.corpus import Corpus
from slant.errors import ArtifactError
from slant.records import Document, Example, Narrative, write_jsonl, write_parquet

DOCUMENTS = [
    Document("d1", "one", digest="1"),
    Document("d2", "two", digest="2"),
    Document("d3", "three", digest="3"),
    Document("d4", "two!", digest="2"),
    Document("d5", "five", digest="5"),
]


def example(document: str, narrative: str | None, split: str, row: int) -> Example:
    return Example(document, narrative, "neutral", split, "set", "a.csv", row)


EXAMPLES = [
    example("d3", "n1", "train", 1),
    example("d2", None, "test", 2),
    example("d1", "n2", "train", 3),
    example("d3", None, "train", 4),
]


def corpus(
    folder: Path, examples: list[Example] = EXAMPLES, documents: list[Document] = DOCUMENTS
) -> Corpus:
    with build(folder, Recipe("ingest", {}, {}, 1)):
        write_parquet(folder / "documents.parquet", Document, documents)
        write_jsonl(folder / "narratives.jsonl", [Narrative("n1", "N 1"), Narrative("n2", "N 2")])
        write_parquet(folder / "examples.parquet", Example, examples)
    return Corpus(load(folder, "ingest"))


def test_a_split_joins_its_examples_with_their_texts_in_the_order_of_the_file(tmp_path):
    items = corpus(tmp_path).split("train")
    assert [item.text for item in items] == [("three", "N 1"), ("one", "N 2"), ("three", None)]
    assert [item.example.row for item in items] == [1, 3, 4]
    assert items[0].document.id == "d3"
    assert items[0].narrative == Narrative("n1", "N 1")
    assert corpus(tmp_path).split("calibration") == []


def test_documents_and_narratives_are_found_by_id_in_the_order_of_the_file(tmp_path):
    found = corpus(tmp_path)
    assert list(found.documents) == ["d1", "d2", "d3", "d4", "d5"]
    assert list(found.narratives) == ["n1", "n2"]


def adaptation_texts(found: Corpus) -> dict[str, list[str]]:
    return {lang: list(found.texts(of.rows)) for lang, of in found.adaptation_rows().items()}


def test_adaptation_reads_no_text_that_anything_is_measured_on_under_whatever_id(tmp_path):
    assert adaptation_texts(corpus(tmp_path)) == {"und": ["one", "three", "five"]}


@pytest.mark.parametrize("split", ["validation", "calibration", "test"])
def test_every_split_but_the_training_one_is_held_out(tmp_path, split):
    found = corpus(tmp_path, [example("d5", None, split, 1), example("d5", "n1", "train", 2)])
    assert adaptation_texts(found) == {"und": ["one", "two", "three", "two!"]}


def test_near_duplicates_of_what_is_measured_are_held_out_with_their_whole_cluster(tmp_path):
    documents = [
        Document("d1", "one", digest="1", cluster="1"),
        Document("d2", "one.", digest="2", cluster="1"),
        Document("d3", "one!", digest="3", cluster="1"),
        Document("d4", "four", digest="4", cluster="4"),
    ]
    found = corpus(tmp_path, [example("d2", None, "test", 1)], documents)
    assert adaptation_texts(found) == {"und": ["four"]}
    assert found.adaptation_rows()["und"].groups == ["4"]


def test_documents_without_digest_and_cluster_are_told_apart_by_their_ids(tmp_path):
    documents = [Document("d1", "one"), Document("d2", "two"), Document("d3", "3", digest="x")]
    found = corpus(tmp_path, [example("d2", None, "test", 1)], documents)
    assert adaptation_texts(found) == {"und": ["one", "3"]}
    assert found.adaptation_rows()["und"].groups == ["d1", "x"]


def test_adaptation_documents_come_by_language_in_the_order_of_the_file(tmp_path):
    documents = [
        Document(f"d{i}", f"text {i}", lang=("ru", "zh", None)[i % 3]) for i in range(25_000)
    ]
    found = corpus(tmp_path, [], documents)
    rows = found.adaptation_rows()
    assert list(rows) == ["ru", "und", "zh"]
    assert rows["zh"].rows.tolist() == list(range(1, 25_000, 3))
    # Across the borders of what the file keeps together, and from anywhere on.
    for chosen in (rows["zh"].rows[3000:], rows["zh"].rows[:0], rows["ru"].rows[[0, -1]]):
        assert list(found.texts(chosen)) == [f"text {i}" for i in chosen]


def test_a_corpus_without_documents_has_none_to_adapt_to(tmp_path):
    assert corpus(tmp_path, [], []).adaptation_rows() == {}


def test_only_labelled_documents_are_read_for_a_split(tmp_path):
    assert list(corpus(tmp_path).labelled_documents) == ["d1", "d2", "d3"]


def test_the_digest_is_that_of_the_records_and_of_no_report(tmp_path):
    first = corpus(tmp_path / "a").digest
    with build(tmp_path / "b", Recipe("ingest", {}, {}, 1)):
        for name in ("documents.parquet", "narratives.jsonl", "examples.parquet"):
            shutil.copy(tmp_path / "a" / name, tmp_path / "b" / name)
        (tmp_path / "b" / "ingest.html").write_text("a report")
    assert Corpus(load(tmp_path / "b", "ingest")).digest == first
    assert corpus(tmp_path / "c", EXAMPLES[:-1]).digest != first
    assert corpus(tmp_path / "d", documents=DOCUMENTS[:-1]).digest != first


@pytest.mark.parametrize(
    ("dangling", "missing"),
    [(example("d9", None, "test", 1), "d9"), (example("d1", "n9", "test", 1), "n9")],
)
def test_an_example_of_a_document_or_narrative_that_is_not_there_is_an_error(
    tmp_path, dangling, missing
):
    found = corpus(tmp_path, [dangling])
    with pytest.raises(ArtifactError, match=missing):
        found.split("test")


def test_held_out_documents_that_are_not_there_are_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="d9"):
        list(corpus(tmp_path, [example("d9", None, "test", 1)]).adaptation_rows())


def test_a_missing_or_damaged_file_is_an_error_that_names_it(tmp_path):
    found = corpus(tmp_path)
    (tmp_path / "documents.parquet").write_bytes(b"PAR1 no longer")
    (tmp_path / "narratives.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"documents\.parquet"):
        _ = found.documents
    with pytest.raises(ArtifactError, match=r"narratives\.jsonl"):
        _ = found.narratives
