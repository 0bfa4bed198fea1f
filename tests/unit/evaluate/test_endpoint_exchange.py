"""Pauses between requests."""

from __future__ import annotations

import random

import pytest

from slant.evaluate.endpoint.ask import Pauses
from slant.score.http import retry_after_s


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((None, None), ("7", 7.0), ("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("", None)),
        *(("soon", None), ("nan", None), ("inf", None)),
        ("Sat, 28 Nov 2026 07:00:30 GMT", 30.0),
        ("Saturday, 28-Nov-26 07:00:30 GMT", 30.0),
        ("Sat, 28 Nov 2026 06:00:00 GMT", 0.0),
        ("Sat, 28 Nov 99999999999 06:00:00 GMT", None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(
    value: str | None, expected: float | None
) -> None:
    assert retry_after_s(value, "Sat, 28 Nov 2026 07:00:00 GMT") == expected


def test_without_a_date_of_the_answer_the_clock_of_this_machine_counts() -> None:
    assert retry_after_s("Fri, 01 Jan 2100 00:00:00 GMT", "broken") > 1e9
    assert retry_after_s("Sat, 01 Jan 2000 00:00:00 GMT") == 0.0


def test_pauses_grow_are_bounded_and_differ() -> None:
    pauses = Pauses(first_s=1.0, longest_s=30.0, longest_asked_s=600.0)
    assert [pauses.pause_s(n, None, 0.0) for n in (1, 2, 3, 9, 5000)] == [1, 2, 4, 30, 30]
    rng = random.Random(1)
    drawn = [pauses.pause_s(3, None, rng.random()) for _ in range(100)]
    assert 2.0 <= min(drawn) < max(drawn) <= 4.0
    assert pauses.pause_s(1, 17.0, 0.9) == 17.0
    assert pauses.pause_s(1, 86400.0, 0.0) == 600.0
