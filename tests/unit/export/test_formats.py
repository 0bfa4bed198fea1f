from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporting import export_moved, moved_checkpoint
from slant.errors import ModelError
from slant.export.adapter_format import write_adapter
from slant.export.formats import write_causal_lm, write_classifier
from slant.export.int8 import check_int8
from slant.export.parity import label_probabilities
from slant.labels import LabelSet
from slant.model.base import BaseModel, load_causal_lm, load_tokenizer
from slant.model.folder import save_causal_lm
from slant.model.label_head import LabelModel
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.template import Template
from tiny import PAD, tiny_spaceless_tokenizer, tiny_tokenizer
from tiny_stages import EOS, LABELS, save_base, tiny_settings

TEXTS = [
    ("the new bridge is a ruin", "the new bridge"),
    ("新桥令人高兴，非常漂亮。" * 4, "新桥"),
    ("Новый мост открывается в среду.", None),
    ("x", "y"),
    ("el puente nuevo es una alegría " * 20, "el puente nuevo"),
]


def make_spec(base: BaseModel, temperature: float = 1.7, pad_token_id: int = PAD) -> TaskSpec:
    task = tiny_settings().task
    return TaskSpec.create(
        load_tokenizer(base.folder),
        template=Template(task.prompt, task.prompt_overall),
        labels=LabelSet(LABELS),
        label_words={},
        token_limit=200,
        pad_token_id=pad_token_id,
        base=(base.name, base.digest),
    ).with_temperature(temperature)


def prompts_of(spec: TaskSpec, texts: Any = TEXTS) -> tuple[list[str], list[list[int]]]:
    encoder = Encoder(tiny_tokenizer(), spec)
    prompts = [encoder.prompt(*text) for text in texts]
    return prompts, [encoder.encode_prompt(prompt) for prompt in prompts]


def causal_lm_probabilities(causal_lm: Any, spec: TaskSpec, ids: list[list[int]]) -> np.ndarray:
    return label_probabilities(LabelModel(causal_lm, spec.verbalizer.token_ids), spec, ids)


