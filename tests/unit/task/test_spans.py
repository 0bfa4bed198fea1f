from __future__ import annotations

from itertools import pairwise

from slant.task.spans import TokenStarts, cut_windows, trim_spans


def starts(text: str) -> TokenStarts:
    """A token for each character."""
    return TokenStarts([(i, i + 1) for i in range(len(text))], len(text))


def test_windows_are_of_one_size_and_overlap_by_about_a_quarter():
    for length in range(1, 300):
        windows = cut_windows(starts("x" * length), 40)
        assert windows[0][0] == 0
        assert windows[-1][1] == length
        assert len({end - start for start, end in windows}) == 1
        for (start, end), (next_start, next_end) in pairwise(windows):
            assert start < next_start <= end < next_end
            assert end - next_start >= 10


def test_windows_of_a_text_whose_characters_are_of_many_tokens_hold_whole_characters():
    tokens = TokenStarts([(i // 4, i // 4 + 1) for i in range(400)], 100)
    windows = cut_windows(tokens, 9)
    assert {place for start, end in windows for place in range(start, end)} == set(range(100))
    assert len(set(windows)) == len(windows)


def test_tokens_are_counted_where_they_begin():
    tokens = TokenStarts([(0, 2), (2, 3), (2, 3), (3, 6)], 6)
    assert len(tokens) == 4
    assert tokens.within([(0, 2), (2, 3), (3, 6), (0, 6)]) == [1, 2, 1, 4]
    assert tokens.within([]) == []
    assert [tokens.place(token) for token in (0, 2, 3, 4)] == [0, 2, 3, 6]


def test_spans_that_are_white_space_or_say_nothing_new_are_left_out():
    text = "abc     def"
    assert trim_spans(text, [(0, 4), (3, 7), (6, 11)]) == [(0, 3), (8, 11)]
    assert trim_spans(text, [(0, 5), (1, 7), (2, 11)]) == [(0, 3), (2, 11)]
    assert trim_spans("  ab", [(0, 3), (1, 4)]) == [(2, 4)]
