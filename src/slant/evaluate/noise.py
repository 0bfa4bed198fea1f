"""Labels that may be wrong: where a model that has not seen an example is sure of another label.

Confident learning: C. Northcutt, L. Jiang & I. Chuang (2021), "Confident Learning: Estimating
Uncertainty in Dataset Labels", https://doi.org/10.1613/jair.1.12125. What is listed is for people
to look at; nothing is changed.

Shape letters: N examples, L labels, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slant.corpus import Corpus, LabelledDocument
from slant.errors import ArtifactError, InputError
from slant.evaluate.baselines import Texts, tfidf
from slant.evaluate.gold import document_key
from slant.labels import LabelSet

__all__ = [
    "NoiseCandidates",
    "label_noise",
    "noise_candidates",
    "out_of_fold_probabilities",
    "predicted_probabilities",
]

_LEAST_FOLDS = 3


@dataclass(frozen=True)
class NoiseCandidates:
    """Examples whose label may be wrong, the most suspicious first.

    Attributes:
        indices: int64 ``(K,)``, their rows.
        suggested: int64 ``(K,)``, the label the model is sure of.
        margins: float64 ``(K,)``, normalised margins, ascending, -1 … 1: the probability of the
            given label less the largest of any other.
    """

    indices: NDArray[np.int64]
    suggested: NDArray[np.int64]
    margins: NDArray[np.float64]


def noise_candidates(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> NoiseCandidates:
    """Examples that the model is sure are of another label than the one given.

    It is sure of a label where its probability is at least the mean that examples given that label
    have for it: so a label that the model is never quite sure of is judged by its own measure. Of
    several such labels the most probable counts; where that is another than the given one, the
    example is off the diagonal of the confident joint, and a candidate.

    Args:
        probabilities: ``(N, L)``, of a model that was not trained on the example itself.
        labels: ``(N,)``, the labels given, 0 … L - 1.

    Raises:
        ValueError: The shapes do not agree, a probability is no number, or a label is out of range.
    """
    num_labels = probabilities.shape[1] if probabilities.ndim == 2 else 0
    if labels.shape != probabilities.shape[:1] or not num_labels:
        raise ValueError(
            f"probabilities (N, L) and labels (N,) do not agree: {probabilities.shape} and "
            f"{labels.shape}"
        )
    if not np.isfinite(probabilities).all() or np.any((labels < 0) | (labels >= num_labels)):
        raise ValueError(f"probabilities must be finite and labels in 0 … {num_labels - 1}")
    is_sure_NL = probabilities >= _thresholds(probabilities, labels)
    suggested_N = np.where(is_sure_NL, probabilities, -np.inf).argmax(axis=1)
    chosen_K = np.flatnonzero(is_sure_NL.any(axis=1) & (suggested_N != labels))
    margins_K = _margins(probabilities[chosen_K], labels[chosen_K])
    order = np.argsort(margins_K, kind="stable")
    indices_K = chosen_K[order].astype(np.int64)
    return NoiseCandidates(indices_K, suggested_N[indices_K].astype(np.int64), margins_K[order])


def _thresholds(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """``(L,)``: the mean self-confidence of each label; infinite where no example is given it."""
    num_labels = probabilities.shape[1]
    counts_L = np.bincount(labels, minlength=num_labels)
    own_N = probabilities[np.arange(len(labels)), labels]
    sums_L = np.bincount(labels, weights=own_N, minlength=num_labels)
    thresholds: NDArray[np.float64] = np.where(
        counts_L > 0, sums_L / np.maximum(counts_L, 1), np.inf
    )
    return thresholds


def _margins(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    margins: NDArray[np.float64] = probabilities[rows, labels] - others.max(axis=1)
    return margins


def out_of_fold_probabilities(
    texts: Texts,
    labels: NDArray[np.int64],
    groups: Sequence[str],
    *,
    num_labels: int,
    folds: int = 5,
    seed: int,
) -> NDArray[np.float64]:
    """Probabilities for each example, of a model that saw neither it nor its group.

    The model is that of the baseline ``tfidf``: a fold is predicted by what the others but one
    teach, and that one chooses the regularisation.

    Args:
        texts: document and narrative (None: overall sentiment) of each example.
        labels: ``(N,)``, indices.
        groups: of each example, e.g. its cluster of near-duplicates; a group is in one fold.
        num_labels: L.
        folds: 3 or more; fewer where there are fewer groups.
        seed: of the folds and of the models.

    Returns:
        ``(N, L)``; rows add up to 1.

    Raises:
        InputError: There are fewer than 3 groups.
        ValueError: ``folds`` is less than 3.
    """
    from sklearn.model_selection import GroupKFold

    if folds < _LEAST_FOLDS:
        raise ValueError(f"folds must be at least {_LEAST_FOLDS}, got {folds}")
    num_groups = len(set(groups))
    if num_groups < _LEAST_FOLDS:
        raise InputError(
            f"label noise needs examples of {_LEAST_FOLDS} different texts, got {num_groups}",
            hint="Give more labelled examples.",
        )
    splitter = GroupKFold(min(folds, num_groups), shuffle=True, random_state=seed)
    parts = [part for _, part in splitter.split(labels, groups=groups)]
    probabilities = np.zeros((len(labels), num_labels))
    for test, held in pairwise([*parts, parts[0]]):
        train = np.setdiff1d(np.arange(len(labels)), np.concatenate([test, held]))
        probabilities[test] = tfidf(
            _at(texts, labels, train),
            _at(texts, labels, held),
            [texts[i] for i in test],
            num_labels,
            seed,
        )
    return probabilities


def _at(
    texts: Texts, labels: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[Texts, NDArray[np.int64]]:
    return [texts[i] for i in rows], labels[rows]


def label_noise(
    corpus: Corpus,
    labels: LabelSet,
    *,
    seed: int,
    split: str = "train",
    probabilities: NDArray[np.float64] | None = None,
) -> list[dict[str, Any]]:
    """Examples whose label may be wrong, the most suspicious first.

    The list is as good as the model: one that is hardly better than chance lists half of the
    examples. On held-out splits the tuned model has seen no example, so its predictions serve.

    Args:
        corpus: what ingestion wrote.
        labels: the labels there are.
        seed: of the folds.
        split: whose examples.
        probabilities: ``(N, L)``, of a model that was not trained on the example itself, for the
            examples of the split in the order of the file; without it those of
            ``out_of_fold_probabilities``.

    Returns:
        For each ``document_id``, ``narrative_id`` (None: overall sentiment), ``file``, ``row``,
        the given ``label``, the one ``suggested``, its ``probability`` and the ``margin`` (see
        ``NoiseCandidates``).

    Raises:
        ArtifactError: A file of the corpus is missing or damaged.
        InputError: There are too few examples, or ``probabilities`` is not ``(N, L)``.
    """
    items = corpus.split(split)
    given = np.array([labels.index(item.example.label) for item in items], dtype=np.int64)
    shape = (len(items), len(labels))
    if probabilities is None:
        groups = [document_key(item) for item in items]
        probabilities = out_of_fold_probabilities(
            [item.text for item in items], given, groups, num_labels=len(labels), seed=seed
        )
    elif probabilities.shape != shape or not np.isfinite(probabilities).all():
        raise InputError(
            f"the probabilities are not those of the {split} split: {probabilities.shape} numbers "
            f"where {shape} are needed, all finite",
            hint="Give one row for each of its examples, in the order of examples.parquet.",
        )
    found = noise_candidates(probabilities, given)
    return [
        {
            "document_id": items[index].document.id,
            "narrative_id": items[index].example.narrative_id,
            "file": items[index].example.file,
            "row": items[index].example.row,
            "label": items[index].example.label,
            "suggested": labels[suggested],
            "probability": float(probabilities[index, suggested]),
            "margin": float(margin),
        }
        for index, suggested, margin in zip(
            found.indices.tolist(), found.suggested.tolist(), found.margins.tolist(), strict=True
        )
    ]


def predicted_probabilities(
    path: Path, items: Sequence[LabelledDocument], labels: LabelSet
) -> NDArray[np.float64]:
    """The tuned model's probabilities for held-out examples, from ``predictions.parquet``.

    Args:
        path: the file.
        items: the examples.
        labels: the labels there are.

    Returns:
        ``(N, L)``, in the order of ``items``. An example that the model was not asked about has
        equal probabilities, with which it is never suspected.

    Raises:
        ArtifactError: The file is missing, damaged or of other labels.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"p_{label}" for label in labels]
    try:
        table = pq.read_table(path, columns=["document_id", "narrative_id", *names])
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"{path}: cannot be read: {error}", hint="Run `slant evaluate` again."
        ) from error
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    found = {(document, narrative): values for document, narrative, *values in rows}
    equal = [1 / len(labels)] * len(labels)
    keys = [(item.document.id, item.example.narrative_id) for item in items]
    return np.array([found.get(key, equal) for key in keys], dtype=np.float64)