def plainly(folder: Path, prompts: list[str], side: str) -> np.ndarray:
    """What a user of transformers gets, in one padded batch."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits.softmax(dim=-1).numpy()


@pytest.mark.parametrize("architecture", ["mistral", "llama", "qwen3", "gemma3"])
def test_the_classifier_gives_slants_probabilities_in_plain_transformers(
    tmp_path: Path, architecture: str
) -> None:
    base = save_base(tmp_path / "base", architecture)
    spec = make_spec(base)
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    prompts, ids = prompts_of(spec)
    expected = causal_lm_probabilities(causal_lm, spec, ids)
    assert expected.max() - expected.min() > 0.1  # there is something to see
    write_classifier(causal_lm, spec, base.folder, tmp_path / "classifier")
    for side in ("left", "right"):
        found = plainly(tmp_path / "classifier", prompts, side)
        assert np.abs(found - expected).max() < 1e-4, side


@pytest.mark.parametrize("architecture", ["mistral", "gemma3"])
def test_the_causal_lm_comes_back_as_it_was(tmp_path: Path, architecture: str) -> None:
    base = save_base(tmp_path / "base", architecture)
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    save_causal_lm(causal_lm, base.folder, tmp_path / "causal-lm")
    again = load_causal_lm(tmp_path / "causal-lm", dtype=torch.float32)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(causal_lm(ids).logits, again(ids).logits)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copy = (tmp_path / "causal-lm" / name).read_bytes()
        assert copy == (base.folder / name).read_bytes()
    # Scoring switches the cache off; whoever generates text with the folder wants it on.
    assert json.loads((tmp_path / "causal-lm" / "config.json").read_text()).get("use_cache", True)


def test_the_temperature_is_folded_into_the_head(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    prompts, _ = prompts_of(make_spec(base))
    found = []
    for temperature in (1.0, 2.5):
        folder = tmp_path / str(temperature)
        write_classifier(causal_lm, make_spec(base, temperature), base.folder, folder)
        found.append(plainly(folder, prompts, "right"))
    sharpened = found[1] ** 2.5
    assert sharpened / sharpened.sum(axis=1, keepdims=True) == pytest.approx(found[0], abs=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_writing_the_classifier_leaves_the_causal_lm_as_it_was(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    before = {key: value.clone() for key, value in causal_lm.state_dict().items()}
    write_classifier(causal_lm, make_spec(base), base.folder, tmp_path / "classifier")
    assert all(torch.equal(value, before[key]) for key, value in causal_lm.state_dict().items())
    assert causal_lm.config.num_labels != 3 or causal_lm.config.pad_token_id == PAD


def test_labels_are_named_in_order(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    write_classifier(causal_lm, make_spec(base), base.folder, tmp_path / "classifier")
    config = json.loads((tmp_path / "classifier" / "config.json").read_text("utf-8"))
    assert config["id2label"] == {str(i): label for i, label in enumerate(LABELS)}
    assert config["label2id"] == {label: i for i, label in enumerate(LABELS)}
    assert config["architectures"] == ["MistralForSequenceClassification"]


def test_the_head_of_a_bfloat16_classifier_stays_float32(tmp_path: Path) -> None:
    from safetensors import safe_open

    base = save_base(tmp_path / "base")
    causal_lm = load_causal_lm(base.folder, dtype=torch.bfloat16)
    write_classifier(causal_lm, make_spec(base), base.folder, tmp_path / "classifier")
    with safe_open(tmp_path / "classifier" / "model.safetensors", "pt") as file:
        assert file.get_tensor("score.weight").dtype == torch.float32
        assert file.get_tensor("model.layers.0.mlp.up_proj.weight").dtype == torch.bfloat16
    assert not list((tmp_path / "classifier").glob("*.bin"))


@pytest.mark.parametrize("architecture", ["mistral", "llama"])
def test_a_tokenizer_without_a_padding_token_gets_one_in_the_classifier(
    tmp_path: Path, architecture: str
) -> None:
    """As those of Mistral 7B and Llama 3 come: neither model nor tokenizer can pad."""
    base = save_base(tmp_path / "base", architecture, pad_token=None)
    assert json.loads((base.folder / "config.json").read_text()).get("pad_token_id") is None
    spec = make_spec(base, pad_token_id=EOS)
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    prompts, ids = prompts_of(spec)
    expected = causal_lm_probabilities(causal_lm, spec, ids)
    write_classifier(causal_lm, spec, base.folder, tmp_path / "classifier")
    for side in ("left", "right"):
        assert np.abs(plainly(tmp_path / "classifier", prompts, side) - expected).max() < 1e-4


def test_a_tokenizer_that_pads_with_another_token_than_the_model_is_brought_in_line(
    tmp_path: Path,
) -> None:
    base = save_base(tmp_path / "base", pad_token="<eos>")
    spec = make_spec(base)  # the model's configuration says <pad>
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    prompts, ids = prompts_of(spec)
    expected = causal_lm_probabilities(causal_lm, spec, ids)
    write_classifier(causal_lm, spec, base.folder, tmp_path / "classifier")
    assert np.abs(plainly(tmp_path / "classifier", prompts, "right") - expected).max() < 1e-4


def test_special_tokens_written_in_a_document_are_plain_text(tmp_path: Path) -> None:
    """``<s>`` is a strike-through in HTML and the first token of Mistral's vocabulary."""
    base = save_base(tmp_path / "base")
    spec = make_spec(base)
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    texts = [("was <bos>closed<eos> opened <pad>", "<pad>"), ("short <eos>", None)]
    prompts, ids = prompts_of(spec, texts)
    expected = causal_lm_probabilities(causal_lm, spec, ids)
    write_classifier(causal_lm, spec, base.folder, tmp_path / "classifier")
    assert np.abs(plainly(tmp_path / "classifier", prompts, "right") - expected).max() < 1e-4


def test_the_tokenizer_of_the_classifier_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", pad_token=None)
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    write_classifier(causal_lm, make_spec(base), base.folder, tmp_path / "classifier")
    copy = (tmp_path / "classifier" / "tokenizer.json").read_bytes()
    assert copy == (base.folder / "tokenizer.json").read_bytes()


def test_an_architecture_without_a_classifier_is_a_model_error(tmp_path: Path) -> None:
    from transformers import BambaConfig, BambaForCausalLM

    base = save_base(tmp_path / "base")
    config = BambaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        mamba_n_heads=4,
        mamba_d_head=16,
        attn_layer_indices=[0],
    )
    with pytest.raises(ModelError, match="no sequence classifier for bamba"):
        write_classifier(BambaForCausalLM(config), make_spec(base), base.folder, tmp_path / "c")


def test_a_model_that_caps_its_logits_is_a_model_error(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "gemma3")
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    causal_lm.config.final_logit_softcapping = 30.0
    with pytest.raises(ModelError, match="caps its logits"):
        write_classifier(causal_lm, make_spec(base), base.folder, tmp_path / "c")


def test_a_model_whose_classifier_keeps_its_decoder_under_another_name_works(
    tmp_path: Path,
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    base = save_base(tmp_path / "base")
    torch.manual_seed(0)
    causal_lm = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=tiny_tokenizer().get_vocab_size(),
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=256,
            initializer_range=0.15,
            bos_token_id=256,
            eos_token_id=EOS,
        )
    ).eval()
    spec = make_spec(base)
    prompts, ids = prompts_of(spec)
    expected = causal_lm_probabilities(causal_lm, spec, ids)
    write_classifier(causal_lm, spec, base.folder, tmp_path / "classifier")
    assert np.abs(plainly(tmp_path / "classifier", prompts, "right") - expected).max() < 1e-4


