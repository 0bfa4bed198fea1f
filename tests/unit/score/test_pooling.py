from __future__ import annotations

import numpy as np
import pytest

from slant.errors import TaskError
from slant.score import pooling
from slant.score.pooling import pair_logits
from tiny_task import tiny_encoder

LONG = "".join(f"Sentence number {i}. " for i in range(60))
TOO_LONG = "a narrative that never ends " * 10
ENCODER = tiny_encoder(token_limit=120, long_documents="windows")


class StubEngine:
    """Logits that follow from a prompt's ids; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls = []

    def label_logits(self, prompts, on_done=None, *, groups=None):
        self.calls.append((list(prompts), list(groups)))
        logits = np.array([[sum(p), p[1], len(p)] for p in prompts], np.float32).reshape(-1, 3)
        for _ in prompts:
            if on_done:
                on_done(1)
        return logits / 7


def refuse(place, error):
    raise error


def logits_of(pairs, engine=None, on_done=None):
    return pair_logits(engine or StubEngine(), ENCODER, pairs, on_done, on_refused=refuse)


def test_the_logits_of_a_pair_are_the_mean_of_its_windows():
    pairs = [("short", "x"), (LONG, "x"), (LONG[:300], None)]
    found = logits_of(pairs)
    assert (found.shape, found.dtype) == ((3, 3), np.float32)
    for row, windows in zip(found, ENCODER.encode_windows(pairs), strict=True):
        each = StubEngine().label_logits(windows, groups=[0] * len(windows))
        np.testing.assert_allclose(row, each.mean(axis=0), rtol=1e-6)


def test_the_logits_of_a_single_prompt_are_the_engines_to_the_bit():
    pairs = [(f"text {i}", "x") for i in range(20)]
    expected = StubEngine().label_logits(ENCODER.encode_batch(pairs), groups=[0] * 20)
    assert (logits_of(pairs) == expected).all()


def test_a_group_is_one_window_of_one_document():
    engine = StubEngine()
    logits_of([(LONG, "x"), (LONG, "y"), ("short", "x")], engine)
    ((prompts, groups),) = engine.calls
    count = (len(prompts) - 1) // 2
    assert groups[:count] == groups[count:-1] == [(LONG, number) for number in range(count)]
    assert groups[-1] == ("short", 0)


def test_windows_of_narratives_of_like_length_share_their_text():
    first, second = ENCODER.encode_windows([(LONG, "the bridge"), (LONG, "the mayor")])
    assert len(first) == len(second) > 3
    for a, b in zip(first, second, strict=True):
        assert a[:40] == b[:40]


def test_many_windows_are_computed_in_parts_with_the_same_result(monkeypatch):
    pairs = [(LONG, "x"), ("short", "y"), (LONG, None)] * 5
    whole = logits_of(pairs)
    monkeypatch.setattr(pooling, "_TOKENS_AT_ONCE", 500)
    monkeypatch.setattr(pooling, "_CHARACTERS_AT_ONCE", 1500)
    engine = StubEngine()
    np.testing.assert_array_equal(logits_of(pairs, engine), whole)
    assert len(engine.calls) > 5
    longest = max(sum(map(len, windows)) for windows in ENCODER.encode_windows(pairs))
    assert all(sum(map(len, prompts)) <= 500 + longest for prompts, _ in engine.calls)


def test_a_refused_pair_is_named_and_has_no_number():
    refused = {}
    pairs = [("short", "x"), (LONG, TOO_LONG), (LONG, "x"), ("half \ud83d", "x")]
    found = pair_logits(
        StubEngine(), ENCODER, pairs, on_refused=lambda place, error: refused.update({place: error})
    )
    assert sorted(refused) == [1, 3]
    assert "no room" in refused[1].message
    assert "surrogate" in refused[3].message
    assert np.isnan(found[[1, 3]]).all()
    np.testing.assert_array_equal(found[[0, 2]], logits_of([pairs[0], pairs[2]]))


def test_an_error_on_refusal_ends_it():
    with pytest.raises(TaskError, match="no room"):
        logits_of([(LONG, TOO_LONG)])


@pytest.mark.parametrize("tokens", [200, 1_000_000])
def test_progress_is_told_in_pairs_and_adds_up_to_all_of_them(monkeypatch, tokens):
    monkeypatch.setattr(pooling, "_TOKENS_AT_ONCE", tokens)
    told = []
    pairs = [(LONG, "x"), ("short", "x"), (LONG, TOO_LONG), ("other", "x")]
    pair_logits(StubEngine(), ENCODER, pairs, told.append, on_refused=lambda *_: None)
    assert sum(told) == len(pairs)
    assert all(more > 0 for more in told)


def test_no_pairs_give_no_rows_and_a_column_a_label():
    assert logits_of([]).shape == (0, 3)


def test_a_window_whose_answer_is_not_a_number_leaves_its_pair_none():
    class Broken(StubEngine):
        def label_logits(self, prompts, on_done=None, *, groups=None):
            logits = super().label_logits(prompts, on_done, groups=groups)
            logits[1] = np.nan
            return logits

    found = logits_of([(LONG, "x"), ("short", "x")], Broken())
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
