from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from slant.errors import ModelError
from slant.model.adapter import attach_lora
from slant.model.batches import make_batches
from slant.model.label_head import LabelModel, check_label_head, plain_model
from tiny import PAD, tiny_model
from tiny_stages import ARCHITECTURES, tiny_causal_lm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slant.model.batches import PromptBatch

LABEL_IDS = (266, 261, 7)
FAMILIES = pytest.mark.parametrize("kind", ["mistral", "llama", "qwen3", "gemma3"])
# The longest is longer than the tiny Gemma's sliding window of 16 tokens.
LENGTHS = (5, 61, 1, 30, 17)


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (n,), generator=generator).tolist() for n in LENGTHS]


def batch_of(
    prompts: Sequence[Sequence[int]], groups: Sequence[int] | None = None, pad: int = PAD
) -> PromptBatch:
    (batch,) = make_batches(prompts, 10**6, pad, groups=groups)
    return batch


def in_input_order(model: LabelModel, batch: PromptBatch) -> torch.Tensor:
    return model(batch)[np.argsort(batch.members)]


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
    batched = in_input_order(model, batch_of(prompts()))
    assert batched.shape == (len(LENGTHS), 3)
    assert batched.dtype == torch.float32
    expected = torch.stack([own_logits(model, ids) for ids in prompts()])
    assert expected.std() > 0.1
    torch.testing.assert_close(batched, expected, atol=1e-4, rtol=1e-4)


@FAMILIES
@torch.no_grad()
def test_what_fills_the_batch_has_no_say(kind):
    model = make(kind)
    one = model(batch_of(prompts()))
    other = model(batch_of(prompts(), pad=3))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@FAMILIES
@torch.no_grad()
def test_a_prompt_alone_scores_as_in_a_batch(kind):
    model = make(kind)
    batched = in_input_order(model, batch_of(prompts()))
    single = torch.cat([model(batch_of([ids])) for ids in prompts()])
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
    logits = in_input_order(capped, batch_of(prompts()))
    expected = torch.stack([own_logits(capped, ids) for ids in prompts()])
    assert logits.abs().max() <= 0.5
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    check_label_head(capped, 280)


@torch.no_grad()
def test_a_head_with_a_bias_keeps_it():
    model = make("llama")
    head = model.causal_lm.lm_head
    model.causal_lm.lm_head = torch.nn.Linear(head.in_features, head.out_features, bias=True)
    logits = in_input_order(model, batch_of(prompts()))
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
    model(batch_of(prompts())).sum().backward()
    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert grads == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora" in name for name in grads)


def test_label_ids_are_no_weights_but_move_with_the_model():
    model = make("llama")
    assert "label_ids" not in model.state_dict()
    assert model.num_labels == 3
    assert model.to("meta").label_ids.device.type == "meta"


EVERY_ARCHITECTURE = pytest.mark.parametrize("architecture", ARCHITECTURES)


def documents(
    *shapes: tuple[int, int], seed: int = 0
) -> tuple[list[list[int]], list[int], torch.Tensor]:
    """Prompts, their documents and weights to sum their logits with.

    A shape is (tokens of the document, number of prompts); what follows the document is 1 to 12
    tokens long. The prompts are shuffled.
    """
    rng = np.random.default_rng(seed)
    prompts, groups = [], []
    for group, (tokens, count) in enumerate(shapes):
        document = rng.integers(0, 256, tokens).tolist()
        prompts += [
            document + rng.integers(0, 256, rng.integers(1, 13)).tolist() for _ in range(count)
        ]
        groups += [group] * count
    order = rng.permutation(len(prompts)).tolist()
    weights = torch.from_numpy(rng.normal(size=(len(prompts), 3)).astype(np.float32))
    return [prompts[i] for i in order], [groups[i] for i in order], weights


# Longer and shorter than the windows of eight tokens; shared rows, plain rows and padding.
MIXED = ((40, 3), (61, 1), (5, 2), (23, 7), (3, 1))


