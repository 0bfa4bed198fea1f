from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from slant.artifacts import Recipe, build
from slant.errors import ArtifactError, ModelError, TaskError
from slant.model.base import load_causal_lm, load_tokenizer
from slant.model.label_head import LabelModel
from slant.records import Pair, Prediction
from slant.score.scorer import Refusal, Scorer
from slant.score.torch_engine import TorchEngine
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from tiny import PAD, save_tiny_model
from tiny_task import tiny_spec

LIMIT = 120
TOO_LONG = "a narrative that never ends " * 10
DOCUMENTS = [f"{'Un texto. ' * (i % 7)}{i}" for i in range(30)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "a"
    with build(folder, Recipe("export", {}, {}, 0)):
        save_tiny_model(folder / "causal-lm")
        spec = tiny_spec(load_tokenizer(folder / "causal-lm"), token_limit=LIMIT)
        spec.with_weights("w").with_temperature(0.05).save(folder)
    return folder


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return Scorer.load(bundle, dtype="float32", device="cpu")


def same(a: Prediction, b: Prediction) -> bool:
    return (a.id, a.label, a.fingerprint) == (b.id, b.label, b.fingerprint) and np.allclose(
        a.probabilities, b.probabilities, atol=1e-5
    )


def test_predictions_come_in_input_order_and_equal_those_made_one_by_one(scorer):
    predictions = scorer.predict(DOCUMENTS, "el puente")
    single = [scorer.predict(document, "el puente")[0] for document in DOCUMENTS]
    assert len(predictions) == 30
    assert all(map(same, predictions, single))
    assert len({prediction.probabilities for prediction in predictions}) > 20


def test_a_prediction_is_the_models_own_answer_at_the_end_of_the_prompt(scorer, bundle):
    model = load_causal_lm(bundle / "causal-lm", dtype=torch.float32)
    tokenizer = load_tokenizer(bundle / "causal-lm")
    prompt = "Un texto.\n\nNarrative: el puente\nSentiment toward the narrative:"
    ids = [tokenizer.encode(f"{prompt} {word}").ids[-1] for word in scorer.labels]
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode(prompt).ids])).logits[0, -1, ids]
    expected = torch.softmax(logits.double() / 0.05, dim=0).numpy()
    (prediction,) = scorer.predict("Un texto.", "el puente")
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-4)
    assert prediction.label == scorer.labels[int(expected.argmax())]
    assert prediction.confidence == max(prediction.probabilities)
    assert prediction.fingerprint == scorer.fingerprint


def test_the_temperature_of_the_contract_is_applied(bundle, tmp_path):
    plain = tiny_spec(load_tokenizer(bundle / "causal-lm"), token_limit=LIMIT)
    (tmp_path / "causal-lm").symlink_to(bundle / "causal-lm")
    found = {}
    for temperature in (1.0, 0.05):
        plain.with_temperature(temperature).save(tmp_path)
        found[temperature] = Scorer.load(tmp_path, dtype="float32", verify=False).predict_proba(
            DOCUMENTS
        )
    sharpened = found[1.0] ** 20
    sharpened /= sharpened.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[0.05], sharpened, atol=1e-4)


@pytest.fixture(scope="module")
def multilingual(bundle, tmp_path_factory) -> Scorer:
    """The same model, with a temperature for Russian and one for Portuguese."""
    folder = tmp_path_factory.mktemp("bundles") / "b"
    folder.mkdir()
    spec = tiny_spec(load_tokenizer(bundle / "causal-lm"), token_limit=LIMIT)
    spec = spec.with_temperature(1.0, {"ru": 0.05, "pt": 0.1})
    spec.with_thresholds({"ru": 0.0, "*": 1.5}).save(folder)
    (folder / "causal-lm").symlink_to(bundle / "causal-lm")
    return Scorer.load(folder, dtype="float32", device="cpu", verify=False)


def test_each_language_has_its_own_temperature_whatever_stands_beside_it(multilingual):
    langs = ["ru", None, "pt-BR", "en", "RU"] * 6
    found = multilingual.predict_proba(DOCUMENTS, "el puente", langs)
    plain = multilingual.predict_proba(DOCUMENTS, "el puente")
    for lang, row, own in zip(langs, found, plain, strict=True):
        sharpened = own ** {"ru": 20, "RU": 20, "pt-BR": 10}.get(lang, 1)
        np.testing.assert_allclose(row, sharpened / sharpened.sum(), atol=1e-4)
    streamed = multilingual.stream(
        Pair(document, "el puente", lang=lang)
        for document, lang in zip(DOCUMENTS, langs, strict=True)
    )
    assert [p.probabilities for p in streamed] == [tuple(row) for row in found.tolist()]


