"""Attention by products against PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from slant.model import attention
from slant.model.attention import PRODUCTS, use_product_attention
from slant.model.masks import shared_row_masks, takes_shared_rows
from tiny_stages import ARCHITECTURES, tiny_causal_lm, tiny_config

EVERY_ARCHITECTURE = pytest.mark.parametrize("architecture", ARCHITECTURES)
IDS = torch.arange(60).reshape(2, 30) * 7 % 250
# Two documents in a row; and two prompts of 24 and 22 tokens that begin with the same 20.
PACKED = torch.tensor([[*range(18), *range(12)]] * 2)
SEGMENTS = torch.tensor([[0] * 20 + [1] * 4 + [2] * 2 + [-1] * 4] * 2)
SHARED = torch.tensor([[*range(20), 20, 21, 22, 23, 20, 21, 0, 0, 0, 0]] * 2)


def states(model: Any, given: dict[str, Any]) -> list[torch.Tensor]:
    """Hidden states and the gradients of all weights."""
    found = model.get_decoder()(input_ids=IDS, use_cache=False, **given).last_hidden_state
    model.zero_grad()
    (found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward()
    grads = [p.grad for p in model.get_decoder().layers.parameters() if p.grad is not None]
    return [found.detach(), *(grad.clone() for grad in grads)]


def inputs(model: Any, kind: str) -> dict[str, Any]:
    if kind == "plain":
        return {}
    if kind == "packed":
        return {"position_ids": PACKED}
    masks = shared_row_masks(model.get_decoder(), SHARED, SEGMENTS)
    return {"position_ids": SHARED, "attention_mask": masks}


@EVERY_ARCHITECTURE
@pytest.mark.parametrize("kind", ["plain", "packed", "shared"])
def test_states_and_gradients_are_those_of_the_fused_kernel(architecture: str, kind: str) -> None:
    model = tiny_causal_lm(architecture)
    expected = states(model, inputs(model, kind))
    assert use_product_attention(model)
    found = states(model, inputs(model, kind))
    assert len(found) > 1
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@EVERY_ARCHITECTURE
def test_rows_may_be_shared_still(architecture: str) -> None:
    model = tiny_causal_lm(architecture)
    assert use_product_attention(model)
    assert takes_shared_rows(model.get_decoder())


def test_rows_of_more_than_a_thousand_tokens_go_through_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "MOST_TOKENS", 20)
    model = tiny_causal_lm("gemma3")
    expected = states(model, {})
    use_product_attention(model)
    for ours, theirs in zip(states(model, {}), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_scoring_takes_whole_products_for_longer_rows_than_training_up_to_a_bound_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "MOST_TOKENS", 20)
    model = tiny_causal_lm("mistral")
    use_product_attention(model)
    calls: list[int] = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *args: calls.append(1) or bmm(*args))
    ids = torch.arange(30)[None]
    model(ids)
    assert not calls
    with torch.no_grad():
        expected = model(ids).logits
        assert calls
        calls.clear()
        monkeypatch.setattr(attention, "_MOST_PROBABILITIES", 30 * 30)
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert not calls


def test_other_attention_is_left_as_it_is() -> None:
    model = tiny_causal_lm("mistral")
    model.set_attn_implementation("eager")
    assert not use_product_attention(model)
    capped = hf.Gemma2Config(
        **{**tiny_config("mistral").to_dict(), "model_type": "gemma2"}, query_pre_attn_scalar=8
    )
    assert not use_product_attention(hf.Gemma2ForCausalLM(capped))


def test_nothing_of_it_is_saved(tmp_path: Any) -> None:
    model = tiny_causal_lm("gemma3")
    use_product_attention(model)
    model.save_pretrained(tmp_path)
    assert PRODUCTS not in (tmp_path / "config.json").read_text("utf-8")
    assert hf.AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
