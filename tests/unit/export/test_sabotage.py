"""An export that went wrong does not leave the house: one test for each way it can."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from exporting import Exported, change_weights, export_moved, moved_checkpoint
from slant.errors import GateError
from slant.export.parity import ask_trained
from slant.task.spec import TaskSpec
from tiny import tiny_spaceless_tokenizer
from tiny_stages import EOS, save_base, tiny_settings
from unit.export.test_formats import make_spec

REFUSED = "does not reproduce the model"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("honest")
    base = save_base(root / "base")
    spec = make_spec(base, temperature=1.0)
    return export_moved(root / "out", base, spec, moved_checkpoint(root / "tune", base, spec))


@pytest.fixture
def exported(honest: Exported, tmp_path: Path) -> Exported:
    """A copy to spoil."""
    shutil.copytree(honest.folder, tmp_path / "out")
    return replace(honest, folder=tmp_path / "out")


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps(content), "utf-8")


def refuse(exported: Exported, *formats: str, match: str = REFUSED, **changes: Any) -> None:
    with pytest.raises(GateError, match=match) as caught:
        exported.prove(*formats, **changes)
    assert caught.value.exit_code == 3
    assert not any((exported.folder / name).exists() for name in formats)


def test_an_honest_export_is_proved(honest: Exported) -> None:
    spread = honest.trained.max(axis=0) - honest.trained.min(axis=0)
    assert spread.min() > 0.1  # there is something to see
    proof = honest.prove("causal-lm", "classifier", "adapter", "int8")
    assert proof["passed"]
    for name in ("causal-lm", "classifier", "adapter"):
        assert proof["formats"][name]["max_difference"] < 1e-5
        assert proof["formats"][name]["label_agreement"] == 1


def test_a_head_that_was_dropped_is_caught(exported: Exported) -> None:
    """transformers fills a missing head with random numbers, and only warns."""
    change_weights(exported.folder / "classifier", lambda tensors: tensors.pop("score.weight"))
    refuse(exported, "classifier", match=r"classifier: weights are missing score\.weight")


def test_an_lm_head_that_was_dropped_is_caught(exported: Exported) -> None:
    change_weights(exported.folder / "causal-lm", lambda tensors: tensors.pop("lm_head.weight"))
    refuse(exported, "causal-lm", match=r"causal-lm: weights are missing lm_head\.weight")


def test_a_head_of_small_random_numbers_is_caught(exported: Exported) -> None:
    def draw(tensors: dict[str, torch.Tensor]) -> None:
        generator = torch.Generator().manual_seed(0)
        tensors["score.weight"] = torch.randn(tensors["score.weight"].shape, generator=generator)

    change_weights(exported.folder / "classifier", draw)
    refuse(exported, "classifier")


def test_label_rows_in_another_order_are_caught(exported: Exported) -> None:
    def swap(tensors: dict[str, torch.Tensor]) -> None:
        tensors["score.weight"] = tensors["score.weight"][[1, 0, 2]].contiguous()

    change_weights(exported.folder / "classifier", swap)
    refuse(exported, "classifier")


def test_label_names_in_another_order_are_caught(exported: Exported) -> None:
    names = ["positive", "neutral", "negative"]
    edit_json(
        exported.folder / "classifier" / "config.json",
        id2label={str(i): name for i, name in enumerate(names)},
        label2id={name: i for i, name in enumerate(names)},
    )
    refuse(exported, "classifier")


def test_labels_without_their_names_are_caught(exported: Exported) -> None:
    edit_json(
        exported.folder / "classifier" / "config.json",
        id2label={str(i): f"LABEL_{i}" for i in range(3)},
        label2id={f"LABEL_{i}": i for i in range(3)},
    )
    refuse(exported, "classifier", match=r"its labels are \['LABEL_0'")


def test_the_tokens_of_other_label_words_are_caught(exported: Exported) -> None:
    words = exported.spec.verbalizer
    turned = replace(words, token_ids=words.token_ids[1:] + words.token_ids[:1])
    refuse(exported, "causal-lm", spec=replace(exported.spec, verbalizer=turned))


def test_a_chat_template_with_another_wording_is_caught(exported: Exported) -> None:
    path = exported.folder / "classifier" / "chat_template.jinja"
    text = path.read_text("utf-8")
    assert "Narrative: " in text
    path.write_text(text.replace("Narrative: ", "Narrative:"), "utf-8")
    refuse(exported, "classifier")


def test_a_contract_with_another_template_than_that_of_training_is_caught(
    exported: Exported, tmp_path: Path
) -> None:
    """The trained model is asked as it was trained, whatever slant.json of the bundle says."""
    task = tiny_settings().task
    template = replace(exported.spec.template, prompt=task.prompt.replace("Narrative", "Story"))
    wrong = export_moved(
        tmp_path / "wrong",
        exported.base,
        replace(exported.spec, template=template),
        exported.checkpoint,
        formats=["causal-lm", "classifier"],
    )
    refuse(wrong, "causal-lm", "classifier")


@pytest.mark.parametrize("name", ["causal-lm", "classifier"])
def test_a_layer_of_random_weights_is_caught(exported: Exported, name: str) -> None:
    def scramble(tensors: dict[str, torch.Tensor]) -> None:
        key = "model.layers.1.mlp.down_proj.weight"
        generator = torch.Generator().manual_seed(0)
        tensors[key] = torch.randn(tensors[key].shape, generator=generator) * tensors[key].std()

    change_weights(exported.folder / name, scramble)
    refuse(exported, name, match=f"{name} ")


def test_a_layer_of_random_8_bit_weights_is_caught(exported: Exported) -> None:
    def scramble(tensors: dict[str, torch.Tensor]) -> None:
        key = "model.layers.1.mlp.down_proj.weight"
        tensors[key] = tensors[key].flip(0).contiguous()

    change_weights(exported.folder / "int8", scramble)
    refuse(exported, "int8")


def test_scales_of_8_bit_weights_that_were_lost_are_caught(exported: Exported) -> None:
    key = "model.layers.0.mlp.up_proj.weight_scale"
    change_weights(exported.folder / "int8", lambda tensors: tensors.pop(key))
    refuse(exported, "int8")


def test_the_base_without_its_adapter_is_caught(exported: Exported) -> None:
    shutil.copyfile(
        exported.base.folder / "model.safetensors",
        exported.folder / "causal-lm" / "model.safetensors",
    )
    refuse(exported, "causal-lm")


def test_an_adapter_of_another_scale_is_caught(exported: Exported) -> None:
    edit_json(exported.folder / "adapter" / "adapter_config.json", lora_alpha=8)
    refuse(exported, "adapter")


def test_an_adapter_without_its_label_rows_is_caught(exported: Exported) -> None:
    (exported.folder / "adapter" / "label_head.safetensors").unlink()
    refuse(exported, "adapter")


@pytest.mark.parametrize("name", ["causal-lm", "classifier"])
def test_another_tokenizer_is_caught(exported: Exported, name: str) -> None:
    tiny_spaceless_tokenizer().save(str(exported.folder / name / "tokenizer.json"))
    refuse(exported, name)


@pytest.mark.parametrize("bos", [0, 2])
def test_one_bos_too_few_or_too_many_is_caught(exported: Exported, bos: int) -> None:
    from tokenizers import processors

    path = exported.folder / "classifier" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(["<bos>"] * bos + ["$A"]), special_tokens=[("<bos>", 256)]
    )
    tokenizer.save(str(path))
    refuse(exported, "classifier")


def test_a_classifier_that_reads_its_padding_is_caught(exported: Exported) -> None:
    """Its configuration takes another token for padding than its tokenizer pads with."""
    edit_json(exported.folder / "classifier" / "config.json", pad_token_id=EOS)
    refuse(exported, "classifier", match=r"classifier \(right\): a probability moved")


def test_a_classifier_that_cannot_pad_is_caught(exported: Exported) -> None:
    edit_json(exported.folder / "classifier" / "config.json", pad_token_id=None)
    refuse(exported, "classifier", match="no padding token is defined")


def test_a_tokenizer_that_takes_text_for_special_tokens_is_caught(exported: Exported) -> None:
    edit_json(exported.folder / "classifier" / "tokenizer_config.json", split_special_tokens=False)
    refuse(exported, "classifier")


def test_a_wrong_temperature_is_caught(exported: Exported) -> None:
    hotter = exported.spec.with_temperature(exported.spec.temperature * 1.3)
    refuse(exported, "causal-lm", spec=hotter)

    def cool(tensors: dict[str, torch.Tensor]) -> None:
        tensors["score.weight"] = tensors["score.weight"] / 1.3

    change_weights(exported.folder / "classifier", cool)
    refuse(exported, "classifier")


def test_a_weight_that_is_no_number_is_caught(exported: Exported) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan

    change_weights(exported.folder / "classifier", spoil)
    refuse(exported, "classifier")


def test_a_cut_file_of_weights_is_caught(exported: Exported) -> None:
    path = exported.folder / "classifier" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refuse(exported, "classifier", match="classifier: ")


def test_one_bad_folder_takes_the_good_ones_with_it(exported: Exported) -> None:
    change_weights(exported.folder / "classifier", lambda tensors: tensors.pop("score.weight"))
    refuse(exported, "causal-lm", "classifier", match="classifier: weights are missing")


def test_the_reference_knows_nothing_of_the_exported_folders(
    honest: Exported, exported: Exported
) -> None:
    shutil.rmtree(exported.folder)
    again = ask_trained(exported.checkpoint, exported.base, exported.spec, exported.probes)
    assert (again == honest.trained).all()
    assert TaskSpec.load(exported.checkpoint).temperature == 1
