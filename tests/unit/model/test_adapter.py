from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slant.errors import ModelError
from slant.model.adapter import (
    attach_adapter,
    attach_lora,
    digest_adapter,
    load_adapted,
    load_merged,
    save_adapter,
    unfreeze_layers,
)
from slant.model.base import load_causal_lm
from tiny import save_tiny_model, tiny_model

IDS = torch.arange(1, 60).unsqueeze(0)
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "base")


def lora_weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def trained(base: Path, seed: int = 1, **options):
    """An adapter that does something: PEFT starts with an update of zero."""
    model = attach_lora(load_causal_lm(base, dtype=torch.float32), **LORA | options, seed=seed)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for param in lora_weights(model):
            weight = model.get_parameter(param)
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.eval()


def steps(model, count: int, rate: float = 0.02) -> list[float]:
    """Losses of some updates of what is trainable."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(count):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS).logits


def test_only_the_adapter_is_trainable_and_it_is_on_every_linear_layer_but_the_head():
    model = attach_lora(tiny_model(), **LORA, seed=1)
    names = {name.split(".lora_")[0].split(".")[-1] for name in lora_weights(model)}
    layers = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert names == layers
    assert all("lora_" in name for name in lora_weights(model))
    assert len(lora_weights(model)) == 2 * 7 * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_changes_nothing_and_is_float32(base, dtype):
    before = logits(load_causal_lm(base, dtype=dtype))
    model = attach_lora(load_causal_lm(base, dtype=dtype), **LORA, seed=1).eval()
    assert {weight.dtype for weight in lora_weights(model).values()} == {torch.float32}
    torch.testing.assert_close(logits(model), before)


def test_an_adapter_depends_on_its_seed_alone_and_leaves_the_generator_as_it_was():
    torch.manual_seed(5)
    first = lora_weights(attach_lora(tiny_model(seed=0), **LORA, seed=1))
    torch.manual_seed(6)
    state = torch.random.get_rng_state()
    model = tiny_model(seed=0)
    after_model = torch.random.get_rng_state()
    second = lora_weights(attach_lora(model, **LORA, seed=1))
    assert torch.equal(torch.random.get_rng_state(), after_model)
    assert not torch.equal(state, after_model)
    third = lora_weights(attach_lora(tiny_model(seed=3), **LORA, seed=2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_saved_loaded_and_merged_adapters_give_equal_logits(base, tmp_path):
    model = trained(base)
    expected = logits(model)
    assert (expected - logits(load_causal_lm(base, dtype=torch.float32))).abs().max() > 1e-2
    save_adapter(model, tmp_path / "adapter", "tiny")
    loaded = load_adapted(base, tmp_path / "adapter", dtype=torch.float32)
    assert not loaded.training
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)
    merged = load_merged(base, tmp_path / "adapter", dtype=torch.float32)
    assert not merged.training
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    assert not any("lora" in name for name, _ in merged.named_parameters())


@pytest.mark.parametrize("options", [{"rank_stabilized": True}, {"dora": True}])
def test_variants_of_lora_are_stored_loaded_and_merged(base, tmp_path, options):
    model = trained(base, **options)
    expected = logits(model)
    assert (expected - logits(trained(base))).abs().max() > 1e-2  # they do make a difference
    save_adapter(model, tmp_path / "adapter", "tiny")
    for load in (load_adapted, load_merged):
        loaded = load(base, tmp_path / "adapter", dtype=torch.float32)
        torch.testing.assert_close(logits(loaded), expected, atol=1e-4, rtol=1e-4)


def test_rank_stabilised_updates_are_scaled_by_the_root_of_the_rank():
    from peft.tuners.lora import LoraLayer

    scale = {
        rank_stabilized: {
            layer.scaling["default"]
            for layer in attach_lora(
                tiny_model(),
                rank=16,
                alpha=8,
                dropout=0.0,
                seed=1,
                rank_stabilized=rank_stabilized,
            ).modules()
            if isinstance(layer, LoraLayer)
        }
        for rank_stabilized in (False, True)
    }
    assert scale == {False: {0.5}, True: {2.0}}


def test_the_magnitudes_of_dora_are_float32_and_trained(base):
    model = attach_lora(load_causal_lm(base, dtype=torch.bfloat16), **LORA, dora=True, seed=1)
    magnitudes = [p for name, p in lora_weights(model).items() if "magnitude" in name]
    assert len(magnitudes) == 14
    assert {p.dtype for p in lora_weights(model).values()} == {torch.float32}


def test_a_merged_model_is_rounded_once_to_the_dtype_asked_for(base, tmp_path):
    save_adapter(trained(base), tmp_path / "adapter", "tiny")
    exact = load_merged(base, tmp_path / "adapter", dtype=torch.float32).state_dict()
    rounded = load_merged(base, tmp_path / "adapter", dtype=torch.bfloat16).state_dict()
    assert {weight.dtype for weight in rounded.values()} == {torch.bfloat16}
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)


def test_a_merged_model_answers_as_it_does_when_saved_and_loaded_again(base, tmp_path):
    save_adapter(trained(base), tmp_path / "adapter", "tiny")
    merged = load_merged(base, tmp_path / "adapter", dtype=torch.bfloat16)
    merged.save_pretrained(tmp_path / "merged")
    again = load_causal_lm(tmp_path / "merged", dtype=torch.bfloat16)
    # Positions turn by float32, whatever the weights are.
    assert {b.dtype for b in merged.buffers()} == {b.dtype for b in again.buffers()}
    torch.testing.assert_close(merged(IDS).logits, again(IDS).logits, rtol=0, atol=0)


def test_the_base_stays_as_it_was_in_memory_and_on_disk(base, tmp_path):
    before = load_file(base / "model.safetensors")
    model = attach_lora(load_causal_lm(base, dtype=torch.float32), **LORA, seed=1)
    logits_before = logits(model.eval())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model.train()
    for _ in range(2):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    assert (logits(model.eval()) - logits_before).abs().max() > 1e-5
    save_adapter(model, tmp_path / "adapter", "tiny")
    load_merged(base, tmp_path / "adapter", dtype=torch.bfloat16)
    weights = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): weight
        for name, weight in model.state_dict().items()
    }
    after = load_file(base / "model.safetensors")
    for name, weight in before.items():
        assert torch.equal(after[name], weight)
        assert torch.equal(weights[name], weight)


def test_a_saved_adapter_names_its_base_and_holds_no_path_of_this_machine(base, tmp_path):
    folder = tmp_path / "adapter"
    save_adapter(trained(base), folder, "mistralai/Mistral-7B-v0.3")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "mistralai/Mistral-7B-v0.3"
    names = {path.name for path in folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    for path in folder.iterdir():
        assert str(base.parent).encode() not in path.read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


def test_every_process_writes_the_same_bytes(tmp_path):
    script = """
