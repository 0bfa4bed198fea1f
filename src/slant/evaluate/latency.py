"""Latency of one document: reading label logits against generating the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from slant.progress import Progress
from slant.score.torch_engine import TorchEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["GENERATED_TOKENS", "measure_latency"]

GENERATED_TOKENS = 4
"""Room for any label word and for the line break or full stop after it."""


def measure_latency(
    causal_lm: PreTrainedModel,
    engine: TorchEngine,
    documents: Sequence[Sequence[Sequence[int]]],
    pad_token_id: int,
    progress: Progress,
) -> dict[str, Any]:
    """Time every document both ways, one at a time, alternating, after one warm-up.

    Args:
        causal_lm: generates answers.
        engine: computes label logits with the same model.
        documents: the prompts of each; several where it is asked about in windows. All of them
            count.
        pad_token_id: of the model.
        progress: told of documents.

    Returns:
        ``{"documents", "label_scoring": {"p50", "p95"}, "generation": {"p50", "p95"}}`` in
        milliseconds.
    """

    @torch.inference_mode()
    def generate(prompts: Sequence[Sequence[int]]) -> None:
        for prompt in prompts:
            input_ids = torch.tensor([list(prompt)], device=causal_lm.device)
            causal_lm.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=GENERATED_TOKENS,
                min_new_tokens=GENERATED_TOKENS,
                do_sample=False,
                use_cache=True,
                pad_token_id=pad_token_id,
            )

    def score(prompts: Sequence[Sequence[int]]) -> None:
        engine.label_logits(prompts)

    times: dict[str, list[float]] = {"label_scoring": [], "generation": []}
    with progress.task("latency", len(documents), "documents") as task:
        for number, prompts in enumerate([documents[0], *documents]):
            for name, answer in (("label_scoring", score), ("generation", generate)):
                spent = _time_ms(answer, prompts)
                if number:
                    times[name].append(spent)
            task.advance(min(number, 1))
    return {
        "documents": len(documents),
        **{name: _percentiles(values) for name, values in times.items()},
    }


def _time_ms(
    answer: Callable[[Sequence[Sequence[int]]], None], prompts: Sequence[Sequence[int]]
) -> float:
    started = time.perf_counter()
    answer(prompts)
    return (time.perf_counter() - started) * 1000


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}
