import os
import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slant.shards.order import epoch_order, length_bucketed_steps, mixed_order

STREAMS = np.repeat([0, 1, 2], [900, 90, 10])


def counts(temperature: float, epoch: int = 0, streams=STREAMS):
    order = mixed_order(streams, temperature, seed=17, epoch=epoch)
    return np.bincount(streams[order], minlength=3).tolist()


def test_at_temperature_one_it_is_the_plain_order_of_the_epoch():
    for epoch in range(3):
        mixed = mixed_order(STREAMS, 1.0, seed=17, epoch=epoch)
        assert mixed.tolist() == epoch_order(1000, 17, epoch).tolist()


def test_the_order_is_pinned_because_a_resumed_run_relies_on_it():
    streams = np.array([0, 1, 0, 0, 1, 0, 0, 0])
    orders = [mixed_order(streams, 2.0, 17, epoch).tolist() for epoch in range(2)]
    assert orders == [[0, 3, 7, 4, 1, 5, 4, 2], [2, 1, 7, 1, 6, 4, 0, 5]]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    # 1000 · n^(1/T) / Σ n^(1/T): for T = 2, 30 + 9.49 + 3.16 = 42.65 → 703.41, 222.44, 74.15.
    [(1.0, [900, 90, 10]), (2.0, [703, 223, 74]), (1e9, [334, 333, 333])],
)
def test_streams_give_by_their_size_to_the_power_of_one_over_temperature(temperature, expected):
    assert counts(temperature) == expected
    assert counts(temperature, epoch=5) == expected


def test_every_stream_gives_one_however_small_it_is():
    streams = np.repeat(np.arange(41), [100_000, *[1] * 40])
    found = np.bincount(streams[mixed_order(streams, 1.001, 1, 0)])
    assert found.min() == 1
    assert found.sum() == len(streams)


def test_a_small_stream_is_cycled_evenly_and_a_large_one_is_covered_over_several_epochs():
    seen = np.zeros(1000, dtype=int)
    for epoch in range(4):
        of_epoch = np.bincount(mixed_order(STREAMS, 2.0, 17, epoch), minlength=1000)
        seen += of_epoch
        assert set(of_epoch[STREAMS == 2]) == {7, 8}  # 74 draws of 10 samples
        assert set(of_epoch[STREAMS == 0]) == {0, 1}  # 703 of 900, none twice
        for stream in range(3):
            assert np.ptp(seen[stream == STREAMS]) <= 1
    assert seen.min() >= 3


def test_streams_are_mixed_through_the_whole_epoch():
    order = STREAMS[mixed_order(STREAMS, 2.0, 17, 0)]
    for part in np.split(order, 10):
        assert 50 < np.count_nonzero(part == 0) < 90
        assert np.count_nonzero(part == 2) > 0


def test_neighbouring_epochs_are_unrelated():
    first, second = (mixed_order(STREAMS, 3.0, 17, epoch) for epoch in (0, 1))
    assert np.mean(first == second) < 0.05


def test_another_process_computes_the_same_order():
    script = (
        "import numpy as np; from slant.shards.order import mixed_order; "
        "print(mixed_order(np.repeat([0, 1, 2], [900, 90, 10]), 3.3, 5, 7).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == str(mixed_order(STREAMS, 3.3, 5, 7).tolist())


def test_no_samples_and_one_stream_have_an_order_too():
    assert mixed_order(np.zeros(0, np.int64), 5.0, 0, 0).tolist() == []
    assert sorted(mixed_order(np.zeros(9, np.int64), 5.0, 0, 3).tolist()) == list(range(9))


@pytest.mark.parametrize("temperature", [0.5, 0.0, -1.0, float("nan")])
def test_a_temperature_below_one_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be at least 1"):
        mixed_order(STREAMS, temperature, 0, 0)


def test_steps_of_a_given_order_hold_each_example_as_often_as_the_order_has_it():
    order = mixed_order(STREAMS, 2.0, 17, 3)
    steps = length_bucketed_steps(np.arange(1000), 17, 3, 32, order=order)
    assert sorted(np.concatenate(steps).tolist()) == sorted(order.tolist())
    assert all(np.all(np.diff(step) >= 0) for step in steps)


def test_steps_of_the_plain_order_are_the_same_whether_it_is_passed_or_not():
    lengths = np.arange(103) % 17
    plain = length_bucketed_steps(lengths, 5, 2, 8)
    passed = length_bucketed_steps(lengths, 5, 2, 8, order=epoch_order(103, 5, 2))
    assert [step.tolist() for step in plain] == [step.tolist() for step in passed]


SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=6)


@given(SIZES, st.floats(1, 1e6), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 40))
def test_over_any_run_of_epochs_no_sample_of_a_stream_is_seen_twice_more_than_another(
    sizes, temperature, seed, first
):
    streams = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    seen = np.zeros(len(streams), dtype=int)
    for epoch in range(first, first + 4):
        order = mixed_order(streams, temperature, seed, epoch)
        assert order.dtype == np.int64
        assert len(order) == len(streams)
        assert order.tolist() == mixed_order(streams, temperature, seed, epoch).tolist()
        seen += np.bincount(order, minlength=len(streams))
        for stream in np.unique(streams):
            of_stream = seen[streams == stream]
            assert of_stream.max() >= 1
            assert np.ptp(of_stream) <= 1


@given(SIZES, st.floats(1, 20), st.floats(0, 20))
def test_a_larger_stream_gives_no_fewer_and_at_a_higher_temperature_no_more(
    sizes, temperature, more
):
    streams = np.repeat(np.arange(len(sizes)), sizes)
    if not len(streams):
        return
    lower, higher = (
        np.bincount(streams[mixed_order(streams, one, 0, 0)], minlength=len(sizes))
        for one in (temperature, temperature + more)
    )
    largest = int(np.argmax(sizes))
    assert higher[largest] <= lower[largest] + 1  # 1: what is left by rounding
    for one, other in permutations(range(len(sizes)), 2):
        assert sizes[one] <= sizes[other] or lower[one] >= lower[other]
