from __future__ import annotations

import pytest
import torch

from slant.errors import ModelError
from slant.model.adapter import attach_lora
from slant.model.batches import pad_batch
from slant.model.label_head import LabelModel, check_label_head, plain_model
from tiny import PAD, tiny_model

LABEL_IDS = (266, 261, 7)
FAMILIES = pytest.mark.parametrize("kind", ["mistral", "llama", "qwen3", "gemma3"])
# The longest is longer than the tiny Gemma's sliding window of 16 tokens.
LENGTHS = (5, 61, 1, 30, 17)


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (n,), generator=generator).tolist() for n in LENGTHS]


def make(kind: str, **changes) -> LabelModel:
    # Random weights are too tame for differences to show.
    model = tiny_model(kind, **changes)
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(3)
    return LabelModel(model, LABEL_IDS).eval()


@torch.no_grad()
def own_logits(model: LabelModel, ids: list[int]) -> torch.Tensor:
    """The model's own, over the whole vocabulary and without padding, at the label ids."""
    return model.causal_lm(torch.tensor([ids])).logits[0, -1, list(LABEL_IDS)]


@FAMILIES
@torch.no_grad()
def test_label_logits_are_the_models_own_at_the_last_token_whatever_the_padding(kind):
    model = make(kind)
    batched = model(*pad_batch(prompts(), PAD))
    assert batched.shape == (len(LENGTHS), 3)
    assert batched.dtype == torch.float32
    expected = torch.stack([own_logits(model, ids) for ids in prompts()])
    assert expected.std() > 0.1
    torch.testing.assert_close(batched, expected, atol=1e-4, rtol=1e-4)


@FAMILIES
@torch.no_grad()
def test_what_fills_the_batch_has_no_say(kind):
    model = make(kind)
    one = model(*pad_batch(prompts(), PAD))
    other = model(*pad_batch(prompts(), 3))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@FAMILIES
@torch.no_grad()
def test_a_prompt_alone_scores_as_in_a_batch(kind):
    model = make(kind)
    batched = model(*pad_batch(prompts(), PAD))
    single = torch.cat([model(*pad_batch([ids], PAD)) for ids in prompts()])
    torch.testing.assert_close(single, batched, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_sliding_window_of_the_tiny_gemma_is_at_work():
    model, wide = make("gemma3"), make("gemma3")
    for layer in wide.causal_lm.model.layers:
        layer.self_attn.sliding_window = None
    wide.causal_lm.config.sliding_window = wide.causal_lm.model.config.sliding_window = 1024
    difference = (own_logits(model, prompts()[1]) - own_logits(wide, prompts()[1])).abs().max()
    assert difference > 1e-3


@torch.no_grad()
def test_softcapping_of_the_logits_is_applied():
    capped = make("gemma3", final_logit_softcapping=0.5)
    logits = capped(*pad_batch(prompts(), PAD))
    expected = torch.stack([own_logits(capped, ids) for ids in prompts()])
    assert logits.abs().max() <= 0.5
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    check_label_head(capped, 280)


@torch.no_grad()
def test_a_head_with_a_bias_keeps_it():
    model = make("llama")
    head = model.causal_lm.lm_head
    model.causal_lm.lm_head = torch.nn.Linear(head.in_features, head.out_features, bias=True)
    logits = model(*pad_batch(prompts(), PAD))
    expected = torch.stack([own_logits(model, ids) for ids in prompts()])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@FAMILIES
def test_supported_families_pass_the_check(kind, dtype):
    check_label_head(make(kind).to(dtype), 280)


@pytest.mark.parametrize("kind", ["granite", "cohere"])
def test_a_model_that_scales_its_logits_is_refused_by_name(kind):
    model = LabelModel(tiny_model(kind), LABEL_IDS).eval()
    with pytest.raises(ModelError, match=r"(Granite|Cohere)ForCausalLM") as raised:
        check_label_head(model, 280)
    assert "not supported" in raised.value.hint


def test_an_adapter_is_seen_through():
    causal_lm = tiny_model()
    adapted = attach_lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=1)
    assert plain_model(adapted) is causal_lm
    assert plain_model(causal_lm) is causal_lm
    model = LabelModel(adapted, LABEL_IDS)
    check_label_head(model, 280)
    model(*pad_batch(prompts(), PAD)).sum().backward()
    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert grads == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora" in name for name in grads)


def test_label_ids_are_no_weights_but_move_with_the_model():
    model = make("llama")
    assert "label_ids" not in model.state_dict()
    assert model.num_labels == 3
    assert model.to("meta").label_ids.device.type == "meta"