def test_a_refused_pair_does_not_move_the_temperatures_of_those_after_it(multilingual):
    pairs = [
        Pair("first", "x", lang="ru"),
        Pair("a", TOO_LONG, lang="en"),
        Pair("last", "x", lang="ru"),
    ]
    first, refused, last = multilingual.stream(pairs)
    assert isinstance(refused, Refusal)
    for text, outcome in (("first", first), ("last", last)):
        (alone,) = multilingual.predict(text, "x", "ru")
        np.testing.assert_allclose(outcome.probabilities, alone.probabilities, atol=1e-6)


def test_one_language_for_all_documents_is_the_same_as_naming_it_for_each(multilingual):
    each = multilingual.predict(DOCUMENTS[:3], "x", ["ru"] * 3)
    assert all(map(same, multilingual.predict(DOCUMENTS[:3], "x", "ru"), each))
    assert [prediction.decision for prediction in each] == ["accept"] * 3
    assert [p.decision for p in multilingual.predict(DOCUMENTS[:3], "x")] == ["review"] * 3


def test_different_numbers_of_documents_and_languages_are_an_error(scorer):
    with pytest.raises(TaskError, match="2 documents and 1 languages") as raised:
        scorer.predict(["a", "b"], "x", ["en"])
    assert raised.value.hint


def test_probabilities_have_a_row_a_document_and_a_column_a_label(scorer):
    found = scorer.predict_proba(DOCUMENTS[:4])
    assert found.shape == (4, 3)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert scorer.predict_proba("one text", "x").shape == (1, 3)
    assert scorer.predict_proba([]).shape == (0, 3)


def test_one_narrative_is_asked_of_every_document(scorer):
    each = scorer.predict(DOCUMENTS[:3], ["x", "x", "x"])
    assert all(map(same, scorer.predict(DOCUMENTS[:3], "x"), each))


def test_each_document_may_have_its_own_narrative_or_none(scorer):
    found = scorer.predict(["a", "a", "a"], ["x", None, "y"])
    assert same(found[0], scorer.predict("a", "x")[0])
    assert same(found[1], scorer.predict("a")[0])
    assert same(found[2], scorer.predict("a", "y")[0])
    assert found[0].probabilities != found[1].probabilities != found[2].probabilities


def test_no_documents_give_an_empty_list(scorer):
    assert scorer.predict([]) == []
    assert scorer.predict([], "x") == []
    assert scorer.predict([], []) == []
    assert list(scorer.stream(iter([]))) == []


def test_different_numbers_of_documents_and_narratives_are_an_error(scorer):
    with pytest.raises(TaskError, match="2 documents and 3 narratives") as raised:
        scorer.predict(["a", "b"], ["x", "y", "z"])
    assert raised.value.hint


LONG = "A document that is longer than the limit allows. " * 10


def test_a_pair_that_cannot_be_scored_is_refused_in_its_place_and_the_others_are_scored(scorer):
    pairs = [
        Pair("first", "x", id="1"),
        Pair(LONG, TOO_LONG, id="2"),
        Pair(LONG, "x", id="3"),
        Pair("half \ud83d", None, id="4"),
        Pair("last", None, id="5"),
    ]
    outcomes = list(scorer.stream(pairs))
    assert [outcome.id for outcome in outcomes] == ["1", "2", "3", "4", "5"]
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Prediction, Refusal, Prediction, Refusal, Prediction]
    assert "no room is left" in outcomes[1].reason
    assert "surrogate" in outcomes[3].reason
    assert same(outcomes[0], next(scorer.stream([Pair("first", "x", id="1")])))


def test_nothing_but_refusals_is_no_error(scorer):
    outcomes = list(scorer.stream([Pair(LONG, TOO_LONG, id="1")] * 2))
    assert [type(outcome) for outcome in outcomes] == [Refusal, Refusal]


def test_predicting_names_the_document_that_cannot_be_scored(scorer):
    with pytest.raises(TaskError, match="document 2: narrative and cue take"):
        scorer.predict(["a", LONG], ["x", TOO_LONG])


