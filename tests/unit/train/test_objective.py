from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from slant.model.adapter import attach_lora
from slant.model.batches import make_batches
from slant.model.label_head import LabelModel
from slant.shards.pack import positions
from slant.train.objective import (
    AdaptBatch,
    AdaptObjective,
    TuneBatch,
    TuneObjective,
    chunked_cross_entropy,
)
from tiny_stages import ARCHITECTURES, tiny_causal_lm

if TYPE_CHECKING:
    from torch import Tensor


def example(tokens: int, vocabulary: int = 97, hidden: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(tokens)
    hidden_TH = torch.randn(tokens, hidden, generator=random)
    weight_VH = torch.randn(vocabulary, hidden, generator=random)
    targets_T = torch.randint(0, vocabulary, (tokens,), generator=random)
    targets_T[::5] = -100
    return hidden_TH.requires_grad_(), weight_VH.requires_grad_(), targets_T


def plainly(
    hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, softcap: float | None = None
) -> Tensor:
    logits_TV = hidden_TH @ weight_VH.T
    if softcap:
        logits_TV = softcap * torch.tanh(logits_TV / softcap)
    return F.cross_entropy(logits_TV.float(), targets_T, reduction="sum", ignore_index=-100)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("tokens", [1, 2, 255, 256, 257, 600])
def test_the_chunked_loss_and_its_gradients_equal_those_of_full_logits(
    tokens: int, softcap: float | None
) -> None:
    hidden_TH, weight_VH, targets_T = example(tokens)
    expected = plainly(hidden_TH, weight_VH, targets_T, softcap)
    found = chunked_cross_entropy(hidden_TH, weight_VH, targets_T, softcap)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected * 0.25, (hidden_TH, weight_VH))
    given = torch.autograd.grad(found * 0.25, (hidden_TH, weight_VH))
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)


def test_a_chunk_without_targets_adds_nothing() -> None:
    hidden_TH, weight_VH, targets_T = example(300)
    targets_T[256:512] = -100
    found = chunked_cross_entropy(hidden_TH, weight_VH, targets_T)
    torch.testing.assert_close(found, plainly(hidden_TH, weight_VH, targets_T))
    (grad_TH,) = torch.autograd.grad(found, (hidden_TH,))
    assert not grad_TH[256:512].any()
    assert grad_TH[1].any()


