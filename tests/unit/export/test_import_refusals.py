"""What ``slant import`` does not take, and what it never removes: errors and no tracebacks."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foreign_models import edit_json, imported, save_classifier, save_lora, save_tokenizer
from slant.artifacts import Recipe, build, load
from slant.errors import ArtifactError, ModelError, SlantError, TaskError, UsageError
from slant.model.base import quiet_transformers
from tiny import tiny_spaceless_tokenizer, tiny_tokenizer
from tiny_stages import save_base


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a classifier and adapters of both; tests take copies."""
    root = tmp_path_factory.mktemp("saved")
    base = save_base(root / "base").folder
    save_classifier(root / "classifier")
    save_lora(root / "words", base, "CAUSAL_LM")
    save_lora(root / "head", base, "SEQ_CLS")
    return root


@pytest.fixture
def root(saved: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(saved, tmp_path / "root"))
    for name in ("words", "head"):
        edit_json(root / name / "adapter_config.json", base_model_name_or_path=str(root / "base"))
    return root


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", [".", "..", "made", "../.."])
def test_a_bundle_never_takes_the_place_of_its_source(place: str, root: Path) -> None:
    """All of these hold the classifier, or lie in it; what is there looks like slant's own."""
    with build(root / "sealed", Recipe("export", {}, {"import": {}}, 0)):
        shutil.move(root / "classifier", root / "sealed/classifier")
    before = snapshot(root)
    with pytest.raises(UsageError, match="the model lies there") as error:
        imported(root / "sealed/classifier", root / "sealed/classifier" / place)
    assert "empty folder" in error.value.hint
    assert snapshot(root) == before


def test_nor_that_of_an_adapters_base(root: Path) -> None:
    with build(root / "sealed", Recipe("export", {}, {"import": {}}, 0)):
        shutil.move(root / "base", root / "sealed/base")
    before = snapshot(root)
    with pytest.raises(UsageError, match="the model lies there"):
        imported(root / "words", root / "sealed", base=str(root / "sealed/base"))
    assert snapshot(root) == before


def test_a_bundle_that_was_exported_is_kept_and_one_that_was_imported_made_anew(root: Path) -> None:
    for name, settings in (("exported", {"export": {}}), ("import", {"import": {}})):
        with build(root / name, Recipe("export", {}, settings, 0)):
            (root / name / "precious").write_text("a week of training")
    with pytest.raises(UsageError, match="holds a bundle that `slant export` made"):
        imported(root / "classifier", root / "exported")
    load(root / "exported", "export").verify()
    made = imported(root / "classifier", root / "import")
    assert "precious" not in made.manifest["files"]


def test_an_artifact_of_another_stage_is_kept(root: Path) -> None:
    with build(root / "tune", Recipe("tune", {}, {}, 0)):
        (root / "tune/precious").write_text("a week of training")
    with pytest.raises(ArtifactError, match="another artifact, of the kind tune"):
        imported(root / "classifier", root / "tune")
    load(root / "tune", "tune").verify()


def test_an_adapter_whose_own_tokenizer_reads_otherwise_than_its_bases_is_refused(
    root: Path,
) -> None:
    save_tokenizer(root / "words", tiny_spaceless_tokenizer())
    with pytest.raises(
        TaskError, match=r"words: its tokenizer reads a prompt \(one character\) ot"
    ):
        imported(root / "words", root / "bundle")
    assert not (root / "bundle").exists()


