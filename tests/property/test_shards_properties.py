"""Whatever is put in comes out again: samples through shards, examples through orders, tokens
through packing."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slant.errors import ShardError
from slant.shards.mds import decode_sample, encode_sample, parse_columns
from slant.shards.order import epoch_order, length_bucketed_steps
from slant.shards.pack import pack_documents, positions
from slant.shards.reader import ShardReader
from slant.shards.writer import ShardWriter

# Files are synced to the disk, which takes as long as the disk is busy.
UNHURRIED = settings(deadline=None)

SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(0, 5000))

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)
INTEGERS = {"int": 64, "int8": 8, "int16": 16, "int32": 32, "int64": 64}
DTYPES = ["uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32"]
DTYPES += ["uint64", "int64", "float64"]


def arrays(dtype: str, shape: Any = SHAPES) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.dtype(dtype), shape)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bytes": st.binary(max_size=40),
    "str": TEXT,
    "json": JSON,
    "float32": st.floats(width=32),
    "float64": st.floats(),
    **{
        name: st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for name, bits in INTEGERS.items()
    },
    **{f"ndarray:{name}": arrays(name) for name in DTYPES},
    "ndarray:int32:2,3": arrays("int32", (2, 3)),
    "ndarray": st.sampled_from(DTYPES).flatmap(arrays),
}


@st.composite
def tables(draw: st.DrawFn, max_samples: int) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Columns with any names and encodings, and samples that fit them."""
    encodings = st.sampled_from(sorted(VALUES))
    columns = draw(st.dictionaries(TEXT.filter(bool), encodings, min_size=1, max_size=4))
    row = st.fixed_dictionaries({name: VALUES[encoding] for name, encoding in columns.items()})
    return columns, draw(st.lists(row, max_size=max_samples))


def assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert actual[name].dtype == value.dtype
            np.testing.assert_array_equal(actual[name], value)  # NaN equals NaN here
        elif isinstance(value, float):
            np.testing.assert_equal(actual[name], value)
        else:
            assert actual[name] == value


@UNHURRIED
@given(tables(max_samples=1))
def test_any_sample_survives_encoding(table: Any) -> None:
    columns, samples = table
    parsed = parse_columns(columns)
    for sample in samples:
        assert_same(decode_sample(parsed, encode_sample(parsed, sample)), sample)


@UNHURRIED
@given(
    table=tables(max_samples=12),
    size_limit_bytes=st.sampled_from([1, 300, 400, 600, 2000, 2**26]),
    compression=st.sampled_from([None, "zstd", "zstd:1"]),
    hashes=st.sampled_from([(), ("xxh64",), ("sha1", "xxh64"), ("sha256", "md5")]),
    cache_bytes=st.sampled_from([0, 10**9]),
)
def test_any_samples_survive_shards_of_any_size(
    table: Any,
    size_limit_bytes: int,
    compression: str | None,
    hashes: tuple[str, ...],
    cache_bytes: int,
) -> None:
    columns, samples = table
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ShardWriter(
            folder,
            columns,
            compression=compression,
            size_limit_bytes=size_limit_bytes,
            hashes=hashes,
        ) as writer:
            for sample in samples:
                writer.write(sample)
        reader = ShardReader(folder, cache_bytes=cache_bytes)
        reader.verify()
        assert len(reader) == len(samples)
        for i in reversed(range(len(samples))):
            assert_same(reader[i], samples[i])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class _StoppedError(Exception):
    pass


