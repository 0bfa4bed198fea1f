"""Measuring a model while it is tuned: loss and macro-F1 on the validation split, per language.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from slant.model.label_head import LabelModel
from slant.score.decision import probabilities
from slant.train.interfaces import SCORE
from slant.train.loop import autocast
from slant.train.objective import TuneObjective
from slant.train.parallel import World
from slant.train.schedule import Examples, shared_out, tune_passes
from slant.train.stopping import Stop

__all__ = ["TuneValidation", "validation_metrics"]

_LEAST = 1e-12  # a probability that is taken for zero


@final
class TuneValidation:
    """See ``interfaces.Validation``.

    Args:
        objective: its model is measured; all processes together go over the examples.
        examples: of the validation split.
        steps: after which it is due.
        dtype: of the arithmetic, as in training.
        world: the processes.
        pad_token_id: fills the rows.
        together: whether examples of one document share a row.
    """

    def __init__(
        self,
        objective: TuneObjective,
        examples: Examples,
        *,
        steps: Collection[int],
        dtype: torch.dtype,
        world: World,
        pad_token_id: int,
        together: bool,
    ) -> None:
        self.steps = frozenset(steps)
        self._objective = objective
        self._examples = examples
        self._dtype = dtype
        self._world = world
        self._pad_token_id = pad_token_id
        self._together = together

    def __call__(self, stop: Stop, tokens_per_pass: int) -> dict[str, float] | None:
        """See ``interfaces.Validation``."""
        logits_NL = self._logits(stop, tokens_per_pass)
        if logits_NL is None:
            return None
        langs = np.array(self._examples.langs, dtype=np.str_)
        return validation_metrics(logits_NL, self._examples.labels, langs)

    @torch.no_grad()
    def _logits(self, stop: Stop, tokens_per_pass: int) -> NDArray[np.float32] | None:
        model: LabelModel = self._objective.model
        lengths = np.array([len(ids) for ids in self._examples.ids], dtype=np.int64)
        groups = self._examples.groups(range(len(lengths)), together=self._together)
        parts = shared_out(groups, lengths, self._world.size)
        logits_NL = np.zeros((len(lengths), model.num_labels), dtype=np.float32)
        self._objective.eval()
        try:
            for batch in tune_passes(
                self._examples,
                parts,
                self._world.rank,
                tokens_per_pass,
                self._pad_token_id,
                together=self._together,
            ):
                with autocast(torch.device(self._world.device), self._dtype):
                    found = self._objective(batch.prompts.to(self._world.device))
                if batch.counts:
                    members = [parts[batch.rank][place] for place in batch.prompts.members]
                    logits_NL[members] = found.float().cpu().numpy()
                if self._world.size == 1 and stop.requested:
                    return None
        finally:
            self._objective.train()
        return self._world.sum_array(logits_NL)


def validation_metrics(
    logits_NL: NDArray[np.float32], gold_N: NDArray[np.int64], langs_N: NDArray[Any]
) -> dict[str, float]:
    """Cross-entropy (nats) and macro-F1 over all, and macro-F1 of each language.

    A label that neither occurs nor is predicted counts 0 over all examples; within a language it is
    left out, since a language may simply not have it.

    Args:
        logits_NL: uncalibrated.
        gold_N: label numbers.
        langs_N: language of each example.

    Returns:
        ``validation_loss``, ``validation_macro_f1`` and ``validation_macro_f1/LANG``.
    """
    from sklearn.metrics import f1_score

    chosen = probabilities(logits_NL, 1.0)[np.arange(len(gold_N)), gold_N]
    predicted = logits_NL.argmax(axis=1)

    def macro_f1(rows: NDArray[np.bool_], labels: list[int] | None) -> float:
        return float(
            f1_score(gold_N[rows], predicted[rows], labels=labels, average="macro", zero_division=0)
        )

    everything = np.ones(len(gold_N), dtype=np.bool_)
    return {
        "validation_loss": float(-np.log(np.maximum(chosen, _LEAST)).mean()),
        SCORE: macro_f1(everything, list(range(logits_NL.shape[1]))),
        **{
            f"{SCORE}/{lang}": macro_f1(langs_N == lang, None)
            for lang in sorted(set(langs_N.tolist()))
        },
    }
