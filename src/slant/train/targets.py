"""What the model is trained toward: a distribution over the labels, and a weight, per example.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slant.errors import ArtifactError, UsageError, did_you_mean

__all__ = ["class_weight_vector", "target_distribution"]


def class_weight_vector(
    setting: Literal["none", "balanced"] | Mapping[str, float],
    labels: Sequence[str],
    counts: Sequence[int] | NDArray[np.int64],
) -> NDArray[np.float32]:
    """Weight of each label in the loss, scaled so that training examples weigh 1 on the average.

    So class weights move what is learnt and leave the size of a step, and with it the meaning of
    the learning rate, alone.

    Args:
        setting: ``"none"``; ``"balanced"``: n / (L · n_l), the heuristic of scikit-learn's
            ``compute_class_weight`` (King and Zeng 2001), over the labels that there are examples
            of; or a weight above 0 by label, 1 for those not named.
        labels: all L of them, in order.
        counts: ``(L,)`` how many training examples have each label. With ``balanced`` a label
            without any weighs 1: nothing is known of how rare it is.

    Returns:
        ``(L,)``, with sum(counts · weights) = sum(counts).

    Raises:
        UsageError: ``setting`` names no label of the set.
    """
    counts_L = np.asarray(counts, dtype=np.float64)
    weights_L = np.ones(len(labels))
    if setting == "balanced":
        present = counts_L > 0
        weights_L[present] = counts_L.sum() / (max(1, present.sum()) * counts_L[present])
    elif not isinstance(setting, str):
        for name, weight in setting.items():
            if name not in labels:
                raise UsageError(
                    f"tune.class_weights names {name!r}, which is not among labels "
                    f"{list(labels)}{did_you_mean(name, labels)}"
                )
            weights_L[list(labels).index(name)] = weight
    total = counts_L @ weights_L
    if total > 0:
        weights_L *= counts_L.sum() / total
    return weights_L.astype(np.float32)


def target_distribution(
    labels: Sequence[int] | NDArray[np.int64],
    num_labels: int,
    *,
    shares: Sequence[Sequence[float] | NDArray[np.floating[Any]] | None] | None = None,
    soft: bool = False,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets and weights such that the loss of an example is ``weight · cross-entropy(target)``.

    Class weights multiply each label's part of the target, as in ``torch.nn.functional
    .cross_entropy``: loss = -Σ_l class_weight_l · target_l · log p_l. What comes out is the same
    number, written as a distribution (their product, divided by its sum) and a weight (its sum).
    PyTorch divides by the summed weights of the gold labels where targets are label indices and by
    N where they are probabilities; slant divides by the number of examples of the step always, so
    that a step's parts add up whatever labels are in them.

    Args:
        labels: ``(N,)`` index of the gold label.
        num_labels: L.
        shares: for each example ``(L,)`` what share of its judgements each label has; None or
            empty where there is one judgement. Read with ``soft`` only.
        soft: take the shares for the target where there are any, not the gold label.
        smoothing: share of the target that is spread evenly over all L labels (Szegedy et al.
            2016), 0…1.
        class_weights: ``(L,)``; None: all 1.

    Returns:
        ``(N, L)`` targets, each adding up to 1, and ``(N,)`` weights.

    Raises:
        ArtifactError: shares are not L numbers of 0 or more, of which one is above 0.
    """
    labels_N = np.asarray(labels, dtype=np.int64)
    targets_NL = np.zeros((len(labels_N), num_labels))
    targets_NL[np.arange(len(labels_N)), labels_N] = 1
    for place, given in enumerate(shares or ()):
        if soft and given is not None and len(given):
            targets_NL[place] = _normalised(given, num_labels)
    targets_NL = (1 - smoothing) * targets_NL + smoothing / num_labels
    if class_weights is not None:
        targets_NL *= np.asarray(class_weights, dtype=np.float64)
    weights_N = targets_NL.sum(axis=1)
    targets_NL /= weights_N[:, None]
    return targets_NL.astype(np.float32), weights_N.astype(np.float32)


def _normalised(
    shares: Sequence[float] | NDArray[np.floating[Any]], num_labels: int
) -> NDArray[np.float64]:
    shares_L = np.asarray(shares, dtype=np.float64)
    total = shares_L.sum()
    if shares_L.shape != (num_labels,) or not (shares_L >= 0).all() or not 0 < total < np.inf:
        raise ArtifactError(
            f"shares of judgements are {shares_L.tolist()}: {num_labels} numbers are wanted, one "
            "for each label, of which none is negative and one is above 0",
            hint="Run `slant ingest` and `slant shard` again.",
        )
    return np.asarray(shares_L / total)
