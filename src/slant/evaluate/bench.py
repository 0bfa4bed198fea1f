"""The models under evaluation, asked: logits of the tuned model and of the prompted base.

What they answered is kept on disk, so that a killed evaluation goes on with the next system, and
one with other bounds or baselines asks nothing again.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slant.artifacts import Artifact, digest_json
from slant.config.settings import ProjectSettings
from slant.corpus import LabelledDocument
from slant.disk import write_atomically
from slant.errors import ModelError, TaskError
from slant.evaluate import baselines
from slant.evaluate.decisions import Asked
from slant.evaluate.embedding import embed
from slant.evaluate.gold import document_key
from slant.evaluate.latency import measure_latency
from slant.memory import release_memory
from slant.model.base import (
    BaseModel,
    cast_weights,
    load_causal_lm,
    load_tokenizer,
    pick_device,
    resolve_dtype,
)
from slant.model.tuned import load_tuned_merged
from slant.progress import Progress
from slant.score.decision import probabilities
from slant.score.pooling import pair_logits
from slant.score.torch_engine import TorchEngine
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.template import Template
from slant.task.verbalizer import encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Bench", "Subject", "Tuned"]

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: the tuned checkpoint, the base it sits on, and the untouched base.

    ``adapted`` equals ``base`` where there was no domain adaptation.
    """

    tune: Artifact
    base: BaseModel
    adapted: BaseModel
    adapt: Artifact | None


@dataclass(frozen=True)
class Tuned:
    """What the tuned model answered, before calibration, and what that took.

    Attributes:
        validation: on the validation split.
        calibration: on the calibration split.
        test: on the test split.
        seconds: for the test split.
        latency: of one document at a time; the report's ``latency``.
    """

    validation: Asked
    calibration: Asked
    test: Asked
    seconds: float
    latency: dict[str, Any]


