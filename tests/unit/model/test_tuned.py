from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from slant.artifacts import digest_file
from slant.errors import ModelError
from slant.model.adapter import attach_lora, load_merged, unfreeze_layers
from slant.model.base import BaseModel, cast_weights, load_causal_lm
from slant.model.batches import make_batches
from slant.model.folder import save_causal_lm
from slant.model.label_head import LabelModel, plain_model
from slant.model.tuned import (
    digest_tuned,
    load_tuned_adapted,
    load_tuned_merged,
    save_tuned,
)
from tiny_stages import save_base

ARCHITECTURES = ("gemma3", "llama", "qwen3", "mistral")

LABEL_IDS = (270, 5, 99)
PROMPT = [256, *range(10, 40)]
METHODS = ("lora", "full")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModel]:
    root = tmp_path_factory.mktemp("bases")
    return {name: save_base(root / name, name) for name in ARCHITECTURES}


def trained(base: BaseModel, method: str, *, rows: bool, dtype=torch.float32) -> LabelModel:
    """A model of which everything that is trained has moved."""
    causal_lm = load_causal_lm(base.folder, dtype=dtype)
    if method == "full":
        unfreeze_layers(causal_lm)
    else:
        causal_lm = attach_lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=1)
    model = LabelModel(causal_lm, LABEL_IDS, train_rows=rows)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for param in model.parameters():
            if param.requires_grad:
                param.add_(torch.randn(param.shape, generator=generator) * 0.05)
    return model.eval()


@torch.no_grad()
def label_logits(model: LabelModel) -> torch.Tensor:
    (batch,) = make_batches([PROMPT], len(PROMPT), 0)
    return model(batch)


@torch.no_grad()
def all_logits(causal_lm: Any) -> torch.Tensor:
    return causal_lm(input_ids=torch.tensor([PROMPT]), use_cache=False).logits[:, -1]


