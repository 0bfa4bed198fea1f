"""In which order samples are visited: pure functions of (seed, epoch) and of lengths.

Nothing here knows of ranks, workers or progress. A trainer takes its share of the steps by their
number, so it can stop after any step, and resume on another number of devices, without replaying.

Randomness is the raw 64-bit output of NumPy's PCG64 (O'Neill 2014, https://www.pcg-random.org)
started from ``SeedSequence((seed, epoch))``, which hashes both numbers so that neighbouring seeds
and epochs are unrelated. Positions are ordered by those numbers. NumPy promises both streams for
good (NEP 19) but not those of ``Generator.permutation``, and an order that changed with an upgrade
would make a resumed run visit some samples twice and others never.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["epoch_order", "length_bucketed_steps", "mixed_order"]

_MAX_WORD = 2**32  # larger numbers are split into words, and (seed, epoch) would be ambiguous
_STREAM = 1  # third word of a stream's seed; not 0, which SeedSequence takes for no third word


def epoch_order(num_samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits ``num_samples`` samples.

    Args:
        num_samples: 0 or more.
        seed: 0 … 2³² − 1.
        epoch: 0 … 2³² − 1.

    Returns:
        int64 ``(num_samples,)``, a permutation of ``0 … num_samples - 1``, uniform among all.

    Raises:
        ValueError: an argument is out of range.
    """
    return _permutation(_bits(seed, epoch), num_samples)


def mixed_order(
    streams: npt.NDArray[np.integer], temperature: float, seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """The order of an epoch that mixes streams (languages) by temperature.

    An epoch has as many samples as there are. At temperature 1 it is ``epoch_order``. Above 1,
    stream s gives samples in proportion to n_s^(1/temperature), as in multilingual pre-training
    (Devlin et al. 2019, https://github.com/google-research/bert/blob/master/multilingual.md;
    Conneau et al. 2020): small streams give more than they have, and large ones fewer.

    Each stream has one permutation of its own, and an epoch goes on in it where the one before
    stopped, round and round. So over any run of epochs, one included, no sample of a stream is
    seen more than once more often than another of that stream.

    Args:
        streams: ``(num_samples,)``, the stream of each sample, 0 or more. A stream's permutation
            depends on its number and its size, not on other streams.
        temperature: 1 or more.
        seed: as in ``epoch_order``.
        epoch: as in ``epoch_order``.

    Returns:
        int64 ``(num_samples,)``, sample numbers, some more than once and some not at all. Every
        stream that has samples gives at least one.

    Raises:
        ValueError: an argument is out of range.
    """
    if not temperature >= 1:
        raise ValueError(f"temperature must be at least 1, got {temperature}")
    if temperature == 1:
        return epoch_order(len(streams), seed, epoch)
    sizes = np.bincount(streams)
    counts = _stream_counts(sizes, temperature)
    chosen = [np.zeros(0, np.int64)]
    for stream in np.flatnonzero(sizes).tolist():
        num_samples, count = int(sizes[stream]), int(counts[stream])
        order = _permutation(_bits(seed, stream, _STREAM), num_samples)
        places = (epoch * count % num_samples + np.arange(count)) % num_samples
        chosen.append(np.flatnonzero(streams == stream)[order[places]])
    together = np.concatenate(chosen).astype(np.int64, copy=False)
    return together[_permutation(_bits(seed, epoch), len(together))]


def _stream_counts(sizes: npt.NDArray[np.integer], temperature: float) -> npt.NDArray[np.int64]:
    """Samples that each stream gives, ``sum(sizes)`` in all: by largest remainder, at least one.

    Quotas are rounded, so that the last bit of a processor's power function decides nothing.
    """
    weights = np.where(sizes > 0, np.power(np.maximum(sizes, 1), 1 / temperature), 0.0)
    quotas = np.round(sizes.sum() * weights / max(weights.sum(), 1.0), 6)
    counts: npt.NDArray[np.int64] = np.maximum(np.floor(quotas), sizes > 0).astype(np.int64)
    missing = int(sizes.sum() - counts.sum())
    if missing > 0:
        counts[np.argsort(counts - quotas, kind="stable")[:missing]] += 1
    for _ in range(-missing):  # streams raised to one made too many
        counts[np.argmax(np.where(counts > 1, counts - quotas, -np.inf))] -= 1
    return counts


def length_bucketed_steps(
    lengths: npt.NDArray[np.integer],
    seed: int,
    epoch: int,
    examples_per_step: int,
    window_steps: int = 16,
    *,
    order: npt.NDArray[np.int64] | None = None,
) -> list[npt.NDArray[np.int64]]:
    """The examples of each step of an epoch, of like length within a step, in random order.

    The epoch's order is cut into windows of ``window_steps`` steps; each window is sorted by
    length and cut into steps; then the steps are shuffled. Sorting saves padding, windows keep the
    composition of a step random, and shuffling keeps length from rising through the epoch.

    Args:
        lengths: ``(num_examples,)``, in tokens.
        seed: as in ``epoch_order``.
        epoch: as in ``epoch_order``.
        examples_per_step: 1 or more.
        window_steps: steps in one window, 1 or more; 1 means no sorting across steps.
        order: the epoch's examples, e.g. of ``mixed_order``; without it ``epoch_order``, which
            gives the same steps whether it is passed or not.

    Returns:
        int64 arrays of example numbers, ascending in length, each example as often as it stands in
        ``order`` (exactly once where none is passed). All have
        ``examples_per_step`` examples except that the last one may be shorter; what it holds is
        drawn at random, not the longest of a window.

    Raises:
        ValueError: an argument is out of range.
    """
    if examples_per_step < 1 or window_steps < 1:
        raise ValueError(
            f"examples_per_step and window_steps must be at least 1, "
            f"got {examples_per_step} and {window_steps}"
        )
    bits = _bits(seed, epoch)
    own = _permutation(bits, len(lengths))
    order = own if order is None else order
    num_full = len(order) // examples_per_step * examples_per_step
    steps: list[npt.NDArray[np.int64]] = []
    for start in range(0, num_full, examples_per_step * window_steps):
        window = order[start : min(start + examples_per_step * window_steps, num_full)]
        steps.extend(_sorted_by_length(window, lengths).reshape(-1, examples_per_step))
    shuffled = [steps[i] for i in _permutation(bits, len(steps))]
    if num_full < len(order):
        shuffled.append(_sorted_by_length(order[num_full:], lengths))
    return shuffled


def _bits(seed: int, epoch: int, *purpose: int) -> np.random.PCG64:
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < _MAX_WORD:
            raise ValueError(f"{name} must be in 0 … 2**32 - 1, got {value}")
    return np.random.PCG64(np.random.SeedSequence((seed, epoch, *purpose)))


def _permutation(bits: np.random.PCG64, size: int) -> npt.NDArray[np.int64]:
    """Sort positions by random keys; equal keys (one in 2⁶⁴ pairs) keep their order."""
    if size < 0:
        raise ValueError(f"num_samples must not be negative, got {size}")
    keys = np.asarray(bits.random_raw(size), dtype=np.uint64)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def _sorted_by_length(
    examples: npt.NDArray[np.int64], lengths: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    sizes = np.asarray(lengths)[examples]
    return examples[np.argsort(sizes, kind="stable")]
