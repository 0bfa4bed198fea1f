"""Training on a CUDA card, on tiny models: what a CPU cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from slant.model.adapter import attach_adapter, attach_lora, unfreeze_layers
from slant.model.base import BaseModel, load_causal_lm
from slant.model.batches import make_batches
from slant.model.label_head import LabelModel, check_label_head
from slant.model.tuned import load_tuned_adapted, load_tuned_merged, save_tuned
from slant.train.loop import autocast
from slant.train.objective import TuneBatch, TuneObjective
from slant.train.targets import target_distribution
from tiny_stages import save_base

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card")

LABEL_IDS = (266, 261, 7)
GOLD = [0, 1, 2, 0, 1, 2]
PROMPTS = [[256, *range(20 * label, 20 * label + 9 + 5 * n)] for n, label in enumerate(GOLD)]


@pytest.fixture(scope="module", params=["mistral", "gemma3"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return save_base(tmp_path_factory.mktemp("base") / "base", request.param)


def train_steps(model: LabelModel, dtype: torch.dtype, count: int = 30) -> list[float]:
    """Losses of some updates, computed as the training loop computes them."""
    (prompts,) = make_batches(PROMPTS, 10_000, 257)
    targets, weights = target_distribution([GOLD[i] for i in prompts.members], 3)
    batch = TuneBatch(
        prompts.to("cuda"),
        torch.from_numpy(targets).cuda(),
        torch.from_numpy(weights).cuda(),
        1 / len(GOLD),
        tuple(map(str, prompts.members)),
    )
    objective = TuneObjective(model).train()
    params = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=0.01)
    losses = []
    for _ in range(count):
        with autocast(torch.device("cuda"), dtype):
            loss = objective(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


@torch.no_grad()
def label_logits(model: LabelModel) -> torch.Tensor:
    (prompts,) = make_batches(PROMPTS, 10_000, 257)
    logits_NL: torch.Tensor = model(prompts.to("cuda")).cpu()
    return logits_NL


def four_bits(base: BaseModel) -> Any:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (extra nf4) is not installed")
    return load_causal_lm(base.folder, dtype=torch.bfloat16, quantize="nf4", device="cuda")


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"rank_stabilized": True}])
def test_adapters_on_four_bit_weights_learn_and_are_merged_into_whole_ones(
    base: BaseModel, tmp_path: Path, options: dict[str, bool]
) -> None:
    causal_lm = four_bits(base)
    from bitsandbytes.nn import Linear4bit

    adapted = attach_lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=1, **options)
    packed = [module for module in adapted.modules() if isinstance(module, Linear4bit)]
    assert len(packed) == 14
    assert {module.weight.dtype for module in packed} == {torch.uint8}
    model = LabelModel(adapted, LABEL_IDS).to("cuda")
    check_label_head(model, causal_lm.config.vocab_size)
    trainable = [param for param in model.parameters() if param.requires_grad]
    assert {(param.dtype, param.device.type) for param in trainable} == {(torch.float32, "cuda")}
    losses = train_steps(model, torch.bfloat16)
    assert losses[-1] < 0.5 * losses[0]
    save_tuned(tmp_path, model, base)
    merged = load_tuned_merged(base.folder, tmp_path, LABEL_IDS, dtype=torch.float32, device="cuda")
    beside = load_tuned_adapted(
        base.folder, tmp_path, LABEL_IDS, dtype=torch.float32, device="cuda"
    )
    found = label_logits(LabelModel(merged, LABEL_IDS).to("cuda"))
    torch.testing.assert_close(found, label_logits(beside), atol=1e-3, rtol=1e-3)
    assert found.argmax(dim=1).tolist() == [GOLD[i] for i in _order()]


def test_an_adapter_goes_on_where_it_left_off_on_four_bit_weights(
    base: BaseModel, tmp_path: Path
) -> None:
    adapted = attach_lora(four_bits(base), rank=4, alpha=8, dropout=0.0, seed=1)
    losses = train_steps(LabelModel(adapted, LABEL_IDS).to("cuda"), torch.bfloat16, 10)
    save_tuned(tmp_path, LabelModel(adapted, LABEL_IDS), base)
    again = attach_adapter(four_bits(base), tmp_path / "adapter")
    more = train_steps(LabelModel(again, LABEL_IDS).to("cuda"), torch.bfloat16, 5)
    assert more[0] < losses[-1]


@pytest.mark.parametrize("rows", [False, True])
def test_full_fine_tuning_learns_in_float32_weights_and_bfloat16_arithmetic(
    base: BaseModel, tmp_path: Path, rows: bool
) -> None:
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32, device="cuda")
    unfreeze_layers(causal_lm)
    model = LabelModel(causal_lm, LABEL_IDS, train_rows=rows).to("cuda")
    losses = train_steps(model, torch.bfloat16)
    assert losses[-1] < 0.5 * losses[0]
    save_tuned(tmp_path, model, base)
    merged = load_tuned_merged(base.folder, tmp_path, LABEL_IDS, dtype=torch.float32, device="cuda")
    found = label_logits(LabelModel(merged, LABEL_IDS).to("cuda"))
    torch.testing.assert_close(found, label_logits(model), atol=1e-3, rtol=1e-3)


def _order() -> tuple[int, ...]:
    (prompts,) = make_batches(PROMPTS, 10_000, 257)
    return prompts.members
