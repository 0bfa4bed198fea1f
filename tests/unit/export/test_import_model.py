"""Models as other programs leave them become bundles that answer as they did."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import metadata_load
from safetensors.torch import load_file, save_file

from foreign_models import (
    NAMES,
    TEXTS,
    asked_by_transformers,
    imported,
    save_classifier,
    save_lora,
    save_tokenizer,
    scored,
)
from slant.artifacts import Artifact, find
from slant.errors import GateError, ModelError, SlantError, TaskError, UsageError
from slant.export.consumer import answer
from slant.export.import_model import import_model
from slant.model.base import quiet_transformers
from slant.publish.release import Release
from slant.score.scorer import Scorer
from slant.task.spec import TaskSpec
from tiny import tiny_tokenizer
from tiny_stages import save_base

FAMILIES = ("mistral", "llama", "qwen3", "gemma3")


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


def test_labels_that_the_head_calls_otherwise_are_told_by_name_and_never_guessed(
    tmp_path: Path,
) -> None:
    source = save_classifier(tmp_path / "peer", names=("POS", "NEU", "NEG"))
    labels = {"negative": "neg", "neutral": "NEU", "positive": "POS"}
    with pytest.raises(TaskError, match=r"are not those of .*: POS, NEU, NEG") as error:
        imported(source, tmp_path / "bundle", labels=[*labels])
    assert "--labels negative=ITS-NAME,neutral=ITS-NAME" in error.value.hint
    assert not (tmp_path / "bundle").exists()
    bundle = imported(source, tmp_path / "bundle", labels=labels)
    expected = asked_by_transformers(source, TEXTS)[:, [2, 1, 0]]
    assert scored(bundle, TEXTS) == pytest.approx(expected, abs=1e-4)
    rows = {"negative": "NEG", "neutral": "NEU", "positive": "POS"}
    assert bundle.facts["parity"]["source"]["labels"] == rows
    card = bundle.file("README.md").read_text("utf-8")
    assert "negative (`NEG`), neutral (`NEU`), positive (`POS`)." in card


@pytest.mark.parametrize(
    "labels",
    [
        ["negative", "other", "positive"],
        ["negative", "positive"],
        {"a": "Negative", "b": "Negative", "c": "Positive"},
        {"a": "Negative", "b": "Neutral", "c": "Pos"},
    ],
)
def test_labels_that_are_not_the_classifiers_are_refused(labels: Any, tmp_path: Path) -> None:
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


def test_an_adapter_and_its_base_each_have_a_licence(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama").folder
    source = save_lora(tmp_path / "peer", base, "CAUSAL_LM")
    save_tokenizer(source)  # as trainers leave it there
    for folder, license_ in ((base, "llama3"), (source, "cc-by-nc-4.0")):
        (folder / "README.md").write_text(f"---\nlicense: {license_}\n---\n")
        (folder / "LICENSE").write_text(f"the terms of {license_}")
    bundle = imported(source, tmp_path / "bundle")
    card = bundle.file("README.md").read_text("utf-8")
    assert "The adapter's licence, `cc-by-nc-4.0`, applies to this model.\n" in card
    assert "The base model's licence, `llama3`, applies to this model too.\n" in card
    found = metadata_load(bundle.file("README.md"))
    assert found["license"] == "other"
    assert found["license_name"] == "cc-by-nc-4.0-and-llama3"
    assert "base_model" not in found  # a folder, which others do not have
    for name in ("causal-lm", "classifier"):
        assert bundle.file(f"{name}/LICENSE").read_text() == "the terms of llama3"
        assert bundle.file(f"{name}/ADAPTER_LICENSE").read_text() == "the terms of cc-by-nc-4.0"
        assert bundle.file(f"{name}/ADAPTER_MODEL.md").is_file()


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
    assert proved.file("classifier/BASE_MODEL.md").read_text() == (peer / "README.md").read_text()
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


def test_a_text_that_ends_in_any_token_is_read_to_its_end(tmp_path: Path) -> None:
    """transformers takes the last token that is no padding, which must not be one of the text."""
    source = save_classifier(tmp_path / "peer", pad_token_id=None, eos_token_id=None)
    bundle = imported(source, tmp_path / "bundle")
    texts = ["The bridge is a ruin!!!", *(f"closed {token}" for token in ("<pad>", "<bos>"))]
    expected = asked_by_transformers(source, texts)
    found = asked_by_transformers(bundle.path / "classifier", texts)
    assert found == pytest.approx(expected, abs=1e-4)
    edge_cases = bundle.facts["parity"]["probes"]["edge_cases"]
    assert "ends in the padding token" in edge_cases


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

    with pytest.raises(GateError, match="bundle does not reproduce the model that it was made of"):
        imported(peer, tmp_path / "bundle", ask=tampering)
    assert find(tmp_path / "bundle", "export") is None
    assert not (tmp_path / "bundle" / "classifier").exists()


def test_a_classifier_that_slant_wrote_comes_back_as_it_was(
    proved: Artifact, tmp_path: Path
) -> None:
    shutil.copytree(proved.path / "classifier", tmp_path / "carried")
    again = imported(tmp_path / "carried", tmp_path / "bundle")
    assert scored(again, TEXTS) == pytest.approx(scored(proved, TEXTS), abs=1e-5)