def test_a_tokenizer_that_transformers_makes_anew_by_rules_of_a_class_is_refused(
    root: Path,
) -> None:
    save_classifier(root / "qwen", "qwen3")
    save_tokenizer(root / "qwen", tiny_spaceless_tokenizer())
    edit_json(root / "qwen/tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    with pytest.raises(TaskError, match=r"slant: from token 2 on \[.*\], not \[\d") as error:
        imported(root / "qwen", root / "bundle")
    assert "evaluate.predictions" in error.value.hint


def test_a_tokenizer_that_transformers_cannot_load_is_an_error(root: Path) -> None:
    (root / "classifier/tokenizer_config.json").write_text("[]")
    with pytest.raises(ModelError, match="transformers cannot read with its tokenizer"):
        imported(root / "classifier", root / "bundle")


def test_a_classifier_that_pads_with_a_letter_is_refused(root: Path) -> None:
    """transformers passes over the letter at the end of a text: so does its maker, unwittingly."""
    edit_json(root / "classifier/config.json", pad_token_id=0)
    with pytest.raises(ModelError, match="a token that a text may end in") as error:
        imported(root / "classifier", root / "bundle")
    assert "pad_token_id to 258" in error.value.hint


@pytest.mark.parametrize("name", ["base", "classifier", "words", "head"])
def test_quantised_weights_are_refused_with_what_to_name_instead(name: str, root: Path) -> None:
    quantised = root / (name if name in ("base", "classifier") else "base")
    edit_json(quantised / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(ModelError, match=r"weights are quantised \(bitsandbytes\)") as error:
        imported(root / name, root / "bundle")
    assert ("--base" in error.value.hint) is (quantised.name != name)
    assert not (root / "bundle").exists()


def test_a_model_that_caps_its_logits_is_refused_without_a_hint_to_settings(root: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=tiny_tokenizer().get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=257,
    )
    with quiet_transformers():
        Gemma2ForCausalLM(config).save_pretrained(root / "gemma2")
    save_tokenizer(root / "gemma2")
    with pytest.raises(ModelError, match="caps its logits") as error:
        imported(root / "gemma2", root / "bundle")
    assert "export.formats" not in error.value.hint
    assert "evaluate.predictions" in error.value.hint


def test_a_bias_of_the_head_is_not_left_out(root: Path) -> None:
    path = root / "classifier/model.safetensors"
    tensors = load_file(path) | {"score.bias": torch.tensor([9.0, 0.0, -9.0])}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"holds score\.bias, which Mistral.* does not read"):
        imported(root / "classifier", root / "bundle")


@pytest.mark.parametrize(
    "changes",
    [
        {"id2label": ["Negative", "Neutral", "Positive"]},
        {"id2label": {"1": "Negative", "2": "Neutral", "3": "Positive"}},
        {"id2label": 3},
        {"id2label": {}, "num_labels": "three"},
        {"id2label": None, "num_labels": [3]},
        {"pad_token_id": 99_999},
        {"pad_token_id": "x"},
        {"hidden_size": "x"},
        {"hidden_size": None},
        {"dtype": 5},
        {"dtype": "float8"},
        {"architectures": 5},
        {"architectures": "MistralForSequenceClassification"},
        {"architectures": [None]},
        {"model_type": 7},
        {"problem_type": ["a"]},
        {"quantization_config": "x"},
        {"rope_parameters": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["classifier", "base"])
def test_an_odd_configuration_is_an_error_and_no_traceback(
    name: str, changes: dict[str, Any], root: Path
) -> None:
    edit_json(root / name / "config.json", **changes)
    with contextlib.suppress(SlantError):
        made = imported(root / name, root / "bundle")
        # A causal language model does not look at all of it.
        assert name == "base"
        assert made.facts["parity"]["passed"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"{"], ids=["empty", "bytes", "cut"])
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("name", ["words", "head"])
def test_a_damaged_adapter_is_an_error_and_no_traceback(
    name: str, file: str, content: bytes, root: Path
) -> None:
    (root / name / file).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        imported(root / name, root / "bundle", base=str(root / "base"))


@pytest.mark.parametrize(
    "changes", [{"r": "x"}, {"r": 0}, {"target_modules": 5}, {"lora_alpha": None}, {"revision": 5}]
)
def test_an_adapter_with_an_odd_configuration_is_an_error_and_no_traceback(
    changes: dict[str, Any], root: Path
) -> None:
    edit_json(root / "words/adapter_config.json", **changes)
    with contextlib.suppress(SlantError):
        assert imported(root / "words", root / "bundle").facts["parity"]["passed"]


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": "\ud800 {document} {narrative}"},
        {"prompt_overall": "{document} \udfff"},
        {"labels": ["a\ud800", "b", "c"]},
        {"label_words": {"negative": "\ud800"}},
        {"base": "\ud800"},
    ],
)
def test_half_a_character_is_refused(options: dict[str, Any], root: Path) -> None:
    with pytest.raises(UsageError, match="half of a surrogate pair"):
        imported(root / "base", root / "bundle", **options)


def test_a_limit_that_no_prompt_fits_is_refused(root: Path) -> None:
    with pytest.raises(TaskError, match="no prompt fits the token limit of 16"):
        imported(root / "base", root / "bundle", token_limit=16)
    assert not (root / "bundle").exists()


def test_an_empty_prompt_is_not_taken_for_none(root: Path) -> None:
    for name in ("prompt", "prompt_overall"):
        with pytest.raises(TaskError, match=r"must hold \{document\}"):
            imported(root / "base", root / "bundle", **{name: ""})


def test_names_of_labels_are_those_of_a_head(root: Path) -> None:
    with pytest.raises(UsageError, match="has no labels of its own") as error:
        imported(root / "base", root / "bundle", labels={"negative": "NEG", "positive": "POS"})
    assert "--label-word" in error.value.hint


def test_a_file_that_is_no_object_is_named(root: Path) -> None:
    (root / "classifier/config.json").write_text(json.dumps([1]))
    with pytest.raises(ModelError, match=r"config\.json: is no JSON object"):
        imported(root / "classifier", root / "bundle")