import sys
import warnings
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny import tiny_model
from slant.model.adapter import attach_lora, save_adapter
model = attach_lora(tiny_model(), rank=4, alpha=8, dropout=0.1, seed=1)
save_adapter(model, Path(sys.argv[2]), "tiny")
"""
    tests = str(Path(__file__).parents[2])
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", script, tests, str(tmp_path / seed)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
        )
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    save_adapter(trained(base), tmp_path / "adapter", "tiny")
    return tmp_path / "adapter"


def test_an_adapter_folder_that_is_not_there_is_an_error_and_not_looked_for_on_the_hub(base):
    with pytest.raises(ModelError, match="no-such-team/no-such-adapter: holds no adapter_config"):
        load_adapted(base, Path("no-such-team/no-such-adapter"), dtype=torch.float32)


def test_neither_saving_nor_loading_looks_the_base_up_on_the_hub(base, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(fetch|config file).*")
        save_adapter(trained(base), tmp_path / "adapter", "some-team/some-model")
        load_merged(base, tmp_path / "adapter", dtype=torch.float32)


def test_a_pickled_adapter_is_refused(base, adapter):
    tensors = load_file(adapter / "adapter_model.safetensors")
    torch.save(tensors, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors"):
        load_adapted(base, adapter, dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"{}"),
        ("adapter_model.safetensors", b""),
        ("adapter_model.safetensors", b"\xff" * 100),
    ],
)
def test_a_damaged_adapter_is_an_error_that_names_it(base, adapter, name, content):
    (adapter / name).write_bytes(content)
    with pytest.raises(ModelError, match=str(adapter)):
        load_adapted(base, adapter, dtype=torch.float32)


@pytest.mark.parametrize("changes", [{"intermediate_size": 96}, {"num_hidden_layers": 1}])
def test_an_adapter_of_another_model_is_refused(adapter, tmp_path, changes):
    tiny_model(**changes).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="cannot be put on"):
        load_adapted(tmp_path / "other", adapter, dtype=torch.float32)


def test_an_adapter_that_lacks_a_weight_is_refused_and_the_weight_named(base, adapter):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "layers.1" in name)
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=name):
        load_adapted(base, adapter, dtype=torch.float32)


def test_the_digest_of_an_adapter_counts_its_weights_and_its_scale(base, adapter):
    digests = {digest_adapter(adapter)}
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    digests.add(digest_adapter(adapter))
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors[min(tensors)][0, 0] += 1
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    digests.add(digest_adapter(adapter))
    assert len(digests) == 3
    with pytest.raises(ModelError, match="holds no adapter_config"):
        digest_adapter(adapter.parent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stored_adapter_is_put_on_a_model_as_it_was_stored_to_go_on(base, adapter, dtype):
    model = attach_adapter(load_causal_lm(base, dtype=dtype), adapter)
    stored = load_file(adapter / "adapter_model.safetensors")
    found = {name.replace(".default", ""): p for name, p in lora_weights(model).items()}
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], weight) for name, weight in stored.items())
    assert model.peft_config["default"].r == 4


def test_an_adapter_stored_in_half_precision_goes_on_in_float32(base, adapter):
    path = adapter / "adapter_model.safetensors"
    halves = {name: weight.bfloat16() for name, weight in load_file(path).items()}
    save_file(halves, path, metadata={"format": "pt"})
    model = attach_adapter(load_causal_lm(base, dtype=torch.bfloat16), adapter)
    assert {weight.dtype for weight in lora_weights(model).values()} == {torch.float32}


def test_going_on_begins_where_the_adapter_left_off_and_trains_it_alone(base, tmp_path):
    first = attach_lora(load_causal_lm(base, dtype=torch.float32), **LORA | {"dropout": 0}, seed=1)
    losses = steps(first, 5)
    save_adapter(first, tmp_path / "adapter", "tiny")
    again = attach_adapter(load_causal_lm(base, dtype=torch.float32), tmp_path / "adapter")
    frozen = {n: p.detach().clone() for n, p in again.named_parameters() if not p.requires_grad}
    more = steps(again, 5)
    assert more[0] < losses[-1]
    assert more[-1] < more[0]
    params = dict(again.named_parameters())
    assert all(torch.equal(params[name], weight) for name, weight in frozen.items())
    save_adapter(again, tmp_path / "further", "tiny")
    loaded = load_adapted(base, tmp_path / "further", dtype=torch.float32)
    torch.testing.assert_close(logits(loaded), logits(again.eval()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changes", [{"intermediate_size": 96}, {"num_hidden_layers": 1}])
def test_an_adapter_of_another_model_is_not_gone_on_with(adapter, changes):
    with pytest.raises(ModelError, match=f"{adapter}: cannot be put on"):
        attach_adapter(tiny_model(**changes), adapter)


def test_an_adapter_of_the_head_is_not_gone_on_with(base, tmp_path):
    """Label rows are read from the head as it is: its adapter would train and never be read."""
    from peft import LoraConfig, get_peft_model

    for name, options in {
        "lora": {"target_modules": ["q_proj", "lm_head"]},
        "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    }.items():
        get_peft_model(tiny_model(), LoraConfig(r=2, **options)).save_pretrained(
            tmp_path / name, save_embedding_layers=False
        )
        with pytest.raises(ModelError, match="changes the LM head or the embeddings"):
            attach_adapter(load_causal_lm(base, dtype=torch.float32), tmp_path / name)


def test_an_adapter_of_another_kind_is_refused(base, tmp_path):
    from peft import LoHaConfig, get_peft_model

    config = LoHaConfig(r=2, target_modules=["q_proj"])
    get_peft_model(tiny_model(), config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds an adapter of type 'LOHA', not LORA"):
        attach_adapter(load_causal_lm(base, dtype=torch.float32), tmp_path)


@pytest.mark.parametrize("kind", ["mistral", "gemma3"])
def test_full_fine_tuning_trains_the_layers_and_not_the_embeddings_or_the_head(kind):
    model = tiny_model(kind).to(torch.bfloat16)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == (kind == "gemma3")
    unfreeze_layers(model)
    assert {param.dtype for param in model.parameters()} == {torch.float32}
    frozen = {name for name, param in model.named_parameters() if not param.requires_grad}
    assert frozen == {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    kept = {name: model.get_parameter(name).detach().clone() for name in frozen}
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    losses = steps(model.train(), 4, rate=1e-3)
    assert losses[-1] < losses[0]
    assert all(torch.equal(model.get_parameter(name), weight) for name, weight in kept.items())
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == before.keys() - frozen
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("options", [{}, {"dora": True}])
def test_an_adapter_trained_on_four_bit_weights_is_merged_into_the_whole_ones(
    base, tmp_path, options
):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (extra nf4) is not installed")
    from bitsandbytes.nn import Linear4bit

    causal_lm = load_causal_lm(base, dtype=torch.float32, quantize="nf4")
    model = attach_lora(causal_lm, **LORA | {"dropout": 0.0}, **options, seed=1)
    packed = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(packed) == 14
    assert {module.weight.dtype for module in packed} == {torch.uint8}
    assert {weight.dtype for weight in lora_weights(model).values()} == {torch.float32}
    losses = steps(model.train(), 8)
    assert losses[-1] < losses[0] - 0.1
    save_adapter(model, tmp_path / "adapter", "tiny")
    merged = load_merged(base, tmp_path / "adapter", dtype=torch.float32)
    assert {weight.dtype for weight in merged.state_dict().values()} == {torch.float32}
    beside = load_adapted(base, tmp_path / "adapter", dtype=torch.float32)
    torch.testing.assert_close(logits(merged), logits(beside), atol=1e-4, rtol=1e-4)
    # The whole weights are not quite the packed ones, and near enough to serve instead of them.
    with torch.no_grad():
        assert float(merged(input_ids=IDS, labels=IDS).loss) < losses[0] - 0.1
    again = attach_adapter(
        load_causal_lm(base, dtype=torch.float32, quantize="nf4"), tmp_path / "adapter"
    )
    assert steps(again.train(), 1)[0] < losses[-1]


def test_a_pass_in_evaluation_mode_leaves_four_bit_weights_as_they_were(base):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (extra nf4) is not installed")
    from bitsandbytes.nn import Linear4bit

    causal_lm = load_causal_lm(base, dtype=torch.bfloat16, quantize="nf4")
    model = attach_lora(causal_lm, **LORA | {"dropout": 0.0}, seed=1).eval()
    packed = [module for module in model.modules() if isinstance(module, Linear4bit)]
    before = [(module.weight.clone(), module.weight.quant_state.absmax) for module in packed]
    first, second = logits(model), logits(model)
    assert torch.equal(first, second)
    for module, (weight, scales) in zip(packed, before, strict=True):
        assert torch.equal(module.weight, weight)
        assert torch.equal(module.weight.quant_state.absmax, scales)
