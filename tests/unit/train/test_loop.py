from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from slant.errors import ArtifactError, ModelError
from slant.model.base import load_causal_lm
from slant.progress import SilentProgress
from slant.shards.reader import ShardReader
from slant.task.spec import TaskSpec
from slant.train.loop import EVENTS_FILE, TrainingPlan, train
from tiny_stages import prepare, run_stage, tiny_settings

PLAN = TrainingPlan(
    num_steps=12,
    learning_rate=0.05,
    warmup_share=0.25,
    weight_decay=0.01,
    max_gradient_norm=1.0,
    checkpoint_every_s=1e-9,
    seed=3,
    dtype=torch.float32,
)


@dataclass(frozen=True)
class Rows:
    inputs: Tensor
    targets: Tensor
    share: float

    @property
    def num_tokens(self) -> int:
        return len(self.inputs)


class Regression(nn.Module):
    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        self.dropout = nn.Dropout(dropout)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, rows: Rows) -> Tensor:
        outputs = self.layers(self.dropout(rows.inputs))[:, 0]
        return ((outputs - rows.targets) ** 2).sum() * rows.share


def steps(passes: int = 1) -> Callable[[int], Iterator[Rows]]:
    """Eight examples a step, in one or several passes."""

    def batches(step: int) -> Iterator[Rows]:
        random = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 6, generator=random)
        targets = inputs.sum(dim=1)
        for part in range(passes):
            yield Rows(inputs[part::passes], targets[part::passes], 1 / 8)

    return batches


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def assert_bit_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


class Interrupted(Exception):  # noqa: N818
    pass


def interrupted_at(number: int) -> Callable[[int], Iterator[Rows]]:
    def batches(step: int) -> Iterator[Rows]:
        if step == number:
            yield from list(steps(2)(step))[:1]
            raise Interrupted
        yield from steps()(step)

    return batches