@EVERY_ARCHITECTURE
def test_shared_rows_give_the_logits_and_gradients_of_prompts_alone(architecture):
    model = LabelModel(tiny_causal_lm(architecture), LABEL_IDS)
    prompts, groups, weights = documents(*MIXED)
    batch = batch_of(prompts, groups)
    assert batch.input_ids.shape[0] == len(MIXED)
    assert batch.num_tokens < 0.6 * sum(map(len, prompts))
    assert batch.num_tokens < batch.input_ids.numel()
    together = in_input_order(model, batch)
    alone = torch.cat([model(batch_of([ids])) for ids in prompts])
    assert alone.std() > 0.1
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    params = list(model.parameters())
    found, expected = (
        torch.autograd.grad((logits * weights).sum(), params) for logits in (together, alone)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("count", [1, 2, 50, 200])
@EVERY_ARCHITECTURE
@torch.no_grad()
def test_any_number_of_prompts_shares_a_row(architecture, count):
    model = LabelModel(tiny_causal_lm(architecture), LABEL_IDS)
    prompts, groups, _ = documents((90, count))
    together = np.empty((count, 3), dtype=np.float32)
    for batch in make_batches(prompts, 10**6, PAD, groups=groups):
        together[list(batch.members)] = model(batch)
    alone = in_input_order(model, batch_of(prompts))
    torch.testing.assert_close(torch.from_numpy(together), alone, rtol=0, atol=1e-5)


@EVERY_ARCHITECTURE
@torch.no_grad()
def test_without_segments_prompts_would_see_each_other_so_that_these_tests_can_fail(architecture):
    model = LabelModel(tiny_causal_lm(architecture), LABEL_IDS)
    prompts, groups, _ = documents((40, 3))
    batch = batch_of(prompts, groups)
    alone = in_input_order(model, batch_of(prompts))
    one_segment = replace(batch, segments=torch.zeros_like(batch.segments))
    assert (in_input_order(model, one_segment) - alone).abs().max() > 0.05
    running_on = replace(batch, positions=torch.arange(batch.input_ids.shape[1])[None])
    assert (in_input_order(model, running_on) - alone).abs().max() > 0.05


@EVERY_ARCHITECTURE
@torch.no_grad()
def test_an_adapted_model_in_bfloat16_shares_rows(architecture):
    adapted = attach_lora(tiny_causal_lm(architecture), rank=4, alpha=8, dropout=0.5, seed=1)
    model = LabelModel(adapted, LABEL_IDS).to(torch.bfloat16)
    assert model.train().shares_rows
    assert model.training
    prompts, groups, _ = documents(*MIXED)
    model.eval()
    together = in_input_order(model, batch_of(prompts, groups))
    alone = in_input_order(model, batch_of(prompts))
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=0, atol=0.1 * float(alone.std()))


@EVERY_ARCHITECTURE
def test_recomputing_activations_changes_no_gradient_of_shared_rows(architecture):
    model = LabelModel(tiny_causal_lm(architecture), LABEL_IDS).train()
    prompts, groups, weights = documents(*MIXED)
    batch, params = batch_of(prompts, groups), list(model.parameters())

    def gradients() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad((in_input_order(model, batch) * weights).sum(), params)

    kept = gradients()
    model.causal_lm.activation_checkpointing_enable()
    torch.testing.assert_close(gradients(), kept)


@torch.no_grad()
def test_shared_rows_in_an_architecture_without_them_are_an_error():
    import transformers as hf

    config = hf.BloomConfig(vocab_size=280, hidden_size=32, n_layer=2, n_head=4)
    model = LabelModel(hf.BloomForCausalLM(config).eval(), LABEL_IDS)
    assert not model.shares_rows
    prompts, groups, _ = documents((20, 2))
    with pytest.raises(ModelError, match="BloomModel"):
        model(batch_of(prompts, groups))


TRAINED = pytest.mark.parametrize("kind", ["llama", "gemma3"])


@TRAINED
@torch.no_grad()
def test_label_rows_of_the_models_own_start_as_those_of_the_head(kind):
    plain = make(kind)
    model = LabelModel(plain.causal_lm.to(torch.bfloat16), LABEL_IDS, train_rows=True).eval()
    assert model.rows.shape == (3, 32)
    assert model.rows.dtype == torch.float32
    assert model.rows_bias is None
    torch.testing.assert_close(model(batch_of(prompts())), plain(batch_of(prompts())))
    check_label_head(model, 280)
    assert set(model.state_dict()) - set(plain.state_dict()) == {"rows"}


@TRAINED
def test_label_rows_of_the_models_own_learn_and_leave_the_head_alone(kind):
    causal_lm = tiny_model(kind, **({"final_logit_softcapping": 2.0} if kind == "gemma3" else {}))
    model = LabelModel(causal_lm.requires_grad_(False), LABEL_IDS, train_rows=True)
    check_label_head(model, 280)
    head = causal_lm.get_output_embeddings().weight.clone()
    labels = torch.arange(len(LENGTHS)) % 3
    optimizer = torch.optim.AdamW([model.rows], lr=0.05)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(batch_of(prompts())), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert torch.equal(causal_lm.get_output_embeddings().weight, head)


def test_the_bias_of_a_head_becomes_trainable_with_its_rows():
    causal_lm = tiny_model("llama")
    head = causal_lm.lm_head
    causal_lm.lm_head = torch.nn.Linear(head.in_features, head.out_features, bias=True)
    model = LabelModel(causal_lm, LABEL_IDS, train_rows=True)
    assert {"rows", "rows_bias"} <= {name for name, _ in model.named_parameters()}
    check_label_head(model, 280)
    model(batch_of(prompts())).sum().backward()
    assert model.rows_bias.grad.tolist() == [5.0] * 3
    assert head.weight.grad is None
