from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from slant.artifacts import Artifact, Recipe, build, digest_json, find, load
from slant.corpus import Corpus
from slant.errors import ArtifactError, GateError
from slant.evaluate.stage import Subject, run_evaluate
from slant.export.formats import write_classifier
from slant.export.parity import (
    BOUNDS,
    classifier_probabilities,
    exported_causal_lm_probabilities,
    label_probabilities,
    prove,
)
from slant.export.stage import run_export
from slant.model.adapter import attach_lora, unfreeze_layers
from slant.model.base import load_causal_lm
from slant.model.folder import save_causal_lm
from slant.model.label_head import LabelModel
from slant.model.tuned import digest_tuned, load_tuned_adapted, load_tuned_merged, save_tuned
from slant.progress import SilentProgress
from slant.records import Example, Narrative
from slant.score.scorer import Scorer
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from tiny import tiny_tokenizer
from tiny_stages import (
    documents_and_examples,
    prepare,
    run_stage,
    save_base,
    tiny_settings,
    write_ingest,
)

BOUND = BOUNDS[torch.float32]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned and evaluated tiny model."""
    folder = tmp_path_factory.mktemp("exported")
    prepare(folder, adapt=None, tune={"epochs": 12, "learning_rate": 0.02})
    run_stage("tune", folder, folder / "tune")
    evaluate(folder, load(folder / "ingest", "ingest"), "evaluate")
    return folder


def evaluate(root: Path, ingest: Artifact, name: str, **sections: Any) -> Artifact:
    base = save_base(root / "base")
    return run_evaluate(
        tiny_settings(evaluate={"bootstrap": 100, "latency_documents": 1, **sections}),
        ingest=ingest,
        subject=Subject(load(root / "tune", "tune"), base, base, None),
        out=root / name,
        start=root,
        progress=SilentProgress(),
    )


def export(
    root: Path, out: Path, evaluated: str = "evaluate", ingest: str = "ingest", **sections: Any
) -> Artifact:
    return run_export(
        tiny_settings(**sections),
        ingest=load(root / ingest, "ingest"),
        evaluate=load(root / evaluated, "evaluate"),
        tune=load(root / "tune", "tune"),
        base=save_base(root / "base"),
        out=out,
        progress=SilentProgress(),
    )


@dataclass
class Exported:
    folder: Path
    spec: TaskSpec
    prompts: list[str]
    ids: list[list[int]]
    trained: np.ndarray

    def prove(self, spec: TaskSpec | None = None) -> dict[str, Any]:
        found = {
            "causal-lm": exported_causal_lm_probabilities(
                self.folder / "causal-lm", spec or self.spec, self.ids
            ),
            "classifier": classifier_probabilities(self.folder / "classifier", self.prompts),
        }
        return prove(self.trained, found, BOUND)


@pytest.fixture
def exported(root: Path, tmp_path: Path) -> Exported:
    """The two folders, and what base and adapter side by side answer."""
    # A few calibration examples may be answered without a mistake, and the temperature then makes
    # every probability 0 or 1; with this one there is something to see.
    spec = TaskSpec.load(root / "evaluate").with_temperature(1.7)
    base, checkpoint, label_ids = root / "base", root / "tune", spec.verbalizer.token_ids
    merged = load_tuned_merged(base, checkpoint, label_ids, dtype=torch.float32)
    save_causal_lm(merged, base, tmp_path / "causal-lm")
    write_classifier(merged, spec, base, tmp_path / "classifier")
    encoder = Encoder(tiny_tokenizer(), spec)
    corpus = Corpus(load(root / "ingest", "ingest"))
    prompts = [encoder.prompt(*item.text) for item in corpus.split("test")]
    ids = [encoder.encode_prompt(prompt) for prompt in prompts]
    adapted = load_tuned_adapted(base, checkpoint, label_ids, dtype=torch.float32)
    return Exported(tmp_path, spec, prompts, ids, label_probabilities(adapted, spec, ids))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_an_honest_export_is_proved(exported: Exported) -> None:
    proof = exported.prove()
    assert proof["examples"] == len(exported.prompts)
    assert set(proof["formats"]) == {"causal-lm", "classifier"}
    for found in proof["formats"].values():
        assert found["max_difference"] < 1e-4
        assert found["label_agreement"] == 1


def test_label_rows_that_were_swapped_are_found(exported: Exported) -> None:
    def swap(tensors: dict[str, torch.Tensor]) -> None:
        tensors["score.weight"] = tensors["score.weight"][[1, 0, 2]].contiguous()

    change_weights(exported.folder / "classifier", swap)
    with pytest.raises(GateError, match="classifier: a probability moved"):
        exported.prove()


@pytest.mark.parametrize("name", ["causal-lm", "classifier"])
def test_a_layer_with_random_weights_is_found(exported: Exported, name: str) -> None:
    def scramble(tensors: dict[str, torch.Tensor]) -> None:
        key = "model.layers.1.mlp.down_proj.weight"
        tensors[key] = (
            torch.randn(tensors[key].shape, generator=torch.Generator().manual_seed(0))
            * tensors[key].std()
        )

    change_weights(exported.folder / name, scramble)
    with pytest.raises(GateError, match=name):
        exported.prove()


def test_a_head_that_was_dropped_is_found(exported: Exported) -> None:
    """transformers fills a missing head with random numbers, and only warns."""
    torch.manual_seed(0)
    change_weights(exported.folder / "classifier", lambda tensors: tensors.pop("score.weight"))
    with pytest.raises(GateError, match="classifier"):
        exported.prove()


def test_the_base_without_its_adapter_is_found(exported: Exported, root: Path) -> None:
    shutil.copyfile(
        root / "base" / "model.safetensors", exported.folder / "causal-lm" / "model.safetensors"
    )
    with pytest.raises(GateError, match="causal-lm"):
        exported.prove()


def test_a_wrong_temperature_is_found(exported: Exported) -> None:
    with pytest.raises(GateError, match="causal-lm"):
        exported.prove(exported.spec.with_temperature(exported.spec.temperature * 1.3))

    def cool(tensors: dict[str, torch.Tensor]) -> None:
        tensors["score.weight"] = tensors["score.weight"] / 1.3

    change_weights(exported.folder / "classifier", cool)
    with pytest.raises(GateError, match="classifier"):
        exported.prove()


def test_another_verbalizer_is_found(exported: Exported) -> None:
    words = exported.spec.verbalizer
    turned = replace(words, token_ids=words.token_ids[1:] + words.token_ids[:1])
    with pytest.raises(GateError, match="causal-lm"):
        exported.prove(replace(exported.spec, verbalizer=turned))


def test_probabilities_that_are_not_numbers_are_found() -> None:
    trained = np.array([[0.7, 0.3], [0.2, 0.8]])
    broken = trained.copy()
    broken[1] = np.nan
    with pytest.raises(GateError):
        prove(trained, {"causal-lm": broken}, 0.5)


def test_a_label_may_flip_only_between_two_that_are_as_close_as_the_bound() -> None:
    trained = np.array([[0.501, 0.499]] * 3 + [[0.9, 0.1]])
    flipped = trained[:, ::-1].copy()
    flipped[3] = trained[3]
    assert prove(trained, {"c": flipped}, 0.01)["formats"]["c"]["label_agreement"] == 1
    with pytest.raises(GateError):
        prove(trained, {"c": trained[:, ::-1].copy()}, 0.01)


def test_the_bundle_holds_what_it_says(root: Path, tmp_path: Path) -> None:
    bundle = export(root, tmp_path / "bundle")
    assert {path.name for path in bundle.path.iterdir()} == {
        "README.md",
        "causal-lm",
        "classifier",
        "manifest.json",
        "parity.json",
        "report.json",
        "slant.json",
    }
    proof = json.loads(bundle.file("parity.json").read_text())
    assert proof["examples"] == 8
    assert bundle.facts["parity"] == proof
    spec = TaskSpec.load(bundle.path)
    assert spec.fingerprint == bundle.facts["fingerprint"]
    assert spec == TaskSpec.load(root / "evaluate")
    assert bundle.file("report.json").read_bytes() == (root / "evaluate/report.json").read_bytes()
    assert not list(bundle.path.rglob("*.bin")) + list(bundle.path.rglob("*.pt"))


def tune_by_hand(root: Path, architecture: str, method: str) -> None:
    """A checkpoint with trained label rows, of weights that were moved and not trained."""
    prepare(root, architecture, adapt=None)
    base, spec = save_base(root / "base", architecture), TaskSpec.load(root / "shard")
    causal_lm = load_causal_lm(base.folder, dtype=torch.float32)
    if method == "full":
        unfreeze_layers(causal_lm)
    else:
        causal_lm = attach_lora(causal_lm, rank=2, alpha=4, dropout=0.0, seed=1, dora=True)
    model = LabelModel(causal_lm, spec.verbalizer.token_ids, train_rows=True)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for param in model.parameters():
            if param.requires_grad:
                param.add_(torch.randn(param.shape, generator=generator) * 0.05)
    with build(root / "tune", Recipe("tune", {}, {}, 0)) as builder:
        save_tuned(root / "tune", model, base)
        digest = digest_json([base.digest, digest_tuned(root / "tune")])
        spec.with_weights(digest).save(root / "tune")
        builder.facts.update(tokens=1, steps=1, seconds=1.0, losses=[], validation=[], examples=1)


@pytest.mark.parametrize("architecture", ["gemma3", "mistral"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_trained_label_rows_and_whole_models_are_evaluated_exported_and_proved(
    tmp_path: Path, architecture: str, method: str
) -> None:
    tune_by_hand(tmp_path, architecture, method)
    base = save_base(tmp_path / "base", architecture)
    ingest, tune = load(tmp_path / "ingest", "ingest"), load(tmp_path / "tune", "tune")
    settings = tiny_settings(
        evaluate={"bootstrap": 100, "latency_documents": 1, "baselines": []},
        export={"parity_examples": 6},
    )
    common: dict[str, Any] = {"ingest": ingest, "progress": SilentProgress()}
    evaluated = run_evaluate(
        settings,
        subject=Subject(tune, base, base, None),
        out=tmp_path / "evaluate",
        start=tmp_path,
        **common,
    )
    bundle = run_export(
        settings, evaluate=evaluated, tune=tune, base=base, out=tmp_path / "bundle", **common
    )
    for found in bundle.facts["parity"]["formats"].values():
        assert found["max_difference"] < 1e-4
        assert found["label_agreement"] == 1
    # What the bundle answers is what was evaluated, and not what the base's own rows would say.
    rows = load_file(tmp_path / "tune" / "label_head.safetensors")["rows"]
    head = load_causal_lm(bundle.path / "causal-lm", dtype=torch.float32).get_output_embeddings()
    ids = TaskSpec.load(bundle.path).verbalizer.token_ids
    assert torch.equal(head.weight[list(ids)], rows)


def test_the_classifier_can_be_left_out(root: Path, tmp_path: Path) -> None:
    bundle = export(root, tmp_path / "bundle", export={"formats": ["causal-lm"]})
    assert not (bundle.path / "classifier").exists()
    assert set(bundle.facts["parity"]["formats"]) == {"causal-lm"}


def test_nothing_is_exported_where_the_gate_was_not_met(root: Path, tmp_path: Path) -> None:
    ingest = load(root / "ingest", "ingest")
    evaluate(root, ingest, "evaluate-gated", gate={"accuracy": {"min": 1.0}}, baselines=[])
    with pytest.raises(GateError, match="nothing is exported: accuracy is") as caught:
        export(root, tmp_path / "bundle", "evaluate-gated")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "bundle").exists()


def test_nothing_loadable_is_left_when_parity_fails(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    export(root, out)
    with monkeypatch.context() as patch:
        patch.setitem(BOUNDS, torch.float32, -1.0)  # nothing can be that close
        with pytest.raises(GateError, match="does not reproduce the trained model"):
            export(root, out)
    assert not {"slant.json", "manifest.json"} & {path.name for path in out.iterdir()}
    assert not list(out.rglob("*.safetensors"))
    assert find(out, "export") is None
    with pytest.raises(ArtifactError):
        Scorer.load(out)
    assert export(root, out).facts["parity"]["examples"] == 8


def test_test_examples_that_do_not_fit_the_prompt_are_not_asked_for_parity(root: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    narratives.append(Narrative("n-long", "a very long narrative " * 20))
    tested = [e for e in examples if e.split == "test"]
    examples += [Example(e.document_id, "n-long", "neutral", "test", "d", "f", 9) for e in tested]
    ingest = write_ingest(root / "ingest-long", (documents, narratives, examples))
    evaluate(root, ingest, "evaluate-long", baselines=[])
    bundle = export(root, root / "bundle-long", "evaluate-long", "ingest-long")
    assert bundle.facts["parity"]["examples"] == 8


def test_two_formats_that_differ_from_each_other_are_refused_within_the_bound_too() -> None:
    trained = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    moved = trained + np.array([0.006, -0.006, 0.0])
    assert prove(trained, {"a": moved, "b": moved}, 0.02)["max_difference_between_formats"] == 0
    with pytest.raises(GateError, match=r"a and b differ from each other by 0\.0060"):
        prove(trained, {"a": trained, "b": moved}, 0.02)
