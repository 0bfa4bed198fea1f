from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from slant.errors import ModelError
from slant.model import compiling
from slant.model.compiling import has_compiler
from slant.model.label_head import LabelModel
from slant.score.torch_engine import TorchEngine
from tiny import PAD, tiny_model

LABEL_IDS = (266, 261, 7)


def prompts(count: int = 40) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, rng.integers(1, 90)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> LabelModel:
    return LabelModel(tiny_model(), LABEL_IDS).eval()


@pytest.mark.parametrize("tokens_per_batch", [1, 100, 100_000])
def test_rows_are_in_input_order_and_the_same_whatever_the_budget(model, tokens_per_batch):
    logits = TorchEngine(model, PAD, tokens_per_batch).label_logits(prompts())
    assert logits.shape == (40, 3)
    assert logits.dtype == np.float32
    with torch.no_grad():
        for row, ids in zip(logits, prompts(), strict=True):
            own = model.causal_lm(torch.tensor([ids])).logits[0, -1, list(LABEL_IDS)]
            np.testing.assert_allclose(row, own.numpy(), atol=1e-5)


def test_no_prompts_give_no_rows(model):
    assert TorchEngine(model, PAD).label_logits([]).shape == (0, 3)


def test_it_tells_how_many_are_done_after_each_pass(model):
    done: list[int] = []
    TorchEngine(model, PAD, 500).label_logits(prompts(), done.append)
    assert sum(done) == 40
    assert len(done) > 3
    assert min(done) >= 1


def test_no_pass_has_more_tokens_than_the_budget_with_padding(model):
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda module, args: sizes.append(args[0].input_ids.numel())
    )
    try:
        TorchEngine(model, PAD, 200).label_logits(prompts())
    finally:
        handle.remove()
    assert max(sizes) <= 200


def test_prompts_of_one_document_share_what_they_begin_with_and_answer_the_same(model):
    documents, narratives = prompts(4), prompts(30)
    asked = [documents[i % 4] + narrative for i, narrative in enumerate(narratives)]
    groups = ["abcd"[i % 4] for i in range(30)]
    tokens: list[int] = []
    handle = model.register_forward_pre_hook(lambda module, args: tokens.append(args[0].num_tokens))
    engine = TorchEngine(model, PAD, 600)
    try:
        apart, num_apart = engine.label_logits(asked), sum(tokens)
        tokens.clear()
        together, num_together = engine.label_logits(asked, groups=groups), sum(tokens)
    finally:
        handle.remove()
    np.testing.assert_allclose(together, apart, atol=1e-5)
    assert num_apart == sum(map(len, asked))
    assert num_together < 0.8 * num_apart


def test_an_architecture_without_shared_rows_computes_each_prompt_alone():
    import transformers as hf

    config = hf.BloomConfig(vocab_size=280, hidden_size=32, n_layer=2, n_head=4)
    engine = TorchEngine(LabelModel(hf.BloomForCausalLM(config).eval(), LABEL_IDS), PAD, 600)
    asked = [prompts(1)[0] + rest for rest in prompts(5)]
    np.testing.assert_array_equal(
        engine.label_logits(asked, groups=[0] * 5), engine.label_logits(asked)
    )


def test_nothing_is_kept_for_gradients(model):
    kept: list[bool] = []
    handle = model.register_forward_hook(lambda module, args, out: kept.append(out.requires_grad))
    try:
        TorchEngine(model, PAD).label_logits(prompts(2))
    finally:
        handle.remove()
    assert kept
    assert not any(kept)


def test_bfloat16_models_answer_in_float32_and_close_to_float32():
    exact = LabelModel(tiny_model(), LABEL_IDS).eval()
    rounded = LabelModel(tiny_model(), LABEL_IDS).eval().to(torch.bfloat16)
    found = TorchEngine(rounded, PAD).label_logits(prompts())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, TorchEngine(exact, PAD).label_logits(prompts()), atol=0.02)


