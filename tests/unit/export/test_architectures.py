"""Every architecture, however it was tuned, in every format and dtype: parity holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from exporting import FORMATS, Exported, export_moved, moved_checkpoint
from slant.export.merge import describe_merge, merge_sentence
from slant.export.parity import answer_in_fresh_process, ask_folders
from slant.model import folder as model_folder
from slant.model.base import BaseModel, load_causal_lm, load_tokenizer
from tiny_stages import EOS, save_base
from unit.export.test_formats import make_spec

ARCHITECTURES = ("mistral", "llama", "qwen3", "gemma3")
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}


def exported(
    root: Path, base: BaseModel, method: str = "lora", pad: int | None = None, **options: Any
) -> Exported:
    spec = make_spec(base, 1.0, **({} if pad is None else {"pad_token_id": pad}))
    checkpoint = moved_checkpoint(root / "tune", base, spec, method)
    formats = [name for name in FORMATS if method == "lora" or name != "adapter"]
    return export_moved(root / "out", base, spec, checkpoint, formats=formats, **options)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_formats_give_the_trained_probabilities(
    tmp_path: Path, architecture: str, method: str
) -> None:
    made = exported(tmp_path, save_base(tmp_path / "base", architecture), method)
    names = [path.name for path in made.folder.iterdir()]
    proof = made.prove(*names)
    assert len(names) == (4 if method == "lora" else 3)
    for name in names:
        figures = proof["formats"][name]
        assert figures["max_difference"] <= (0.1 if name == "int8" else 1e-5), name
        assert {"left", "right", "single"} <= figures["ways"].keys()
        assert figures["ways"]["left"]["count"] >= 20
    assert proof["formats"]["int8"]["max_difference"] > 1e-4  # it was rounded


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["mistral", "gemma3"])
def test_half_precision_keeps_to_its_bound(
    tmp_path: Path, architecture: str, dtype: torch.dtype
) -> None:
    """The one has a head of its own, the other one matrix for both ends."""
    made = exported(tmp_path, save_base(tmp_path / "base", architecture), dtype=dtype)
    formats = made.prove("causal-lm", "classifier", "int8")["formats"]
    for name in ("causal-lm", "classifier"):
        assert 0 < formats[name]["max_difference"] <= BOUNDS[dtype]
        assert formats[name]["dtype"] == str(dtype).removeprefix("torch.")
    with safe_open(made.folder / "causal-lm" / "model.safetensors", "pt") as file:
        assert file.get_tensor("model.layers.0.mlp.up_proj.weight").dtype == dtype


def test_a_fresh_process_gives_what_this_one_gives(tmp_path: Path) -> None:
    made = exported(tmp_path, save_base(tmp_path / "base", "gemma3"), dtype=torch.bfloat16)
    folders = {name: made.folder / name for name in FORMATS}
    found = ask_folders(
        folders, made.spec, made.probes, base=made.base.folder, ask=answer_in_fresh_process
    )
    here = made.prove(*FORMATS)["formats"]
    for name, answers in found.items():
        places, rows = next(iter(answers.ways.values()))
        moved = np.abs(rows - made.trained[list(places)]).max()
        assert moved == pytest.approx(
            here[name]["ways"][next(iter(answers.ways))]["max_difference"], abs=1e-5
        )
        assert answers.ways.keys() == here[name]["ways"].keys()


def test_a_tokenizer_without_bos_travels_as_it_is(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "qwen3")
    path = base.folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8")) | {"post_processor": None}
    path.write_text(json.dumps(content), "utf-8")
    made = exported(tmp_path, base)
    assert made.spec.bos_token_id is None
    assert load_tokenizer(made.folder / "classifier").encode("x").ids == [ord("x") - ord("!")]
    made.prove(*FORMATS)


def test_a_tokenizer_without_a_padding_token_gets_one_in_every_format(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama", pad_token=None)
    exported(tmp_path, base, pad=EOS).prove(*FORMATS)


def test_large_models_are_written_and_read_in_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "SHARD_BYTES", 40_000)
    made = exported(tmp_path, save_base(tmp_path / "base", "gemma3"))
    for name in ("causal-lm", "classifier", "int8"):
        assert len(list((made.folder / name).glob("*.safetensors"))) > 1, name
        assert (made.folder / name / "model.safetensors.index.json").is_file()
    made.prove(*FORMATS)


def test_an_adapter_without_trained_rows_takes_those_of_the_base(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "gemma3")
    spec = make_spec(base, 1.0)
    checkpoint = moved_checkpoint(tmp_path / "tune", base, spec, rows=False)
    made = export_moved(tmp_path / "out", base, spec, checkpoint)
    assert not (made.folder / "adapter" / "label_head.safetensors").exists()
    tied = json.loads((made.folder / "causal-lm" / "config.json").read_text("utf-8"))
    assert tied["tie_word_embeddings"]
    made.prove(*FORMATS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merging_what_was_trained_on_4_bits_is_measured_and_told(
    tmp_path: Path, architecture: str
) -> None:
    pytest.importorskip("bitsandbytes")
    made = exported(tmp_path, save_base(tmp_path / "base", architecture), quantize="nf4")
    options: dict[str, Any] = {"probes": made.probes, "merged": made.trained}
    facts = describe_merge(made.checkpoint, made.base, made.spec, quantize="nf4", **options)
    assert facts is not None
    differences = facts["differences"]
    # What is exported is what was trained, to the rounding of float32 ...
    assert differences["merged_onto_dequantised_base"]["max_difference"] < 1e-4
    # ... and the base as it was is another one.
    found = differences["merged_onto_base"]
    assert found["max_difference"] > 1e-3
    assert f"at most {found['max_difference']:.4f}" in merge_sentence(facts)
    plain = describe_merge(made.checkpoint, made.base, made.spec, quantize="none", **options)
    assert merge_sentence(plain) == ""
    made.prove(*FORMATS)


def test_8_bit_weights_are_what_vllm_reads(tmp_path: Path) -> None:
    made = exported(tmp_path, save_base(tmp_path / "base"), dtype=torch.bfloat16)
    config = json.loads((made.folder / "int8" / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["MistralForSequenceClassification"]
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    assert config["quantization_config"]["quantization_status"] == "compressed"
    assert config["quantization_config"]["ignore"] == ["score"]
    (group,) = config["quantization_config"]["config_groups"].values()
    assert (group["weights"]["num_bits"], group["weights"]["strategy"]) == (8, "channel")
    assert group["input_activations"]["dynamic"] is True
    assert group["input_activations"]["strategy"] == "token"
    with safe_open(made.folder / "int8" / "model.safetensors", "pt") as file:
        weight = file.get_tensor("model.layers.0.mlp.up_proj.weight")
        scale = file.get_tensor("model.layers.0.mlp.up_proj.weight_scale")
        assert file.get_tensor("score.weight").dtype == torch.float32
        assert file.get_tensor("model.embed_tokens.weight").dtype == torch.bfloat16
    assert weight.dtype == torch.int8
    assert scale.shape == (64, 1)
    causal_lm = load_causal_lm(made.folder / "causal-lm", dtype=torch.float32)
    exact = causal_lm.get_submodule("model.layers.0.mlp.up_proj").weight
    assert ((weight * scale - exact).abs() <= scale * 0.51).all()
