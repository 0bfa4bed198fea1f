from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from slant.artifacts import Artifact
from slant.config.ingest_settings import (
    Columns,
    DocumentSource,
    ExampleSource,
    IngestSettings,
    SplitSizes,
)
from slant.corpus import Corpus
from slant.errors import InputError, UsageError
from slant.ingest import run_ingest
from slant.labels import LabelSet
from slant.progress import SilentProgress
from slant.records import SPLITS, Document, Example, Narrative, Rejected, read_jsonl, read_parquet
from slant.task.normalise import text_digest

LABELS = LabelSet(["negative", "neutral", "positive"])
COLUMNS = Columns(narrative="target", lang="lang")
Row = dict[str, Any]


def examples(num: int = 90, prefix: str = "text") -> list[Row]:
    return [
        {
            "text": f"{prefix} {i // 2}",
            "target": f"claim {i % 2}",
            "label": LABELS[i % 3],
            "lang": ("en", "tl")[i // 2 % 2],
        }
        for i in range(num)
    ]


def write(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def source(path: str = "a.jsonl", **settings: Any) -> ExampleSource:
    return ExampleSource(path=path, **{"columns": COLUMNS, **settings})


def ingest(
    folder: Path, *sources: ExampleSource, documents: tuple[DocumentSource, ...] = (), seed: int = 1
) -> Artifact:
    settings = IngestSettings(examples=list(sources or (source(),)), documents=list(documents))
    return run_ingest(
        settings,
        labels=LABELS,
        seed=seed,
        start=folder,
        out=folder / "work",
        progress=SilentProgress(),
    )


def rejected(artifact: Artifact) -> list[tuple[str, int, str]]:
    records = read_parquet(artifact.file("rejected.parquet"), Rejected)
    return [(record.file, record.row, record.reason) for record in records]


def report(artifact: Artifact) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(artifact.file("ingest.json").read_text("utf-8"))
    return content


def adaptation_texts(artifact: Artifact) -> list[str]:
    corpus = Corpus(artifact)
    return [text for of in corpus.adaptation_rows().values() for text in corpus.texts(of.rows)]


def test_documents_narratives_and_examples_are_stored_once_each_and_joined_by_id(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.jsonl", examples())
    artifact = ingest(tmp_path)
    documents = read_parquet(artifact.file("documents.parquet"), Document)
    narratives = read_jsonl(artifact.file("narratives.jsonl"), Narrative)
    stored = read_parquet(artifact.file("examples.parquet"), Example)
    assert (len(documents), len(narratives), len(stored)) == (45, 2, 90)
    assert documents[0].id == f"d-{text_digest('text 0')[:16]}"
    assert [example.row for example in stored] == list(range(1, 91))
    assert {(example.dataset, example.file) for example in stored} == {("a", "a.jsonl")}
    assert {example.document_id for example in stored} == {document.id for document in documents}
    assert {example.narrative_id for example in stored} == {
        narrative.id for narrative in narratives
    }


def test_the_corpus_gives_what_was_read_in_its_order(tmp_path: Path) -> None:
    rows = examples()
    rows[3]["target"] = None
    write(tmp_path / "a.jsonl", rows)
    artifact = ingest(tmp_path)
    loaded = [one for split in SPLITS for one in Corpus(artifact).split(split)]
    assert len(loaded) == len(rows)
    for item in loaded:
        example, document, narrative = item.example, item.document, item.narrative
        row = rows[example.row - 1]
        assert (document.text, document.lang) == (row["text"], row["lang"])
        assert (narrative.text if narrative else None) == row["target"]
        assert example.label == row["label"]
    numbers = [item.example.row for item in Corpus(artifact).split("train")]
    assert numbers == sorted(numbers)


def test_the_same_inputs_are_not_read_twice(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", examples())
    first = ingest(tmp_path)
    before = first.file("documents.parquet").stat().st_mtime_ns
    assert ingest(tmp_path).manifest == first.manifest
    assert first.file("documents.parquet").stat().st_mtime_ns == before
    write(tmp_path / "a.jsonl", examples(92))
    assert ingest(tmp_path).key != first.key


def test_the_same_data_in_another_folder_gives_the_same_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, digests = set(), set()
    for place in ("one", "two/deeper"):
        folder = tmp_path / place
        write(folder / "a.jsonl", examples())
        write(folder / "data" / "x" / "b.jsonl", examples(30, "more"))
        write(folder / "data" / "docs.jsonl", [{"text": "unlabelled"}])
        monkeypatch.setenv("MY_DATA", str(folder / "data"))
        artifact = ingest(
            folder,
            source(str(folder / "a.jsonl")),
            source("${MY_DATA}/**/b*.jsonl"),
            documents=(DocumentSource(path="data/docs.jsonl"),),
        )
        keys.add(artifact.key)
        digests.add(artifact.digest)
        for file in ("manifest.json", "ingest.json", "examples.parquet", "rejected.parquet"):
            assert str(tmp_path).encode() not in (artifact.path / file).read_bytes()
        assert set(artifact.manifest["inputs"]) == {
            "a.jsonl",
            "${MY_DATA}/x/b.jsonl",
            "data/docs.jsonl",
        }
    assert len(keys) == len(digests) == 1


def test_files_of_equal_name_outside_the_project_are_told_apart(tmp_path: Path) -> None:
    paths = [write(tmp_path / place / "a.jsonl", examples(60, place)) for place in ("x", "y")]
    project = tmp_path / "project"
    project.mkdir()
    artifact = ingest(project, *(source(str(path)) for path in paths))
    assert set(artifact.manifest["inputs"]) == {"a.jsonl", "a.jsonl#2"}


def test_duplicates_and_contradictions_are_set_aside_and_the_first_stands(tmp_path: Path) -> None:
    rows = examples(60)
    again = dict(rows[0], text=rows[0]["text"].upper() + " ")
    contrary = dict(rows[1], label="neutral" if rows[1]["label"] != "neutral" else "positive")
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "b.jsonl", [again, contrary, *examples(30, "other")])
    artifact = ingest(tmp_path, source("a.jsonl"), source("b.jsonl"))
    assert rejected(artifact) == [
        ("b.jsonl", 1, "duplicate example"),
        ("b.jsonl", 2, "contradicts row 2 of a.jsonl"),
    ]
    content = report(artifact)
    assert content["reasons"] == {"duplicate example": 1, "contradicts another row": 1}
    assert (content["duplicates"]["exact"], content["duplicates"]["num_contradictions"]) == (1, 1)


def test_one_id_for_two_texts_is_refused_and_two_ids_for_one_text_are_one_group(
    tmp_path: Path,
) -> None:
    rows = [dict(row, id=f"id {i // 2}") for i, row in enumerate(examples())]
    twin = dict(rows[0], id="twin", target="another claim")
    thief = dict(rows[0], id="id 0", text="a text of its own")
    write(tmp_path / "a.jsonl", [*rows, twin, thief])
    artifact = ingest(tmp_path, source(columns=COLUMNS.model_copy(update={"id": "id"})))
    assert rejected(artifact) == [
        ("a.jsonl", 92, "id of another text: 'id 0' stands in row 1 of a.jsonl")
    ]
    stored = read_parquet(artifact.file("examples.parquet"), Example)
    splits = {example.split for example in stored if example.document_id in ("id 0", "twin")}
    assert len(splits) == 1
    documents = read_parquet(artifact.file("documents.parquet"), Document)
    assert {"id 0", "twin"} <= {document.id for document in documents}


def test_a_text_in_two_sources_has_one_split(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", examples())
    write(tmp_path / "b.jsonl", [dict(row, target="a third claim") for row in examples()[::2]])
    sizes = SplitSizes(train=20, validation=5, calibration=5, test=10)
    artifact = ingest(tmp_path, source("a.jsonl"), source("b.jsonl", sizes=sizes))
    split_of: dict[str, str] = {}
    for example in read_parquet(artifact.file("examples.parquet"), Example):
        assert split_of.setdefault(example.document_id, example.split) == example.split


def test_examples_beyond_the_sizes_are_counted_and_not_written(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", examples())
    write(tmp_path / "docs.jsonl", [{"text": f"text {i}"} for i in range(45)])
    sizes = SplitSizes(train=12, validation=4, calibration=4, test=6)
    documents = (DocumentSource(path="docs.jsonl"),)
    artifact = ingest(tmp_path, source(sizes=sizes), documents=documents)
    assert artifact.facts["examples"] == sizes.model_dump()
    labelled, unlabelled = report(artifact)["sources"]
    assert (labelled["rows"], labelled["kept"], labelled["unused"]) == (90, 26, 64)
    assert unlabelled["duplicates"] + unlabelled["kept"] == 45
    stored = read_parquet(artifact.file("examples.parquet"), Example)
    assert len(stored) == 26


def test_no_held_out_text_is_among_the_documents_for_adaptation(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", examples())
    unlabelled = [{"text": f"TEXT  {i}"} for i in range(45)] + [{"text": "new"}, {"text": "New"}]
    write(tmp_path / "docs.jsonl", unlabelled)
    artifact = ingest(tmp_path, documents=(DocumentSource(path="docs.jsonl", lang="en"),))
    held_out = {
        item.document.digest
        for split in SPLITS
        if split != "train"
        for item in Corpus(artifact).split(split)
    }
    adaptation = adaptation_texts(artifact)
    assert held_out.isdisjoint(text_digest(text) for text in adaptation)
    train = {item.document.text for item in Corpus(artifact).split("train")}
    assert set(adaptation) == train | {"new"}
    reasons = Counter(reason for _, _, reason in rejected(artifact))
    assert reasons == {"text of a labelled document": 45, "duplicate document": 1}
    assert report(artifact)["duplicates"]["exact"] == 46


def test_a_limit_takes_the_same_documents_whatever_their_order(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", examples())
    # Numbers written out far apart: "document 1" and "document 10" are near-duplicates.
    rows = [{"id": i, "text": f"document {(i % 80) ** 5 + 7}"} for i in range(100)]
    chosen = []
    for order in (1, -1):
        write(tmp_path / "docs.jsonl", rows[::order])
        columns = Columns(id="id")
        documents = (DocumentSource(path="docs.jsonl", columns=columns, limit=20),)
        artifact = ingest(tmp_path, documents=documents)
        texts = [text for text in adaptation_texts(artifact) if text[0] == "d"]
        assert len(texts) == len(set(texts)) == 20
        chosen.append(sorted(texts))
        counts = report(artifact)["sources"][1]
        fates = ("kept", "rejected", "duplicates", "unused")
        assert counts["rows"] == sum(counts[fate] for fate in fates) == 100
        assert counts["kept"] == 20
    assert chosen[0] == chosen[1]


def test_a_limit_on_examples_counts_documents_and_does_not_decide_their_split(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.jsonl", examples(400))
    artifact = ingest(tmp_path, source(limit=100))
    assert artifact.facts["documents"]["labelled"] == 100
    assert artifact.facts["examples"] == {
        "train": 130,
        "validation": 10,
        "calibration": 20,
        "test": 40,
    }
    assert artifact.facts["unused"] == 200


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows = examples()
    rows[5]["label"] = "unsure"
    rows[6]["text"] = " "
    rows[7]["lang"] = "???"
    write(tmp_path / "a.jsonl", rows)
    artifact = ingest(tmp_path)
    (counts,) = report(artifact)["sources"]
    assert (counts["rows"], counts["kept"], counts["rejected"]) == (90, 87, 3)
    assert artifact.facts["rejected"] == 3
    by_split = report(artifact)["examples"]
    assert sum(n for langs in by_split.values() for ls in langs.values() for n in ls.values()) == 87
    assert list(by_split["test"]["en"]) == list(LABELS)
    assert report(artifact)["schema"] == "slant.ingest/2"


def test_a_source_can_be_many_files_and_its_name_is_their_folder(tmp_path: Path) -> None:
    for part in range(3):
        write(tmp_path / "parts" / f"{part}.jsonl", examples(30, f"part {part}"))
    artifact = ingest(tmp_path, source("parts/*.jsonl"))
    stored = read_parquet(artifact.file("examples.parquet"), Example)
    assert {example.dataset for example in stored} == {"parts"}
    assert {example.file for example in stored} == {f"parts/{part}.jsonl" for part in range(3)}


def test_a_label_without_training_examples_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [row for row in examples() if row["label"] != "neutral"])
    with pytest.raises(InputError, match="no training example has the label 'neutral'"):
        ingest(tmp_path)


def test_sizes_beyond_the_examples_name_the_source_and_both_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", examples())
    sizes = SplitSizes(train=600, validation=1, calibration=1, test=1)
    with pytest.raises(InputError, match=r"a\.jsonl\).* ask for 603 examples, but only 90"):
        ingest(tmp_path, source(sizes=sizes))


def test_splits_that_whole_texts_cannot_fill_are_reported(tmp_path: Path) -> None:
    rows = [
        dict(row, text=f"text {i % 5}", target=f"claim {i}") for i, row in enumerate(examples())
    ]
    write(tmp_path / "a.jsonl", rows)
    sizes = SplitSizes(train=70, validation=5, calibration=5, test=10)
    artifact = ingest(tmp_path, source(sizes=sizes))
    (short,) = report(artifact)["short"]
    assert short.startswith("a: train has ")


def test_unusable_new_examples_leave_the_artifact_that_is_there(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", examples())
    artifact = ingest(tmp_path)
    write(tmp_path / "a.jsonl", [{"words": "a", "label": "neutral", "lang": "en", "target": "b"}])
    with pytest.raises(UsageError):
        ingest(tmp_path)
    artifact.verify()
