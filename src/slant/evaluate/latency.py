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
    prompts: Sequence[Sequence[int]],
    pad_token_id: int,
    progress: Progress,
) -> dict[str, Any]:
    """Time every prompt both ways, one at a time, alternating, after one warm-up.

    Returns:
        ``{"documents", "label_scoring": {"p50", "p95"}, "generation": {"p50", "p95"}}`` in
        milliseconds.
    """

    @torch.inference_mode()
    def generate(prompt: Sequence[int]) -> None:
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

    def score(prompt: Sequence[int]) -> None:
        engine.label_logits([prompt])

    times: dict[str, list[float]] = {"label_scoring": [], "generation": []}
    with progress.task("latency", len(prompts), "documents") as task:
        for number, prompt in enumerate([prompts[0], *prompts]):
            for name, answer in (("label_scoring", score), ("generation", generate)):
                spent = _time_ms(answer, prompt)
                if number:
                    times[name].append(spent)
            task.advance(min(number, 1))
    return {
        "documents": len(prompts),
        **{name: _percentiles(values) for name, values in times.items()},
    }


def _time_ms(answer: Callable[[Sequence[int]], None], prompt: Sequence[int]) -> float:
    started = time.perf_counter()
    answer(prompt)
    return (time.perf_counter() - started) * 1000


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}
