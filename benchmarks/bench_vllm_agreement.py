"""A tuned bundle in vLLM and in slant: the same labels, the same probabilities?

    vllm serve BUNDLE/classifier --runner pooling --enable-prefix-caching --dtype bfloat16
    python benchmarks/bench_vllm_agreement.py examples/public/all.yaml --url http://localhost:8000

(Gemma 3 wants `--convert classify --hf-overrides '{"architectures": ["Gemma3ForCausalLM"]}'`
besides.) Every n-th test example of the project, 500 of them, is asked of vLLM's `/classify` and of
slant's own engine, in bfloat16 and in float32. That the two arithmetics of slant differ from each
other is the measure for how far vLLM may differ.

Writes benchmarks/results/vllm_agreement.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from result import save, stamp

from slant.artifacts import load
from slant.config.load import load_settings
from slant.config.settings import project_folder
from slant.corpus import Corpus
from slant.records import Pair, Prediction
from slant.score.scorer import Scorer

EXAMPLES = 500


def ask(scorer: Scorer, pairs: list[Pair]) -> tuple[NDArray[np.float64], float]:
    """``(N, L)`` probabilities, and the seconds they took."""
    started = time.perf_counter()
    found = [outcome.probabilities for outcome in scorer.stream(pairs)
             if isinstance(outcome, Prediction)]  # fmt: skip
    return np.array(found), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config", type=Path, help="a project whose bundle is served")
    parser.add_argument("--url", required=True, help="of the vLLM server")
    given = parser.parse_args()
    settings = load_settings(given.config, [])
    work = project_folder(given.config) / settings.work
    bundle = work / settings.export.to
    test = Corpus(load(work / "ingest", "ingest")).split("test")
    chosen = test[:: max(1, len(test) // EXAMPLES)][:EXAMPLES]
    pairs = [Pair(*item.text, item.document.id, item.document.lang) for item in chosen]
    vllm, vllm_s = ask(Scorer.load(bundle, engine="vllm", url=given.url), pairs)
    ours = {
        dtype: ask(Scorer.load(bundle, dtype=dtype), pairs) for dtype in ("bfloat16", "float32")
    }
    rows = []
    for name, one, other in (
        ("vLLM, slant in bfloat16", vllm, ours["bfloat16"][0]),
        ("vLLM, slant in float32", vllm, ours["float32"][0]),
        ("slant in bfloat16, in float32", ours["bfloat16"][0], ours["float32"][0]),
    ):
        labels = (one.argmax(axis=1) == other.argmax(axis=1)).mean()
        apart = np.abs(one - other)
        rows.append(f"| {name} | {100 * labels:.1f} % | {apart.max():.4f} | {apart.mean():.5f} |")
    save(
        "vllm_agreement",
        [
            "# A tuned bundle in vLLM and in slant",
            "",
            stamp(),
            "",
            f"`python benchmarks/bench_vllm_agreement.py {given.config} --url …`",
            "",
            f"{len(pairs)} held-out examples of {given.config}.",
            "",
            "| | same label | largest difference of a probability | mean |",
            "|---|---|---|---|",
            *rows,
            "",
            f"vLLM over HTTP: {len(pairs) / vllm_s:.1f} pairs/s; slant in bfloat16, not compiled: "
            f"{len(pairs) / ours['bfloat16'][1]:.1f} pairs/s (not on a quiet machine, nor with the "
            "same cores: a comparison of speed is in score.md).",
        ],
    )


if __name__ == "__main__":
    main()