class Bench:
    """Scores prompts with a model, and remembers the logits on disk."""

    def __init__(
        self, settings: ProjectSettings, subject: Subject, scores: Path, progress: Progress
    ) -> None:
        self._settings = settings
        self._subject = subject
        self._scores = scores
        self._progress = progress
        self._dtype, self._device = resolve_dtype(settings.model.dtype), pick_device()
        self._arithmetic = resolve_dtype(settings.evaluate_dtype)
        self._tokenizer = load_tokenizer(subject.base.folder)
        # Rounded as it will be served.
        self.spec = TaskSpec.load(subject.tune.path).with_quantize(settings.score.quantize)
        self._encoder = Encoder(self._tokenizer, self.spec)

    def usable(self, items: Sequence[LabelledDocument]) -> list[LabelledDocument]:
        """The items that can be asked about within the token limit, as the shard stage has it."""
        kept = []
        for item in items:
            try:
                self._encoder.prompt(*item.text)
            except TaskError:
                continue
            kept.append(item)
        return kept

    def tuned(
        self,
        validation: Sequence[LabelledDocument],
        calibration: Sequence[LabelledDocument],
        test: Sequence[LabelledDocument],
    ) -> Tuned:
        """The tuned model's answers and its latency."""
        causal_lm = self._merged()
        engine = self._engine(cast_weights(causal_lm, self._arithmetic), self.spec)
        found = {
            name: self._logits(name, lambda: engine, self.spec, items)
            for name, items in (
                ("calibration", calibration), ("validation", validation), ("tuned", test)
            )
        }  # fmt: skip
        # Every n-th: files are often sorted by language or length.
        step = max(1, len(test) // self._settings.evaluate.latency_documents)
        timed = test[::step][: self._settings.evaluate.latency_documents]
        windows = self._encoder.encode_windows([item.text for item in timed])
        if self._arithmetic != self._dtype:  # what is timed is what will be served
            del causal_lm, engine
            release_memory()
            causal_lm = self._merged()
            engine = self._engine(causal_lm, self.spec)
        latency = measure_latency(
            causal_lm, engine, windows, self.spec.pad_token_id, self._progress
        )
        return Tuned(
            self._asked(found["validation"][0], validation),
            self._asked(found["calibration"][0], calibration),
            self._asked(found["tuned"][0], test),
            found["tuned"][1],
            {**latency, "dtype": str(self._dtype).removeprefix("torch.")},
        )

    def _merged(self) -> PreTrainedModel:
        """The tuned model, its weights rounded as those that are exported."""
        return load_tuned_merged(
            self._subject.adapted.folder,
            self._subject.tune.path,
            self.spec.verbalizer.token_ids,
            dtype=self._dtype,
            quantize=self._settings.model.quantize,
            device=self._device,
        )

    def _asked(self, logits_NL: Logits, items: Sequence[LabelledDocument]) -> Asked:
        if num_bad := int((~np.isfinite(logits_NL).all(axis=1)).sum()):
            raise ModelError(
                f"the tuned model's answer is not a number for {num_bad} of {len(items)} documents",
                hint="In float16 large models overflow: try model.dtype: bfloat16 or float32.",
            )
        gold = [self.spec.labels.index(item.example.label) for item in items]
        return Asked(
            logits_NL,
            np.array(gold, dtype=np.int64),
            [item.document.lang for item in items],
            [document_key(item) for item in items],
        )

    def prompted(self, test: Sequence[LabelledDocument]) -> tuple[NDArray[np.float64], float]:
        """``(N, L)`` probabilities of the untouched base model, asked with a zero-shot prompt.

        It is given its best chance: only the label words can be answered, so that no answer is
        lost for being unreadable. The seconds that it took come with them.
        """
        words = self.spec.verbalizer.words
        template = baselines.prompted_template(self.spec.labels, words)
        # Its wording is longer; the document must not be cut shorter for that.
        extra = self._wording(template) - self._wording(self.spec.template) + 8
        spec = TaskSpec.create(
            self._tokenizer,
            template=template,
            labels=self.spec.labels,
            label_words=dict(zip(self.spec.labels, words, strict=True)),
            token_limit=self.spec.token_limit + max(64, extra),
            pad_token_id=self.spec.pad_token_id,
            base=(self.spec.base, self.spec.base_digest),
            long_documents=self.spec.long_documents,
        )
        logits_NL, seconds = self._logits(
            "prompted", lambda: self._engine(self._base(), spec), spec, test
        )
        return probabilities(logits_NL, 1.0), seconds

    def about_prompted(self) -> str:
        """What ``prompted`` does, for people."""
        return (
            f"{self.spec.base} as it comes, asked with a zero-shot prompt; the most probable label "
            "word counts, so no answer is unreadable"
        )

    def _wording(self, template: Template) -> int:
        """Tokens of the longer of its two prompts, around document and narrative."""
        return max(
            len(encode_text(self._tokenizer, template.render("", narrative)))
            for narrative in ("x", None)
        )

    def _engine(self, causal_lm: Any, spec: TaskSpec) -> TorchEngine:
        return TorchEngine.of(
            causal_lm,
            spec.verbalizer.token_ids,
            spec.pad_token_id,
            quantize=spec.quantize,
            tokens_per_batch=self._settings.evaluate.tokens_per_batch,
        )

    def _base(self) -> PreTrainedModel:
        """The untouched base model."""
        return load_causal_lm(
            self._subject.base.folder, dtype=self._arithmetic, device=self._device
        )

    def _logits(
        self,
        name: str,
        make_engine: Callable[[], TorchEngine],
        spec: TaskSpec,
        items: Sequence[LabelledDocument],
    ) -> tuple[Logits, float]:
        """``(N, L)`` logits and the seconds they took, from disk if they were made before.

        ``make_engine`` is called only where there is something to compute.
        """

        def prepare() -> Callable[[], Logits]:
            engine, encoder = make_engine(), Encoder(self._tokenizer, spec)
            return lambda: self._compute(name, engine, encoder, items)

        return self.kept(name, self._model_key(spec), items, prepare)

    def _compute(
        self, name: str, engine: TorchEngine, encoder: Encoder, items: Sequence[LabelledDocument]
    ) -> Logits:
        def refuse(place: int, error: TaskError) -> None:
            document = f"document {items[place].document.id}"
            raise TaskError(f"{document}: {error.message}", hint=error.hint) from error

        with self._progress.task(f"score {name}", len(items), "documents") as task:
            texts = [item.text for item in items]
            return pair_logits(engine, encoder, texts, task.advance, on_refused=refuse)

    def _model_key(self, spec: TaskSpec) -> dict[str, str]:
        return {"fingerprint": spec.fingerprint, "tune": self._subject.tune.digest}

    def kept(
        self,
        name: str,
        model: Mapping[str, str],
        items: Sequence[LabelledDocument],
        prepare: Callable[[], Callable[[], NDArray[Any]]],
    ) -> tuple[NDArray[Any], float]:
        """What was computed for these items, and the seconds it took: from disk if it is there.

        Args:
            name: of the file, without its key.
            model: what tells the model that computes from any other.
            items: N of them.
            prepare: loads what it takes, which does not count as time, and gives what makes the
                ``(N, …)`` values. Called only where there is something to compute.
        """
        key = digest_json(
            {
                **model,
                "dtype": [str(self._dtype), str(self._arithmetic)],
                "device": self._device,
                "tokens_per_batch": self._settings.evaluate.tokens_per_batch,
                "items": [(item.document.lang, *item.text) for item in items],
            }
        )
        kept = self._scores / f"{name}-{key[:16]}.npz"
        if (found := _stored(kept, len(items))) is not None:
            return found
        compute = prepare()
        started = time.perf_counter()
        values = compute()
        seconds = time.perf_counter() - started
        for old in self._scores.glob(f"{name}-*.npz"):
            old.unlink()
        content = io.BytesIO()
        np.savez(content, values=values, seconds=np.float64(seconds))
        write_atomically(kept, content.getvalue())
        return values, seconds

    def embeddings(
        self, items: Sequence[LabelledDocument], split: str
    ) -> tuple[NDArray[np.float32], float]:
        """``(N, H)``: what the untouched base model makes of each prompt (see ``embedding``), and
        the seconds that took."""

        def prepare() -> Callable[[], NDArray[np.float32]]:
            base, pad_token_id = self._base(), self.spec.pad_token_id
            prompts = [self._encoder.encode_prompt(self._encoder.prompt(*i.text)) for i in items]

            def compute() -> NDArray[np.float32]:
                with self._progress.task(f"embed {split}", len(items), "documents") as task:
                    return embed(base, prompts, pad_token_id, task.advance)

            return compute

        return self.kept(f"embedding-{split}", self._model_key(self.spec), items, prepare)


def _stored(path: Path, num: int) -> tuple[NDArray[Any], float] | None:
    """The values and seconds in a file; None where there is none, or it is damaged."""
    try:
        with np.load(path) as stored:
            values, seconds = stored["values"], float(stored["seconds"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return (values, seconds) if len(values) == num else None
