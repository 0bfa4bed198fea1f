from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from slant.train.checkpoints import Best, State
from slant.train.interfaces import SCORE, TrainingPlan
from slant.train.loop import EVENTS_FILE, train
from slant.train.parallel import World
from slant.train.stopping import Stop
from tiny_stages import prepare, run_stage, tiny_settings

PLAN = TrainingPlan(
    num_steps=12,
    learning_rate=0.05,
    warmup_share=0.25,
    weight_decay=0.01,
    max_gradient_norm=1.0,
    tokens_per_pass=64,
    checkpoint_every_s=0.0,
    keep_checkpoints=2,
    seed=3,
    dtype=torch.float32,
)


@dataclass(frozen=True)
class Rows:
    inputs: Tensor
    targets: Tensor
    share: float
    names: tuple[str, ...] = ("a row",)

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


@dataclass
class Steps:
    """Twelve steps of eight examples, in one or several passes.

    ``before`` is called with a step's number before its last pass.
    """

    passes_per_step: int = 1
    num_steps: int = 12
    before: Callable[[int], None] = lambda step: None
    asked: list[int] = field(default_factory=list)

    def passes(self, step: int, world: World, tokens_per_pass: int) -> Iterator[Rows]:
        self.asked.append(step)
        random = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 6, generator=random)
        targets = inputs.sum(dim=1)
        for part in range(self.passes_per_step):
            if part == self.passes_per_step - 1:
                self.before(step)
            mine = slice(part, None, self.passes_per_step)
            yield Rows(inputs[mine], targets[mine], 1 / 8)


def run(
    objective: nn.Module, schedule: Any, plan: TrainingPlan, folder: Path, **options: Any
) -> State:
    options = {"name": "t", "identity": "it", "progress": SilentProgress()} | options
    return train(objective, schedule, plan, folder, options.pop("progress"), **options)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def assert_bit_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


class Interrupted(Exception):  # noqa: N818
    pass


def interrupted_at(number: int) -> Steps:
    def interrupt(step: int) -> None:
        if step == number:
            raise Interrupted

    return Steps(passes_per_step=2, before=interrupt)


@dataclass
class Scores:
    """A validation whose scores are written down beforehand; remembers the weights it saw."""

    scores: dict[int, float]
    objective: nn.Module
    seen: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    at: Callable[[int], None] = lambda step: None

    @property
    def steps(self) -> Collection[int]:
        return self.scores

    def __call__(self, stop: Stop, tokens_per_pass: int) -> dict[str, float] | None:
        step = next(step for step in self.scores if step not in self.seen)
        self.at(step)
        if stop.requested:
            return None
        self.seen[step] = weights(self.objective)
        return {SCORE: self.scores[step], "validation_loss": 1.0 - self.scores[step]}


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
        run(objective, Steps(passes), PLAN, folder)
        found.append(weights(objective))
    for other in found[1:]:
        for key, value in other.items():
            torch.testing.assert_close(value, found[0][key], rtol=0, atol=1e-6)


def test_training_learns_and_leaves_frozen_parameters_alone(tmp_path: Path) -> None:
    objective = Regression(dropout=0.0)
    run(objective, Steps(num_steps=60), replace(PLAN, num_steps=60), tmp_path)
    events = [json.loads(line) for line in (tmp_path / EVENTS_FILE).read_text().splitlines()]
    assert events[-1]["loss"] < 0.3 * events[0]["loss"]
    assert torch.equal(objective.frozen, torch.ones(2))


def events_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / EVENTS_FILE).read_text().splitlines()]


def test_events_hold_a_line_for_each_step_and_each_validation(tmp_path: Path) -> None:
    objective = Regression()
    observed: list[tuple[int, set[str]]] = []
    done = run(
        objective,
        Steps(2),
        PLAN,
        tmp_path,
        validation=Scores({4: 0.3, 12: 0.2}, objective),
        observe=lambda step, values: observed.append((step, set(values))),
    )
    events = events_in(tmp_path)
    steps = [event for event in events if "loss" in event]
    assert [event["step"] for event in steps] == list(range(1, 13))
    assert [event["tokens"] for event in steps] == [8 * step for step in range(1, 13)]
    assert [event["learning_rate"] for event in steps] == [
        PLAN.learning_rate_at(step) for step in range(12)
    ]
    assert [(e["step"], e[SCORE]) for e in events if SCORE in e] == [(4, 0.3), (12, 0.2)]
    assert all(event["gradient_norm"] > 0 for event in steps)
    assert (done.steps, done.tokens, done.events) == (12, 96, 14)
    assert [step for step, _ in observed] == [event["step"] for event in events]
    assert {"loss", "learning_rate", "gradient_norm", "tokens_per_s"} <= observed[0][1]


