"""A bundle that vLLM can serve, and a vLLM server of its own for a test.

vLLM does not install beside slant, so that the server is the ``vllm`` executable of another Python
environment (``make vllm`` makes one).
"""

from __future__ import annotations

from pathlib import Path

import torch

from slant.export import served
from slant.export.formats import write_classifier
from slant.model.base import load_causal_lm
from slant.model.folder import save_causal_lm
from slant.task.spec import TaskSpec
from tiny import save_tiny_model, tiny_model
from tiny_task import tiny_spec

__all__ = ["VllmServer", "write_tiny_bundle"]

_SPREAD = 40.0
"""How much further apart the label rows of the head are than a random model has them."""


def write_tiny_bundle(folder: Path, *, temperature: float = 1.7) -> TaskSpec:
    """Write the two exported models and ``slant.json`` of a random Mistral.

    Its heads have 64 dimensions, because the attention of vLLM for CPUs has no smaller ones. A
    random head gives every label about a third; this one is scaled, so that probabilities differ.
    """
    base = save_tiny_model(folder.with_name(folder.name + "-base"))  # for its tokenizer
    causal_lm = tiny_model(
        hidden_size=128, num_attention_heads=2, num_key_value_heads=1, head_dim=64
    )
    with torch.no_grad():
        causal_lm.get_output_embeddings().weight.mul_(_SPREAD)
    spec = tiny_spec(token_limit=512).with_temperature(temperature)
    folder.mkdir()
    save_causal_lm(causal_lm, base, folder / "causal-lm")
    write_classifier(
        load_causal_lm(folder / "causal-lm", dtype=torch.float32), spec, base, folder / "classifier"
    )
    spec.save(folder)
    return spec


class VllmServer(served.VllmServer):
    """``vllm serve`` on a classifier folder; returns when it answers.

    Args:
        executable: ``vllm`` of its environment.
        classifier: the folder to serve.
        log: what the server prints.
        options: further options of ``vllm serve``.
    """

    def __init__(self, executable: str, classifier: Path, log: Path, *options: str) -> None:
        common = ("--runner", "pooling", "--enable-prefix-caching")
        super().__init__(executable, classifier, log, *common, *options)

    def metric(self, name: str) -> float:
        """Sum of a counter of ``/metrics`` over its label sets; 0 where there is none."""
        lines = self.read("/metrics").decode().splitlines()
        found = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rpartition(" ")[2]) for line in found)
