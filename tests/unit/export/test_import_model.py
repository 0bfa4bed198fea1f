"""Models as other programs leave them become bundles that answer as they did."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import metadata_load
from safetensors.torch import load_file, save_file

from slant.artifacts import Artifact, find
from slant.errors import GateError, ModelError, SlantError, TaskError, UsageError
from slant.export.consumer import answer
from slant.export.import_model import import_model
from slant.model.base import quiet_transformers
from slant.publish.release import Release
from slant.score.scorer import Scorer
from slant.task.spec import TaskSpec
from tiny import tiny_tokenizer
from tiny_stages import save_base, tiny_config

TEXTS = ["The bridge is a ruin.", "新桥令人高兴", "Мост открыт <eos>"]
FAMILIES = ("mistral", "llama", "qwen3", "gemma3")
NAMES = ("Negative", "Neutral", "Positive")


def imported(source: Path, bundle: Path, **options: Any) -> Artifact:
    """The proof is made in this process; one test has it made in a fresh one."""
    few = {"parity_examples": 8, "token_limit": 128, "ask": answer}
    return import_model(source, bundle, **{**few, **options})


def save_tokenizer(folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    ).save_pretrained(folder)


def save_classifier(
    folder: Path, family: str = "mistral", *, names: Sequence[str] = NAMES, **changes: Any
) -> Path:
    """A classifier as transformers' Trainer leaves one."""
    from transformers import AutoModelForSequenceClassification

    config = tiny_config(family)
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: row for row, name in enumerate(names)}
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_config(config)
        model.to(changes.get("dtype", torch.float32)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_lora(folder: Path, base: Path, task: str, **options: Any) -> Path:
    """An adapter as PEFT leaves one, with weights that do something."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    changes = {} if task == "CAUSAL_LM" else {"num_labels": 3}
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(4)
        model = auto.from_pretrained(base, **changes)
        config = LoraConfig(task_type=task, r=4, target_modules=["q_proj", "v_proj"], **options)
        adapted = get_peft_model(model, config)
        for name, param in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(param, std=0.3)
        adapted.save_pretrained(folder)
    return folder


def asked_by_transformers(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """What a classifier answers, one text at a time, by transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    with torch.inference_mode():
        rows = [
            model.eval()(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
            for text in texts
        ]
    return torch.stack(rows).numpy()


def scored(bundle: Artifact, texts: Sequence[str]) -> np.ndarray:
    return Scorer.load(bundle.path, dtype="float32").predict_proba(list(texts))


def test_weights_stay_in_the_dtype_that_they_are_stored_in(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "peer", dtype=torch.bfloat16)
    kept = imported(source, tmp_path / "bundle")
    assert load_file(kept.path / "causal-lm/model.safetensors")["lm_head.weight"].dtype == (
        torch.bfloat16
    )
    assert scored(kept, TEXTS) == pytest.approx(asked_by_transformers(source, TEXTS), abs=1e-4)
    wider = imported(source, tmp_path / "wider", dtype="float32")
    assert load_file(wider.path / "causal-lm/model.safetensors")["lm_head.weight"].dtype == (
        torch.float32
    )


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with a licence; tests leave it as it is."""
    source = save_classifier(tmp_path_factory.mktemp("peers") / "peer")
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return source


@pytest.fixture(scope="module")
def proved(peer: Path) -> Artifact:
    """Its bundle, as a user makes it: proved in a fresh process."""
    return import_model(peer, peer.parent / "bundle", token_limit=128, parity_examples=64)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoders_classifier_answers_as_it_did(family: str, tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "peer", family)
    bundle = imported(source, tmp_path / "bundle")
    expected = asked_by_transformers(source, TEXTS)
    assert np.ptp(expected) > 0.05
    assert scored(bundle, TEXTS) == pytest.approx(expected, abs=1e-4)
    assert asked_by_transformers(bundle.path / "classifier", TEXTS) == pytest.approx(
        expected, abs=1e-4
    )
    assert tuple(TaskSpec.load(bundle.path).labels) == NAMES


def test_the_labels_of_a_classifier_are_ordered_by_their_names(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "peer", names=("Positive", "Negative", "Neutral"))
    bundle = imported(source, tmp_path / "bundle", labels=["negative", "neutral", "positive"])
    expected = asked_by_transformers(source, TEXTS)[:, [1, 2, 0]]
    assert scored(bundle, TEXTS) == pytest.approx(expected, abs=1e-4)


def test_labels_without_names_are_named_in_the_order_of_the_head(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "peer", names=("LABEL_0", "LABEL_1", "LABEL_2"))
    with pytest.raises(TaskError, match="does not name its 3 labels") as error:
        imported(source, tmp_path / "bundle")
    assert "--labels negative,neutral,positive" in str(error.value)
    bundle = imported(source, tmp_path / "bundle", labels=["negative", "neutral", "positive"])
    assert scored(bundle, TEXTS) == pytest.approx(asked_by_transformers(source, TEXTS), abs=1e-4)


@pytest.mark.parametrize("labels", [["negative", "other", "positive"], ["negative", "positive"]])
def test_labels_that_are_not_the_classifiers_are_refused(labels: list[str], tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "peer")
    with pytest.raises(TaskError, match=r"are not those of .*: Negative, Neutral, Positive"):
        imported(source, tmp_path / "bundle", labels=labels)
    assert not (tmp_path / "bundle").exists()


def test_a_classifier_reads_the_text_and_then_the_narrative(
    peer: Path, proved: Artifact, tmp_path: Path
) -> None:
    found = Scorer.load(proved.path, dtype="float32").predict_proba(TEXTS[0], "the mayor")
    expected = asked_by_transformers(peer, [f"{TEXTS[0]}\nthe mayor"])
    assert found == pytest.approx(expected, abs=1e-4)
    asked = imported(peer, tmp_path / "other", prompt="{document} [{narrative}]")
    found = Scorer.load(asked.path, dtype="float32").predict_proba(TEXTS[0], "the mayor")
    expected = asked_by_transformers(peer, [f"{TEXTS[0]} [the mayor]"])
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_causal_language_model_answers_with_its_words(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = save_base(tmp_path / "peer", "qwen3").folder
    words = {"positive": "neutral", "neutral": "positive"}
    bundle = imported(base, tmp_path / "bundle", label_words=words)
    spec = TaskSpec.load(bundle.path)
    assert spec.verbalizer.words == ("negative", "positive", "neutral")
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    ids = tiny_tokenizer().encode(f"{TEXTS[0]}\n\nOverall sentiment:").ids
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1, list(spec.verbalizer.token_ids)]
    assert scored(bundle, TEXTS[:1])[0] == pytest.approx(logits.softmax(-1).numpy(), abs=1e-4)


def test_an_adapter_is_put_into_the_base_that_it_names(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = save_base(tmp_path / "base", "llama").folder
    source = save_lora(tmp_path / "peer", base, "CAUSAL_LM")
    bundle = imported(source, tmp_path / "bundle")
    label_ids = list(TaskSpec.load(bundle.path).verbalizer.token_ids)
    ids = torch.tensor([tiny_tokenizer().encode(f"{TEXTS[0]}\n\nOverall sentiment:").ids])
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    with torch.inference_mode():
        before = plain(input_ids=ids).logits[0, -1, label_ids].softmax(-1).numpy()
        adapted = PeftModel.from_pretrained(plain, source).eval()
        expected = adapted(input_ids=ids).logits[0, -1, label_ids].softmax(-1).numpy()
    assert np.abs(before - expected).max() > 0.01
    assert scored(bundle, TEXTS[:1])[0] == pytest.approx(expected, abs=1e-4)


def test_an_adapter_of_a_classifier_brings_its_head(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    base = save_base(tmp_path / "base", "gemma3").folder
    source = save_lora(tmp_path / "peer", base, "SEQ_CLS")
    labels = ["negative", "neutral", "positive"]
    bundle = imported(source, tmp_path / "bundle", base=str(base), labels=labels)
    with quiet_transformers():
        plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
        model = PeftModel.from_pretrained(plain, source).eval()
    ids = torch.tensor([tiny_tokenizer().encode(TEXTS[0]).ids])
    with torch.inference_mode():
        expected = model(input_ids=ids).logits[0].softmax(-1).numpy()
    assert scored(bundle, TEXTS[:1])[0] == pytest.approx(expected, abs=1e-4)


def test_an_import_is_proved_in_a_fresh_process_and_made_once(peer: Path, proved: Artifact) -> None:
    assert {path.name for path in proved.path.iterdir()} == {
        "README.md",
        "causal-lm",
        "classifier",
        "manifest.json",
        "parity.json",
        "probes.jsonl",
        "slant.json",
    }
    proved.verify()
    proof = json.loads(proved.file("parity.json").read_text())
    assert proof["passed"] is True
    assert proof["probes"]["count"] >= 64
    assert proof["source"]["kind"] == "sequence classifier"
    assert set(proof["formats"]) == {"causal-lm", "classifier"}
    assert Release.of(proved.path).facts["fingerprint"] == TaskSpec.load(proved.path).fingerprint
    written = (proved.path / "manifest.json").stat().st_mtime_ns
    import_model(peer, proved.path, token_limit=128, parity_examples=64)
    assert (proved.path / "manifest.json").stat().st_mtime_ns == written


def test_the_card_says_that_nothing_was_measured(proved: Artifact) -> None:
    card = proved.file("README.md").read_text("utf-8")
    assert "Not known: slant has not measured it." in card
    assert "evaluate.bundles" in card
    assert metadata_load(proved.file("README.md"))["license"] == "apache-2.0"
    assert TaskSpec.load(proved.path).fingerprint in card


def test_the_cards_code_asks_an_imported_model_as_slant_does(proved: Artifact) -> None:
    card = proved.file("README.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace('"path/to/this/folder/', f'"{proved.path}/')
    names: dict[str, Any] = {}
    exec(code, names)
    found = list(names["ask"](TEXTS[0] * 20, "the mayor").values())
    expected = Scorer.load(proved.path, dtype="float32").predict_proba(TEXTS[0] * 20, "the mayor")
    assert found == pytest.approx(expected[0], abs=1e-4)


def test_an_encoders_classifier_is_refused_with_a_way_to_compare_with_it(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
    )
    with quiet_transformers():
        BertForSequenceClassification(config).save_pretrained(tmp_path / "peer")
    save_tokenizer(tmp_path / "peer")
    with pytest.raises(ModelError, match="BertForSequenceClassification is no decoder") as error:
        imported(tmp_path / "peer", tmp_path / "bundle")
    assert "evaluate.predictions" in error.value.hint
    assert not (tmp_path / "bundle").exists()


def test_what_is_pickled_is_not_read(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "peer")
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors"):
        imported(source, tmp_path / "bundle")


def test_code_of_the_models_own_is_not_run(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "peer")
    config = json.loads((source / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForSequenceClassification": "mine.M"},
    }
    (source / "config.json").write_text(json.dumps(config))
    (source / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="no sequence classifier for it"):
        imported(source, tmp_path / "bundle")
    assert not (tmp_path / "ran").exists()


def drop_head(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("score.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_head_that_is_missing_is_found_and_not_made_up(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "peer")
    drop_head(source)
    with pytest.raises(ModelError, match=r"lacks weights of a sequence classifier \(score.weight"):
        imported(source, tmp_path / "bundle")
    base = save_base(tmp_path / "base").folder
    adapter = save_lora(tmp_path / "adapter", base, "SEQ_CLS")
    tensors = load_file(adapter / "adapter_model.safetensors")
    kept = {name: value for name, value in tensors.items() if "score" not in name}
    save_file(kept, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"holds no score.weight"):
        imported(adapter, tmp_path / "bundle", labels=["a", "b", "c"])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"labels": ["negative"]}, TaskError, "at least two labels"),
        ({"label_words": {"angry": "x"}}, UsageError, "'angry', which is not among the labels"),
        ({"prompt": "{narrative}: {document}"}, TaskError, "{document} and, after it"),
        ({"prompt": "<bos>{document} {narrative}"}, TaskError, "'<bos>', a special token"),
        ({"label_words": {"negative": "positive"}}, TaskError, "begin with the same token"),
        ({"dtype": "int4"}, ModelError, "no dtype 'int4'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    options: dict[str, Any], kind: type[SlantError], message: str, tmp_path: Path
) -> None:
    base = save_base(tmp_path / "peer").folder
    with pytest.raises(kind) as error:
        imported(base, tmp_path / "bundle", **options)
    assert message in str(error.value)
    assert not (tmp_path / "bundle").exists()


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-such: there is no such folder"):
        imported(Path("no-such"), tmp_path / "bundle", start=tmp_path)


def test_a_regression_and_several_labels_at_once_are_refused(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "peer", problem_type="multi_label_classification")
    with pytest.raises(ModelError, match="multi_label_classification, not one label of several"):
        imported(source, tmp_path / "bundle")


def test_an_import_that_does_not_reproduce_its_source_leaves_nothing(
    peer: Path, tmp_path: Path
) -> None:
    def tampering(job: Any) -> Any:
        """The folders are damaged before they are read."""
        for folder in job["folders"]:
            path = Path(folder["path"]) / "model.safetensors"
            tensors = load_file(path)
            key = "model.layers.0.mlp.down_proj.weight"
            save_file({**tensors, key: tensors[key] * -1}, path, metadata={"format": "pt"})
        return answer(job)

    with pytest.raises(GateError, match="does not reproduce"):
        imported(peer, tmp_path / "bundle", ask=tampering)
    assert find(tmp_path / "bundle", "export") is None
    assert not (tmp_path / "bundle" / "classifier").exists()


def test_a_classifier_that_slant_wrote_comes_back_as_it_was(
    proved: Artifact, tmp_path: Path
) -> None:
    shutil.copytree(proved.path / "classifier", tmp_path / "carried")
    again = imported(tmp_path / "carried", tmp_path / "bundle")
    assert scored(again, TEXTS) == pytest.approx(scored(proved, TEXTS), abs=1e-5)
