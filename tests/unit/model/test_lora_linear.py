from __future__ import annotations

import pytest
import torch

from slant.model.adapter import attach_lora
from slant.model.lora_linear import use_own_lora
from tiny_stages import ARCHITECTURES, tiny_causal_lm


def adapted(architecture: str, dtype: torch.dtype = torch.float32, **options: object):
    """A model whose adapter changes something."""
    settings = {"rank": 4, "alpha": 12, "dropout": 0.0, "seed": 3, **options}
    model = attach_lora(tiny_causal_lm(architecture).to(dtype), **settings)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.copy_(torch.randn(param.shape, generator=random) * 0.2)
    return model.train()


def answers(model, autocast: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    ids = torch.arange(40).reshape(2, 20) % 250
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(input_ids=ids, use_cache=False).logits.float()
    model.zero_grad()
    logits.logsumexp(dim=-1).sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    return logits.detach(), grads


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_and_gradients_are_those_of_peft(architecture: str) -> None:
    model = adapted(architecture)
    logits, grads = answers(model)
    assert use_own_lora(model) == 14
    found, own = answers(model)
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
    assert own.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(own[name], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()))


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_in_bfloat16_gradients_are_as_near_to_exact_ones_as_those_of_peft(
    architecture: str,
) -> None:
    exact = answers(adapted(architecture))[1]
    model = adapted(architecture, torch.bfloat16)

    def distance(grads: dict[str, torch.Tensor]) -> float:
        off = sum(float((grads[n] - g).square().sum()) for n, g in exact.items())
        return (off / sum(float(g.square().sum()) for g in exact.values())) ** 0.5

    theirs = distance(answers(model, autocast=True)[1])
    use_own_lora(model)
    logits, grads = answers(model, autocast=True)
    assert {grad.dtype for grad in grads.values()} == {torch.float32}
    assert logits.isfinite().all()
    assert distance(grads) < 1.3 * theirs < 0.3


def test_without_adapters_the_model_is_the_base() -> None:
    model = adapted("mistral")
    use_own_lora(model)
    ids = torch.arange(12)[None]
    with torch.no_grad(), model.disable_adapter():
        found = model(input_ids=ids).logits
        expected = tiny_causal_lm("mistral")(input_ids=ids).logits
    torch.testing.assert_close(found, expected)


def test_a_merged_model_is_not_adapted_twice() -> None:
    model = adapted("mistral")
    expected, _ = answers(model)
    use_own_lora(model)
    merged = model.merge_and_unload()
    with torch.no_grad():
        found = merged(input_ids=torch.arange(40).reshape(2, 20) % 250).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"dropout": 0.1}, {"dora": True}])
def test_dropout_and_dora_are_left_to_peft(options: dict[str, object]) -> None:
    assert use_own_lora(adapted("mistral", **options)) == 0
