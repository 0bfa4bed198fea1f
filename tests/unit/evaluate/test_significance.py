from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from slant.evaluate.significance import holm, mcnemar_exact, paired_p_value


@pytest.mark.parametrize("only_first", range(0, 31, 3))
@pytest.mark.parametrize("only_second", [0, 1, 2, 5, 11, 30])
def test_mcnemars_exact_test_is_a_binomial_test_of_the_examples_that_differ(
    only_first: int, only_second: int
) -> None:
    expected = 1.0
    if only_first + only_second:
        expected = binomtest(only_first, only_first + only_second).pvalue
    assert mcnemar_exact(only_first, only_second) == pytest.approx(expected)


def test_ten_to_nothing_is_worked_out_by_hand() -> None:
    assert mcnemar_exact(10, 0) == mcnemar_exact(0, 10) == pytest.approx(2 / 2**10)


def test_systems_that_are_right_on_the_same_examples_do_not_differ() -> None:
    assert mcnemar_exact(0, 0) == 1


def plain_holm(p_values: list[float]) -> list[float]:
    """Step down: the smallest times their number, the next times one less, never falling."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted: dict[int, float] = {}
    for rank, place in enumerate(order):
        before = adjusted[order[rank - 1]] if rank else 0.0
        adjusted[place] = max(before, min(1.0, p_values[place] * (len(p_values) - rank)))
    return [adjusted[i] for i in range(len(p_values))]


def test_p_values_adjusted_by_hand() -> None:
    # As statsmodels' multipletests(method="holm") has it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_adjusted_p_values_are_those_of_a_plain_loop(p_values: list[float]) -> None:
    found = holm(p_values)
    assert found == pytest.approx(plain_holm(p_values))
    assert all(p <= adjusted <= 1 for p, adjusted in zip(p_values, found, strict=True))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.2))
def test_what_is_rejected_is_what_holms_procedure_rejects(
    p_values: list[float], level: float
) -> None:
    rejected = 0
    for rank, p in enumerate(sorted(p_values)):
        if p > level / (len(p_values) - rank):
            break
        rejected += 1
    found = sum(adjusted <= level for adjusted in holm(p_values))
    # On the border itself a rounding error may decide.
    near = any(
        abs(p * (len(p_values) - rank) - level) < 1e-9 for rank, p in enumerate(sorted(p_values))
    )
    assert found == rejected or near


def test_holm_keeps_a_family_of_tests_from_erring() -> None:
    """Twenty true null hypotheses: one in twenty families errs, not two in three."""
    families = np.random.default_rng(0).random((2000, 20))
    plain = (families.min(axis=1) <= 0.05).mean()
    adjusted = np.mean([min(holm(family.tolist())) <= 0.05 for family in families])
    assert plain > 0.6
    assert adjusted < 0.065


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_a_p_value_lies_between_its_least_and_one_and_does_not_take_sides(
    values: list[float],
) -> None:
    differences = np.array(values)
    p_value = paired_p_value(differences)
    assert 2 / (len(values) + 1) <= p_value + 1e-12
    assert p_value <= 1
    assert paired_p_value(-differences) == p_value


def test_p_values_of_resamples_worked_out_by_hand() -> None:
    assert paired_p_value(np.full(99, 0.1)) == pytest.approx(2 / 100)
    assert paired_p_value(np.zeros(99)) == 1
    sides = np.concatenate([np.full(95, 0.1), np.full(4, -0.1)])
    assert paired_p_value(sides) == pytest.approx(2 * 5 / 100)
    # Resamples without a difference speak for neither side.
    assert paired_p_value(np.concatenate([np.full(95, 0.1), np.zeros(4)])) == pytest.approx(0.1)
