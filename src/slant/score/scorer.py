"""Scorer: pairs in, predictions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from slant.errors import TaskError, UsageError
from slant.labels import LabelSet
from slant.records import Pair, Prediction
from slant.score.ahead import made_ahead
from slant.score.bundle import verify_bundle
from slant.score.decision import decide, probabilities
from slant.score.engine import Engine
from slant.score.pooling import Block, ask_block, encode_blocks
from slant.task.encode import Encoder
from slant.task.languages import of_language
from slant.task.spec import SPEC_FILE, TaskSpec

__all__ = ["Refusal", "Scorer"]

_CHUNK_PAIRS = 1024
_CHUNK_CHARACTERS = 16_000_000  # three chunks are held: in use, made and in the making
_NOT_FINITE = "the model's answer is not a number (in float16 large models overflow; try bfloat16)"


@dataclass(frozen=True)
class Refusal:
    """A pair that cannot be scored, and why."""

    id: str | None
    reason: str


class _Encoded(NamedTuple):
    """Pairs, why each cannot be scored (None: it can), and their prompts."""

    pairs: Sequence[Pair]
    reasons: Sequence[str | None]
    block: Block


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
        self._thresholds = dict(spec.thresholds)
        self._temperature_of = lru_cache(spec.temperature_of)

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        *,
        engine: str = "torch",
        url: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        quantize: str | None = None,
        compile: bool = False,  # noqa: A002 - PyTorch's own word
        tokens_per_batch: int | None = None,
        verify: bool = True,
    ) -> Scorer:
        """Load a bundle that ``slant export`` wrote.

        Args:
            bundle: its folder.
            engine: ``torch``, or ``vllm``: a vLLM server that serves the bundle's ``classifier``
                computes; the arguments after ``url`` are then the server's own affair.
            url: of the vLLM server.
            dtype: ``auto`` (bfloat16 where the processor has it), ``bfloat16``, ``float16`` or
                ``float32``.
            device: ``cpu``, ``cuda`` or ``mps``; None takes a GPU where there is one.
            quantize: ``none``, ``int8`` or ``nf4``; None: as the bundle was evaluated. Other than
                that, it is another contract, with another fingerprint.
            compile: run compiled code: some 15 s at the start, then a fifth faster on a CPU.
            tokens_per_batch: tokens that go through the model at once; see TorchEngine.
            verify: check the sha256 of what is loaded against the bundle's manifest.

        Raises:
            ArtifactError: ``slant.json`` is missing, edited or of another version; a file is
                missing, damaged or not of the bundle, or there is no manifest to verify it by.
            ModelError: the weights are missing or cannot be loaded or quantised; the vLLM server
                does not answer or serves another model.
            TaskError: the tokenizer is not the one the model was trained with.
            UsageError: there is no such engine, or no url for it.
        """
        from slant.model.base import load_tokenizer

        folder = Path(bundle)
        if verify and (folder / SPEC_FILE).is_file():  # without, it is no bundle at all
            verify_bundle(folder, weights=engine != "vllm")
        spec = TaskSpec.load(folder)
        if engine == "vllm":
            from slant.score.vllm_engine import VllmEngine

            if url is None:
                raise UsageError(
                    "engine vllm needs the url of a server",
                    hint="Start `vllm serve BUNDLE/classifier` and name its address.",
                )
            encoder = Encoder(load_tokenizer(folder / "causal-lm"), spec)
            # The server has the weights as exported, whatever the bundle says of rounding.
            return cls(spec.with_quantize("none"), encoder, VllmEngine.for_bundle(url, spec))
        if engine != "torch":
            raise UsageError(f"there is no engine {engine!r}", hint="Choose torch or vllm.")
        spec = spec if quantize is None else spec.with_quantize(quantize)
        encoder = Encoder(load_tokenizer(folder / "causal-lm"), spec)
        return cls(
            spec,
            encoder,
            _torch_engine(folder / "causal-lm", spec, dtype, device, compile, tokens_per_batch),
        )

    @property
    def labels(self) -> LabelSet:
        """The labels, in the order of every probability vector."""
        return self._spec.labels

    @property
    def fingerprint(self) -> str:
        """Of contract and weights; predictions carry it."""
        return self._spec.fingerprint

    def has_threshold(self, lang: str | None) -> bool:
        """Whether an answer about a document in this language may be accepted; None: not known."""
        return of_language(self._thresholds, lang) is not None

    def predict(
        self,
        documents: Sequence[str] | str,
        narratives: Sequence[str | None] | str | None = None,
        langs: Sequence[str | None] | str | None = None,
    ) -> list[Prediction]:
        """Score texts toward narratives.

        Args:
            documents: N texts, or one.
            narratives: one for all documents, or N of them; None asks for overall sentiment.
            langs: one language for all documents (BCP 47), or N of them; None: not known. It
                decides which temperature and which threshold are taken.

        Returns:
            N predictions, in input order.

        Raises:
            TaskError: the numbers differ, or a pair cannot be scored (its narrative is too long
                for the token limit, its text is not valid Unicode).
        """
        pairs = _pair_up(documents, narratives, langs)
        predictions = []
        for number, outcome in enumerate(self._outcomes(self._encoded(pairs)), 1):
            if isinstance(outcome, Refusal):
                raise TaskError(f"document {number}: {outcome.reason}")
            predictions.append(outcome)
        return predictions

    def predict_proba(
        self,
        documents: Sequence[str] | str,
        narratives: Sequence[str | None] | str | None = None,
        langs: Sequence[str | None] | str | None = None,
    ) -> NDArray[np.float64]:
        """As ``predict``, but only the probabilities: ``(N, L)``, columns in label order."""
        predictions = self.predict(documents, narratives, langs)
        shape = (len(predictions), len(self.labels))
        return np.array([p.probabilities for p in predictions], dtype=np.float64).reshape(shape)

    def stream(self, pairs: Iterable[Pair]) -> Iterator[Prediction | Refusal]:
        """Score any number of pairs with bounded memory; results in input order.

        A pair that cannot be scored gives a Refusal in its place. Pairs are taken 1,024 at a time
        (fewer, where their texts have more than 16 million characters), and read and encoded ahead
        in a thread of its own: what is bound to the caller's thread, as a cursor of sqlite, must be
        made a list first.
        """
        with closing(made_ahead(self._encoded(pairs))) as blocks:
            yield from self._outcomes(blocks)

    def _encoded(self, pairs: Iterable[Pair]) -> Iterator[_Encoded]:
        for chunk in _chunks(pairs):
            refusals: dict[int, str] = {}

            def refuse(place: int, error: TaskError, into: dict[int, str] = refusals) -> None:
                into[place] = error.message

            texts, start = [(pair.text, pair.narrative) for pair in chunk], 0
            for block in encode_blocks(self._encoder, texts, refuse):
                end = start + len(block.counts)
                reasons = [refusals.get(place) for place in range(start, end)]
                yield _Encoded(chunk[start:end], reasons, block)
                start = end

    def _outcomes(self, blocks: Iterable[_Encoded]) -> Iterator[Prediction | Refusal]:
        fingerprint = self.fingerprint
        for pairs, reasons, block in blocks:
            logits_NL = ask_block(self._engine, block)
            temperature_N = np.array([self._temperature_of(pair.lang) for pair in pairs])
            rows = probabilities(logits_NL, temperature_N).tolist()
            for pair, reason, row in zip(pairs, reasons, rows, strict=True):
                if reason is not None:
                    yield Refusal(pair.id, reason)
                else:
                    yield self._outcome(pair, row, fingerprint)

    def _outcome(self, pair: Pair, row: Sequence[float], fingerprint: str) -> Prediction | Refusal:
        if not np.isfinite(row).all():
            return Refusal(pair.id, _NOT_FINITE)
        return Prediction(
            id=pair.id,
            label=self.labels[int(np.argmax(row))],
            probabilities=tuple(row),
            fingerprint=fingerprint,
            decision=decide(max(row), pair.lang, self._thresholds),
        )


def _chunks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Pairs in order, so many together as are held at once."""
    chunk: list[Pair] = []
    num_characters = 0
    for pair in pairs:
        if not chunk or pair.text is not chunk[-1].text:  # many narratives share one text
            num_characters += len(pair.text)
        chunk.append(pair)
        if len(chunk) == _CHUNK_PAIRS or num_characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, num_characters = [], 0
    if chunk:
        yield chunk