def test_exported_weights_can_be_read_by_whoever_reads_the_folder(tmp_path: Path) -> None:
    """safetensors leaves its files to their owner alone; a server runs as somebody else."""
    base = save_base(tmp_path / "base")
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    write_causal_lm(causal_lm, make_spec(base), base.folder, tmp_path / "causal-lm")
    write_classifier(causal_lm, make_spec(base), base.folder, tmp_path / "classifier")
    for name in ("causal-lm", "classifier"):
        modes = {path.stat().st_mode for path in (tmp_path / name).iterdir()}
        assert len(modes) == 1


def test_the_classifier_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    with SeenSizes() as seen:
        write_classifier(causal_lm, make_spec(base), base.folder, tmp_path / "classifier")
    embeddings = causal_lm.get_input_embeddings().weight.numel()
    assert 0 < seen.largest < embeddings


class SeenSizes(torch.overrides.TorchFunctionMode):
    """The largest tensor that is made while it is entered, by its number of values."""

    largest = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is torch.empty and made.device.type == "cpu":
            self.largest = max(self.largest, made.numel())
        return made


@pytest.mark.parametrize("write", [write_causal_lm, write_classifier])
def test_a_plain_tokenizer_makes_the_prompt_from_the_texts(tmp_path: Path, write: Any) -> None:
    from transformers import AutoTokenizer

    base = save_base(tmp_path / "base")
    spec = make_spec(base)
    write(load_causal_lm(base.folder, dtype=torch.float32), spec, base.folder, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for (document, narrative), prompt in zip(
        TEXTS[:4], prompts_of(spec, TEXTS[:4])[0], strict=True
    ):
        messages = [{"role": "document", "content": document}]
        if narrative is not None:
            messages.append({"role": "narrative", "content": narrative})
        assert tokenizer.apply_chat_template(messages, tokenize=False) == prompt


def test_int8_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "compressed_tensors", None)
    with pytest.raises(ModelError, match="compressed-tensors, which is not installed") as caught:
        check_int8()
    assert "slant[int8]" in caught.value.hint


def test_a_checkpoint_of_a_whole_model_has_no_adapter_to_export(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    with pytest.raises(ModelError, match="holds the whole model and no adapter") as caught:
        write_adapter(tmp_path, base, tmp_path / "adapter", quantize="none", adapted=False)
    assert "export.formats" in caught.value.hint


def test_an_adapter_names_its_base_by_digest_and_no_path(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    spec = make_spec(base)
    checkpoint = moved_checkpoint(tmp_path / "tune", base, spec)
    write_adapter(checkpoint, base, tmp_path / "adapter", quantize="none", adapted=True)
    named = json.loads((tmp_path / "adapter" / "base.json").read_text("utf-8"))
    assert named == {
        "name": "tiny/mistral",
        "digest": base.digest,
        "quantize": "none",
        "adapted": True,
    }
    for path in (tmp_path / "adapter").glob("*.json"):
        assert str(tmp_path) not in path.read_text("utf-8")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        copy = (tmp_path / "adapter" / name).read_bytes()
        assert copy == (checkpoint / "adapter" / name).read_bytes()


def test_every_folder_has_the_licence_of_the_base(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    base = save_base(tmp_path / "base")
    (base.folder / "README.md").write_text("---\nlicense: llama3\n---\n")
    (base.folder / "LICENSE").write_text("You may.")
    spec = make_spec(base)
    checkpoint = moved_checkpoint(tmp_path / "tune", base, spec)
    formats = ("causal-lm", "classifier", "adapter", "int8")
    export_moved(tmp_path / "bundle", base, spec, checkpoint, formats=formats)
    for name in formats:
        assert (tmp_path / "bundle" / name / "LICENSE").read_text() == "You may."
        assert "llama3" in (tmp_path / "bundle" / name / "BASE_MODEL.md").read_text()


def test_a_tokenizer_that_transformers_would_make_anew_is_taken_as_it_is(tmp_path: Path) -> None:
    """Llama 2 names a class that reads a vocabulary with rules of its own."""
    from transformers import AutoTokenizer

    base = save_base(tmp_path / "base", "llama")
    tiny_spaceless_tokenizer().save(str(base.folder / "tokenizer.json"))
    path = base.folder / "tokenizer_config.json"
    own = {"tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "auto_map": {"x": "y"}}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | own), "utf-8")
    spec = make_spec(base)
    prompt = "the new bridge\n\nNarrative: x"
    ids = Encoder(tiny_spaceless_tokenizer(), spec).encode_prompt(prompt)
    assert AutoTokenizer.from_pretrained(base.folder)(prompt)["input_ids"] != ids  # the trap
    write_causal_lm(
        load_causal_lm(base.folder, dtype=torch.float32), spec, base.folder, tmp_path / "out"
    )
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(prompt)["input_ids"] == ids
    assert "auto_map" not in (tmp_path / "out" / "tokenizer_config.json").read_text("utf-8")