def test_the_result_has_the_weights_of_the_best_validation_and_not_the_last(
    tmp_path: Path,
) -> None:
    objective = Regression()
    validation = Scores({3: 0.5, 6: 0.7, 9: 0.7, 12: 0.6}, objective)
    done = run(objective, Steps(), PLAN, tmp_path, validation=validation)
    assert done.best == Best(6, 0.7)
    assert_bit_equal(weights(objective), validation.seen[6])


def test_what_is_validated_and_kept_is_the_running_average_of_the_weights(tmp_path: Path) -> None:
    def trained(average: float) -> tuple[Regression, dict[int, dict[str, Tensor]]]:
        objective = Regression()
        scores = Scores({step: step / 12 for step in range(1, 13)}, objective)
        plan, folder = replace(PLAN, average=average), tmp_path / str(average)
        folder.mkdir()
        run(objective, Steps(), plan, folder, validation=scores)
        return objective, scores.seen

    _, by_step = trained(0.0)
    objective, seen = trained(0.4)
    name = "layers.0.weight"
    average = by_step[1][name]
    for step in range(1, 13):
        # Over few steps at first: 2 of 11, 3 of 12, … until that is more than 0.4.
        average = average.lerp(by_step[step][name], 1 - min(0.4, step / (9 + step)))
        torch.testing.assert_close(seen[step][name], average)
    assert torch.equal(objective.state_dict()[name], seen[12][name])


def test_training_stops_when_patience_is_at_its_end(tmp_path: Path) -> None:
    objective = Regression()
    validation = Scores({2: 0.5, 4: 0.4, 6: 0.45, 8: 0.9}, objective)
    done = run(objective, Steps(), replace(PLAN, patience=2), tmp_path, validation=validation)
    assert (done.steps, done.best) == (6, Best(2, 0.5))
    assert_bit_equal(weights(objective), validation.seen[2])


