from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from slant.model.adapter import attach_lora
from slant.model.batches import make_batches
from slant.model.flops import FAMILIES
from slant.model.label_head import LabelModel, plain_model
from slant.model.last_layer import narrow_last_layer, wide_layers
from slant.model.lora_linear import use_own_lora
from slant.model.masks import takes_shared_rows
from tiny import tiny_model

PROMPTS = [[1, *range(20, 20 + length)] for length in (1, 4, 11, 30)]
GROUPS = [0, 0, 1, 1]


def logits(model: LabelModel, groups: list[int] | None) -> torch.Tensor:
    (batch,) = make_batches(PROMPTS, 10_000, 0, groups=groups)
    with torch.inference_mode():
        return model(batch)[torch.argsort(torch.tensor(batch.members))]


@pytest.mark.parametrize("family", ["mistral", "llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_narrowed_last_layer_gives_the_same_label_logits(family: str, shared: bool) -> None:
    model = LabelModel(tiny_model(family).eval(), (7, 8, 9))
    decoder: Any = model.causal_lm.get_decoder()
    if shared and not takes_shared_rows(decoder):
        pytest.skip("this architecture shares no rows")
    groups = GROUPS if shared else None
    before = logits(model, groups)
    assert narrow_last_layer(decoder)
    torch.testing.assert_close(logits(model, groups), before, rtol=0, atol=1e-5)


def test_a_narrowed_last_layer_computes_its_mlp_for_the_tokens_that_are_read() -> None:
    model = LabelModel(tiny_model().eval(), (7, 8, 9))
    decoder: Any = model.causal_lm.get_decoder()
    seen: list[int] = []
    for layer in decoder.layers:
        layer.mlp.gate_proj.register_forward_hook(
            lambda _, inputs, out: seen.append(out.numel() // out.shape[-1])
        )
    narrow_last_layer(decoder)
    logits(model, None)
    assert seen == [4 * 31, 4]


def test_a_narrowed_model_still_generates_and_gives_all_logits() -> None:
    causal_lm = tiny_model().eval()
    ids = torch.tensor([PROMPTS[-1]])
    with torch.inference_mode():
        before = causal_lm(input_ids=ids).logits
        said = causal_lm.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        narrow_last_layer(causal_lm.get_decoder())
        assert torch.equal(causal_lm(input_ids=ids).logits, before)
        again = causal_lm.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        assert torch.equal(again, said)


def test_narrowing_twice_is_narrowing_once() -> None:
    model = LabelModel(tiny_model().eval(), (7, 8, 9))
    decoder: Any = model.causal_lm.get_decoder()
    before = logits(model, None)
    assert narrow_last_layer(decoder)
    assert narrow_last_layer(decoder)
    torch.testing.assert_close(logits(model, None), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_known_family_is_narrowed_without_a_change(family: str) -> None:
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
    )
    model = LabelModel(transformers.AutoModelForCausalLM.from_config(config).eval(), (7, 8, 9))
    before = logits(model, None)
    assert narrow_last_layer(model.causal_lm.get_decoder())  # type: ignore[operator]
    torch.testing.assert_close(logits(model, None), before, rtol=0, atol=1e-5)


def test_a_layer_of_an_unknown_family_is_left_alone() -> None:
    causal_lm = tiny_model().eval()
    decoder: Any = causal_lm.get_decoder()
    decoder.config.model_type = "unheard-of"
    assert not narrow_last_layer(decoder)
    assert "forward" not in vars(decoder.norm)


def test_a_narrowed_last_layer_trains_adapters_by_the_same_gradients() -> None:
    gradients = []
    for narrowed in (False, True):
        adapted = attach_lora(tiny_model(), rank=4, alpha=8, dropout=0.0, seed=1)
        use_own_lora(adapted)
        generator = torch.Generator().manual_seed(2)
        for name, value in adapted.named_parameters():
            if "lora_B" in name:  # zero in a new adapter, and with it the gradients of the others
                value.data.normal_(std=0.1, generator=generator)
        model = LabelModel(adapted, (7, 8, 9)).train()
        if narrowed:
            narrow_last_layer(plain_model(adapted).get_decoder())
        (batch,) = make_batches(PROMPTS, 10_000, 0)
        torch.nn.functional.cross_entropy(model(batch), torch.tensor([0, 1, 2, 0])).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        last = "layers.1." in name and not ("k_proj" in name or "v_proj" in name)
        assert expected.abs().max() > 0 or last, name
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_layers_that_are_not_narrowed_are_the_ones_to_compile() -> None:
    decoder: Any = tiny_model().get_decoder()
    assert wide_layers(decoder) == list(decoder.layers)
    narrow_last_layer(decoder)
    assert wide_layers(decoder) == list(decoder.layers[:-1])