def test_without_any_target_loss_and_gradients_are_zero() -> None:
    hidden_TH, weight_VH, targets_T = example(5)
    targets_T[:] = -100
    found = chunked_cross_entropy(hidden_TH, weight_VH, targets_T)
    assert found.item() == 0
    grads = torch.autograd.grad(found, (hidden_TH, weight_VH))
    assert not any(grad.any() for grad in grads)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_the_same_one() -> None:
    hidden_TH, weight_VH, targets_T = example(140)
    (wanted,) = torch.autograd.grad(plainly(hidden_TH, weight_VH, targets_T), (hidden_TH,))
    frozen = weight_VH.detach()
    chunked_cross_entropy(hidden_TH, frozen, targets_T).backward()
    assert frozen.grad is None
    torch.testing.assert_close(hidden_TH.grad, wanted, rtol=1e-4, atol=1e-5)


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden_TH, weight_VH, targets_T = example(140)
    with torch.no_grad():
        found = chunked_cross_entropy(hidden_TH, weight_VH, targets_T)
    assert not found.requires_grad
    torch.testing.assert_close(found, plainly(hidden_TH, weight_VH, targets_T).detach())


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_under_bfloat16_autocast_loss_and_gradients_are_close(softcap: float | None) -> None:
    hidden_TH, weight_VH, targets_T = example(300)
    expected = plainly(hidden_TH, weight_VH, targets_T, softcap)
    wanted = torch.autograd.grad(expected, (hidden_TH, weight_VH))
    with torch.autocast("cpu", torch.bfloat16):
        found = chunked_cross_entropy(hidden_TH, weight_VH, targets_T, softcap)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)
    given = torch.autograd.grad(found, (hidden_TH, weight_VH))
    for ours, theirs in zip(given, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999
        assert (ours - theirs).norm() < 0.03 * theirs.norm()


def test_gradients_of_a_bfloat16_head_keep_its_dtype() -> None:
    hidden_TH, weight_VH, targets_T = example(20)
    wanted = torch.autograd.grad(plainly(hidden_TH, weight_VH, targets_T), (hidden_TH, weight_VH))
    half = [t.detach().bfloat16().requires_grad_() for t in (hidden_TH, weight_VH)]
    given = torch.autograd.grad(chunked_cross_entropy(half[0], half[1], targets_T), half)
    for ours, theirs in zip(given, wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - theirs).norm() < 0.03 * theirs.norm()


def test_no_tensor_of_all_tokens_times_the_vocabulary_is_ever_made() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class LargestTensor(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, torch.Tensor):
                    LargestTensor.elements = max(LargestTensor.elements, tensor.numel())
            return out

    hidden_TH, weight_VH, targets_T = example(1280, vocabulary=2000, hidden=8)
    with LargestTensor():
        chunked_cross_entropy(hidden_TH, weight_VH, targets_T).backward()
    assert LargestTensor.elements == pytest.approx(256 * 2000, rel=0.25)
    with LargestTensor():
        plainly(hidden_TH, weight_VH, targets_T)
    assert LargestTensor.elements == 1280 * 2000


LENGTHS = (23, 1, 40, 2, 17)


def packed_row(lengths: tuple[int, ...] = LENGTHS) -> AdaptBatch:
    random = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 256, (sum(lengths),), generator=random)
    targets = torch.full_like(tokens, -100)
    targets[:-1] = tokens[1:]
    ends = torch.tensor(lengths).cumsum(0) - 1
    targets[ends] = -100
    restarting = torch.from_numpy(positions(torch.tensor(lengths).numpy()))
    return AdaptBatch(tokens[None], restarting[None], targets[None], 1.0, len(tokens))


