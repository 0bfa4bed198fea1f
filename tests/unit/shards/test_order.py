import os
import subprocess
import sys

import numpy as np
import pytest

from slant.shards.order import epoch_order, length_bucketed_steps


def test_the_order_is_pinned_because_a_resumed_run_relies_on_it():
    assert epoch_order(10, seed=17, epoch=0).tolist() == [9, 1, 4, 3, 5, 6, 2, 7, 8, 0]
    assert epoch_order(10, seed=17, epoch=1).tolist() == [9, 1, 8, 5, 4, 7, 0, 6, 2, 3]
    assert epoch_order(10, seed=18, epoch=0).tolist() == [3, 9, 2, 0, 8, 5, 7, 6, 1, 4]
    steps = length_bucketed_steps(np.arange(10), 17, 0, examples_per_step=2, window_steps=2)
    assert [step.tolist() for step in steps] == [[2, 5], [1, 3], [4, 9], [0, 8], [6, 7]]


def test_another_process_computes_the_same_order():
    script = "from slant.shards.order import epoch_order; print(epoch_order(1000, 3, 4).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == str(epoch_order(1000, 3, 4).tolist())


def test_neighbouring_seeds_and_epochs_are_unrelated():
    orders = [epoch_order(2000, seed, epoch) for seed in range(4) for epoch in range(4)]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert np.mean(a == b) < 0.01
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_every_permutation_is_equally_likely():
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(6000):
        order = tuple(epoch_order(3, 0, epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi_square < 20.5  # 5 degrees of freedom, p = 0.001


def test_no_samples_have_an_order_too():
    assert epoch_order(0, 0, 0).tolist() == []
    assert epoch_order(0, 0, 0).dtype == np.int64
    assert length_bucketed_steps(np.zeros(0, np.int64), 0, 0, 4) == []


@pytest.mark.parametrize("arguments", [(-1, 0, 0), (1, -1, 0), (1, 0, -1), (1, 2**32, 0)])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="must"):
        epoch_order(*arguments)


def test_only_the_last_step_may_be_shorter_and_it_is_not_the_longest_examples():
    lengths = np.arange(103)
    last_steps = [length_bucketed_steps(lengths, 0, epoch, 10)[-1] for epoch in range(200)]
    assert {len(step) for step in last_steps} == {3}
    assert 40 < np.mean(np.concatenate(last_steps)) < 62  # 51 if drawn at random, 101 if not


def test_examples_of_a_step_are_of_like_length_and_steps_are_not_in_order_of_length():
    lengths = np.random.default_rng(0).integers(1, 1000, 1600)
    steps = length_bucketed_steps(lengths, 0, 0, examples_per_step=10, window_steps=16)
    spreads = [np.ptp(lengths[step]) for step in steps]
    assert np.mean(spreads) < 100  # of 1000; about 820 without sorting
    means = np.array([lengths[step].mean() for step in steps])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_a_window_of_one_step_keeps_the_plain_order_of_the_epoch():
    steps = length_bucketed_steps(np.ones(12, np.int64), 5, 2, 4, window_steps=1)
    order = epoch_order(12, 5, 2)
    plain = {tuple(order[start : start + 4].tolist()) for start in (0, 4, 8)}
    assert {tuple(step.tolist()) for step in steps} == plain


@pytest.mark.parametrize("sizes", [(0, 16), (4, 0)])
def test_steps_and_windows_need_a_size(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        length_bucketed_steps(np.ones(3, np.int64), 0, 0, *sizes)
