from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slant.artifacts import Artifact
from slant.corpus import Corpus
from slant.errors import InputError, TaskError
from slant.progress import SilentProgress
from slant.records import Example, Narrative
from slant.shards.reader import ShardReader
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.verbalizer import encode_text
from slant.train.shard import TUNE_COLUMNS, run_shard, shard_recipe
from tiny import BOS, tiny_tokenizer
from tiny_stages import (
    LABELS,
    documents_and_examples,
    save_base,
    tiny_settings,
    write_ingest,
)


def shard(root: Path, records: Any = None, **sections: Any) -> tuple[Artifact, Artifact]:
    ingest = write_ingest(root / "ingest", records)
    shards = run_shard(
        tiny_settings(**sections),
        ingest=ingest,
        base=save_base(root / "base"),
        out=root / "shard",
        progress=SilentProgress(),
    )
    return ingest, shards


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    return shard(tmp_path_factory.mktemp("sharded"))


def samples(shards: Artifact, folder: str) -> list[dict[str, Any]]:
    return list(ShardReader(shards.path / folder))


def rows_by_lang(shards: Artifact, part: str) -> dict[str, list[dict[str, Any]]]:
    return {
        folder.name: list(ShardReader(folder))
        for folder in sorted((shards.path / "adapt" / part).iterdir())
    }


def texts_in(rows: list[dict[str, Any]]) -> str:
    """What the rows say, a line for each piece."""
    tokenizer = tiny_tokenizer()
    pieces = []
    for row in rows:
        ends = np.cumsum(row["lengths"])[:-1]
        pieces += [tokenizer.decode(ids.tolist()) for ids in np.split(row["tokens"], ends)]
    return "\n".join(pieces)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_tune_shards_hold_exactly_the_examples_of_their_split(
    made: tuple[Artifact, Artifact], split: str
) -> None:
    ingest, shards = made
    spec = TaskSpec.load(shards.path)
    encoder = Encoder(tiny_tokenizer(), spec)
    expected = [
        (
            item.document.id,
            item.example.narrative_id or "",
            LABELS.index(item.example.label),
            tuple(encoder.encode(*item.text)),
        )
        for item in Corpus(ingest).split(split)
    ]
    found = [
        (s["document_id"], s["narrative_id"], s["label"], tuple(s["input_ids"].tolist()))
        for s in samples(shards, f"tune/{split}")
    ]
    assert found == expected
    assert shards.facts[f"tune/{split}"] == {
        "examples": len(expected),
        "tokens": sum(len(ids) for *_, ids in expected),
        "refused": 0,
    }