def _torch_engine(  # noqa: PLR0917 - all of them are Scorer.load's
    weights: Path,
    spec: TaskSpec,
    dtype: str,
    device: str | None,
    compile: bool,  # noqa: A002
    tokens_per_batch: int | None,
) -> Engine:
    from slant.model.base import load_causal_lm, pick_device, resolve_dtype
    from slant.score.torch_engine import TorchEngine

    causal_lm = load_causal_lm(weights, dtype=resolve_dtype(dtype), device=device or pick_device())
    return TorchEngine.of(
        causal_lm,
        spec.verbalizer.token_ids,
        spec.pad_token_id,
        quantize=spec.quantize,
        tokens_per_batch=tokens_per_batch,
        compile=compile,
    )


def _pair_up(
    documents: Sequence[str] | str,
    narratives: Sequence[str | None] | str | None,
    langs: Sequence[str | None] | str | None,
) -> list[Pair]:
    texts = [documents] if isinstance(documents, str) else list(documents)
    columns = []
    for name, given in (("narratives", narratives), ("languages", langs)):
        values = [given] * len(texts) if given is None or isinstance(given, str) else list(given)
        if len(values) != len(texts):
            raise TaskError(
                f"{len(texts)} documents and {len(values)} {name}",
                hint=f"Give one of the {name} for all documents, or one for each.",
            )
        columns.append(values)
    return [
        Pair(text, narrative, lang=lang)
        for text, narrative, lang in zip(texts, *columns, strict=True)
    ]
