from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from slant.errors import ModelError
from slant.model.adapter import attach_lora
from slant.model.batches import make_batches
from slant.model.flops import FAMILIES, Shape, flops_per_token, matmul_rate
from slant.model.label_head import LabelModel, plain_model
from slant.model.last_layer import narrow_last_layer
from tiny_stages import ARCHITECTURES, tiny_causal_lm, tiny_config


def shape_of(architecture: str) -> Shape:
    return Shape.from_config(tiny_config(architecture).to_dict())


def other_families() -> dict[str, Any]:
    from transformers import Gemma2Config, GemmaConfig, LlamaConfig, Qwen2Config

    sizes: dict[str, Any] = {
        "vocab_size": 99,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return {
        "gemma": GemmaConfig(**sizes, head_dim=8),
        "gemma2": Gemma2Config(**sizes, head_dim=8),
        "qwen2": Qwen2Config(**sizes, tie_word_embeddings=True),
        "llama with biases": LlamaConfig(**sizes, attention_bias=True, mlp_bias=True),
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_are_those_of_the_model(architecture: str) -> None:
    model = tiny_causal_lm(architecture)
    shape = shape_of(architecture)
    assert shape.num_params == model.num_parameters()
    embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    layers = sum(p.numel() for p in model.parameters() if id(p) not in embeddings)
    assert shape.layer_params == layers


@pytest.mark.parametrize("name", ["gemma", "gemma2", "qwen2", "llama with biases"])
def test_parameters_of_the_other_families_are_right_too(name: str) -> None:
    from transformers import AutoModelForCausalLM

    config = other_families()[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert Shape.from_config(config.to_dict()).num_params == model.num_parameters()


@pytest.mark.parametrize("architecture", ["mistral", "gemma3"])
def test_adapters_have_the_parameters_that_peft_gives_them(architecture: str) -> None:
    adapted = attach_lora(tiny_causal_lm(architecture), rank=4, alpha=8, dropout=0.0, seed=0)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert shape_of(architecture).adapter_params(4) == trained


@pytest.mark.parametrize("architecture", ["mistral", "gemma3", "qwen3"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_operations_are_those_that_pytorch_counts(architecture: str, method: str) -> None:
    """Of matrices: PyTorch counts attention as if every token saw every other."""
    model: Any = tiny_causal_lm(architecture)
    if method == "lora":
        model = attach_lora(model, rank=4, alpha=8, dropout=0.0, seed=0)
    ids = torch.arange(96).reshape(2, 48)
    decoder = plain_model(model).get_decoder()
    with FlopCounterMode(display=False) as forward:
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    with FlopCounterMode(display=False) as backward:
        hidden.sum().backward()
    shape = shape_of(architecture)
    without = flops_per_token(
        shape, row_tokens=0, head="labels", method=method, rank=4, num_labels=0
    )
    assert matrices(forward) == 96 * without.forward
    # Nothing before the first adapters needs a gradient, nor does a frozen embedding.
    assert 0.8 * 96 * without.backward <= matrices(backward) <= 96 * without.backward


@pytest.mark.parametrize("architecture", ["mistral", "gemma3", "qwen3"])
def test_label_logits_need_less_of_the_last_layer(architecture: str) -> None:
    model = LabelModel(tiny_causal_lm(architecture).eval(), (7, 8, 9))
    narrow_last_layer(plain_model(model.causal_lm).get_decoder())
    (batch,) = make_batches([list(range(1, 49)), list(range(2, 50))], 96, 0)
    with FlopCounterMode(display=False) as forward, torch.inference_mode():
        model(batch)
    shape = shape_of(architecture)
    ours = flops_per_token(shape, row_tokens=48, head="labels", method="full", num_labels=3)
    attention = flops_per_token(shape, row_tokens=48, head="vocabulary", method="full").forward
    attention -= 2 * (shape.linear_params + shape.vocabulary * shape.hidden)
    assert matrices(forward) == pytest.approx(96 * (ours.forward - attention))


def matrices(counter: FlopCounterMode) -> int:
    counts = counter.get_flop_counts()["Global"]
    return sum(count for name, count in counts.items() if "attention" not in str(name))


def test_a_causal_row_costs_half_of_a_square_and_a_window_less() -> None:
    shape = shape_of("mistral")
    linear = 2 * shape.linear_params + 2 * shape.vocabulary * shape.hidden
    short, long = (
        flops_per_token(shape, row_tokens=t, head="vocabulary", method="full").forward
        for t in (1, 101)
    )
    assert short - linear == 4 * shape.query * shape.num_layers
    assert long - linear == 51 * (short - linear)
    sliding = shape_of("mistral-sliding")
    assert sliding.windows == (8, 8)
    windowed = flops_per_token(sliding, row_tokens=101, head="vocabulary", method="full").forward
    assert windowed - linear == pytest.approx((short - linear) * (36 + 93 * 8) / 101)


def test_the_whole_vocabulary_costs_its_size_and_is_not_trained() -> None:
    shape = shape_of("llama")
    labels, vocabulary = (
        flops_per_token(shape, row_tokens=1, head=head, method="lora", rank=2, num_labels=0)
        for head in ("labels", "vocabulary")
    )
    logits = 2 * shape.vocabulary * shape.hidden
    assert vocabulary.forward - labels.forward == logits
    assert vocabulary.backward - labels.backward == logits
    assert vocabulary.recomputed == vocabulary.total + vocabulary.forward


def test_windows_follow_each_family() -> None:
    sizes = {**tiny_config("llama").to_dict(), "sliding_window": 8, "num_hidden_layers": 7}
    sizes.pop("layer_types", None)
    kinds = {
        kind: Shape.from_config({**sizes, "model_type": kind}).windows
        for kind in ("gemma2", "gemma3_text", "mistral", "qwen2")
    }
    assert kinds["gemma2"] == (8, None, 8, None, 8, None, 8)
    assert kinds["gemma3_text"] == (8, 8, 8, 8, 8, None, 8)
    assert kinds["mistral"] == (8,) * 7
    assert kinds["qwen2"] == (None,) * 7


def test_an_unknown_family_or_a_missing_size_is_an_error_that_names_it() -> None:
    with pytest.raises(ModelError, match="model type 'mixtral'") as error:
        Shape.from_config({"model_type": "mixtral"})
    assert all(family in error.value.hint for family in FAMILIES)
    with pytest.raises(ModelError, match="hidden_size must be a positive number, got None"):
        Shape.from_config({"model_type": "llama"})


def test_the_matmul_rate_is_measured_in_about_the_time_it_is_given() -> None:
    started = os.times().elapsed
    rate = matmul_rate("cpu", torch.float32, seconds=0.1)
    assert 1e8 < rate < 1e15
    assert os.times().elapsed - started < 5