def test_shares_of_judgements_are_stored_where_there_are_several(tmp_path: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    chosen = next(i for i, e in enumerate(examples) if e.split == "train")
    examples[chosen] = replace(examples[chosen], num_judgements=3, shares=(1 / 3, 0.0, 2 / 3))
    _, shards = shard(tmp_path, (documents, narratives, examples), adapt=None)
    found = [sample["shares"] for sample in samples(shards, "tune/train")]
    assert all(shares.dtype == np.float32 for shares in found)
    assert [shares.shape for shares in found] == [(3,)] + [(0,)] * (len(found) - 1)
    np.testing.assert_array_equal(found[0], np.array([1 / 3, 0, 2 / 3], dtype=np.float32))


def test_calibration_and_test_examples_are_in_no_shard(made: tuple[Artifact, Artifact]) -> None:
    ingest, shards = made
    held = {
        item.document.id
        for split in ("calibration", "test")
        for item in Corpus(ingest).split(split)
    }
    assert held
    assert not held & {
        s["document_id"]
        for split in ("train", "validation")
        for s in samples(shards, f"tune/{split}")
    }
    assert sorted(path.name for path in (shards.path / "tune").iterdir()) == ["train", "validation"]


def test_no_measured_document_is_in_the_adapt_shards(made: tuple[Artifact, Artifact]) -> None:
    ingest, shards = made
    corpus = Corpus(ingest)
    rows = [
        row
        for part in ("train", "heldout")
        for of in rows_by_lang(shards, part).values()
        for row in of
    ]
    found = texts_in(rows)
    measured = {
        item.document.id
        for split in ("validation", "calibration", "test")
        for item in corpus.split(split)
    }
    markers = {id_: f"№ {id_.removeprefix('d-')}" for id_ in corpus.documents if id_[0] == "d"}
    seen = {
        id_
        for id_, marker in markers.items()
        if any(line.endswith(marker) for line in found.split("\n"))
    }
    assert not seen & measured
    # The control: what is for training is found by the same search.
    assert len(seen) > 20


def test_every_other_document_is_in_the_adapt_shards_once(made: tuple[Artifact, Artifact]) -> None:
    ingest, shards = made
    tokenizer = tiny_tokenizer()
    corpus = Corpus(ingest)
    documents = corpus.adaptation_rows()
    expected = {
        lang: sum(1 + len(encode_text(tokenizer, text)) for text in corpus.texts(of.rows))
        for lang, of in documents.items()
    }
    train, heldout = rows_by_lang(shards, "train"), rows_by_lang(shards, "heldout")
    for lang, facts in shards.facts["adapt"].items():
        assert facts["train_tokens"] == sum(len(row["tokens"]) for row in train[lang])
        assert facts["heldout_tokens"] == sum(len(row["tokens"]) for row in heldout[lang])
        assert facts["train_tokens"] + facts["heldout_tokens"] == expected[lang]
        assert facts["train"] + facts["heldout"] == len(documents[lang].rows)
    assert set(shards.facts["adapt"]) == set(expected)


def test_documents_without_a_language_are_und(made: tuple[Artifact, Artifact]) -> None:
    _, shards = made
    assert set(shards.facts["adapt"]) == {"en", "es", "ru", "tl", "und", "zh"}
    assert {s["lang"] for s in samples(shards, "tune/train")} == {
        "en",
        "es",
        "ru",
        "tl",
        "und",
        "zh",
    }


def test_rows_keep_to_their_length_and_documents_begin_with_bos(
    made: tuple[Artifact, Artifact],
) -> None:
    _, shards = made
    for part in ("train", "heldout"):
        for rows in rows_by_lang(shards, part).values():
            for row in rows:
                assert len(row["tokens"]) == row["lengths"].sum() <= 96
                # Every piece but the rest of a cut document begins with BOS.
                assert (row["tokens"] == BOS).sum() <= len(row["lengths"])
        pieces = sum(
            len(row["lengths"]) for rows in rows_by_lang(shards, part).values() for row in rows
        )
        starts = sum(
            int((row["tokens"] == BOS).sum())
            for rows in rows_by_lang(shards, part).values()
            for row in rows
        )
        facts = shards.facts["adapt"].values()
        assert starts == sum(of[part] for of in facts) <= pieces


def test_texts_held_out_for_perplexity_are_not_trained_on_under_another_id(tmp_path: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    twins = [
        replace(document, id=f"{document.id}-again", lang=document.lang)
        for document in documents
        if document.id.startswith("u-")
    ]
    _, shards = shard(
        tmp_path,
        (documents + twins, narratives, examples),
        shard={"heldout_share": 0.35, "sequence_tokens": 600},
    )
    for lang, heldout in rows_by_lang(shards, "heldout").items():
        trained = set(texts_in(rows_by_lang(shards, "train")[lang]).split("\n"))
        assert trained
        assert not trained & set(texts_in(heldout).split("\n")), lang


def test_without_adaptation_there_are_no_adapt_shards(tmp_path: Path) -> None:
    _, shards = shard(tmp_path, adapt=None)
    assert not (shards.path / "adapt").exists()
    assert "adapt" not in shards.facts


def test_a_prompt_that_cannot_fit_is_left_out_and_counted(tmp_path: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    narratives.append(Narrative("n-long", "a very long narrative " * 20))
    trained = next(e for e in examples if e.split == "train")
    examples.append(Example(trained.document_id, "n-long", "neutral", "train", "d", "f", 9))
    _, shards = shard(tmp_path, (documents, narratives, examples))
    facts = shards.facts["tune/train"]
    assert facts["refused"] == 1
    assert facts["examples"] == sum(e.split == "train" for e in examples) - 1
    assert "n-long" not in {s["narrative_id"] for s in samples(shards, "tune/train")}


def test_a_split_without_a_usable_example_is_an_input_error(tmp_path: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    examples = [e for e in examples if e.split != "validation"]
    with pytest.raises(InputError, match="validation"):
        shard(tmp_path, (documents, narratives, examples))


def test_label_words_that_begin_alike_are_a_task_error(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="begin with the same token"):
        shard(tmp_path, task={"label_words": {"negative": "against", "positive": "agreeing"}})


def test_the_spec_holds_the_settings_of_the_task(made: tuple[Artifact, Artifact]) -> None:
    _, shards = made
    spec = TaskSpec.load(shards.path)
    assert tuple(spec.labels) == LABELS
    assert spec.token_limit == 200
    assert spec.base == "tiny/mistral"
    assert spec.weights == ""
    longest = max(len(s["input_ids"]) for s in samples(shards, "tune/train"))
    assert 195 <= longest <= 200  # the long document was cut, and cut no more than needed


def test_the_recipe_changes_with_what_the_shards_depend_on(tmp_path: Path) -> None:
    ingest, base = write_ingest(tmp_path / "ingest"), save_base(tmp_path / "base")
    plain = shard_recipe(tiny_settings(), ingest, base).key
    assert plain == shard_recipe(tiny_settings(tune={"epochs": 9}), ingest, base).key
    for other in (
        tiny_settings(task={"token_limit": 100}),
        tiny_settings(shard={"sequence_tokens": 64}),
        tiny_settings(adapt=None),
    ):
        assert plain != shard_recipe(other, ingest, base).key
    assert plain != shard_recipe(tiny_settings(), ingest, replace(base, digest="0" * 64)).key


def test_shards_with_other_columns_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest, base = write_ingest(tmp_path / "ingest"), save_base(tmp_path / "base")
    before = shard_recipe(tiny_settings(), ingest, base).key
    monkeypatch.setitem(TUNE_COLUMNS, "more", "str")
    assert shard_recipe(tiny_settings(), ingest, base).key != before


def test_the_same_input_gives_the_same_bytes(
    made: tuple[Artifact, Artifact], tmp_path: Path
) -> None:
    _, again = shard(tmp_path)
    assert again.digest == made[1].digest
