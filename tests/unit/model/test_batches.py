from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slant.model.batches import pad_batch, token_budget_batches

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


def test_padding_goes_to_the_right_and_is_masked():
    input_ids, attention_mask = pad_batch([[1, 2, 3], [4], np.array([5, 6], np.int32)], 9)
    assert input_ids.tolist() == [[1, 2, 3], [4, 9, 9], [5, 6, 9]]
    assert attention_mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert str(input_ids.dtype) == str(attention_mask.dtype) == "torch.int64"
