"""What PyTorch keeps for the backward pass, counted, against what the plan says it keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slant.model.adapter import attach_lora, unfreeze_layers
from slant.model.attention import use_product_attention
from slant.model.flops import Shape
from slant.model.label_head import plain_model
from slant.plan.memory import Load, host_bytes, training_memory
from slant.plan.shapes import PUBLISHED
from tiny_stages import ARCHITECTURES, tiny_config

GIB = 1 << 30
ROWS, TOKENS = 2, 64
MISTRAL = Load(Shape.from_config(PUBLISHED["mistralai/Mistral-7B-v0.3"]), "tune")


def model_and_shape(architecture: str, dtype: torch.dtype) -> tuple[Any, Shape]:
    from transformers import AutoModelForCausalLM

    config = tiny_config(architecture)
    config.hidden_size, config.intermediate_size, config.head_dim = 128, 384, 32
    return AutoModelForCausalLM.from_config(config, dtype=dtype), Shape.from_config(
        config.to_dict()
    )


def saved_bytes(model: Any, *, half: bool) -> int:
    """Bytes of what autograd keeps, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor  # alive, or its place is reused
        return tensor

    seen = torch.ones(ROWS, 1, TOKENS, TOKENS, dtype=torch.bool).tril()
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    mask = dict.fromkeys(kinds, seen) if len(kinds) > 1 else seen
    ids = torch.arange(ROWS * TOKENS).reshape(ROWS, TOKENS)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        decoder = plain_model(model).get_decoder()
        hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def reckoned_bytes(load: Load) -> int:
    """The same, as the plan has it."""
    parts = training_memory(load).parts
    return parts["activations"] + parts.get("16-bit copies of trained weights", 0)


TWO_ROWS: Any = {"stage": "tune", "rank": 4, "pass_tokens": ROWS * TOKENS, "row_tokens": TOKENS}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("half", [True, False])
def test_activations_are_those_that_pytorch_keeps(
    architecture: str, method: Any, half: bool
) -> None:
    is_full = method == "full"
    model, shape = model_and_shape(
        architecture, torch.bfloat16 if half and not is_full else torch.float32
    )
    if is_full:
        model = unfreeze_layers(model)
    else:
        model = attach_lora(model, rank=4, alpha=8, dropout=0.0, seed=0)
    load = Load(shape, method=method, half=half, **TWO_ROWS)
    assert 1.0 <= reckoned_bytes(load) / saved_bytes(model, half=half) <= 1.12


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("half", [True, False])
def test_on_a_cpu_the_probabilities_of_attention_are_kept(architecture: str, half: bool) -> None:
    model, shape = model_and_shape(architecture, torch.bfloat16 if half else torch.float32)
    model = attach_lora(model, rank=4, alpha=8, dropout=0.0, seed=0)
    assert use_product_attention(plain_model(model))
    load = Load(shape, half=half, cuda=False, **TWO_ROWS)
    assert 1.0 <= reckoned_bytes(load) / saved_bytes(model, half=half) <= 1.12


@pytest.mark.parametrize("half", [True, False])
def test_dropout_keeps_its_masks(half: bool) -> None:
    model, shape = model_and_shape("mistral", torch.bfloat16 if half else torch.float32)
    model = attach_lora(model, rank=4, alpha=8, dropout=0.1, seed=0).train()
    use_product_attention(plain_model(model))
    load = Load(shape, half=half, has_dropout=True, cuda=False, **TWO_ROWS)
    assert 1.0 <= reckoned_bytes(load) / saved_bytes(model, half=half) <= 1.15


def test_activations_that_are_computed_again_are_a_fraction() -> None:
    """Mistral 7B, 8,192 tokens: 2.2 GiB are kept and one layer at a time comes back (counted with
    FakeTensorMode, see benchmarks/results/plan.md: 4.8 GiB at the peak)."""
    load = replace(MISTRAL, pass_tokens=8192, row_tokens=2048, checkpointing=True)
    parts = training_memory(load).parts
    assert 4.6 * GIB < parts["activations"] + parts["workspace"] < 5.1 * GIB
    kept = training_memory(replace(load, checkpointing=False)).parts["activations"]
    assert kept > 12 * parts["activations"]


