"""A real vLLM server reads exported classifiers, texts in: it gives what the checkpoint gives.

Runs where the environment variable SLANT_VLLM names the ``vllm`` executable (``make vllm``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from exporting import (
    AutoModelForCausalLM,
    Exported,
    change_weights,
    export_moved,
    moved_checkpoint,
)
from slant.errors import GateError
from slant.export.parity import Probabilities
from slant.export.served import ask_vllm
from slant.labels import LabelSet
from slant.model.base import load_tokenizer
from slant.task.spec import TaskSpec
from tiny import LABEL_WORDS, PAD
from tiny_stages import BaseModel, quiet_transformers, save_base, tiny_config
from tiny_task import TEMPLATE

pytest.importorskip("httpx", reason="the extra vllm is not installed")


@pytest.fixture(scope="module")
def executable() -> str:
    found = os.environ.get("SLANT_VLLM")
    if not found:
        pytest.skip("no vLLM: SLANT_VLLM names no vllm executable")
    return found


@pytest.fixture(scope="module", params=["mistral", "gemma3"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A random model whose heads are as wide as vLLM for CPUs needs them."""
    root = tmp_path_factory.mktemp("served")
    folder = save_base(root / "base", request.param).folder  # for its tokenizer
    config = tiny_config(request.param)
    config.update({"hidden_size": 128, "intermediate_size": 256, "head_dim": 64})
    config.update({"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.1})
    with quiet_transformers():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
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


def served_by(executable: str, spec: TaskSpec, logs: Path) -> Callable[..., object]:
    def serve(folder: Path, prompts: Sequence[str]) -> tuple[str, Probabilities]:
        return ask_vllm(executable, folder, spec, prompts, log=logs / f"{folder.name}.log")

    return serve


def test_vllm_gives_the_probabilities_of_the_checkpoint(
    executable: str,
    exported: Exported,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    assert (exported.trained.max(axis=0) - exported.trained.min(axis=0)).min() > 0.1
    serve = served_by(executable, exported.spec, tmp_path)
    formats = exported.prove("classifier", "int8", serve=serve)["formats"]
    for name, found in formats.items():
        record_property(name, found)
        assert found["reader"].endswith(" (float32)")
        assert "; vLLM " in found["reader"]
        assert found["ways"]["vllm"]["count"] == len(exported.probes)
        assert found["label_agreement"] == 1
    assert formats["classifier"]["ways"]["vllm"]["max_difference"] <= 1e-4


def test_an_answer_of_vllm_that_is_off_ends_the_export(
    executable: str, exported: Exported, tmp_path: Path
) -> None:
    """The last test of this file: it damages what was exported."""
    serve = served_by(executable, exported.spec, tmp_path)

    def of_other_weights(folder: Path, prompts: Sequence[str]) -> object:
        change_weights(folder, lambda tensors: tensors["score.weight"].mul_(1.2))
        return serve(folder, prompts)

    with pytest.raises(GateError, match=r"^the bundle .*: classifier \(vllm\): a probability"):
        exported.prove("classifier", serve=of_other_weights)
    assert not (exported.folder / "classifier").exists()
