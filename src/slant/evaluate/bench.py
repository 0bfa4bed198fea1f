"""The models under evaluation, asked: logits of the tuned model and of the prompted base.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slant.artifacts import Artifact
from slant.config.settings import ProjectSettings
from slant.corpus import LabelledDocument
from slant.errors import TaskError
from slant.evaluate import baselines
from slant.evaluate.calibration import fit_temperature
from slant.evaluate.latency import measure_latency
from slant.evaluate.report import Measured
from slant.model.base import BaseModel, load_causal_lm, load_tokenizer, pick_device, resolve_dtype
from slant.model.tuned import load_tuned_merged
from slant.progress import Progress
from slant.score.decision import probabilities
from slant.score.pooling import pair_logits
from slant.score.torch_engine import TorchEngine
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.template import Template
from slant.task.verbalizer import encode_text

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
    """What the tuned model answered on the test split, and what was found out on the way.

    ``logits_NL`` are those of the test split, before calibration.
    """

    measured: Measured
    temperature: float
    num_calibration: int
    logits_NL: Logits  # noqa: N815
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
        self._tokenizer = load_tokenizer(subject.base.folder)
        # What is measured is what will be served.
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
        self, calibration: Sequence[LabelledDocument], test: Sequence[LabelledDocument]
    ) -> Tuned:
        """The tuned model's answers, its temperature and its latency."""
        causal_lm = load_tuned_merged(
            self._subject.adapted.folder,
            self._subject.tune.path,
            self.spec.verbalizer.token_ids,
            dtype=self._dtype,
            device=self._device,
        )
        engine = self._engine(causal_lm, self.spec)
        calibration_logits, _ = self._logits("calibration", engine, self._encoder, calibration)
        test_logits, seconds = self._logits("tuned", engine, self._encoder, test)
        gold = np.array([self.spec.labels.index(item.example.label) for item in calibration])
        temperature = fit_temperature(calibration_logits, gold.astype(np.int64))
        # Every n-th: files are often sorted by language or length.
        step = max(1, len(test) // self._settings.evaluate.latency_documents)
        timed = test[::step][: self._settings.evaluate.latency_documents]
        windows = self._encoder.encode_windows([item.text for item in timed])
        latency = measure_latency(
            causal_lm, engine, windows, self.spec.pad_token_id, self._progress
        )
        return Tuned(
            Measured(
                "tuned",
                "Tuned model",
                f"{self.spec.base}, fine-tuned on the training split; label logits at the last "
                "prompt token, temperature fitted on the calibration split",
                probabilities(test_logits, temperature),
                seconds,
            ),
            temperature,
            len(calibration),
            test_logits,
            {**latency, "dtype": str(self._dtype).removeprefix("torch.")},
        )

    def prompted(self, test: Sequence[LabelledDocument]) -> Measured:
        """The untouched base model, asked with a zero-shot prompt.

        It is given its best chance: only the label words can be answered, so that no answer is
        lost for being unreadable.
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
        causal_lm = load_causal_lm(
            self._subject.base.folder, dtype=self._dtype, device=self._device
        )
        logits_NL, seconds = self._logits(
            "prompted", self._engine(causal_lm, spec), Encoder(self._tokenizer, spec), test
        )
        return Measured(
            "prompted",
            "Same base, prompted",
            f"{self.spec.base} as it comes, asked with a zero-shot prompt; the most probable label "
            "word counts, so no answer is unreadable",
            probabilities(logits_NL, 1.0),
            seconds,
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

    def _logits(
        self, name: str, engine: TorchEngine, encoder: Encoder, items: Sequence[LabelledDocument]
    ) -> tuple[Logits, float]:
        """``(N, L)`` logits and the seconds they took, from disk if they were made before."""
        kept = self._scores / f"{name}.npz"
        if kept.exists():
            with np.load(kept) as stored:
                return stored["logits"], float(stored["seconds"])
        started = time.perf_counter()
        with self._progress.task(f"score {name}", len(items), "documents") as task:
            texts = [item.text for item in items]

            def refuse(place: int, error: TaskError) -> None:
                name = f"document {items[place].document.id}"
                raise TaskError(f"{name}: {error.message}", hint=error.hint) from error

            logits_NL = pair_logits(engine, encoder, texts, task.advance, on_refused=refuse)
        seconds = time.perf_counter() - started
        partial = kept.with_suffix(".partial.npz")
        np.savez(partial, logits=logits_NL, seconds=np.float64(seconds))
        partial.replace(kept)
        return logits_NL, seconds
