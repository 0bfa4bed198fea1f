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
from slant.model.adapter import attach_lora, load_adapted, load_merged, save_adapter
from slant.model.base import load_causal_lm
from tiny import save_tiny_model, tiny_model

IDS = torch.arange(1, 60).unsqueeze(0)
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "base")


def lora_weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def trained(base: Path, seed: int = 1):
    """An adapter that does something: PEFT starts with an update of zero."""
    model = attach_lora(load_causal_lm(base, dtype=torch.float32), **LORA, seed=seed)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for param in lora_weights(model):
            weight = model.get_parameter(param)
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.eval()


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


def test_a_merged_model_is_rounded_once_to_the_dtype_asked_for(base, tmp_path):
    save_adapter(trained(base), tmp_path / "adapter", "tiny")
    exact = load_merged(base, tmp_path / "adapter", dtype=torch.float32).state_dict()
    rounded = load_merged(base, tmp_path / "adapter", dtype=torch.bfloat16).state_dict()
    assert {weight.dtype for weight in rounded.values()} == {torch.bfloat16}
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)


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
