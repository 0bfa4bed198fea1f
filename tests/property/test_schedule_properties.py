"""Who does what of a step: every example once, whatever the number of processes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slant.config.training_settings import AdaptSettings, TuneSettings
from slant.shards.reader import ShardReader
from slant.train.parallel import World
from slant.train.schedule import (
    AdaptSchedule,
    Examples,
    TuneSchedule,
    _documents_together,
    adapt_batch,
    shared_out,
)


def examples(lengths: list[int], documents: list[int], langs: list[int]) -> Examples:
    count = len(lengths)
    return Examples(
        # The first tokens of a document's prompts are equal; the last tells the example.
        [
            np.array([*([7 + documents[i]] * (length - 1)), 100 + i], dtype=np.int32)
            for i, length in enumerate(lengths)
        ],
        np.arange(count) % 3,
        [None] * count,
        [f"lang-{lang}" for lang in langs],
        [f"d-{document}" for document in documents],
        [f"n-{i}" for i in range(count)],
    )


@st.composite
def tunings(draw: st.DrawFn) -> tuple[Examples, TuneSettings, int, int]:
    count = draw(st.integers(1, 40))
    numbers = st.lists(st.integers(0, 5), min_size=count, max_size=count)
    lengths = draw(st.lists(st.integers(1, 30), min_size=count, max_size=count))
    section = TuneSettings(
        epochs=draw(st.integers(1, 3)),
        examples_per_step=draw(st.integers(1, 9)),
        document_once=draw(st.booleans()),
        language_temperature=draw(st.sampled_from([1.0, 3.0])),
    )
    data = examples(lengths, draw(numbers), draw(numbers))
    return data, section, draw(st.integers(1, 4)), draw(st.integers(1, 80))


def schedule_of(data: Examples, section: TuneSettings) -> TuneSchedule:
    targets = np.eye(3, dtype=np.float32)[data.labels]
    weights = np.arange(1, len(data) + 1, dtype=np.float32)
    return TuneSchedule(data, targets, weights, section, seed=11, pad_token_id=0)


@settings(max_examples=60, deadline=None)
@given(tunings())
def test_processes_together_visit_what_one_visits_in_equally_many_passes(
    drawn: tuple[Examples, TuneSettings, int, int],
) -> None:
    data, section, size, budget = drawn
    schedule = schedule_of(data, section)
    visited: Counter[str] = Counter()
    for step in range(schedule.num_steps):
        passes = [list(schedule.passes(step, World(rank, size), budget)) for rank in range(size)]
        assert len({len(of_rank) for of_rank in passes}) == 1
        counted = [batch for of_rank in passes for batch in of_rank if batch.share]
        names = Counter(name for batch in counted for name in batch.names)
        alone = list(schedule.passes(step, World(), budget))
        assert names == Counter(name for batch in alone for name in batch.names)
        assert sum(batch.share * len(batch.names) for batch in counted) == pytest.approx(1)
        visited += names
    if section.language_temperature == 1:
        assert set(visited.values()) == {section.epochs}
        assert len(visited) == len(data)
    else:
        assert visited.total() == len(data) * section.epochs


@settings(max_examples=60, deadline=None)
@given(tunings())
def test_every_answer_has_the_target_and_the_weight_of_its_own_example(
    drawn: tuple[Examples, TuneSettings, int, int],
) -> None:
    data, section, size, budget = drawn
    schedule = schedule_of(data, section)
    for step in range(schedule.num_steps):
        for rank in range(size):
            for batch in schedule.passes(step, World(rank, size), budget):
                ids = batch.prompts.input_ids[batch.prompts.rows, batch.prompts.columns]
                numbers = (ids - 100).tolist()
                assert [data.name(i) for i in numbers] == list(batch.names)
                assert batch.weights.tolist() == [i + 1 for i in numbers]
                assert batch.targets.argmax(dim=1).tolist() == [i % 3 for i in numbers]


@settings(max_examples=60, deadline=None)
@given(tunings())
def test_validation_is_due_at_the_end_of_every_epoch_and_within_it(
    drawn: tuple[Examples, TuneSettings, int, int],
) -> None:
    data, section, per_epoch, _ = drawn
    schedule = schedule_of(data, section)
    due = schedule.validation_steps(per_epoch)
    assert set(schedule.epoch_ends) <= due <= set(range(1, schedule.num_steps + 1))
    assert len(due) <= per_epoch * section.epochs


def test_examples_of_one_document_meet_in_a_step_and_share_a_row() -> None:
    data = examples([20] * 12, [0, 1, 2] * 4, [0] * 12)
    section = TuneSettings(epochs=1, examples_per_step=4)
    schedule = schedule_of(data, section)
    for step in range(schedule.num_steps):
        (batch,) = schedule.passes(step, World(), 1000)
        assert len({name.split(" under ")[0] for name in batch.names}) == 1
        assert batch.num_tokens == 19 + 4
    apart = schedule_of(data, section.model_copy(update={"document_once": False}))
    assert sum(b.num_tokens for s in range(3) for b in apart.passes(s, World(), 1000)) == 12 * 20


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 4))
def test_documents_are_brought_together_and_visits_of_one_example_are_not(
    visits: list[int], num_documents: int
) -> None:
    order = np.array(visits, dtype=np.int64)
    documents = np.arange(10) % num_documents
    found = _documents_together(order, documents).tolist()
    assert Counter(found) == Counter(visits)
    seen: Counter[int] = Counter()
    runs: list[tuple[int, int]] = []
    for example in found:
        run = (int(documents[example]), seen[example])
        seen[example] += 1
        if run not in runs[-1:]:
            runs.append(run)
    assert len(set(runs)) == len(runs)  # each document's n-th visits are in one piece
    assert list(dict.fromkeys(found)) == sorted(
        dict.fromkeys(visits), key=lambda e: visits.index(firsts(visits, documents, e))
    )


def firsts(visits: list[int], documents: NDArray[np.int64], example: int) -> int:
    """The first visited example of the document of ``example``."""
    return next(other for other in visits if documents[other] == documents[example])


@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=4), max_size=20),
    st.integers(1, 6),
)
def test_groups_are_shared_out_whole_and_evenly(groups: list[list[int]], size: int) -> None:
    items = iter(range(sum(map(len, groups))))
    numbered = [[next(items) for _ in group] for group in groups]
    lengths = np.array([n for group in groups for n in group], dtype=np.int64)
    parts = shared_out(numbered, lengths, size)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    for group in numbered:
        assert sum(set(group) <= set(part) for part in parts) == 1
    loads = [int(lengths[part].sum()) for part in parts]
    largest = max((int(lengths[group].sum()) for group in numbered), default=0)
    assert max(loads) - min(loads) <= largest


def test_rows_of_different_lengths_make_a_pass_whose_padding_is_nobodys_target() -> None:
    samples = [
        {"tokens": np.arange(1, 8), "lengths": np.array([4, 3])},
        {"tokens": np.arange(11, 14), "lengths": np.array([3])},
    ]
    batch = adapt_batch(samples, 0.5, pad_token_id=0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7], [11, 12, 13, 0, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 0, 0, 0, 0]]
    assert batch.targets.tolist() == [
        [2, 3, 4, -100, 6, 7, -100],
        [12, 13, -100, -100, -100, -100, -100],
    ]
    assert batch.num_tokens == 10


class Rows(list):  # type: ignore[type-arg]
    """What a schedule needs of a reader."""

    folder = "adapt/train/xx"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 60),
    st.sampled_from([1.0, 2.5]),
)
def test_processes_adapt_on_the_rows_that_one_adapts_on(
    lengths: list[int], size: int, budget: int, epochs: float
) -> None:
    rows: list[ShardReader] = [
        Rows({"tokens": np.full(n, i), "lengths": np.array([n])} for i, n in enumerate(lengths))
    ]  # type: ignore[assignment]
    section = AdaptSettings(tokens=10**9, epochs=epochs, tokens_per_step=25)
    schedule = AdaptSchedule(rows, section, seed=5, pad_token_id=0)
    targets = tokens = 0
    for step in range(schedule.num_steps):
        passes = [list(schedule.passes(step, World(rank, size), budget)) for rank in range(size)]
        assert len({len(of_rank) for of_rank in passes}) == 1
        counted = [batch for of_rank in passes for batch in of_rank if batch.share]
        alone = list(schedule.passes(step, World(), budget))
        assert Counter(n for b in counted for n in b.names) == Counter(
            n for b in alone for n in b.names
        )
        step_targets = sum(int((batch.targets >= 0).sum()) for batch in counted)
        assert counted[0].share == pytest.approx(1 / max(1, step_targets))
        targets += step_targets
        tokens += sum(batch.num_tokens for batch in counted)
        assert all(torch.equal(b.input_ids >= 0, b.positions >= 0) for b in counted)
    if epochs == 1.0:
        assert tokens == sum(lengths)
        assert targets == sum(lengths) - len(lengths)
