"""A real vLLM server reads exported classifiers, texts in: it gives what the checkpoint gives.

Runs where the environment variable SLANT_VLLM names the ``vllm`` executable (``make vllm``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from exporting import Exported, export_moved, moved_checkpoint
from slant.export.parity import Answers, prove
from slant.labels import LabelSet
from slant.model.base import load_tokenizer
from slant.task.spec import TaskSpec
from tiny import LABEL_WORDS, PAD, save_tiny_model, tiny_model
from tiny_stages import BaseModel, quiet_transformers
from tiny_task import TEMPLATE
from vllm_server import VllmServer


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A random Mistral whose heads are as wide as vLLM for CPUs needs them."""
    root = tmp_path_factory.mktemp("served")
    folder = save_tiny_model(root / "base")  # for its tokenizer
    wide: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 64}
    wide |= {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.1}
    with quiet_transformers():
        tiny_model(**wide).save_pretrained(folder)
    base = BaseModel("tiny/wide", folder, "0" * 64)
    spec = TaskSpec.create(
        load_tokenizer(folder),
        template=TEMPLATE,
        labels=LabelSet(LABEL_WORDS),
        label_words={},
        token_limit=200,
        pad_token_id=PAD,
        base=(base.name, base.digest),
    )
    checkpoint = moved_checkpoint(root / "tune", base, spec)
    return export_moved(root / "out", base, spec, checkpoint, count=60)


@pytest.mark.parametrize("name", ["classifier", "int8"])
def test_vllm_gives_the_probabilities_of_the_checkpoint(
    exported: Exported, tmp_path: Path, name: str
) -> None:
    executable = os.environ.get("SLANT_VLLM")
    if not executable:
        pytest.skip("no vLLM: SLANT_VLLM names no vllm executable")
    assert (exported.trained.max(axis=0) - exported.trained.min(axis=0)).min() > 0.1
    server = VllmServer(
        executable, exported.folder / name, tmp_path / "vllm.log", "--dtype", "float32"
    )
    try:
        rows = [_classify(server.url, probe.prompt) for probe in exported.probes]
    finally:
        server.stop()
    found = Answers(
        "vLLM", "float32", [], {"vllm": (range(len(rows)), np.asarray(rows, dtype=np.float64))}
    )
    figures = prove(exported.trained, {name: found})[name]
    assert figures["label_agreement"] == 1


def _classify(url: str, prompt: str) -> list[float]:
    request = Request(
        f"{url}/classify",
        json.dumps({"input": prompt}).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=120) as answer:
        (data,) = json.loads(answer.read())["data"]
    probs: list[float] = data["probs"]
    return probs
