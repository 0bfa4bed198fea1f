from __future__ import annotations

import numpy as np
import pytest

from slant.evaluate.baselines import majority, on_features, prompted_template, tfidf
from slant.labels import LabelSet

Texts = list[tuple[str, str | None]]
GOOD = {"en": "wonderful and bright", "zh": "非常美好而且成功"}
BAD = {"en": "terrible and broken", "zh": "令人失望十分糟糕"}


def task(
    lang: str, num: int, start: int = 0, narrative: str | None = "the bridge"
) -> tuple[Texts, np.ndarray]:
    fillers = {"en": "the bridge number {} is {} today", "zh": "第{}座桥今天{}市民说"}
    texts = [
        (fillers[lang].format(start + i, (BAD if i % 2 == 0 else GOOD)[lang]), narrative)
        for i in range(num)
    ]
    return texts, np.array([0 if i % 2 == 0 else 2 for i in range(num)], dtype=np.int64)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_tfidf_learns_a_trivial_task(lang: str) -> None:
    test, gold = task(lang, 20, start=500)
    scores = tfidf(task(lang, 40), task(lang, 10, start=200), test, 3, seed=0)
    assert scores.shape == (20, 3)
    assert scores.sum(axis=1) == pytest.approx(np.ones(20))
    assert (scores.argmax(axis=1) == gold).all()
    assert not scores[:, 1].any()  # a label that training does not hold


def test_tfidf_reads_the_narrative() -> None:
    def by_narrative(num: int) -> tuple[Texts, np.ndarray]:
        names = ("peace and trade", "war and taxes")
        return [(f"a text, number {i}", names[i % 2]) for i in range(num)], np.arange(num) % 2

    test, gold = by_narrative(12)
    scores = tfidf(by_narrative(40), by_narrative(10), test, 2, seed=0)
    assert (scores.argmax(axis=1) == gold).all()


def test_tfidf_works_where_no_example_has_a_narrative() -> None:
    test, gold = task("en", 10, start=500, narrative=None)
    train, held = task("en", 40, narrative=None), task("en", 10, start=200, narrative=None)
    assert (tfidf(train, held, test, 3, seed=0).argmax(axis=1) == gold).all()


def test_tfidf_works_with_a_handful_of_texts_that_share_no_word() -> None:
    train: tuple[Texts, np.ndarray] = ([("abc", None), ("xyz", "q")], np.array([0, 1]))
    scores = tfidf(train, ([], np.empty(0, np.int64)), [("abc", None), ("xyz", "q")], 2, seed=0)
    assert scores.argmax(axis=1).tolist() == [0, 1]


def test_tfidf_without_a_validation_split_still_answers() -> None:
    test, gold = task("en", 6, start=500)
    scores = tfidf(task("en", 40), ([], np.empty(0, np.int64)), test, 3, seed=0)
    assert (scores.argmax(axis=1) == gold).all()


def test_tfidf_of_a_training_split_with_one_label_always_answers_it() -> None:
    train = ([(f"text {i}", "n") for i in range(5)], np.full(5, 1))
    scores = tfidf(train, train, [("anything", None)] * 2, 3, seed=0)
    assert scores.tolist() == [[0, 1, 0]] * 2


def test_tfidf_is_the_same_every_time() -> None:
    test, _ = task("en", 20, start=500)
    runs = [tfidf(task("en", 40), task("en", 10, start=200), test, 3, seed=0) for _ in range(2)]
    assert np.array_equal(*runs)


def test_any_features_will_do_for_the_regression() -> None:
    random = np.random.default_rng(0)

    def drawn(num: int) -> tuple[np.ndarray, np.ndarray]:
        gold = random.integers(0, 2, num) * 2
        return random.normal(size=(num, 8)) + gold[:, None], gold

    train, held, (test, gold) = drawn(60), drawn(20), drawn(40)
    for held_out in (held, None):
        scores = on_features(train, held_out, test, 3, seed=0)
        assert scores.sum(axis=1) == pytest.approx(np.ones(40))
        assert (scores.argmax(axis=1) == gold).mean() > 0.9
        assert not scores[:, 1].any()


def test_the_regularisation_that_is_best_on_what_is_held_out_is_taken() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    def drawn(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        gold = random.integers(0, 2, num)
        return random.normal(size=(num, 30)) + 0.3 * gold[:, None], gold

    taken = set()
    for seed in range(12):
        train, held, (test, _) = (drawn(40, 3 * seed + i) for i in range(3))
        models = [
            LogisticRegression(C=c, class_weight="balanced", max_iter=2000).fit(*train)
            for c in (1.0, 10.0, 100.0)
        ]
        scores = [f1_score(held[1], m.predict(held[0]), average="macro") for m in models]
        best = int(np.argmax(scores))
        taken.add(best)
        found = on_features(train, held, test, 2, seed=0)
        assert found == pytest.approx(models[best].predict_proba(test), abs=1e-6)
    assert len(taken) > 1


def test_features_of_one_label_are_answered_with_it() -> None:
    train = (np.zeros((4, 2)), np.full(4, 1))
    assert on_features(train, None, np.ones((2, 2)), 3, seed=0).tolist() == [[0, 1, 0]] * 2


def test_majority_answers_with_the_shares_of_the_training_split() -> None:
    scores = majority(np.array([2, 2, 0, 2]), 5, 3)
    assert scores.tolist() == [[0.25, 0, 0.75]] * 5


def test_the_prompt_of_the_baseline_names_every_label_word() -> None:
    words = ("against", "neutral", "for")
    template = prompted_template(LabelSet(["negative", "neutral", "positive"]), words)
    for prompt in (template.render("A text.", "the bridge"), template.render("A text.", None)):
        assert "against, neutral or for" in prompt
        assert "A text." in prompt
        assert prompt.endswith("Answer:")
    assert "the bridge" in template.render("A text.", "the bridge")
