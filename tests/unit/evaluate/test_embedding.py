from __future__ import annotations

import numpy as np
import pytest
import torch

from slant.evaluate.embedding import embed
from tiny import PAD, tiny_model

PROMPTS = [[256, *(3 + i % 200 for i in range(n))] for n in (5, 1, 60, 17, 5, 300)]


@pytest.mark.parametrize("kind", ["mistral", "gemma3"])
def test_an_embedding_is_the_mean_of_the_last_hidden_states_of_one_prompt(kind: str) -> None:
    """Whatever it is batched and padded with."""
    model = tiny_model(kind).eval()
    done: list[int] = []
    found = embed(model, PROMPTS, PAD, done.append)
    assert found.shape == (len(PROMPTS), 32)
    assert found.dtype == np.float32
    assert sum(done) == len(PROMPTS)
    for prompt, row in zip(PROMPTS, found, strict=True):
        with torch.no_grad():
            states = model(torch.tensor([prompt]), output_hidden_states=True).hidden_states[-1][0]
        assert row == pytest.approx(states.mean(dim=0).numpy(), abs=1e-5)
    # Prompts of the same tokens are embedded alike, others are not.
    assert found[0] == pytest.approx(found[4], abs=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_no_prompts_have_no_embeddings() -> None:
    assert embed(tiny_model().eval(), [], PAD, lambda _: None).shape == (0, 32)
