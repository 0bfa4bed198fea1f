"""vLLM's side of bench_score.py, run by a Python that has vLLM (not slant's own).

    FOLDER/bin/python benchmarks/peers/vllm_generate.py MODEL PROMPTS.json

MODEL is the bundle's ``causal-lm``; PROMPTS.json a list of lists of token ids. Answers every line
on standard input with one line ``RESULT seconds``: how long ``generate(max_tokens=1)`` took for all
the prompts together, prefix caching off (each turn would else only repeat the last).

vLLM for CPUs keeps one core for itself unless VLLM_CPU_OMP_THREADS_BIND names them all.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from vllm import LLM, SamplingParams


def main() -> None:
    model, prompts = sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8"))
    longest = max(map(len, prompts))
    engine = LLM(
        model=model,
        dtype="bfloat16",
        max_model_len=longest + 8,
        max_num_seqs=256,
        max_num_batched_tokens=4096,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )
    wanted = SamplingParams(max_tokens=1, temperature=0.0)
    asked = [{"prompt_token_ids": ids} for ids in prompts]
    engine.generate(asked, wanted, use_tqdm=False)
    print("READY", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        engine.generate(asked, wanted, use_tqdm=False)
        print("RESULT", time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
