"""What a pair is answered depends on the pair alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slant.records import Pair, Prediction
from slant.score.scorer import Refusal, Scorer
from slant.score.torch_engine import TorchEngine
from slant.task.encode import Encoder
from tiny import PAD, tiny_model, tiny_tokenizer
from tiny_task import tiny_spec

LIMIT = 160
ALPHABETS = (
    "abc de.",
    "где мы ",
    "我们在哪里。",
    "مرحبا ",
    "😀👩\u200d👧é\u202e",
    "\x00\x07\t\n\r ",
    "ก็ไม่",
)
TEXTS = st.sampled_from(ALPHABETS).flatmap(lambda letters: st.text(letters, max_size=120))
NARRATIVES = st.none() | st.sampled_from(["el puente", "мост", "大桥", "x" * 200, " "])
PAIRS = st.lists(st.tuples(TEXTS, NARRATIVES), min_size=1, max_size=12)


def scorer(family: str, tokens_per_batch: int | None = None) -> Scorer:
    tokenizer = tiny_tokenizer()
    spec = tiny_spec(tokenizer, token_limit=LIMIT).with_temperature(0.1)
    model = MODELS[family]
    engine = TorchEngine.of(
        model, spec.verbalizer.token_ids, PAD, tokens_per_batch=tokens_per_batch
    )
    return Scorer(spec, Encoder(tokenizer, spec), engine)


MODELS = {family: tiny_model(family) for family in ("mistral", "gemma3")}


def same(one: Prediction | Refusal, other: Prediction | Refusal) -> bool:
    if isinstance(one, Refusal) or isinstance(other, Refusal):
        return one == other
    return bool(np.allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-5)) and (
        one.label == other.label or np.diff(np.sort(one.probabilities))[-1] < 2e-5
    )


@pytest.mark.parametrize("family", MODELS)
@given(
    texts=PAIRS,
    budget=st.sampled_from([1, 50, 300, None]),
    seed=st.integers(0, 2**16),
    more=st.lists(NARRATIVES, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_company_order_and_padding_change_no_answer(family, texts, budget, seed, more):
    # Documents meet under several narratives, so that they share rows.
    pairs = [Pair(text, narrative) for text, narrative in texts]
    pairs += [Pair(texts[0][0], narrative) for narrative in more]
    alone = [next(scorer(family).stream([pair])) for pair in pairs]
    order = random.Random(seed).sample(range(len(pairs)), len(pairs))
    found = list(scorer(family, budget).stream([pairs[place] for place in order]))
    assert len(found) == len(pairs)
    for place, outcome in zip(order, found, strict=True):
        assert same(outcome, alone[place]), pairs[place]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "\x00",
        "\u202eשלום\u202c",
        "👩‍👩‍👧‍👦" * 50,
        "\r\n\t\x07\x1b[31m",
        "long " * 200_000,
        "长" * 1_000_000,
        "no_spaces_at_all" * 60_000,
    ],
    ids=["empty", "one", "null", "rtl", "emoji", "control", "words", "hanzi", "unbroken"],
)
def test_any_text_is_answered_with_probabilities(text):
    (prediction,) = scorer("mistral").predict(text, "el puente")
    assert sum(prediction.probabilities) == pytest.approx(1)
    assert min(prediction.probabilities) >= 0


def outcomes_of(pairs: Sequence[Pair]) -> list[Prediction | Refusal]:
    return list(scorer("mistral").stream(pairs))


def test_half_a_surrogate_pair_and_a_narrative_beyond_the_limit_are_refused_with_a_reason():
    broken, endless = outcomes_of([Pair("half \ud83d", None), Pair("a", "word " * 500)])
    assert isinstance(broken, Refusal)
    assert isinstance(endless, Refusal)
    assert "surrogate" in broken.reason
    assert "no room is left" in endless.reason
