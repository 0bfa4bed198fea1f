"""What each architecture makes of the masks of shared rows, and of packed rows without any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from slant.errors import ModelError
from slant.model.masks import shared_row_masks, takes_shared_rows
from slant.shards.pack import positions
from tiny_stages import ARCHITECTURES, tiny_causal_lm, tiny_config

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_ARCHITECTURE = pytest.mark.parametrize("architecture", ARCHITECTURES)
TINY = {
    "vocab_size": 280,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def build(config: Any, **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hf.AutoModelForCausalLM.from_config(config, **options).eval().get_decoder()


# Two prompts of 14 and 13 tokens, the first 11 of which are the same, and two of padding. The tiny
# windows are 8 tokens long.
SEGMENTS = torch.tensor([[0] * 11 + [1] * 3 + [2] * 2 + [-1] * 2])
POSITIONS = torch.tensor([[*range(11), 11, 12, 13, 11, 12, 0, 0]])


def test_a_token_sees_what_is_shared_and_its_own_prompt_up_to_itself():
    (mask,) = shared_row_masks(tiny_causal_lm("llama").get_decoder(), POSITIONS, SEGMENTS)[0]
    seen = [[key for key in range(18) if row[key]] for row in mask.tolist()]
    assert seen[:11] == [list(range(end + 1)) for end in range(11)]
    assert seen[11:14] == [list(range(end + 1)) for end in range(11, 14)]
    assert seen[14:16] == [[*range(11), 14], [*range(11), 14, 15]]


def test_windows_go_by_position_not_by_place():
    masks = shared_row_masks(tiny_causal_lm("gemma3").get_decoder(), POSITIONS, SEGMENTS)
    assert set(masks) == {"full_attention", "sliding_attention"}
    (mask,) = masks["sliding_attention"][0]
    seen = [[key for key in range(18) if row[key]] for row in mask.tolist()]
    assert seen[9] == list(range(2, 10))
    # The last of the second prompt is at place 15 and at position 12: it sees from position 5.
    assert seen[15] == [*range(5, 11), 14, 15]


@EVERY_ARCHITECTURE
def test_padding_sees_itself_so_that_no_row_of_the_mask_is_empty(architecture):
    masks = shared_row_masks(tiny_causal_lm(architecture).get_decoder(), POSITIONS, SEGMENTS)
    for mask in masks.values() if isinstance(masks, dict) else [masks]:
        assert mask.shape == (1, 1, 18, 18)
        assert mask.diagonal(dim1=2, dim2=3).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@EVERY_ARCHITECTURE
def test_the_architectures_we_know_take_shared_rows(architecture, dtype):
    decoder = tiny_causal_lm(architecture).to(dtype).get_decoder()
    assert takes_shared_rows(decoder)
    assert not decoder.training
    assert takes_shared_rows(decoder.train())
    assert decoder.training


def test_eager_attention_gets_numbers_to_add():
    decoder = build(tiny_config("gemma3"), attn_implementation="eager")
    masks = shared_row_masks(decoder, POSITIONS, SEGMENTS)
    assert {mask.dtype for mask in masks.values()} == {torch.float32}
    assert takes_shared_rows(decoder)


OTHERS: dict[str, Callable[[], Any]] = {
    "chunks": lambda: hf.Llama4TextConfig(
        **TINY, head_dim=8, num_local_experts=2, intermediate_size_mlp=64
    ),
    "distances without positions": lambda: hf.BloomConfig(
        vocab_size=280, hidden_size=32, n_layer=2, n_head=4
    ),
    "both sides": lambda: hf.Gemma3TextConfig(
        **TINY, head_dim=8, sliding_window=8, use_bidirectional_attention=True
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_attention_that_cannot_keep_prompts_apart_is_refused_by_name(kind):
    decoder = build(OTHERS[kind]())
    assert not takes_shared_rows(decoder)
    with pytest.raises(ModelError, match=type(decoder).__name__) as raised:
        shared_row_masks(decoder, POSITIONS, SEGMENTS)
    assert "a row of its own" in raised.value.hint


class CarriesAState(hf.MistralModel):
    """A state beside attention, of which the configuration tells nothing."""

    def forward(self, position_ids: Any = None, **inputs: Any) -> Any:
        out = super().forward(position_ids=position_ids, **inputs)
        out.last_hidden_state = out.last_hidden_state + out.last_hidden_state.cumsum(dim=1)
        return out


def test_a_decoder_that_carries_a_state_beside_attention_is_found_out():
    plain = tiny_causal_lm("mistral").get_decoder()
    decoder = CarriesAState(tiny_config("mistral")).eval()
    decoder.load_state_dict(plain.state_dict())
    assert takes_shared_rows(plain)
    assert not takes_shared_rows(decoder)


# Packed rows, as domain adaptation lays them out: whole documents one after another, positions that
# restart, no mask and no cache.
LENGTHS = (23, 1, 40, 2, 17)


def packed() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    tokens_T = torch.randint(0, 256, (sum(LENGTHS),), generator=random)
    return tokens_T, torch.from_numpy(positions(torch.tensor(LENGTHS).numpy()))


def gradients(decoder: nn.Module, hidden_TH: Tensor) -> list[Tensor]:
    """Of a loss that asks something different of every token and every number."""
    weights = torch.linspace(-1, 1, hidden_TH.numel()).cos().view_as(hidden_TH)
    return list(torch.autograd.grad((hidden_TH * weights).sum(), list(decoder.parameters())))


def together(decoder: nn.Module, mask: Tensor | None = None) -> Tensor:
    tokens_T, positions_T = packed()
    return decoder(
        input_ids=tokens_T[None],
        position_ids=positions_T[None],
        attention_mask=mask,
        use_cache=False,
    ).last_hidden_state[0]


def alone(decoder: nn.Module) -> Tensor:
    parts = packed()[0].split(LENGTHS)
    return torch.cat(
        [decoder(input_ids=part[None], use_cache=False).last_hidden_state[0] for part in parts]
    )


@EVERY_ARCHITECTURE
def test_a_packed_row_has_the_hidden_states_and_gradients_of_its_documents_alone(architecture):
    decoder = tiny_causal_lm(architecture).get_decoder()
    found, expected = together(decoder), alone(decoder)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for ours, theirs in zip(gradients(decoder, found), gradients(decoder, expected), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


@EVERY_ARCHITECTURE
def test_a_mask_of_ones_makes_the_documents_of_a_packed_row_see_each_other(architecture):
    decoder = tiny_causal_lm(architecture).get_decoder()
    found = together(decoder, torch.ones(1, sum(LENGTHS), dtype=torch.int64))
    expected = alone(decoder)
    assert (found - expected).abs().max() > 0.1
    torch.testing.assert_close(found[: LENGTHS[0]], expected[: LENGTHS[0]], rtol=0, atol=1e-5)
    leaked = gradients(decoder, found)[0] - gradients(decoder, expected)[0]
    assert leaked.abs().max() > 0.1