def test_a_stream_reads_ahead_by_a_bounded_number_of_pairs(scorer):
    read = [0]

    def endless():
        while True:
            read[0] += 1
            yield Pair(f"text {read[0]}", None, id=str(read[0]))

    stream = scorer.stream(endless())
    assert read == [0]
    first = [next(stream) for _ in range(3)]
    assert [outcome.id for outcome in first] == ["1", "2", "3"]
    assert read[0] <= 3 * 1024  # one chunk in use, one made, one in the making


def test_a_stream_of_several_chunks_keeps_its_order(scorer):
    pairs = [Pair("t", None, id=str(i)) for i in range(2100)]
    assert [outcome.id for outcome in scorer.stream(iter(pairs))] == [str(i) for i in range(2100)]


class BrokenEngine:
    """An engine whose second answer is not a number, as after an overflow in float16."""

    def label_logits(self, prompts, on_done=None, *, groups=None):
        logits = np.zeros((len(prompts), 3), np.float32)
        logits[1] = np.nan
        return logits


def test_an_answer_that_is_not_a_number_is_never_taken_for_a_label(bundle):
    tokenizer = load_tokenizer(bundle / "causal-lm")
    spec = tiny_spec(tokenizer, token_limit=LIMIT)
    outcomes = list(
        Scorer(spec, Encoder(tokenizer, spec), BrokenEngine()).stream(
            [Pair("a", id="1"), Pair("b", id="2"), Pair("c", id="3")]
        )
    )
    assert [type(outcome) for outcome in outcomes] == [Prediction, Refusal, Prediction]
    assert outcomes[1].id == "2"
    assert "not a number" in outcomes[1].reason


def test_a_scorer_is_made_of_its_parts_as_well(bundle, scorer):
    tokenizer = load_tokenizer(bundle / "causal-lm")
    spec = tiny_spec(tokenizer, token_limit=LIMIT).with_weights("w").with_temperature(0.05)
    causal_lm = load_causal_lm(bundle / "causal-lm", dtype=torch.float32)
    model = LabelModel(causal_lm, spec.verbalizer.token_ids)
    made = Scorer(spec, Encoder(tokenizer, spec), TorchEngine(model, PAD))
    assert made.fingerprint == scorer.fingerprint
    assert made.labels == scorer.labels
    assert all(map(same, made.predict(DOCUMENTS, "x"), scorer.predict(DOCUMENTS, "x")))


def test_windows_are_averaged_before_the_temperature(bundle):
    tokenizer = load_tokenizer(bundle / "causal-lm")
    spec = tiny_spec(tokenizer, token_limit=LIMIT, long_documents="windows").with_temperature(0.05)
    encoder = Encoder(tokenizer, spec)
    causal_lm = load_causal_lm(bundle / "causal-lm", dtype=torch.float32)
    engine = TorchEngine(LabelModel(causal_lm, spec.verbalizer.token_ids), PAD)
    (windows,) = encoder.encode_windows([(LONG, "x")])
    assert len(windows) > 3
    each = [engine.label_logits([ids])[0].astype(np.float64) for ids in windows]
    scaled = np.mean(each, axis=0) / 0.05
    expected = np.exp(scaled - scaled.max())
    found = Scorer(spec, encoder, engine).predict(["short", LONG, "short"], "x")
    np.testing.assert_allclose(found[1].probabilities, expected / expected.sum(), atol=1e-4)
    assert found[1].label == spec.labels[int(np.argmax(scaled))]
    assert found[0].probabilities == pytest.approx(found[2].probabilities, abs=1e-5)


def test_windows_keep_the_refusal_of_each_pair(bundle):
    tokenizer = load_tokenizer(bundle / "causal-lm")
    spec = tiny_spec(tokenizer, token_limit=LIMIT, long_documents="windows")
    causal_lm = load_causal_lm(bundle / "causal-lm", dtype=torch.float32)
    engine = TorchEngine(LabelModel(causal_lm, spec.verbalizer.token_ids), PAD)
    pairs = [Pair(LONG, "x", id="1"), Pair(LONG, TOO_LONG, id="2"), Pair("a", "x", id="3")]
    outcomes = list(Scorer(spec, Encoder(tokenizer, spec), engine).stream(pairs))
    assert [type(outcome) for outcome in outcomes] == [Prediction, Refusal, Prediction]
    assert [outcome.id for outcome in outcomes] == ["1", "2", "3"]


class SureEngine:
    """An engine that is surer of longer prompts."""

    def label_logits(self, prompts, on_done=None, *, groups=None):
        return np.array([[0, 0, len(prompt) / 40] for prompt in prompts], np.float32).reshape(-1, 3)


