from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slant.model.batches import PromptBatch, make_batches, token_budget_batches

LENGTHS = st.lists(st.integers(0, 2000), max_size=80)


@given(lengths=LENGTHS, tokens_per_batch=st.integers(1, 20_000))
def test_batches_hold_every_position_once_and_keep_to_the_budget(lengths, tokens_per_batch):
    batches = token_budget_batches(lengths, tokens_per_batch)
    order = [position for batch in batches for position in batch]
    assert sorted(order) == list(range(len(lengths)))
    sizes = [lengths[position] for position in order]
    assert sizes == sorted(sizes, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= tokens_per_batch
    for batch in batches[:-1]:
        # None ends early: one more would have been too much.
        assert lengths[batch[0]] * (len(batch) + 1) > tokens_per_batch


@given(lengths=LENGTHS)
def test_equal_lengths_stay_in_the_order_given(lengths):
    for batch in token_budget_batches(lengths, 1000):
        for a, b in pairwise(batch):
            assert lengths[a] > lengths[b] or a < b


def test_a_sequence_over_the_budget_is_a_batch_of_its_own():
    assert token_budget_batches([5, 100, 7, 7, 30, 0, 1], 60) == [[1], [4, 2], [3, 0, 6, 5]]


def test_no_sequences_make_no_batches():
    assert token_budget_batches([], 10) == []


def test_small_unsigned_lengths_do_not_wrap():
    lengths = np.full(600, 200, dtype=np.uint8)
    batches = token_budget_batches(lengths, 1000)
    assert [len(batch) for batch in batches] == [5] * 120


def prompt(shared: int, own: int, name: int) -> list[int]:
    """``shared`` ids that all prompts begin with, then ``own`` ids of its own."""
    return [1] * shared + [name + 2] * own


def only(prompts, groups=None, tokens_per_batch=10**6) -> PromptBatch:
    (batch,) = make_batches(prompts, tokens_per_batch, 0, groups=groups)
    return batch


def test_a_shared_row_holds_the_beginning_once_and_then_the_rest_of_each_prompt():
    batch = only([[5, 6, 7, 9], [5, 6, 7, 8, 8], [3]], groups=["a", "a", "b"])
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 8, 9], [3, 0, 0, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 3], [0, 0, 0, 0, 0, 0]]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 2], [1, -1, -1, -1, -1, -1]]
    assert batch.members == (1, 0, 2)
    assert (batch.rows.tolist(), batch.columns.tolist()) == ([0, 0, 1], [4, 5, 0])
    assert batch.num_tokens == 7
    assert batch.input_ids.dtype == batch.rows.dtype == batch.columns.dtype == torch.int64


def test_a_batch_of_prompts_alone_has_no_positions_and_no_segments():
    batch = only([[4], np.array([1, 2, 3], np.int32), (5, 6)])
    assert batch.input_ids.tolist() == [[1, 2, 3], [5, 6, 0], [4, 0, 0]]
    assert batch.positions is None
    assert batch.segments is None
    assert (batch.members, batch.rows.tolist()) == ((1, 2, 0), [0, 1, 2])
    assert batch.columns.tolist() == [2, 1, 0]
    assert batch.num_tokens == 6


def test_a_prompt_that_is_the_beginning_of_another_or_the_same_keeps_a_token_of_its_own():
    batch = only([[7, 8], [7, 8], [7, 8, 9]], groups=[0, 0, 0])
    assert batch.input_ids.tolist() == [[7, 8, 8, 8, 9]]
    assert batch.segments.tolist() == [[0, 1, 2, 3, 3]]
    assert only([[4], [4]], groups=[0, 0]).input_ids.tolist() == [[4], [4]]


def test_prompts_of_different_documents_never_share():
    assert only([prompt(50, 3, 0), prompt(50, 3, 1)], groups=[0, 1]).segments is None
    assert only([prompt(50, 3, 0), prompt(50, 3, 1)]).segments is None


def test_prompts_of_one_document_that_begin_otherwise_do_not_share():
    assert only([[1, 2, 3], [4, 2, 3]], groups=[0, 0]).segments is None


def test_one_prompt_that_begins_otherwise_does_not_keep_the_rest_from_sharing():
    prompts = [prompt(50, 3, 0), [9] * 53, prompt(50, 3, 1), prompt(50, 3, 2)]
    batch = only(prompts, groups=[0] * 4)
    assert batch.input_ids.shape == (2, 59)
    assert batch.rows.tolist() == [0, 0, 0, 1]


def test_a_row_over_the_budget_is_divided():
    prompts = [prompt(40, 10, name) for name in range(20)]
    batches = list(make_batches(prompts, 100, 0, groups=[0] * 20))
    assert [batch.input_ids.shape for batch in batches] == [(1, 100)] * 3 + [(1, 60)]
    assert sorted(i for batch in batches for i in batch.members) == list(range(20))


def test_rows_of_little_shared_and_much_else_are_divided():
    short = [prompt(30, 15, name) for name in range(200)]
    widths = [batch.input_ids.shape[1] for batch in make_batches(short, 900, 0, groups=[0] * 200)]
    assert max(widths) == 30 + 50 * 15
    long = [prompt(600, 15, name) for name in range(200)]
    assert only(long, groups=[0] * 200).input_ids.shape == (1, 600 + 200 * 15)


def test_a_batch_goes_to_a_device_as_a_whole():
    shared = only([prompt(50, 3, 0), prompt(50, 3, 1)], groups=[0, 0]).to("meta")
    assert {
        tensor.device.type
        for tensor in (
            shared.input_ids,
            shared.positions,
            shared.segments,
            shared.rows,
            shared.columns,
        )
    } == {"meta"}
    assert shared.members == (0, 1)
    assert only([[1]]).to("meta").segments is None


def test_no_prompts_and_no_groups_make_no_batches():
    assert list(make_batches([], 10, 0)) == []
    assert list(make_batches([], 10, 0, groups=[])) == []


def test_every_prompt_needs_a_group():
    with pytest.raises(ValueError, match="zip"):
        list(make_batches([[1], [2]], 10, 0, groups=[0]))
