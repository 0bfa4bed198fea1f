from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slant.artifacts import Recipe, build, load
from slant.corpus import Corpus, LabelledDocument
from slant.errors import ArtifactError, InputError
from slant.evaluate.noise import (
    label_noise,
    noise_candidates,
    out_of_fold_probabilities,
    predicted_probabilities,
)
from slant.labels import LabelSet
from slant.records import Document, Example, Narrative, write_jsonl, write_parquet

LABELS = LabelSet(("negative", "neutral", "positive"))
WORDS = (
    ["awful", "broken", "dreadful", "shameful", "late", "ruined"],
    ["opens", "monday", "plan", "report", "street", "office"],
    ["lovely", "joyful", "splendid", "thriving", "proud", "bright"],
)


def test_an_example_is_a_candidate_where_another_label_is_above_its_own_threshold():
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],
            [0.7, 0.3, 0.0],  # threshold of label 0: (0.9 + 0.7 + 0.2) / 3 = 0.6
            [0.2, 0.8, 0.0],  # given 0, sure of 1
            [0.1, 0.9, 0.0],
            [0.5, 0.5, 0.0],  # threshold of label 1: 0.7; given 1, sure of neither
            [0.3, 0.0, 0.7],
            [0.61, 0.0, 0.39],  # given 2, sure of 0; threshold of label 2: 0.545
        ]
    )
    found = noise_candidates(probabilities, np.array([0, 0, 0, 1, 1, 2, 2]))
    assert found.indices.tolist() == [2, 6]
    assert found.suggested.tolist() == [1, 0]
    assert found.margins.tolist() == pytest.approx([-0.6, -0.22])


def test_the_most_probable_of_the_labels_that_are_sure_decides():
    # Sure of both: the given one is more probable in the first row, the other in the second.
    probabilities = np.array([[0.5, 0.45], [0.45, 0.5], [0.2, 0.3], [0.3, 0.2]])
    found = noise_candidates(probabilities, np.array([0, 0, 1, 1]))
    assert found.indices.tolist() == [1]


def test_a_label_that_no_example_has_is_never_suggested():
    probabilities = np.array([[0.1, 0.9], [0.6, 0.4]])
    assert noise_candidates(probabilities, np.array([0, 0])).indices.tolist() == []
    assert noise_candidates(np.zeros((0, 2)), np.zeros(0, np.int64)).indices.tolist() == []


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.ones((3, 2)), np.zeros(2, np.int64)),
        (np.ones(3), np.zeros(3, np.int64)),
        (np.ones((2, 2)), np.array([0, 2])),
        (np.ones((2, 2)), np.array([0, -1])),
        (np.array([[0.5, np.nan]]), np.array([0])),
    ],
)
def test_arrays_that_do_not_agree_are_refused(probabilities, labels):
    with pytest.raises(ValueError, match="probabilities"):
        noise_candidates(probabilities, labels)


def test_planted_flips_are_found_by_probabilities_of_a_good_model():
    random_ = np.random.default_rng(5)
    true = random_.integers(0, 3, 3000)
    logits = random_.normal(size=(3000, 3)) + 4 * np.eye(3)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    flipped = random_.random(3000) < 0.05
    given = np.where(flipped, (true + 1 + random_.integers(0, 2, 3000)) % 3, true)
    found = noise_candidates(probabilities, given)
    hits = flipped[found.indices]
    assert hits.sum() / flipped.sum() > 0.7
    assert hits.mean() > 0.5
    right = found.suggested[hits] == true[found.indices][hits]
    assert right.mean() > 0.95


def sentences(num: int, seed: int) -> tuple[list[tuple[str, str | None]], np.ndarray]:
    choose = random.Random(seed)
    labels = [choose.randrange(3) for _ in range(num)]
    texts: list[tuple[str, str | None]] = [
        (" ".join(choose.choices(WORDS[label], k=5)), "the bridge" if i % 2 else None)
        for i, label in enumerate(labels)
    ]
    return texts, np.array(labels)


def test_planted_flips_are_found_from_texts_alone(tmp_path):
    texts, true = sentences(300, seed=1)
    flips = random.Random(2).sample(range(300), 15)
    given = true.copy()
    given[flips] = (given[flips] + 1) % 3
    found = label_noise(corpus(tmp_path, texts, given), LABELS, seed=17)
    listed = {one["row"] - 1 for one in found}
    hits = listed & set(flips)
    assert len(hits) / len(flips) > 0.7
    assert len(hits) / len(listed) > 0.5
    first = found[0]
    index = first["row"] - 1
    assert first["document_id"] == f"d{index}"
    assert first["label"] == LABELS[int(given[index])]
    assert first["suggested"] == LABELS[int(true[index])]
    assert first["narrative_id"] == ("n" if index % 2 else None)
    assert 0 < first["probability"] <= 1
    assert [one["margin"] for one in found] == sorted(one["margin"] for one in found)