def test_a_budget_that_memory_has_no_room_for_is_halved_and_every_prompt_is_answered(model):
    engine = TorchEngine(model, PAD, 800)
    room = 150

    def refuse(module, args):
        if args[0].input_ids.numel() > room:
            raise torch.OutOfMemoryError("no room")

    done: list[int] = []
    handle = model.register_forward_pre_hook(refuse)
    try:
        found = engine.label_logits(prompts(), done.append)
        assert engine.tokens_per_batch == 100
        engine.label_logits(prompts())
        assert engine.tokens_per_batch == 100
    finally:
        handle.remove()
    assert sum(done) == 40
    np.testing.assert_allclose(found, TorchEngine(model, PAD).label_logits(prompts()), atol=1e-5)


def test_memory_that_does_not_do_for_one_prompt_is_an_error(model):
    def refuse(module, args):
        raise torch.OutOfMemoryError("no room")

    handle = model.register_forward_pre_hook(refuse)
    try:
        with pytest.raises(ModelError, match="memory does not do for a prompt of") as raised:
            TorchEngine(model, PAD).label_logits(prompts())
    finally:
        handle.remove()
    assert raised.value.hint


def test_a_shared_row_may_be_longer_than_a_batch(model):
    document, narratives = [9] * 80, prompts(20)
    asked = [document + rest for rest in narratives]
    rows: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda module, args: rows.append(len(args[0].input_ids))
    )
    try:
        found = TorchEngine(model, PAD, 100).label_logits(asked, groups=[0] * 20)
    finally:
        handle.remove()
    assert len(rows) <= 2
    np.testing.assert_allclose(found, TorchEngine(model, PAD).label_logits(asked), atol=1e-5)


def test_threads_that_share_an_engine_get_the_answers_that_one_thread_gets(model):
    engine = TorchEngine(model, PAD, 300)
    asked = [prompts(5 + i) for i in range(8)]
    expected = [engine.label_logits(each) for each in asked]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, right in zip(pool.map(engine.label_logits, asked), expected, strict=True):
                np.testing.assert_allclose(found, right, atol=1e-5)


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_compiled_layers_answer_as_plain_ones_do():
    plain, compiled = tiny_model("gemma3"), tiny_model("gemma3")
    settings = {"label_ids": LABEL_IDS, "pad_token_id": PAD, "tokens_per_batch": 200}
    engine = TorchEngine.of(compiled, **settings, compile=True)
    document = prompts(1)[0] * 2
    asked = [*prompts(), *(document + rest for rest in prompts(8))]
    groups = [*range(40), *([-1] * 8)]
    found = engine.label_logits(asked, groups=groups)
    expected = TorchEngine.of(plain, **settings).label_logits(asked)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_activation_of_compiled_layers_is_that_of_plain_ones(dtype):
    from transformers.activations import GELUTanh

    inputs = torch.linspace(-30, 30, 2001).to(dtype)
    torch.testing.assert_close(compiling._gelu(inputs), GELUTanh()(inputs), rtol=1e-2, atol=1e-6)


def test_layers_that_cannot_be_compiled_run_as_they_are_and_say_so(monkeypatch):
    def fail(forward, **options):
        def forward_compiled(*args, **options):
            raise RuntimeError("no compiler\nand a long story")

        return forward_compiled

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.warns(UserWarning, match=r"goes on without \(RuntimeError: no compiler\)"):
        engine = TorchEngine.of(tiny_model(), LABEL_IDS, PAD, compile=True)
    plain = TorchEngine.of(tiny_model(), LABEL_IDS, PAD)
    np.testing.assert_array_equal(engine.label_logits(prompts()), plain.label_logits(prompts()))
    # They go on to share what they can.
    asked = [prompts(1)[0] * 3 + rest for rest in prompts(8)]
    np.testing.assert_array_equal(
        engine.label_logits(asked, groups=[0] * 8), plain.label_logits(asked, groups=[0] * 8)
    )
    assert engine._shares_rows
