from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slant.config.settings import ProjectSettings
from slant.plan.estimate import Plan, _share, make_plan
from slant.plan.tokens import TokenCounts

COUNTS = TokenCounts(
    adapt=2_000_000, heldout=200_000, tune=1_000_000, examples=5000, validation=50_000, source="x"
)


def plan(counts: TokenCounts | None = COUNTS, card: str = "a10", **sections: Any) -> Plan:
    content = {
        "ingest": {"examples": [{"path": "a.jsonl"}]},
        "model": {"base": "mistralai/Mistral-7B-v0.3", "quantize": "nf4"},
        "train": {"activation_checkpointing": True},
        **sections,
    }
    settings = ProjectSettings.model_validate(content)
    return make_plan(settings, Path("/nowhere"), counts=counts, card=card)


def test_hours_follow_from_tokens_operations_and_the_assumed_share_of_the_peak() -> None:
    adapt, tune = plan(adapt={"tokens": 50_000_000, "epochs": 3}, tune={"epochs": 2}).stages
    rate = 125e12 * 0.40 * 0.75
    assert adapt.tokens == 6_000_000  # three passes are less than was asked for
    assert adapt.tokens_per_s == pytest.approx(rate / adapt.flops.recomputed)
    seconds = 6_000_000 / adapt.tokens_per_s + 400_000 * adapt.flops.forward / rate
    assert adapt.hours == pytest.approx(seconds / 3600)
    assert tune.tokens == 2_000_000
    assert tune.flops.total < adapt.flops.total
    assert 500 < tune.tokens_per_s < 2000


def test_a_price_gives_a_cost_for_all_devices() -> None:
    prices = {"price_per_hour": {"a10": 0.5}}
    one = plan(plan=prices).stages[1]
    assert one.hours is not None
    assert one.cost == pytest.approx(0.5 * one.hours)
    train = {"devices": 2, "activation_checkpointing": True}
    two = plan(plan=prices, train=train)
    assert two.stages[1].hours == pytest.approx(one.hours / 1.8)
    assert two.stages[1].cost == pytest.approx(one.cost / 0.9)
    assert any("2 devices do 90%" in note for note in two.notes)


def test_without_a_price_the_cost_is_not_known_and_the_plan_says_how_to_set_it() -> None:
    made = plan()
    assert made.stages[0].cost is None
    assert "cost: set plan.price_per_hour: {a10: …}" in made.notes


def test_without_counts_adapt_is_bounded_by_its_tokens_and_tune_is_not_known() -> None:
    adapt, tune = plan(None, adapt={"tokens": 7_000_000}).stages
    assert adapt.tokens == 7_000_000
    assert (tune.tokens, tune.hours, tune.cost) == (None, None, None)


def test_every_figure_says_whether_it_is_published_assumed_or_measured() -> None:
    notes = " ".join(plan().notes)
    assert "published peak: 125 TFLOP/s (bfloat16, dense)" in notes
    assert "assumed: training reaches 30% of it in adapt, 30% of it in tune" in notes
    assert "data sheet" in notes
    here = plan(card="cpu", model={"base": "gemma-3-270m", "dtype": "float32"}).notes
    assert any(note.startswith("speed: measured now: ") for note in here)
    assert any(note.startswith("assumed: training reaches ") for note in here)


def test_on_a_cpu_all_that_is_not_a_product_takes_its_own_time() -> None:
    _, tune = plan(card="cpu", model={"base": "gemma-3-270m", "dtype": "float32"}).stages
    shares = [_share(tune.load, rate) for rate in (2e11, 1e12, 4e12)]
    assert shares == sorted(shares, reverse=True)
    reached = [share * rate for share, rate in zip(shares, (2e11, 1e12, 4e12), strict=True)]
    assert reached == sorted(reached)
    assert reached[-1] < 1.1e12


def test_float32_is_planned_with_its_own_peak() -> None:
    single = plan(model={"base": "mistralai/Mistral-7B-v0.3", "dtype": "float32"}, card="h200")
    half = plan(model={"base": "mistralai/Mistral-7B-v0.3"}, card="h200")
    ratio = half.stages[0].tokens_per_s / single.stages[0].tokens_per_s
    assert ratio == pytest.approx(989 / 67)


def test_the_json_is_plain_and_complete() -> None:
    made = plan(train={})
    content = json.loads(json.dumps(made.to_json()))
    assert content["schema"] == "slant.plan/1"
    assert content["parameters"] == 7_248_023_552
    assert content["fits"] is made.fits is True
    stage = content["stages"][1]
    parts = dict(stage["memory_bytes"])
    assert parts.pop("total") == sum(parts.values())
    assert stage["verdict"] in ("fits", "tight")


def test_a_project_without_adapt_plans_tune_alone() -> None:
    assert [stage.stage for stage in plan(adapt=None).stages] == ["tune"]


def test_main_memory_is_compared_only_where_the_plan_is_for_this_machine() -> None:
    assert plan().host_capacity is None
    here = plan(card="cpu", model={"base": "gemma-3-270m"})
    assert here.host_capacity == here.card.memory_bytes