def corpus(folder: Path, texts: list[tuple[str, str | None]], labels: np.ndarray) -> Corpus:
    with build(folder, Recipe("ingest", {}, {}, 1)):
        write_parquet(
            folder / "documents.parquet",
            Document,
            [Document(f"d{i}", text, digest=str(i)) for i, (text, _) in enumerate(texts)],
        )
        write_jsonl(folder / "narratives.jsonl", [Narrative("n", "the bridge")])
        write_parquet(
            folder / "examples.parquet",
            Example,
            [
                Example(
                    f"d{i}",
                    "n" if narrative else None,
                    LABELS[int(label)],
                    "train",
                    "a",
                    "a",
                    i + 1,
                )
                for i, ((_, narrative), label) in enumerate(zip(texts, labels, strict=True))
            ],
        )
    return Corpus(load(folder, "ingest"))


def test_probabilities_of_any_model_are_taken(tmp_path):
    texts, labels = sentences(6, seed=1)
    probabilities = np.eye(3)[labels] * 0.8 + 0.1
    probabilities[4] = np.roll(probabilities[4], 1)
    found = label_noise(
        corpus(tmp_path, texts, labels), LABELS, seed=1, probabilities=probabilities
    )
    assert [one["document_id"] for one in found] == ["d4"]


@pytest.mark.parametrize("wrong", [np.ones((5, 3)), np.ones((6, 2)), np.full((6, 3), np.nan)])
def test_probabilities_of_something_else_are_an_error(tmp_path, wrong):
    texts, labels = sentences(6, seed=1)
    with pytest.raises(InputError, match="not those of the train split"):
        label_noise(corpus(tmp_path, texts, labels), LABELS, seed=1, probabilities=wrong)


def test_no_example_is_predicted_by_a_model_that_saw_its_group():
    # Nothing in a text tells its label but the same text in its own group: what is out of fold
    # knows no better than chance, what is not would be right every time.
    choose = random.Random(3)
    words = ["".join(choose.choices("abcdefgh", k=12)) for _ in range(60)]
    labels = np.array([choose.randrange(3) for _ in words]).repeat(3)
    texts: list[tuple[str, str | None]] = [(word, None) for word in words for _ in range(3)]
    groups = [word for word in words for _ in range(3)]
    grouped = out_of_fold_probabilities(texts, labels, groups, num_labels=3, seed=1)
    assert np.mean(grouped.argmax(axis=1) == labels) < 0.55
    alone = [str(i) for i in range(len(texts))]
    leaking = out_of_fold_probabilities(texts, labels, alone, num_labels=3, seed=1)
    assert np.mean(leaking.argmax(axis=1) == labels) > 0.8
    assert grouped.sum(axis=1) == pytest.approx(np.ones(len(texts)))


def test_the_same_seed_gives_the_same_probabilities():
    texts, labels = sentences(60, seed=4)
    groups = [str(i) for i in range(60)]
    first, again = (
        out_of_fold_probabilities(texts, labels, groups, num_labels=3, folds=3, seed=7)
        for _ in range(2)
    )
    assert np.array_equal(first, again)


def test_too_few_texts_or_folds_are_refused():
    texts, labels = sentences(9, seed=1)
    with pytest.raises(InputError, match="3 different texts, got 2"):
        out_of_fold_probabilities(texts, labels, ["a", "b", "b"] * 3, num_labels=3, seed=1)
    with pytest.raises(ValueError, match="at least 3, got 2"):
        out_of_fold_probabilities(texts, labels, list("abcdefghi"), num_labels=3, folds=2, seed=1)


def labelled(document: str, narrative: str | None) -> LabelledDocument:
    example = Example(document, narrative, "neutral", "test", "a", "a.jsonl", 1)
    return LabelledDocument(example, Document(document, "text"), None)


def test_predictions_are_joined_by_document_and_narrative_whatever_their_order(tmp_path):
    table = {
        "document_id": ["d2", "d1", "d1"],
        "narrative_id": [None, "n1", None],
        "p_negative": [0.7, 0.2, 0.1],
        "p_neutral": [0.2, 0.3, 0.1],
        "p_positive": [0.1, 0.5, 0.8],
    }
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    items = [labelled("d1", None), labelled("d1", "n1"), labelled("d3", None)]
    found = predicted_probabilities(tmp_path / "p.parquet", items, LABELS)
    assert found[:2].tolist() == [[0.1, 0.1, 0.8], [0.2, 0.3, 0.5]]
    assert found[2].tolist() == pytest.approx([1 / 3] * 3)  # it was not asked about


def test_predictions_that_cannot_be_read_are_an_error_naming_the_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"p\.parquet: cannot be read"):
        predicted_probabilities(tmp_path / "p.parquet", [], LABELS)