@UNHURRIED
@given(
    sizes=st.lists(st.integers(0, 300), max_size=40),
    chunk=st.integers(1, 9),
    stops=st.lists(st.integers(0, 40), max_size=3),
    size_limit_bytes=st.sampled_from([1, 300, 700, 2**26]),
    compression=st.sampled_from([None, "zstd"]),
)
def test_a_writer_that_was_stopped_anywhere_goes_on_to_the_same_bytes(
    sizes: list[int], chunk: int, stops: list[int], size_limit_bytes: int, compression: str | None
) -> None:
    samples = [{"id": i, "noise": bytes([i]) * size} for i, size in enumerate(sizes)]

    def write(folder: Path, journal: Path | None, stop: int | None) -> None:
        """Mark every ``chunk`` samples, and begin again at the mark."""
        with ShardWriter(
            folder,
            {"id": "int", "noise": "bytes"},
            compression=compression,
            size_limit_bytes=size_limit_bytes,
            journal=journal,
        ) as writer:
            first = writer.resumed.note.get("next", 0) if writer.resumed else 0
            present = writer.num_samples - writer.resumed.num_samples if writer.resumed else 0
            assert first <= writer.num_samples == first + present
            for start in range(first, len(samples), chunk):
                for sample in samples[start : start + chunk][present:]:
                    if sample["id"] == stop:
                        raise _StoppedError
                    writer.write(sample)
                present = 0
                writer.mark({"next": min(start + chunk, len(samples))})

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root / "whole", None, None)
        for stop in stops:
            with suppress(_StoppedError, ShardError):  # it is complete: there was no such sample
                write(root / "stopped", root / "journal", stop)
        if not (root / "stopped" / "index.json").exists():
            write(root / "stopped", root / "journal", None)
        assert files(root / "stopped") == files(root / "whole")


@UNHURRIED
@given(num_samples=st.integers(0, 500), seed=SEEDS, epoch=SEEDS)
def test_an_order_is_a_permutation_and_depends_on_nothing_else(
    num_samples: int, seed: int, epoch: int
) -> None:
    order = epoch_order(num_samples, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(num_samples))
    assert order.tolist() == epoch_order(num_samples, seed, epoch).tolist()


@UNHURRIED
@given(
    lengths=LENGTHS,
    seed=SEEDS,
    epoch=st.integers(0, 100),
    examples_per_step=st.integers(1, 40),
    window_steps=st.integers(1, 20),
)
def test_steps_hold_every_example_once_and_only_the_last_is_shorter(
    lengths: Any, seed: int, epoch: int, examples_per_step: int, window_steps: int
) -> None:
    steps = length_bucketed_steps(lengths, seed, epoch, examples_per_step, window_steps)
    seen = [example for step in steps for example in step.tolist()]
    assert sorted(seen) == list(range(len(lengths)))
    assert all(len(step) == examples_per_step for step in steps[:-1])
    assert all(1 <= len(step) <= examples_per_step for step in steps[-1:])
    assert all(np.all(np.diff(lengths[step]) >= 0) for step in steps)


@UNHURRIED
@given(
    documents=st.lists(st.lists(st.integers(0, 9), max_size=50), max_size=60),
    sequence_tokens=st.integers(1, 40),
)
def test_packing_keeps_every_piece_whole_and_loses_no_token(
    documents: list[list[int]], sequence_tokens: int
) -> None:
    rows = list(pack_documents(documents, sequence_tokens))
    pieces: list[tuple[int, ...]] = []
    for row in rows:
        assert 1 <= len(row.tokens) <= sequence_tokens
        assert row.lengths.sum() == len(row.tokens)
        assert row.lengths.min() >= 1
        parts = np.split(row.tokens, np.cumsum(row.lengths)[:-1])
        pieces += [tuple(part.tolist()) for part in parts]
        expected = [place for length in row.lengths for place in range(length)]
        assert positions(row.lengths).tolist() == expected
    cut = [
        tuple(document[start : start + sequence_tokens])
        for document in documents
        for start in range(0, len(document), sequence_tokens)
    ]
    assert sorted(pieces) == sorted(cut)
    # No two rows could have been one: what is left over is less than half.
    fills = sorted(len(row.tokens) for row in rows)
    assert len(fills) < 2 or fills[0] + fills[1] > sequence_tokens
