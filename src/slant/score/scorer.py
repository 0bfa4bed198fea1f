"""Scorer: pairs in, predictions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from slant.errors import TaskError
from slant.labels import LabelSet
from slant.records import Pair, Prediction
from slant.score.decision import probabilities
from slant.score.engine import Engine
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec

__all__ = ["Refusal", "Scorer"]

_CHUNK_PAIRS = 1024
_NOT_FINITE = "the model's answer is not a number (in float16 large models overflow; try bfloat16)"


@dataclass(frozen=True)
class Refusal:
    """A pair that cannot be scored, and why."""

    id: str | None
    reason: str


@final
class Scorer:
    """Says of each pair how probable each label is. Holds no state between calls.

    Args:
        spec: the task contract; its temperature is applied.
        encoder: makes token ids under the same contract.
        engine: computes label logits.
    """

    def __init__(self, spec: TaskSpec, encoder: Encoder, engine: Engine) -> None:
        self._spec = spec
        self._encoder = encoder
        self._engine = engine

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        *,
        dtype: str = "auto",
        device: str | None = None,
        tokens_per_batch: int = 4096,
    ) -> Scorer:
        """Load a bundle that ``slant export`` wrote.

        Args:
            bundle: its folder.
            dtype: ``auto`` (bfloat16 where the processor has it), ``bfloat16``, ``float16`` or
                ``float32``.
            device: ``cpu``, ``cuda`` or ``mps``; None takes a GPU where there is one.
            tokens_per_batch: tokens that go through the model at once.

        Raises:
            ArtifactError: ``slant.json`` is missing, edited or of another version.
            ModelError: the weights are missing or cannot be loaded.
            TaskError: the tokenizer is not the one the model was trained with.
        """
        from slant.model.base import load_causal_lm, load_tokenizer, pick_device, resolve_dtype
        from slant.model.label_head import LabelModel
        from slant.score.torch_engine import TorchEngine

        folder = Path(bundle)
        spec = TaskSpec.load(folder)
        weights = folder / "causal-lm"
        encoder = Encoder(load_tokenizer(weights), spec)
        device = device or pick_device()
        causal_lm = load_causal_lm(weights, dtype=resolve_dtype(dtype), device=device)
        model = LabelModel(causal_lm, spec.verbalizer.token_ids).to(device)
        return cls(spec, encoder, TorchEngine(model, spec.pad_token_id, tokens_per_batch))

    @property
    def labels(self) -> LabelSet:
        """The labels, in the order of every probability vector."""
        return self._spec.labels

    @property
    def fingerprint(self) -> str:
        """Of contract and weights; predictions carry it."""
        return self._spec.fingerprint

    def predict(
        self, documents: Sequence[str] | str, narratives: Sequence[str | None] | str | None = None
    ) -> list[Prediction]:
        """Score texts toward narratives.

        Args:
            documents: N texts, or one.
            narratives: one for all documents, or N of them; None asks for overall sentiment.

        Returns:
            N predictions, in input order.

        Raises:
            TaskError: the numbers differ, or a pair cannot be scored (its narrative is too long
                for the token limit, its text is not valid Unicode).
        """
        pairs = _pair_up(documents, narratives)
        predictions = []
        for number, outcome in enumerate(self.stream(pairs), 1):
            if isinstance(outcome, Refusal):
                raise TaskError(f"document {number}: {outcome.reason}")
            predictions.append(outcome)
        return predictions

    def predict_proba(
        self, documents: Sequence[str] | str, narratives: Sequence[str | None] | str | None = None
    ) -> NDArray[np.float64]:
        """As ``predict``, but only the probabilities: ``(N, L)``, columns in label order."""
        predictions = self.predict(documents, narratives)
        shape = (len(predictions), len(self.labels))
        return np.array([p.probabilities for p in predictions], dtype=np.float64).reshape(shape)

    def stream(self, pairs: Iterable[Pair]) -> Iterator[Prediction | Refusal]:
        """Score any number of pairs with bounded memory; results in input order.

        A pair that cannot be scored gives a Refusal in its place.
        """
        iterator = iter(pairs)
        while chunk := list(islice(iterator, _CHUNK_PAIRS)):
            yield from self._score_chunk(chunk)

    def _score_chunk(self, pairs: Sequence[Pair]) -> list[Prediction | Refusal]:
        outcomes: list[Prediction | Refusal | None] = [None] * len(pairs)
        encoded: dict[int, list[int]] = {}
        for position, ids in enumerate(self._encode(pairs)):
            if isinstance(ids, str):
                outcomes[position] = Refusal(pairs[position].id, ids)
            else:
                encoded[position] = ids
        documents = [pairs[position].text for position in encoded]
        logits_NL = self._engine.label_logits(list(encoded.values()), groups=documents)
        probabilities_NL = probabilities(logits_NL, self._spec.temperature)
        fingerprint = self.fingerprint
        for position, row in zip(encoded, probabilities_NL.tolist(), strict=True):
            if not np.isfinite(row).all():
                outcomes[position] = Refusal(pairs[position].id, _NOT_FINITE)
                continue
            outcomes[position] = Prediction(
                id=pairs[position].id,
                label=self.labels[int(np.argmax(row))],
                probabilities=tuple(row),
                fingerprint=fingerprint,
            )
        return [outcome for outcome in outcomes if outcome is not None]

    def _encode(self, pairs: Sequence[Pair]) -> list[list[int] | str]:
        """Token ids of each pair, or the reason why there are none."""
        texts = [(pair.text, pair.narrative) for pair in pairs]
        try:
            return list(self._encoder.encode_batch(texts))
        except TaskError:
            return [self._encode_one(text) for text in texts]

    def _encode_one(self, text: tuple[str, str | None]) -> list[int] | str:
        try:
            return self._encoder.encode(*text)
        except TaskError as error:
            return error.message


def _pair_up(
    documents: Sequence[str] | str, narratives: Sequence[str | None] | str | None
) -> list[Pair]:
    texts = [documents] if isinstance(documents, str) else list(documents)
    if narratives is None or isinstance(narratives, str):
        return [Pair(text, narratives) for text in texts]
    if len(narratives) != len(texts):
        raise TaskError(
            f"{len(texts)} documents and {len(narratives)} narratives",
            hint="Give one narrative for all documents, or one for each.",
        )
    return [Pair(text, narrative) for text, narrative in zip(texts, narratives, strict=True)]
