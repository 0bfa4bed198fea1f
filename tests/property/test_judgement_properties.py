"""What holds of every set of judgements."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slant.ingest.judgements import adjudicate, agreement, krippendorff_alpha
from slant.labels import LabelSet

LABELS = LabelSet(("negative", "neutral", "positive"))
JUDGEMENTS = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(LABELS.names)))
RULES = st.sampled_from(["majority", "unanimous"])
UNITS = st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=8)


@given(JUDGEMENTS.flatmap(lambda all_: st.tuples(st.just(all_), st.permutations(all_))), RULES)
def test_the_order_of_judgements_has_no_influence(orders, rule):
    first, other = (adjudicate(one, labels=LABELS, rule=rule, min_annotators=2) for one in orders)
    assert first == other
    assert agreement([("en", orders[0])], LABELS) == agreement([("en", orders[1])], LABELS)


@given(JUDGEMENTS, RULES, st.integers(1, 4))
def test_there_is_a_label_or_a_problem_and_the_label_has_the_largest_share(judgements, rule, least):
    found = adjudicate(judgements, labels=LABELS, rule=rule, min_annotators=least)
    assert (found.label is None) != (found.problem is None)
    assert found.num_judgements == len({annotator for annotator, _ in judgements})
    assert sum(found.shares) == pytest.approx(1 if judgements else 0)
    if found.label is not None:
        own = found.shares[LABELS.index(found.label)]
        assert [share for share in found.shares if share >= own] == [own]
        assert rule == "majority" or own == 1
        assert found.num_judgements >= least


@given(JUDGEMENTS, RULES)
def test_saying_it_again_changes_nothing(judgements, rule):
    once = adjudicate(judgements, labels=LABELS, rule=rule, min_annotators=1)
    assert once == adjudicate(judgements * 2, labels=LABELS, rule=rule, min_annotators=1)


def alpha_by_pairs(units, metric):
    """Alpha from its definition, pair by pair, in exact arithmetic."""
    units = [unit for unit in units if len(unit) >= 2]
    values = [value for unit in units for value in unit]
    num = {value: values.count(value) for value in range(4)}

    def distance(a, b):
        if metric == "nominal":
            return Fraction(int(a != b))
        low, high = sorted((a, b))
        between = sum(num[value] for value in range(low, high + 1))
        return (between - Fraction(num[a] + num[b], 2)) ** 2

    expected = sum(distance(a, b) for a, b in product(values, values))
    if not expected:
        return None
    observed = sum(
        distance(a, b) / (len(unit) - 1) for unit in units for a, b in permutations(unit, 2)
    )
    return float(1 - (observed / len(values)) / (expected / (len(values) * (len(values) - 1))))


@given(UNITS, st.sampled_from(["nominal", "ordinal"]))
def test_alpha_equals_its_definition_pair_by_pair(units, metric):
    expected = alpha_by_pairs(units, metric)
    found = krippendorff_alpha(units, 4, metric=metric)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-9))