def documents_of(row: AdaptBatch, lengths: tuple[int, ...] = LENGTHS) -> list[AdaptBatch]:
    parts = [t.split(lengths, dim=1) for t in (row.input_ids, row.positions, row.targets)]
    return [AdaptBatch(*part, 1.0, part[0].shape[1]) for part in zip(*parts, strict=True)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_packed_row_has_the_loss_of_its_documents_alone(architecture: str) -> None:
    objective = AdaptObjective(tiny_causal_lm(architecture))
    row = packed_row()
    with torch.no_grad():
        together = objective(row)
        alone = sum(objective(document) for document in documents_of(row))
    num_targets = int((row.targets >= 0).sum())
    assert num_targets == sum(LENGTHS) - len(LENGTHS)
    assert float((together - alone).abs()) / num_targets < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_is_that_of_the_models_own_logits(architecture: str) -> None:
    causal_lm = tiny_causal_lm(architecture)
    row = packed_row()
    with torch.no_grad():
        expected = sum(
            F.cross_entropy(
                causal_lm(document.input_ids).logits[0], document.targets[0], reduction="sum"
            )
            for document in documents_of(row)
            if document.num_tokens > 1
        )
        torch.testing.assert_close(AdaptObjective(causal_lm)(row), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_document_does_not_notice_what_stands_beside_it(architecture: str) -> None:
    """Only the third document has targets; changing the others must change nothing."""
    objective = AdaptObjective(tiny_causal_lm(architecture))
    row = packed_row()
    first, last = sum(LENGTHS[:2]), sum(LENGTHS[:3])
    targets = torch.full_like(row.targets, -100)
    targets[:, first:last] = row.targets[:, first:last]
    changed = row.input_ids.clone()
    changed[:, :first] = 7
    changed[:, last:] = 9
    with torch.no_grad():
        before = objective(replace(row, targets=targets))
        after = objective(replace(row, input_ids=changed, targets=targets))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mask_of_ones_would_leak_so_that_these_tests_can_fail(architecture: str) -> None:
    causal_lm = tiny_causal_lm(architecture)
    row = packed_row()
    with torch.no_grad():
        hidden_TH = causal_lm.get_decoder()(
            input_ids=row.input_ids,
            position_ids=row.positions,
            attention_mask=torch.ones_like(row.input_ids),
            use_cache=False,
        ).last_hidden_state[0]
        weight = causal_lm.get_output_embeddings().weight
        leaked = chunked_cross_entropy(hidden_TH, weight, row.targets[0])
        apart = AdaptObjective(causal_lm)(row)
    assert abs(float(leaked - apart)) / int((row.targets >= 0).sum()) > 1e-3


def test_gradients_of_an_adapter_do_not_leak_either() -> None:
    model = attach_lora(tiny_causal_lm("mistral-sliding"), rank=4, alpha=8, dropout=0.0, seed=1)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.normal_(std=0.1)
    objective = AdaptObjective(model)
    params = [param for param in model.parameters() if param.requires_grad]
    row = packed_row()
    together = torch.autograd.grad(objective(row), params)
    alone = torch.autograd.grad(sum(objective(d) for d in documents_of(row)), params)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_tuning_loss_is_cross_entropy_over_the_label_columns_of_the_full_logits() -> None:
    causal_lm = tiny_causal_lm("llama")
    label_ids = (261, 40, 7)
    prompts = [list(range(10, 22)), list(range(40, 45)), list(range(90, 99))]
    labels = torch.tensor([2, 0, 1])
    (prompts_in_rows,) = make_batches(prompts, 1000, 257)
    gold = labels[list(prompts_in_rows.members)]
    targets = F.one_hot(gold, 3).float()
    batch = TuneBatch(prompts_in_rows, targets, torch.ones(3), 1 / 6, ("a", "b", "c"))
    assert batch.num_tokens == 12 + 5 + 9
    with torch.no_grad():
        objective = TuneObjective(LabelModel(causal_lm, label_ids))
        found = objective(batch)
        logits = torch.stack(
            [causal_lm(torch.tensor([p])).logits[0, -1, list(label_ids)] for p in prompts]
        )
        bare = objective(prompts_in_rows)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, reduction="sum") / 6)
    torch.testing.assert_close(bare, logits[list(prompts_in_rows.members)])


def test_soft_targets_and_weights_make_the_weighted_cross_entropy_of_pytorch() -> None:
    causal_lm = tiny_causal_lm("mistral")
    (prompts,) = make_batches([list(range(10, 22)), list(range(40, 45))], 1000, 257)
    targets = torch.tensor([[0.25, 0.75, 0.0], [0.1, 0.2, 0.7]])
    weights = torch.tensor([2.0, 0.5])
    objective = TuneObjective(LabelModel(causal_lm, (261, 40, 7)))
    with torch.no_grad():
        found = objective(TuneBatch(prompts, targets, weights, 1 / 2, ("a", "b")))
        each = F.cross_entropy(objective(prompts), targets, reduction="none")
    torch.testing.assert_close(found, (each * weights).sum() / 2)


def test_a_batch_that_does_not_count_has_no_loss_no_gradient_and_no_tokens() -> None:
    causal_lm = tiny_causal_lm("mistral")
    (prompts,) = make_batches([list(range(10, 22))], 1000, 257)
    batch = TuneBatch(prompts, torch.tensor([[1.0, 0, 0]]), torch.ones(1), 0.0, ("a",))
    loss = TuneObjective(LabelModel(causal_lm, (261, 40, 7)))(batch)
    loss.backward()
    assert (float(loss.detach()), batch.num_tokens) == (0.0, 0)
    assert not any(p.grad is not None and p.grad.any() for p in causal_lm.parameters())