def test_thresholds_of_the_language_say_which_predictions_are_accepted(bundle):
    tokenizer = load_tokenizer(bundle / "causal-lm")
    plain = tiny_spec(tokenizer, token_limit=LIMIT)
    encoder = Encoder(tokenizer, plain)
    pairs = [Pair("a" * 30, lang=lang) for lang in ("de", "de-AT", "fr", None)]
    undecided = list(Scorer(plain, encoder, SureEngine()).stream(pairs))
    assert [found.decision for found in undecided] == [None] * 4
    confidence = undecided[0].confidence
    spec = plain.with_thresholds({"de": confidence - 0.01, "*": confidence + 0.01})
    found = list(Scorer(spec, encoder, SureEngine()).stream(pairs))
    assert [one.decision for one in found] == ["accept", "accept", "review", "review"]
    assert [one.probabilities for one in found] == [one.probabilities for one in undecided]
    exact = plain.with_thresholds({"de": confidence})
    assert next(Scorer(exact, encoder, SureEngine()).stream(pairs)).decision == "accept"


def test_two_scorers_in_one_process_do_not_disturb_each_other(scorer, tmp_path):
    save_tiny_model(tmp_path / "causal-lm", seed=9, kind="llama")
    spec = tiny_spec(load_tokenizer(tmp_path / "causal-lm"), token_limit=100)
    spec.save(tmp_path)
    before = scorer.predict(DOCUMENTS, "x")
    other = Scorer.load(tmp_path, dtype="float32", verify=False)
    others = other.predict(DOCUMENTS, "x")
    assert all(map(same, scorer.predict(DOCUMENTS, "x"), before))
    assert all(map(same, other.predict(DOCUMENTS, "x"), others))
    assert other.fingerprint != scorer.fingerprint
    assert not np.allclose([p.probabilities for p in others], [p.probabilities for p in before])


def test_four_threads_get_the_same_as_one(scorer):
    documents = [*DOCUMENTS, LONG, LONG + "end"]
    expected = scorer.predict(documents, "x")
    results: dict[int, list[bool]] = {i: [] for i in range(4)}
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                found = scorer.predict(documents, "x")
                results[number] += map(same, found, expected)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(len(found) == 5 * len(documents) and all(found) for found in results.values())


def test_a_bundle_that_is_not_there_or_lacks_its_weights_is_an_error(bundle, tmp_path):
    with pytest.raises(ArtifactError, match=r"slant\.json: is not there"):
        Scorer.load(tmp_path / "nowhere")
    (tmp_path / "slant.json").write_bytes((bundle / "slant.json").read_bytes())
    with pytest.raises(ModelError, match="causal-lm"):
        Scorer.load(tmp_path, verify=False)


def test_a_bundle_with_another_tokenizer_is_refused(bundle, tmp_path):
    save_tiny_model(tmp_path / "causal-lm")
    (tmp_path / "slant.json").write_bytes((bundle / "slant.json").read_bytes())
    path = tmp_path / "causal-lm" / "tokenizer.json"
    tokenizer = load_tokenizer(tmp_path / "causal-lm")
    tokenizer.add_tokens(["new"])
    tokenizer.save(str(path))
    with pytest.raises(TaskError, match="the tokenizer's digest"):
        Scorer.load(tmp_path, verify=False)


def test_an_unknown_dtype_is_refused(bundle):
    with pytest.raises(ModelError, match="no dtype 'bf16'"):
        Scorer.load(bundle, dtype="bf16")


def test_each_document_goes_by_the_temperature_of_its_language(
    bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle / "causal-lm", tmp_path / "causal-lm")
    TaskSpec.load(bundle).with_temperature(0.05, {"ru": 0.2}).save(tmp_path)
    scorer = Scorer.load(tmp_path, dtype="float32", device="cpu", verify=False)
    text = "мост " * 5
    plain, russian, variant = scorer.predict_proba([text] * 3, None, ["en", "ru", "ru-UA"])
    np.testing.assert_allclose(russian**4 / (russian**4).sum(), plain, atol=1e-5)
    np.testing.assert_allclose(russian, variant, atol=1e-6)
    np.testing.assert_allclose(scorer.predict_proba(text, None, "ru")[0], russian, atol=1e-5)
    assert np.abs(plain - russian).max() > 0.01


def test_as_many_languages_as_documents_are_wanted(scorer: Scorer) -> None:
    with pytest.raises(TaskError, match="2 documents and 3 languages"):
        scorer.predict(["a", "b"], None, ["en", "ru", "zh"])
