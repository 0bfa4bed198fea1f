"""However prompts are laid out in rows and batches, each is computed as if it stood alone."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slant.model.batches import make_batches
from slant.model.label_head import LabelModel
from slant.model.masks import shared_row_masks
from tiny import PAD
from tiny_stages import ARCHITECTURES, tiny_causal_lm

UNHURRIED = settings(deadline=None, max_examples=100)
# Few different ids, so that prompts begin alike in every way they can.
PROMPTS = st.lists(
    st.tuples(
        st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(0, 30)
    ).map(lambda drawn: (drawn[0], [drawn[0]] * drawn[2] + drawn[1])),
    min_size=1,
    max_size=24,
)
BUDGETS = st.integers(1, 400)


def split(drawn: list[tuple[int, list[int]]]) -> tuple[list[int], list[list[int]]]:
    return [group for group, _ in drawn], [prompt for _, prompt in drawn]


@UNHURRIED
@given(drawn=PROMPTS, budget=BUDGETS)
def test_every_prompt_can_be_read_off_exactly_one_batch_within_the_budget(drawn, budget):
    groups, prompts = split(drawn)
    seen: list[int] = []
    widths: list[int] = []
    for batch in make_batches(prompts, budget, PAD, groups=groups):
        num_rows, width = batch.input_ids.shape
        assert num_rows * width <= budget or len(batch.members) == 1
        widths.append(width)
        if batch.segments is None:
            lengths = [len(prompts[place]) for place in batch.members]
            assert batch.num_tokens == sum(lengths)
            assert batch.columns.tolist() == [length - 1 for length in lengths]
            for row, place in zip(batch.input_ids.tolist(), batch.members, strict=True):
                assert row[: len(prompts[place])] == prompts[place]
        else:
            assert batch.num_tokens == int((batch.segments >= 0).sum())
            assert (batch.input_ids[batch.segments < 0] == PAD).all()
            for row, column, place in zip(
                batch.rows.tolist(), batch.columns.tolist(), batch.members, strict=True
            ):
                segments = batch.segments[row]
                own = (segments == 0) | (segments == segments[column])
                assert batch.input_ids[row][own].tolist() == prompts[place]
                assert batch.positions[row][own].tolist() == list(range(len(prompts[place])))
                assert int(own.nonzero()[-1]) == column
        for row in set(batch.rows.tolist()):
            members = [
                m for m, r in zip(batch.members, batch.rows.tolist(), strict=True) if r == row
            ]
            assert len({groups[member] for member in members}) == 1
        seen += batch.members
    assert sorted(seen) == list(range(len(prompts)))
    assert widths == sorted(widths, reverse=True)


@UNHURRIED
@given(drawn=PROMPTS, budget=BUDGETS)
def test_sharing_never_adds_tokens_and_the_same_input_gives_the_same_batches(drawn, budget):
    groups, prompts = split(drawn)
    one, other = (list(make_batches(prompts, budget, PAD, groups=groups)) for _ in range(2))
    assert sum(batch.num_tokens for batch in one) <= sum(map(len, prompts))
    for a, b in zip(one, other, strict=True):
        assert a.members == b.members
        assert torch.equal(a.input_ids, b.input_ids)


DECODERS = {name: tiny_causal_lm(name).get_decoder() for name in ARCHITECTURES}


@UNHURRIED
@given(drawn=PROMPTS, architecture=st.sampled_from(ARCHITECTURES))
def test_a_mask_lets_a_token_see_its_own_prompt_within_the_window_and_nothing_else(
    drawn, architecture
):
    groups, prompts = split(drawn)
    decoder = DECODERS[architecture]
    window = {"mistral-sliding": 8, "gemma3": 8}.get(architecture, 10**6)
    for batch in make_batches(prompts, 10**6, PAD, groups=groups):
        if batch.segments is None:
            return
        masks = shared_row_masks(decoder, batch.positions, batch.segments)
        named = masks if isinstance(masks, dict) else {"only": masks}
        for kind, mask in named.items():
            for row, column in zip(batch.rows.tolist(), batch.columns.tolist(), strict=True):
                seen = mask[row, 0, column].nonzero()[:, 0]
                position = int(batch.positions[row, column])
                first = 0 if kind == "full_attention" else max(0, position - window + 1)
                segments = batch.segments[row]
                own = ((segments == 0) | (segments == segments[column])).nonzero()[:, 0]
                assert seen.tolist() == own[first:].tolist()


MODELS = {name: LabelModel(tiny_causal_lm(name), (266, 261, 7)).eval() for name in ARCHITECTURES}


@settings(deadline=None, max_examples=40)
@given(drawn=PROMPTS, budget=BUDGETS, architecture=st.sampled_from(ARCHITECTURES))
@torch.no_grad()
def test_logits_are_those_of_each_prompt_alone_whatever_shares_a_row_or_a_batch(
    drawn, budget, architecture
):
    groups, prompts = split(drawn)
    model = MODELS[architecture]
    together = np.empty((len(prompts), 3), dtype=np.float32)
    for batch in make_batches(prompts, budget, PAD, groups=groups):
        together[list(batch.members)] = model(batch)
    alone = np.empty_like(together)
    for batch in make_batches(prompts, 1, PAD):
        alone[list(batch.members)] = model(batch)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
