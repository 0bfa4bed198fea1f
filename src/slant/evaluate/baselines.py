"""What the tuned model is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slant.labels import LabelSet
from slant.task.template import Template

__all__ = ["majority", "on_features", "prompted_template", "tfidf"]

Texts = Sequence[tuple[str, str | None]]


def prompted_template(labels: LabelSet, words: Sequence[str]) -> Template:
    """A zero-shot prompt that asks for a label word, as one would ask a commercial LLM."""
    choice = f"{', '.join(words[:-1])} or {words[-1]}"
    return Template(
        prompt=(
            "Read the text and say whether it is " + choice + " toward the narrative.\n\n"
            "Text: {document}\n\nNarrative: {narrative}\n\n"
            "Answer with one word (" + choice + ").\nAnswer:"
        ),
        prompt_overall=(
            "Read the text and say whether its overall sentiment is " + choice + ".\n\n"
            "Text: {document}\n\nAnswer with one word (" + choice + ").\nAnswer:"
        ),
    )


def majority(train_gold: NDArray[np.int64], num: int, num_labels: int) -> NDArray[np.float64]:
    """``(num, L)``: the label shares of the training split, for every item alike."""
    shares = np.bincount(train_gold, minlength=num_labels) / max(1, len(train_gold))
    return np.tile(shares, (num, 1))


def tfidf(
    train: tuple[Texts, NDArray[np.int64]],
    held: tuple[Texts, NDArray[np.int64]],
    test: Texts,
    num_labels: int,
    seed: int,
) -> NDArray[np.float64]:
    """``(N, L)`` probabilities of logistic regression on TF-IDF features.

    Character 1- to 5-grams of the document (they work without word boundaries, so for Chinese too)
    and of the narrative. The regularisation is chosen by macro-F1 on ``held``, the validation
    split. Where the training split holds one label only, that is the answer.
    """
    if len(np.unique(train[1])) < 2:
        return majority(train[1], len(test), num_labels)
    features = _fit_features(train[0])
    return on_features(
        (features(train[0]), train[1]),
        (features(held[0]), held[1]) if held[0] else None,
        features(test),
        num_labels,
        seed,
    )


def on_features(
    train: tuple[Any, NDArray[np.int64]],
    held: tuple[Any, NDArray[np.int64]] | None,
    test: Any,
    num_labels: int,
    seed: int,
) -> NDArray[np.float64]:
    """``(N, L)`` probabilities of logistic regression on any features, ``(N, F)``.

    The regularisation is chosen by macro-F1 on ``held``. Where the training split holds one label
    only, that is the answer.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    if len(np.unique(train[1])) < 2:
        return majority(train[1], test.shape[0], num_labels)
    best: Any = None
    best_score = -1.0
    for strength in (1.0, 10.0, 100.0):
        model = LogisticRegression(
            C=strength, class_weight="balanced", max_iter=2000, random_state=seed
        ).fit(*train)
        score = 0.0
        if held is not None:
            score = f1_score(held[1], model.predict(held[0]), average="macro", zero_division=0)
        if score > best_score:
            best, best_score = model, score
    result = np.zeros((test.shape[0], num_labels))
    result[:, best.classes_] = best.predict_proba(test)
    return result


def _fit_features(train: Texts) -> Callable[[Texts], Any]:
    """What turns texts into a sparse matrix, fitted on ``train``."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizers: list[tuple[int, Any]] = []
    for column in (0, 1):
        # N-grams that occur once teach nothing; but a few short texts may hold no others, and
        # where every example asks for the overall sentiment, narratives hold none at all.
        for min_df in (2, 1):
            vectorizer = TfidfVectorizer(
                analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True, min_df=min_df
            )
            try:
                vectorizer.fit([pair[column] or "" for pair in train])
            except ValueError:
                continue
            vectorizers.append((column, vectorizer))
            break

    def features(texts: Texts) -> Any:
        return hstack(
            [v.transform([pair[column] or "" for pair in texts]) for column, v in vectorizers],
            format="csr",
        )

    return features
