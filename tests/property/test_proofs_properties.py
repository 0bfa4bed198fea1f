"""Tests of a promise where documents have several answers, which may be wrong together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from slant.evaluate.proofs import Answered, make_test
from slant.evaluate.selective import find_threshold

ALPHA, DELTA = 0.1, 0.1
NOTHING = Answered(np.empty(0), np.empty(0, bool), np.empty(0, np.int64))


@st.composite
def documents(draw: st.DrawFn) -> tuple[Answered, int]:
    """Documents of one to ``most`` answers, some of them wrong together."""
    most, num = draw(st.tuples(st.integers(2, 6), st.integers(1, 80)))
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    document = np.repeat(np.arange(num), random.integers(1, most + 1, num))
    share = draw(st.sampled_from([0.0, 0.03, 0.3, 1.0]))
    right = random.random(num)[document] >= share
    if draw(st.booleans()):
        right = random.random(len(document)) >= share
    return Answered(random.random(len(document)), right, document), most


@settings(max_examples=40, deadline=None)
@given(documents(), documents(), st.sampled_from([0.02, 0.1, 0.5]))
def test_a_p_value_is_a_probability_and_more_mistakes_never_lower_it(
    scout: tuple[Answered, int], proof: tuple[Answered, int], max_error: float
) -> None:
    answered, most = proof
    thresholds = [0.9, 0.5, 0.0]

    def p_values(proof: Answered) -> np.ndarray:
        test = make_test(scout[0], proof, most=most, max_error=max_error, confidence=0.95)
        return test.p_values(thresholds)

    found = p_values(answered)
    assert ((found > 0) & (found <= 1)).all()
    lost = Answered(answered.confidence_N, np.zeros(len(answered), bool), answered.document_N)
    assert (p_values(lost) >= found - 1e-9).all()
    assert (p_values(lost) > 0.05).all()


@settings(max_examples=25, deadline=None)
@given(documents(), st.integers(0, 2**31))
def test_the_order_of_the_answers_decides_nothing(given: tuple[Answered, int], seed: int) -> None:
    answered, most = given
    order = np.random.default_rng(seed).permutation(len(answered))
    shuffled = Answered(
        answered.confidence_N[order], answered.right_N[order], answered.document_N[order]
    )
    found = [
        make_test(NOTHING, one, most=most, max_error=0.1, confidence=0.95).p_values([0.5, 0.0])
        for one in (answered, shuffled)
    ]
    assert found[0] == pytest.approx(found[1])


def test_a_document_with_more_answers_than_the_bound_is_refused() -> None:
    three = Answered(np.ones(3), np.ones(3, bool), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="3 answers, more than 2"):
        make_test(NOTHING, three, most=2, max_error=0.1, confidence=0.95)


@pytest.mark.parametrize(("num", "share"), [(100, 0.02), (300, 0.05)])
def test_independent_answers_are_tested_almost_as_sharply_as_by_the_exact_test(
    num: int, share: float
) -> None:
    """Of the proofs that the binomial test passes, nearly all pass; and none without it."""
    random = np.random.default_rng(3)
    exact = passed = 0
    for _ in range(100):
        right = random.random(num) >= share
        answered = Answered(np.ones(num), right, np.arange(num))
        by_binomial = binom.cdf((~right).sum(), num, 0.1) <= 0.05
        test = make_test(answered, answered, most=2, max_error=0.1, confidence=0.95)
        by_betting = test.p_values([0.0])[0] <= 0.05 + 1e-9
        exact, passed = exact + by_binomial, passed + by_betting
    assert 0.8 * exact <= passed <= exact + 4


# The promise, where the many answers of some documents are the wrong ones. A document is (answers,
# chance of each to be wrong, whether all are wrong together).

Documents = Callable[[np.random.Generator, int], Answered]


def population(*kinds: tuple[float, int, float, bool]) -> Documents:
    """Kinds of documents: their share, answers, chance to be wrong, wrong together or not."""

    def drawn(random: np.random.Generator, num: int) -> Answered:
        kind = random.choice(len(kinds), num, p=[share for share, *_ in kinds])
        confidence, right, document = [], [], []
        for number, (_, size, chance, together) in enumerate(kinds[k] for k in kind):
            lots = np.full(size, random.random()) if together else random.random(size)
            right += (lots >= chance).tolist()
            confidence += random.random(size).tolist()
            document += [number] * size
        return Answered(np.array(confidence), np.array(right), np.array(document))

    return drawn


# In each a little more than a tenth of all answers is wrong, at every confidence.
BROKEN = {
    "many answers, hard": population((0.8, 1, 0.04, False), (0.2, 5, 0.152, False)),
    "many answers, hard together": population((0.8, 1, 0.04, False), (0.2, 5, 0.152, True)),
    "all alike, wrong together": population((1.0, 3, 0.105, True)),
    "rarely all wrong": population((0.95, 1, 0.0, False), (0.05, 5, 0.52, True)),
}
GOOD = population((0.6, 1, 0.02, False), (0.4, 3, 0.04, True))


def share_found(drawn: Documents, most: int, samples: int = 80) -> float:
    """How often a threshold is found."""
    random = np.random.default_rng(11)
    found = 0
    for _ in range(samples):
        scout, proof = drawn(random, 100), drawn(random, 200)
        found += (
            find_threshold(scout, proof, max_error=ALPHA, confidence=1 - DELTA, most=most).value
            is not None
        )
    return found / samples


@pytest.mark.parametrize("name", BROKEN)
def test_answers_that_are_wrong_together_are_not_promised(name: str) -> None:
    assert share_found(BROKEN[name], most=5) <= DELTA + 3 * (DELTA * (1 - DELTA) / 80) ** 0.5


def test_good_answers_of_several_to_a_document_are_promised() -> None:
    assert share_found(GOOD, most=3) > 0.7


def test_counted_as_if_they_were_independent_they_would_be_promised_too_often() -> None:
    """The control: the exact test, told that every answer is a document of its own."""
    random, drawn = np.random.default_rng(5), population((1.0, 5, 0.105, True))
    broken = np.zeros(2)
    for _ in range(250):
        whole = drawn(random, 60)
        torn = Answered(whole.confidence_N, whole.right_N, np.arange(len(whole)))
        for place, (answered, most) in enumerate([(whole, 5), (torn, 1)]):
            test = make_test(NOTHING, answered, most=most, max_error=ALPHA, confidence=1 - DELTA)
            broken[place] += test.p_values([0.0])[0] <= DELTA
    assert broken[0] / 250 <= DELTA + 3 * (DELTA * (1 - DELTA) / 250) ** 0.5
    assert broken[1] / 250 > 2 * DELTA