def test_weights_take_two_bytes_half_a_byte_or_four() -> None:
    half = training_memory(MISTRAL).parts
    assert half["weights, frozen"] == 2 * MISTRAL.shape.num_params
    nf4 = training_memory(replace(MISTRAL, quantized=True)).parts["weights, frozen"]
    assert 3.8 * GIB < nf4 < 4.0 * GIB
    single = training_memory(replace(MISTRAL, half=False)).parts
    assert single["weights, frozen"] == 4 * MISTRAL.shape.num_params
    assert "16-bit copies of trained weights" not in single


def test_training_all_layers_keeps_sixteen_bytes_a_weight_and_a_rounded_copy() -> None:
    parts = training_memory(replace(MISTRAL, method="full")).parts
    trained = MISTRAL.shape.layer_params
    kept = parts["weights, trained"] + parts["gradients"] + parts["AdamW moments"]
    assert kept == 16 * trained
    assert parts["16-bit copies of trained weights"] == 2 * trained
    assert parts["weights, frozen"] == 4 * MISTRAL.shape.embedding_params


def test_the_optimizers_step_counts_where_it_is_the_worst_moment() -> None:
    full = replace(MISTRAL, method="full", pass_tokens=128, row_tokens=128)
    parts = training_memory(full).parts
    on_pass = sum(
        parts[name] for name in ("16-bit copies of trained weights", "activations", "workspace")
    )
    assert on_pass + parts["more at the update"] == 4 * full.shape.layer_params
    assert "more at the update" not in training_memory(replace(full, cuda=False)).parts


def test_putting_adapters_in_counts_where_main_memory_is_trained_in() -> None:
    adapt = replace(MISTRAL, stage="adapt", pass_tokens=128, row_tokens=128, cuda=False)
    assert "more at the merge" in training_memory(adapt).parts
    for other in (replace(adapt, stage="tune"), replace(adapt, cuda=True)):
        assert "more at the merge" not in training_memory(other).parts


def test_adapt_holds_the_logits_of_a_chunk_and_tune_none() -> None:
    adapt = training_memory(replace(MISTRAL, stage="adapt")).parts
    assert adapt["logits of a chunk"] > 3 * 256 * 32768 * 2
    assert "logits of a chunk" not in training_memory(MISTRAL).parts


def test_putting_adapters_into_a_7b_base_takes_41_gib_of_main_memory() -> None:
    assert 40 * GIB < host_bytes(MISTRAL) < 42 * GIB
    assert host_bytes(replace(MISTRAL, method="full")) < 15 * GIB


loads = st.builds(
    Load,
    st.sampled_from([Shape.from_config(config) for config in PUBLISHED.values()]),
    st.sampled_from(["adapt", "tune"]),
    method=st.sampled_from(["lora", "full"]),
    rank=st.integers(1, 256),
    has_dropout=st.booleans(),
    half=st.booleans(),
    checkpointing=st.booleans(),
    pass_tokens=st.integers(2048, 65536),
    row_tokens=st.integers(16, 2048),
    cuda=st.booleans(),
)


@given(loads)
def test_less_is_never_more(load: Load) -> None:
    total = training_memory(load).total
    assert training_memory(load.smallest).total <= total
    again = training_memory(replace(load, checkpointing=True)).parts["activations"]
    kept = training_memory(replace(load, checkpointing=False)).parts["activations"]
    assert 2 * again < kept
    assert training_memory(replace(load, pass_tokens=load.pass_tokens + 1)).total > total
    assert (
        training_memory(replace(load, quantized=True)).parts["weights, frozen"]
        <= (training_memory(load).parts["weights, frozen"])
    )


@given(loads, st.sampled_from([2, 4, 8]))
def test_devices_that_split_the_weights_hold_less_of_them_each(load: Load, devices: int) -> None:
    whole = training_memory(replace(load, devices=devices)).parts
    split = training_memory(replace(load, devices=devices, sharded=True)).parts
    for name in ("weights, frozen", "weights, trained", "gradients", "AdamW moments"):
        assert split[name] == pytest.approx(whole[name] / devices, abs=1)
    assert split["activations"] == whole["activations"]


def test_parts_are_whole_bytes_and_add_up() -> None:
    memory = training_memory(replace(MISTRAL, devices=2))
    assert all(isinstance(size, int) and size > 0 for size in memory.parts.values())
    assert memory.total == sum(memory.parts.values())