def test_the_learning_rate_rises_linearly_then_falls_linearly_to_zero() -> None:
    plan = replace(PLAN, num_steps=10, learning_rate=1.0, warmup_share=0.4)
    rates = [plan.learning_rate_at(step) for step in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4:] == pytest.approx([6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_the_learning_rate_is_always_above_zero_and_never_above_the_highest(
    num_steps: int, share: float
) -> None:
    plan = replace(PLAN, num_steps=num_steps, warmup_share=share)
    rates = [plan.learning_rate_at(step) for step in range(num_steps)]
    assert min(rates) > 0
    assert max(rates) == pytest.approx(plan.learning_rate)


def test_a_step_in_several_passes_ends_in_the_weights_of_one_pass(tmp_path: Path) -> None:
    found = []
    for passes in (1, 2, 5):
        objective = Regression(dropout=0.0)
        folder = tmp_path / str(passes)
        folder.mkdir()
        train(objective, steps(passes), PLAN, folder, SilentProgress(), name="t")
        found.append(weights(objective))
    for other in found[1:]:
        for key, value in other.items():
            torch.testing.assert_close(value, found[0][key], rtol=0, atol=1e-6)


def test_training_learns_and_leaves_frozen_parameters_alone(tmp_path: Path) -> None:
    objective = Regression(dropout=0.0)
    train(objective, steps(), replace(PLAN, num_steps=60), tmp_path, SilentProgress(), name="t")
    events = [json.loads(line) for line in (tmp_path / EVENTS_FILE).read_text().splitlines()]
    assert events[-1]["loss"] < 0.3 * events[0]["loss"]
    assert torch.equal(objective.frozen, torch.ones(2))


def test_events_hold_one_line_a_step_and_what_after_step_returns(tmp_path: Path) -> None:
    done = train(
        Regression(),
        steps(2),
        PLAN,
        tmp_path,
        SilentProgress(),
        name="t",
        after_step=lambda step: {"validation_loss": float(step)} if step % 4 == 0 else {},
    )
    events = [json.loads(line) for line in (tmp_path / EVENTS_FILE).read_text().splitlines()]
    assert [event["step"] for event in events] == list(range(1, 13))
    assert [event["tokens"] for event in events] == [8 * step for step in range(1, 13)]
    assert [event["learning_rate"] for event in events] == [
        PLAN.learning_rate_at(step) for step in range(12)
    ]
    assert [e["validation_loss"] for e in events if "validation_loss" in e] == [4.0, 8.0, 12.0]
    assert all(event["gradient_norm"] > 0 for event in events)
    assert (done.steps, done.tokens) == (12, 96)


@pytest.mark.parametrize("number", [0, 1, 5, 11])
@pytest.mark.parametrize("every_s", [1e-9, 1e9])
def test_an_interrupted_run_ends_bit_equal_to_an_uninterrupted_one(
    tmp_path: Path, number: int, every_s: float
) -> None:
    plan = replace(PLAN, checkpoint_every_s=every_s)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = Regression()
    train(expected, steps(), plan, whole, SilentProgress(), name="t")

    with pytest.raises(Interrupted):
        train(Regression(), interrupted_at(number), plan, broken, SilentProgress(), name="t")
    torch.manual_seed(99)  # the state of the generator must not matter
    found = Regression()
    done = train(found, steps(), plan, broken, SilentProgress(), name="t")

    assert_bit_equal(weights(found), weights(expected))
    assert (broken / EVENTS_FILE).read_bytes() == (whole / EVENTS_FILE).read_bytes()
    assert (done.steps, done.tokens) == (12, 96)


def test_a_resumed_run_does_not_repeat_the_steps_of_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(Regression(), interrupted_at(7), PLAN, tmp_path, SilentProgress(), name="t")
    asked = []

    def batches(step: int) -> Iterator[Rows]:
        asked.append(step)
        yield from steps()(step)

    train(Regression(), batches, PLAN, tmp_path, SilentProgress(), name="t")
    assert asked == [7, 8, 9, 10, 11]


def test_lines_and_half_lines_beyond_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(Regression(), interrupted_at(4), PLAN, tmp_path, SilentProgress(), name="t")
    with (tmp_path / EVENTS_FILE).open("a") as file:
        file.write('{"step": 5, "tokens": 40}\n{"step": 6, "tok')
    train(Regression(), steps(), PLAN, tmp_path, SilentProgress(), name="t")
    events = [json.loads(line) for line in (tmp_path / EVENTS_FILE).read_text().splitlines()]
    assert [event["step"] for event in events] == list(range(1, 13))


def test_only_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(Regression(), interrupted_at(6), PLAN, tmp_path, SilentProgress(), name="t")
    kept = (tmp_path / "scratch" / "checkpoints").iterdir()
    assert [path.name for path in kept] == ["step-00000006"]


def test_a_checkpoint_that_was_only_half_written_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(Regression(), interrupted_at(6), PLAN, tmp_path, SilentProgress(), name="t")
    partial = tmp_path / "scratch" / "checkpoints" / "step-00000007.partial"
    partial.mkdir()
    (partial / "state.safetensors").write_bytes(b"half")
    done = train(Regression(), steps(), PLAN, tmp_path, SilentProgress(), name="t")
    assert done.steps == 12


def damage_cut(folder: Path) -> None:
    path = folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def damage_numbers(folder: Path) -> None:
    (folder / "progress.json").write_text('{"steps": ')


def damage_missing(folder: Path) -> None:
    (folder / "state.safetensors").unlink()


def damage_names(folder: Path) -> None:
    (folder / "progress.json").write_text('{"epochs": 3}')


@pytest.mark.parametrize("damage", [damage_cut, damage_numbers, damage_missing, damage_names])
def test_a_damaged_checkpoint_is_an_artifact_error_that_names_it(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with pytest.raises(Interrupted):
        train(Regression(), interrupted_at(3), PLAN, tmp_path, SilentProgress(), name="t")
    damage(tmp_path / "scratch" / "checkpoints" / "step-00000003")
    with pytest.raises(ArtifactError, match="step-00000003") as caught:
        train(Regression(), steps(), PLAN, tmp_path, SilentProgress(), name="t")
    assert "Delete" in caught.value.hint


def test_a_checkpoint_of_another_model_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(Regression(), interrupted_at(3), PLAN, tmp_path, SilentProgress(), name="t")
    other = Regression()
    other.layers[2] = nn.Linear(8, 2)
    with pytest.raises(ArtifactError):
        train(other, steps(), PLAN, tmp_path, SilentProgress(), name="t")


def test_a_loss_that_is_not_a_number_ends_the_run_before_it_spoils_the_weights(
    tmp_path: Path,
) -> None:
    def batches(step: int) -> Iterator[Rows]:
        for rows in steps()(step):
            yield replace(rows, share=float("nan")) if step == 5 else rows

    objective = Regression()
    with pytest.raises(ModelError, match="step 6") as caught:
        train(objective, batches, PLAN, tmp_path, SilentProgress(), name="t")
    assert "learning_rate" in caught.value.hint
    assert all(value.isfinite().all() for value in weights(objective).values())


def test_gradients_are_clipped_and_their_own_norm_is_reported(tmp_path: Path) -> None:
    """AdamW hardly sees the scale of all gradients, but it does see it change between steps."""
    found = []
    for bound in (0.01, 1e9):
        objective = Regression(dropout=0.0)
        folder = tmp_path / str(bound)
        folder.mkdir()
        plan = replace(PLAN, max_gradient_norm=bound)
        train(objective, steps(), plan, folder, SilentProgress(), name="t")
        events = (folder / EVENTS_FILE).read_text().splitlines()
        found.append((json.loads(events[0])["gradient_norm"], objective.layers[0].weight))
    (norm, clipped), (same, free) = found
    assert norm == same > 0.01
    assert (clipped - free).abs().max() > 1e-3


def test_autocast_is_used_for_the_arithmetic_and_not_for_the_weights(tmp_path: Path) -> None:
    seen = []

    class Spy(Regression):
        def forward(self, rows: Rows) -> Tensor:
            seen.append(self.layers[0](rows.inputs).dtype)
            return super().forward(rows)

    objective = Spy()
    plan = replace(PLAN, num_steps=2, dtype=torch.bfloat16)
    train(objective, steps(), plan, tmp_path, SilentProgress(), name="t")
    assert set(seen) == {torch.bfloat16}
    assert {value.dtype for value in weights(objective).values()} == {torch.float32}


# What the two stages put into a step. A fresh adapter changes nothing, so that the loss of the
# first step is that of the base model and can be worked out apart.


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    prepare(folder)
    return folder


def settings_of(root: Path, stage: str, **values: object) -> Path:
    """A copy of ``root``'s settings with others in the section of ``stage``."""
    folder = root / f"{stage}-{len(list(root.iterdir()))}"
    folder.mkdir()
    for name in ("base", "shard", "base.json"):
        (folder / name).symlink_to(root / name)
    settings = tiny_settings(**{stage: values})
    (folder / "settings.json").write_text(settings.model_dump_json(), "utf-8")
    return folder


def events_of(stage: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (stage / EVENTS_FILE).read_text().splitlines()]


def test_a_step_of_adaptation_is_the_mean_over_the_targets_of_all_its_documents(
    root: Path,
) -> None:
    folder = settings_of(root, "adapt", tokens_per_step=10**6, epochs=1)
    run_stage("adapt", folder, folder / "out")
    (event,) = events_of(folder / "out")
    model = load_causal_lm(root / "base", dtype=torch.float32)
    loss, targets, tokens = 0.0, 0, 0
    for lang in (root / "shard" / "adapt" / "train").iterdir():
        for row in ShardReader(lang):
            for piece in np.split(row["tokens"], np.cumsum(row["lengths"])[:-1]):
                ids = torch.tensor(piece.tolist())[None]
                tokens += len(piece)
                if len(piece) > 1:
                    with torch.no_grad():
                        logits = model(ids).logits[0, :-1]
                    loss += float(cross_entropy(logits, ids[0, 1:], reduction="sum"))
                    targets += len(piece) - 1
    assert event["loss"] == pytest.approx(loss / targets, rel=1e-5)
    assert event["tokens"] == tokens


def test_epochs_of_adaptation_visit_every_row_as_often_as_they_say(root: Path) -> None:
    lengths = [
        len(row["tokens"])
        for lang in (root / "shard" / "adapt" / "train").iterdir()
        for row in ShardReader(lang)
    ]
    folder = settings_of(root, "adapt", tokens_per_step=200, epochs=2)
    run_stage("adapt", folder, folder / "out")
    assert events_of(folder / "out")[-1]["tokens"] == 2 * sum(lengths)
    folder = settings_of(root, "adapt", tokens_per_step=200, epochs=9, tokens=sum(lengths) // 2)
    run_stage("adapt", folder, folder / "out")
    assert abs(events_of(folder / "out")[-1]["tokens"] - sum(lengths) / 2) <= max(lengths)


@pytest.mark.parametrize("tokens_per_batch", [150, 10**6])
def test_a_step_of_tuning_is_the_mean_over_its_examples_however_many_passes_it_takes(
    root: Path, tokens_per_batch: int
) -> None:
    folder = settings_of(
        root, "tune", epochs=1, examples_per_step=1000, tokens_per_batch=tokens_per_batch
    )
    run_stage("tune", folder, folder / "out")
    (event,) = events_of(folder / "out")
    model = load_causal_lm(root / "base", dtype=torch.float32)
    label_ids = list(TaskSpec.load(root / "shard").verbalizer.token_ids)
    losses = []
    for sample in ShardReader(root / "shard" / "tune" / "train"):
        with torch.no_grad():
            logits = model(torch.tensor([sample["input_ids"].tolist()])).logits[0, -1, label_ids]
        losses.append(float(cross_entropy(logits, torch.tensor(sample["label"]))))
    assert event["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert "validation_loss" in event
