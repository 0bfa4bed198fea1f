from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from slant.errors import ModelError
from slant.model.attention import use_product_attention
from slant.model.label_head import LabelModel
from slant.model.quantize import Int8Linear, quantize_layers
from slant.score.torch_engine import TorchEngine
from tiny import PAD, tiny_model

LABEL_IDS = (266, 261, 7)


def prompts(count: int = 30) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, rng.integers(1, 60)).tolist() for _ in range(count)]


def linear(seed: int = 0, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(64, 48, bias=bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("shape", [(64,), (1, 64), (3, 5, 64), (0, 64)])
def test_a_product_in_8_bits_is_near_the_one_in_float32(bias, apart, shape):
    exact = linear(bias=bias)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected, found = exact(inputs), Int8Linear(exact, apart=apart)(inputs)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    # Two roundings of at most 1/254 of the largest, over a sum of 64 products.
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=0.05)
    if expected.numel():
        assert float((found - expected).abs().max()) > 0


def test_whole_numbers_within_8_bits_are_multiplied_exactly():
    exact = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        exact.weight.copy_(torch.tensor([[127, -3, 5, 0], [1, 2, -127, 4.0]]))
        inputs = torch.tensor([[127, 1, -2, 9.0], [-127, 0, 0, 3.0]])
        np.testing.assert_allclose(Int8Linear(exact)(inputs), exact(inputs), rtol=1e-6)


def test_tokens_do_not_touch_each_other():
    rounded = Int8Linear(linear())
    inputs = torch.randn(6, 64)
    loud = inputs.clone()
    loud[0] *= 1e4
    with torch.no_grad():
        np.testing.assert_array_equal(rounded(inputs)[1:], rounded(loud)[1:])


def test_a_token_of_zeros_gives_the_bias():
    exact = linear(bias=True)
    with torch.no_grad():
        found = Int8Linear(exact)(torch.zeros(2, 64))
        np.testing.assert_allclose(found, exact.bias.expand(2, -1), atol=1e-6)


@pytest.mark.parametrize("family", ["mistral", "gemma3", "qwen3", "llama"])
def test_a_model_in_8_bits_answers_nearly_as_before(family):
    exact, rounded = tiny_model(family), tiny_model(family)
    quantize_layers(rounded, "int8")
    found = TorchEngine(LabelModel(rounded, LABEL_IDS).eval(), PAD).label_logits(prompts())
    expected = TorchEngine(LabelModel(exact, LABEL_IDS).eval(), PAD).label_logits(prompts())
    spread = expected.std()
    assert 0 < np.abs(found - expected).mean() < 0.1 * spread
    assert not [part for part in rounded.get_decoder().modules() if type(part) is nn.Linear]
    assert type(rounded.get_output_embeddings()) is nn.Linear


def test_4_bits_answer_less_exactly_than_8_but_much_like_before():
    pytest.importorskip("bitsandbytes")
    found = {}
    for scheme in ("none", "int8", "nf4"):
        model = tiny_model(hidden_size=64, intermediate_size=128, head_dim=16)  # blocks of 64
        quantize_layers(model, scheme)
        engine = TorchEngine(LabelModel(model, LABEL_IDS).eval(), PAD)
        found[scheme] = engine.label_logits(prompts())
    off = {scheme: np.abs(found[scheme] - found["none"]).mean() for scheme in ("int8", "nf4")}
    assert 0 < off["int8"] < off["nf4"] < found["none"].std()


def test_prompts_share_a_row_in_8_bits_too():
    model = tiny_model()
    use_product_attention(model)
    quantize_layers(model, "int8")
    engine = TorchEngine(LabelModel(model, LABEL_IDS).eval(), PAD)
    asked = [prompts(1)[0] * 3 + rest for rest in prompts(12)]
    apart = engine.label_logits(asked)
    np.testing.assert_allclose(engine.label_logits(asked, groups=[0] * 12), apart, atol=0.02)


def test_an_unknown_scheme_is_an_error_that_names_the_known_ones():
    with pytest.raises(ModelError, match="'int4'") as raised:
        quantize_layers(tiny_model(), "int4")
    assert "int8" in str(raised.value.hint)


def test_a_model_without_linear_layers_is_an_error():
    model = tiny_model()
    quantize_layers(model, "int8")
    with pytest.raises(ModelError, match="no linear layers"):
        quantize_layers(model, "int8")
