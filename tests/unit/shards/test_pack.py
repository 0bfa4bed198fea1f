import tracemalloc

import numpy as np
import pytest

from slant.shards.pack import pack_documents, positions


def rows_of(documents, sequence_tokens):
    return [
        (row.tokens.tolist(), row.lengths.tolist())
        for row in pack_documents(documents, sequence_tokens)
    ]


def test_the_longest_piece_that_fits_comes_next():
    documents = [[1] * 2, [2] * 5, [3] * 3, [4] * 6, [5] * 2]
    assert rows_of(documents, 8) == [
        ([4] * 6 + [1] * 2, [6, 2]),
        ([2] * 5 + [3] * 3, [5, 3]),
        ([5] * 2, [2]),
    ]


def test_a_document_longer_than_a_row_is_cut_into_rows():
    assert rows_of([range(10)], 4) == [
        ([0, 1, 2, 3], [4]),
        ([4, 5, 6, 7], [4]),
        ([8, 9], [2]),
    ]


def test_empty_documents_vanish():
    assert rows_of([[], [1], []], 4) == [([1], [1])]
    assert rows_of([], 4) == []


def test_rows_are_int32_without_padding():
    (row,) = pack_documents([np.array([1, 2**31 - 1], np.int64)], 16)
    assert row.tokens.dtype == np.int32
    assert row.lengths.dtype == np.int32
    assert row.tokens.tolist() == [1, 2**31 - 1]


def test_rows_are_nearly_full():
    rng = np.random.default_rng(0)
    documents = [np.zeros(int(n), np.int32) for n in rng.lognormal(5.5, 1.0, 5000)]
    rows = list(pack_documents(documents, 2048))
    assert np.mean([len(row.tokens) for row in rows[:-1]]) / 2048 > 0.995


def test_short_posts_fill_long_rows_although_a_buffer_of_them_would_not():
    rows = list(pack_documents([[1, 2, 3]] * 20_000, 4096))
    assert all(len(row.tokens) >= 4094 for row in rows[:-1])


def test_documents_are_read_as_they_are_needed():
    num_read = 0

    def documents():
        nonlocal num_read
        for _ in range(10_000):
            num_read += 1
            yield [1] * 100

    next(pack_documents(documents(), 100))
    assert num_read <= 513


def test_memory_stays_flat_however_many_documents_there_are():
    def peak_bytes(num_documents):
        tracemalloc.start()
        for _ in pack_documents((np.ones(1050, np.int32) for _ in range(num_documents)), 210):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(2000) < 1.2 * peak_bytes(500)


@pytest.mark.parametrize(
    "document", [[0.5], ["a"], [[1, 2]], [-1], [2**31], [2**70], np.array([2**40]), 7]
)
def test_what_is_no_list_of_token_ids_is_refused_by_number(document):
    with pytest.raises(ValueError, match="document 1"):
        list(pack_documents([[1], document], 8))


def test_a_row_needs_room():
    with pytest.raises(ValueError, match="sequence_tokens must be at least 1"):
        pack_documents([[1]], 0)


def test_positions_restart_with_every_piece():
    found = positions(np.array([3, 1, 2], np.int32))
    assert found.tolist() == [0, 1, 2, 0, 0, 1]
    assert found.dtype == np.int64
    assert positions(np.zeros(0, np.int32)).tolist() == []