def plainly_loaded(folder: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_was_trained_comes_back_side_by_side_merged_and_in_plain_transformers(
    bases: dict[str, BaseModel], tmp_path: Path, architecture: str, method: str, rows: bool
) -> None:
    base = bases[architecture]
    model = trained(base, method, rows=rows)
    expected = label_logits(model)
    untouched = LabelModel(load_causal_lm(base.folder, dtype=torch.float32), LABEL_IDS)
    assert (label_logits(untouched) - expected).abs().max() > 0.05  # there is something to see
    save_tuned(tmp_path, model, base)
    beside = load_tuned_adapted(base.folder, tmp_path, LABEL_IDS, dtype=torch.float32)
    assert not beside.training
    torch.testing.assert_close(label_logits(beside), expected, atol=1e-5, rtol=1e-5)
    merged = load_tuned_merged(base.folder, tmp_path, LABEL_IDS, dtype=torch.float32)
    save_causal_lm(merged, base.folder, tmp_path / "causal-lm")
    for causal_lm in (merged, plainly_loaded(tmp_path / "causal-lm")):
        assert not any("lora" in name for name, _ in causal_lm.named_parameters())
        torch.testing.assert_close(
            label_logits(LabelModel(causal_lm, LABEL_IDS)), expected, atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            all_logits(causal_lm)[:, LABEL_IDS], expected, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trained_rows_untie_the_head_and_leave_the_embeddings_and_the_other_rows_alone(
    bases: dict[str, BaseModel], tmp_path: Path, architecture: str
) -> None:
    base = bases[architecture]
    model = trained(base, "lora", rows=True)
    save_tuned(tmp_path, model, base)
    before = load_merged(base.folder, tmp_path / "adapter", dtype=torch.float32)
    embeddings = before.get_input_embeddings().weight
    head = before.get_output_embeddings().weight
    tied = before.config.tie_word_embeddings
    assert tied == (architecture == "gemma3")
    assert (head is embeddings) == tied
    merged = load_tuned_merged(base.folder, tmp_path, LABEL_IDS, dtype=torch.float32)
    save_causal_lm(merged, base.folder, tmp_path / "causal-lm")
    assert not json.loads((tmp_path / "causal-lm/config.json").read_text())["tie_word_embeddings"]
    again = plainly_loaded(tmp_path / "causal-lm")
    assert not again.config.tie_word_embeddings
    assert torch.equal(again.get_input_embeddings().weight, embeddings)
    found = again.get_output_embeddings().weight
    assert found is not again.get_input_embeddings().weight
    assert torch.equal(found[list(LABEL_IDS)], model.rows)
    others = [i for i in range(len(head)) if i not in LABEL_IDS]
    assert torch.equal(found[others], head[others])
    torch.testing.assert_close(
        all_logits(again)[:, others], all_logits(before)[:, others], atol=1e-5, rtol=1e-5
    )
    save_causal_lm(merged, base.folder, tmp_path / "rounded", dtype=torch.bfloat16)
    rounded = plainly_loaded(tmp_path / "rounded").get_output_embeddings().weight
    assert torch.equal(rounded, found.bfloat16())


def test_a_model_without_trained_rows_stays_tied(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    base = bases["gemma3"]
    for method in METHODS:
        save_tuned(tmp_path / method, trained(base, method, rows=False), base)
        merged = load_tuned_merged(base.folder, tmp_path / method, LABEL_IDS, dtype=torch.bfloat16)
        assert merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
        save_causal_lm(merged, base.folder, tmp_path / "causal-lm")
        assert "lm_head.weight" not in load_file(tmp_path / "causal-lm/model.safetensors")
        assert plainly_loaded(tmp_path / "causal-lm").config.tie_word_embeddings


def test_the_bias_of_a_head_is_trained_with_its_rows(tmp_path: Path) -> None:
    from transformers import PhiConfig, PhiForCausalLM

    tokens = save_base(tmp_path / "tokens")
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.15,
    )
    save_causal_lm(PhiForCausalLM(config), tokens.folder, tmp_path / "phi")
    base = BaseModel("tiny/phi", tmp_path / "phi", "0" * 64)
    model = trained(base, "lora", rows=True)
    assert model.rows_bias is not None
    assert model.rows_bias.abs().max() > 0.01
    save_tuned(tmp_path / "tuned", model, base)
    beside = load_tuned_adapted(base.folder, tmp_path / "tuned", LABEL_IDS, dtype=torch.float32)
    torch.testing.assert_close(label_logits(beside), label_logits(model), atol=1e-5, rtol=1e-5)
    merged = load_tuned_merged(base.folder, tmp_path / "tuned", LABEL_IDS, dtype=torch.float32)
    torch.testing.assert_close(
        all_logits(merged)[:, LABEL_IDS], label_logits(model), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_weight_of_a_merged_model_is_rounded_once(
    bases: dict[str, BaseModel], tmp_path: Path, method: str
) -> None:
    base = bases["gemma3"]
    model = trained(base, method, rows=True)
    save_tuned(tmp_path, model, base)
    exact, rounded = (
        load_tuned_merged(base.folder, tmp_path, LABEL_IDS, dtype=dtype).state_dict()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert {weight.dtype for weight in rounded.values()} == {torch.bfloat16}
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", METHODS)
def test_rounded_weights_in_float32_arithmetic_are_those_that_are_exported(
    bases: dict[str, BaseModel], tmp_path: Path, architecture: str, method: str
) -> None:
    base = bases[architecture]
    save_tuned(tmp_path / "tuned", trained(base, method, rows=True), base)
    merged = load_tuned_merged(base.folder, tmp_path / "tuned", LABEL_IDS, dtype=torch.bfloat16)
    save_causal_lm(merged, base.folder, tmp_path / "exported", dtype=torch.bfloat16)
    exported = load_causal_lm(tmp_path / "exported", dtype=torch.float32)
    measured = all_logits(cast_weights(merged, torch.float32))
    torch.testing.assert_close(measured, all_logits(exported), rtol=0, atol=1e-5)


def test_a_full_checkpoint_is_a_float32_folder_with_the_tokenizer_of_the_base(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    base = bases["gemma3"]
    model = trained(base, "full", rows=False, dtype=torch.bfloat16)
    save_tuned(tmp_path, model, base)
    folder = tmp_path / "model"
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {
        torch.float32
    }
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert plainly_loaded(folder).dtype == torch.float32
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (base.folder / name).read_bytes()
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "label_head.safetensors").exists()


@pytest.mark.parametrize("architecture", ["gemma3", "llama"])
def test_a_folder_can_be_written_in_another_dtype_than_the_model_is_in(
    bases: dict[str, BaseModel], tmp_path: Path, architecture: str
) -> None:
    causal_lm = load_causal_lm(bases[architecture].folder, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in causal_lm.state_dict().items()}
    save_causal_lm(causal_lm, bases[architecture].folder, tmp_path, dtype=torch.bfloat16)
    assert all(torch.equal(weight, before[k]) for k, weight in causal_lm.state_dict().items())
    again = plainly_loaded(tmp_path)  # in the dtype that the folder says
    assert again.dtype == torch.bfloat16
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, before[name].bfloat16())


def test_the_digest_of_a_plain_adapter_is_that_of_its_file(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    base = bases["mistral"]
    save_tuned(tmp_path, trained(base, "lora", rows=False), base)
    plain = digest_tuned(tmp_path)
    assert plain == digest_file(tmp_path / "adapter" / "adapter_model.safetensors")


def test_every_trained_weight_has_a_say_in_the_digest(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    base = bases["gemma3"]
    digests = set()
    for method in METHODS:
        for rows in (False, True):
            folder = tmp_path / f"{method}-{rows}"
            save_tuned(folder, trained(base, method, rows=rows), base)
            digests.add(digest_tuned(folder))
            for path in folder.rglob("*.safetensors"):
                tensors = load_file(path)
                name = min(tensors)
                tensors[name].view(-1)[0] += 1
                save_file(tensors, path, metadata={"format": "pt"})
                digests.add(digest_tuned(folder))
    assert len(digests) == 4 + 1 + 2 + 1 + 2


def test_trained_rows_are_stored_in_float32_beside_the_adapter(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    base = bases["gemma3"]
    model = trained(base, "lora", rows=True, dtype=torch.bfloat16)
    save_tuned(tmp_path, model, base)
    with safe_open(tmp_path / "label_head.safetensors", "pt") as file:
        assert list(file.keys()) == ["rows"]
        assert torch.equal(file.get_tensor("rows"), model.rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "label_head.safetensors"]


@pytest.fixture
def checkpoint(bases: dict[str, BaseModel], tmp_path: Path) -> Path:
    save_tuned(tmp_path, trained(bases["mistral"], "lora", rows=True), bases["mistral"])
    return tmp_path


def change_rows(checkpoint: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, checkpoint / "label_head.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "tensors",
    [
        {"rows": torch.zeros(4, 32)},
        {"rows": torch.zeros(3, 64)},
        {"rows": torch.zeros(3, 32, dtype=torch.bfloat16)},
        {"rows": torch.zeros(3, 32), "bias": torch.zeros(3)},
        {"weight": torch.zeros(3, 32)},
        {},
    ],
)
@pytest.mark.parametrize("load", [load_tuned_adapted, load_tuned_merged])
def test_rows_of_another_model_or_label_set_are_refused(
    bases: dict[str, BaseModel], checkpoint: Path, tensors: dict[str, torch.Tensor], load: Any
) -> None:
    change_rows(checkpoint, tensors)
    with pytest.raises(ModelError, match=r"label_head\.safetensors: holds .* want rows \(3, 32\)"):
        load(bases["mistral"].folder, checkpoint, LABEL_IDS, dtype=torch.float32)


def test_damaged_rows_are_an_error_that_names_the_file(
    bases: dict[str, BaseModel], checkpoint: Path
) -> None:
    path = checkpoint / "label_head.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelError, match=r"label_head\.safetensors: cannot be read"):
        load_tuned_merged(bases["mistral"].folder, checkpoint, LABEL_IDS, dtype=torch.float32)


def test_a_folder_with_neither_adapter_nor_model_or_with_both_is_refused(
    bases: dict[str, BaseModel], checkpoint: Path
) -> None:
    (checkpoint / "model").mkdir()
    with pytest.raises(ModelError, match="holds both adapter/ and model/"):
        digest_tuned(checkpoint)
    with pytest.raises(ModelError, match="holds neither adapter/ nor model/"):
        load_tuned_merged(
            bases["mistral"].folder, checkpoint / "nowhere", LABEL_IDS, dtype=torch.float32
        )


def test_a_whole_model_that_lacks_a_weight_is_refused(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    save_tuned(tmp_path, trained(bases["mistral"], "full", rows=False), bases["mistral"])
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        load_tuned_adapted(bases["mistral"].folder, tmp_path, LABEL_IDS, dtype=torch.float32)


def test_the_model_that_was_saved_stays_as_it_was(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    for method in METHODS:
        model = trained(bases["gemma3"], method, rows=True)
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        save_tuned(tmp_path / method, model, bases["gemma3"])
        after = model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], weight) for name, weight in before.items())
        assert plain_model(model.causal_lm).config.use_cache is False
