from __future__ import annotations

import threading
import time

import pytest

from slant.score.ahead import made_ahead


def test_items_come_in_order_and_none_is_lost():
    assert list(made_ahead(range(1000))) == list(range(1000))
    assert list(made_ahead([])) == []


def test_an_item_may_be_none_or_an_error():
    error = ValueError("an item")
    assert list(made_ahead([None, error, None])) == [None, error, None]


def test_the_next_item_is_made_while_one_is_used():
    made = threading.Event()

    def items():
        yield 1
        made.set()
        yield 2

    reader = made_ahead(items())
    assert next(reader) == 1
    assert made.wait(5)
    assert list(reader) == [2]


def test_no_more_than_two_are_made_before_they_are_asked_for():
    made: list[int] = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    reader = made_ahead(items())
    assert next(reader) == 0
    time.sleep(0.3)
    assert len(made) <= 3
    reader.close()


def test_an_error_is_raised_after_the_items_before_it():
    def items():
        yield 1
        raise KeyError("broken")

    reader = made_ahead(items())
    assert next(reader) == 1
    with pytest.raises(KeyError, match="broken"):
        next(reader)


def test_the_thread_ends_when_the_reader_stops():
    before = threading.active_count()
    reader = made_ahead(iter(int, 1))
    assert next(reader) == 0
    reader.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before