@pytest.mark.parametrize("moment", [2, 4, 6])
def test_a_run_interrupted_while_it_validates_validates_again_and_ends_the_same(
    tmp_path: Path, moment: int
) -> None:
    scores = {2: 0.5, 4: 0.7, 6: 0.6}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = Regression()
    run(expected, Steps(), PLAN, whole, validation=Scores(scores, expected))

    def interrupt(step: int) -> None:
        if step == moment:
            raise Interrupted

    first = Regression()
    with pytest.raises(Interrupted):
        run(first, Steps(), PLAN, broken, validation=Scores(scores, first, at=interrupt))
    found = Regression()
    rest = Scores({step: score for step, score in scores.items() if step >= moment}, found)
    done = run(found, Steps(), PLAN, broken, validation=rest)
    assert done.best == Best(4, 0.7)
    assert_bit_equal(weights(found), weights(expected))
    assert (broken / EVENTS_FILE).read_bytes() == (whole / EVENTS_FILE).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_with_all_of_it_saved(
    tmp_path: Path, number: signal.Signals
) -> None:
    def ask_to_stop(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    if number == signal.SIGINT:  # a test run may itself have been started with Ctrl-C ignored
        signal.signal(number, signal.default_int_handler)
    said: list[str] = []
    progress = SilentProgress()
    progress.say = said.append  # type: ignore[method-assign]
    plan = replace(PLAN, checkpoint_every_s=1e9)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(Regression(), Steps(before=ask_to_stop), plan, tmp_path, progress=progress)
    finally:
        signal.signal(number, before)
    assert "stopped after step 7 of 12" in said[-1]
    schedule, found, expected = Steps(), Regression(), Regression()
    run(found, schedule, plan, tmp_path)
    assert schedule.asked == [7, 8, 9, 10, 11]
    whole = tmp_path / "whole"
    whole.mkdir()
    run(expected, Steps(), plan, whole)
    assert_bit_equal(weights(found), weights(expected))


@dataclass
class Small(Steps):
    """Passes of as many rows as are asked for."""

    def passes(self, step: int, world: World, tokens_per_pass: int) -> Iterator[Rows]:
        for rows in super().passes(step, world, tokens_per_pass):
            for start in range(0, 8, tokens_per_pass // 16):
                part = slice(start, start + tokens_per_pass // 16)
                yield Rows(rows.inputs[part], rows.targets[part], rows.share)


class Hungry(Regression):
    """Memory for two rows at once."""

    def forward(self, rows: Rows) -> Tensor:
        if len(rows.inputs) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …")
        return super().forward(rows)


def test_where_memory_runs_out_the_step_is_done_again_in_half_the_pass_and_so_are_all_others(
    tmp_path: Path,
) -> None:
    plan = replace(PLAN, tokens_per_pass=128)
    said: list[str] = []
    progress = SilentProgress()
    progress.say = said.append  # type: ignore[method-assign]
    found, expected = Hungry(dropout=0.0), Regression(dropout=0.0)
    schedule = Small()
    done = run(found, schedule, plan, tmp_path, progress=progress)
    assert done.passes == 32
    assert [line for line in said if "memory ran out" in line] == [
        "memory ran out in a pass of 128 tokens: going on with 64",
        "memory ran out in a pass of 64 tokens: going on with 32",
    ]
    assert schedule.asked == [0, 0, *range(12)]
    whole = tmp_path / "whole"
    whole.mkdir()
    run(expected, Small(), plan, whole)
    for key, value in weights(expected).items():
        torch.testing.assert_close(weights(found)[key], value, rtol=0, atol=1e-6)


def test_a_pass_that_cannot_be_made_smaller_is_an_error_that_says_what_to_do(
    tmp_path: Path,
) -> None:
    class Starving(Regression):
        def forward(self, rows: Rows) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match="16 tokens") as caught:
        run(Starving(), Small(), PLAN, tmp_path)
    assert "nf4" in caught.value.hint


def test_an_error_that_is_not_about_memory_is_not_swallowed(tmp_path: Path) -> None:
    class Broken(Regression):
        def forward(self, rows: Rows) -> Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        run(Broken(), Steps(), PLAN, tmp_path)


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
    run(expected, Steps(2), plan, whole)

    with pytest.raises(Interrupted):
        run(Regression(), interrupted_at(number), plan, broken)
    torch.manual_seed(99)  # the state of the generator must not matter
    found = Regression()
    done = run(found, Steps(2), plan, broken)

    assert_bit_equal(weights(found), weights(expected))
    assert (broken / EVENTS_FILE).read_bytes() == (whole / EVENTS_FILE).read_bytes()
    assert (done.steps, done.tokens) == (12, 96)


def test_a_resumed_run_does_not_repeat_the_steps_of_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(Regression(), interrupted_at(7), PLAN, tmp_path)
    schedule = Steps()
    run(Regression(), schedule, PLAN, tmp_path)
    assert schedule.asked == [7, 8, 9, 10, 11]


def test_lines_and_half_lines_beyond_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(Regression(), interrupted_at(4), PLAN, tmp_path)
    with (tmp_path / EVENTS_FILE).open("a") as file:
        file.write('{"step": 5, "tokens": 40}\n{"step": 6, "tok')
    run(Regression(), Steps(2), PLAN, tmp_path)
    events = [json.loads(line) for line in (tmp_path / EVENTS_FILE).read_text().splitlines()]
    assert [event["step"] for event in events] == list(range(1, 13))


@pytest.mark.parametrize(("keep", "kept"), [(1, [6]), (2, [5, 6]), (4, [3, 4, 5, 6])])
def test_only_the_last_checkpoints_are_kept(tmp_path: Path, keep: int, kept: list[int]) -> None:
    with pytest.raises(Interrupted):
        run(Regression(), interrupted_at(6), replace(PLAN, keep_checkpoints=keep), tmp_path)
    folder = tmp_path / "scratch" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [f"step-{n:08}" for n in kept]


def test_best_weights_are_kept_as_long_as_a_checkpoint_names_them(tmp_path: Path) -> None:
    objective = Regression()
    validation = Scores({2: 0.5, 5: 0.7, 8: 0.6}, objective)
    with pytest.raises(Interrupted):
        run(objective, interrupted_at(6), PLAN, tmp_path, validation=validation)
    folder = tmp_path / "scratch" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [
        "best-00000005",
        "step-00000005",
        "step-00000006",
    ]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(Regression(), interrupted_at(6), PLAN, tmp_path)
    damage_cut(tmp_path / "scratch" / "checkpoints" / "step-00000006")
    said: list[str] = []
    progress = SilentProgress()
    progress.say = said.append  # type: ignore[method-assign]
    schedule, found, expected = Steps(2), Regression(), Regression()
    run(found, schedule, PLAN, tmp_path, progress=progress)
    assert schedule.asked[0] == 5
    assert "step-00000006" in said[0]
    assert "going on from step-00000005" in said[0]
    whole = tmp_path / "whole"
    whole.mkdir()
    run(expected, Steps(2), PLAN, whole)
    assert_bit_equal(weights(found), weights(expected))


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(Regression(), interrupted_at(3), PLAN, tmp_path, identity="one")
    with pytest.raises(ArtifactError, match="another task"):
        run(Regression(), Steps(), PLAN, tmp_path, identity="other")


def test_a_checkpoint_that_was_only_half_written_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(Regression(), interrupted_at(6), PLAN, tmp_path)
    partial = tmp_path / "scratch" / "checkpoints" / "step-00000007.partial"
    partial.mkdir()
    (partial / "state.safetensors").write_bytes(b"half")
    done = run(Regression(), Steps(2), PLAN, tmp_path)
    assert done.steps == 12


def damage_cut(folder: Path) -> None:
    path = folder / "state-0-of-1.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def damage_numbers(folder: Path) -> None:
    (folder / "progress.json").write_text('{"steps": ')


def damage_missing(folder: Path) -> None:
    (folder / "state-0-of-1.safetensors").unlink()


def damage_names(folder: Path) -> None:
    (folder / "progress.json").write_text('{"epochs": 3}')


@pytest.mark.parametrize("damage", [damage_cut, damage_numbers, damage_missing, damage_names])
def test_a_damaged_checkpoint_is_an_artifact_error_that_names_it(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with pytest.raises(Interrupted):
        run(Regression(), interrupted_at(3), PLAN, tmp_path)
    for step in (2, 3):
        damage(tmp_path / "scratch" / "checkpoints" / f"step-{step:08}")
    with pytest.raises(ArtifactError, match="step-00000003") as caught:
        run(Regression(), Steps(2), PLAN, tmp_path)
    assert "Delete" in caught.value.hint


def test_a_checkpoint_of_another_model_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(Regression(), interrupted_at(3), PLAN, tmp_path)
    other = Regression()
    other.layers[2] = nn.Linear(8, 2)
    with pytest.raises(ArtifactError):
        run(other, Steps(2), PLAN, tmp_path)


def test_a_loss_that_is_not_a_number_ends_the_run_before_it_spoils_the_weights(
    tmp_path: Path,
) -> None:
    class Spoilt(Steps):
        def passes(self, step: int, world: World, tokens_per_pass: int) -> Iterator[Rows]:
            for number, rows in enumerate(super().passes(step, world, tokens_per_pass)):
                share = float("nan") if (step, number) == (5, 1) else rows.share
                yield replace(rows, share=share, names=(f"row {number}",))

    objective = Regression()
    with pytest.raises(ModelError, match=r"step 6.*held row 1\n") as caught:
        run(objective, Spoilt(3), PLAN, tmp_path)
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
        run(objective, Steps(), plan, folder)
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
    run(objective, Steps(), plan, tmp_path)
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
    event, validation = events_of(folder / "out")
    model = load_causal_lm(root / "base", dtype=torch.float32)
    label_ids = list(TaskSpec.load(root / "shard").verbalizer.token_ids)
    losses = []
    for sample in ShardReader(root / "shard" / "tune" / "train"):
        with torch.no_grad():
            logits = model(torch.tensor([sample["input_ids"].tolist()])).logits[0, -1, label_ids]
        losses.append(float(cross_entropy(logits, torch.tensor(sample["label"]))))
    assert event["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert "validation_loss" in validation
