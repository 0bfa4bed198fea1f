"""Compiled layers against the same layers uncompiled. Compiling takes some seconds a form."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from slant.errors import UsageError
from slant.model.adapter import attach_lora
from slant.model.label_head import LabelModel
from slant.model.lora_linear import use_own_lora
from slant.progress import SilentProgress
from slant.train.compiled import compile_layers, is_to_compile
from slant.train.objective import AdaptObjective, TuneObjective
from slant.train.parallel import World
from tiny_stages import prepare, run_stage, tiny_causal_lm, tiny_settings

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


class Heard(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def adapted() -> Any:
    model = attach_lora(tiny_causal_lm("gemma3"), rank=4, alpha=8, dropout=0.0, seed=1)
    use_own_lora(model)
    return model


def decoder(model: Any) -> Any:
    return model.get_base_model().get_decoder()


def loss_and_gradients(objective: Any, batch: Any) -> tuple[float, dict[str, torch.Tensor]]:
    objective.zero_grad()
    loss = objective(batch)
    loss.backward()
    named = objective.named_parameters()
    return float(loss.detach()), {n: p.grad.clone() for n, p in named if p.grad is not None}


def assert_close(found: Any, expected: Any) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, grad in expected[1].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-3, atol=1e-6)


@needs_compiler
def test_loss_and_gradients_are_those_of_the_plain_layers() -> None:
    model = adapted()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, param in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(param, std=0.2)
    objectives = TuneObjective(LabelModel(model, (3, 4, 5))), AdaptObjective(model)
    batches = [
        (objectives[0], objectives[0].sample(2, 50, shared=False)),
        (objectives[0], objectives[0].sample(3, 50, shared=True)),
        (objectives[1], objectives[1].sample(2, 60, shared=True)),
    ]
    expected = [loss_and_gradients(objective.train(), batch) for objective, batch in batches]
    heard = Heard()
    for objective in objectives:
        compile_layers(objective, decoder(model), heard)
    for (objective, batch), plain in zip(batches, expected, strict=True):
        assert_close(loss_and_gradients(objective, batch), plain)
    assert all(said.startswith("compiled the layers in") for said in heard.said), heard.said
    assert heard.said


def test_without_a_working_compiler_training_goes_on_uncompiled() -> None:
    from torch._inductor import config as inductor
    from torch._inductor.utils import fresh_cache

    objective = TuneObjective(LabelModel(adapted(), (3, 4, 5))).train()
    plain = copy.deepcopy(objective)
    batch = objective.sample(2, 40, shared=False)
    heard = Heard()
    compile_layers(objective, decoder(objective.model.causal_lm), heard)
    with fresh_cache(), inductor.patch("cpp.cxx", ("/bin/false",)):
        found = loss_and_gradients(objective, batch)
    assert_close(found, loss_and_gradients(plain, batch))
    assert len(heard.said) == 1
    assert heard.said[0].startswith("layers could not be compiled, training goes on without")
    loss_and_gradients(objective, objective.sample(1, 40, shared=False))
    assert len(heard.said) == 1, "it was tried again"


@needs_compiler
@pytest.mark.parametrize(
    ("sections", "device", "num_tokens", "expected"),
    [
        ({}, "cpu", 1e6, True),
        ({}, "cpu", 1e4, False),
        ({}, "cuda", 1e6, False),
        ({"train": {"compile": True}}, "cpu", 1e4, True),
        ({"train": {"compile": True}}, "cuda", 1e4, True),
        ({"train": {"compile": False}}, "cpu", 1e6, False),
        ({"train": {"activation_checkpointing": True}}, "cpu", 1e6, False),
        ({"train": {"devices": 2, "strategy": "fsdp"}}, "cpu", 1e6, False),
        ({"train": {"devices": 2, "strategy": "ddp"}}, "cpu", 1e6, True),
        ({"model": {"quantize": "nf4"}}, "cpu", 1e6, False),
    ],
)
def test_layers_are_compiled_where_it_pays(
    sections: dict[str, Any], device: str, num_tokens: float, *, expected: bool
) -> None:
    assert is_to_compile(tiny_settings(**sections), World(device=device), num_tokens) is expected


@pytest.mark.parametrize(
    "train",
    [{"devices": 2, "strategy": "fsdp"}, {"activation_checkpointing": True}],
)
def test_compiling_is_refused_with_what_it_does_not_go_with(train: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"train\.compile goes with neither"):
        tiny_settings(train={"compile": True, **train})


def test_asked_to_compile_without_a_compiler_training_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    prepare(tmp_path, train={"compile": True})
    with pytest.raises(UsageError, match="no C\\+\\+ compiler"):
        run_stage("tune", tmp_path, tmp_path / "out")
