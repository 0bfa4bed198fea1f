from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from exporting import evaluate, export, moved_checkpoint, prepare_evaluated
from slant.artifacts import Recipe, build, digest_json, find, load
from slant.errors import ArtifactError, GateError, ModelError
from slant.evaluate.stage import Subject, run_evaluate
from slant.export.consumer import answer
from slant.export.parity import Answers, answer_in_fresh_process, compare, prove
from slant.export.stage import run_export
from slant.model.base import load_causal_lm
from slant.model.tuned import digest_tuned
from slant.progress import SilentProgress
from slant.records import Example, Narrative
from slant.score.scorer import Scorer
from slant.task.spec import TaskSpec
from tiny_stages import (
    documents_and_examples,
    prepare,
    save_base,
    tiny_settings,
    write_ingest,
)

EDGE_CASES = 15
DTYPE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned and evaluated tiny model."""
    folder = tmp_path_factory.mktemp("exported")
    prepare_evaluated(folder)
    return folder


def answers(rows: Any, dtype: str = "float32", **ways: Any) -> Answers:
    every = {"right": (range(len(rows)), np.asarray(rows))}
    return Answers("transformers", dtype, [], every | ways)


def test_probabilities_that_are_not_numbers_are_found() -> None:
    trained = np.array([[0.7, 0.3], [0.2, 0.8]])
    broken = trained.copy()
    broken[1] = np.nan
    with pytest.raises(GateError):
        prove(trained, {"causal-lm": answers(broken, "bfloat16")})
    way = {"left": ([1], broken[1:])}
    with pytest.raises(GateError):
        prove(trained, {"causal-lm": answers(trained, "bfloat16", **way)})


def test_a_label_may_flip_only_between_two_that_are_as_close_as_the_bound() -> None:
    trained = np.array([[0.501, 0.499]] * 3 + [[0.9, 0.1]])
    flipped = trained[:, ::-1].copy()
    flipped[3] = trained[3]
    found = prove(trained, {"c": answers(flipped, "bfloat16")})["c"]
    assert (found["label_agreement"], found["labels_changed"]) == (1, 3)
    with pytest.raises(GateError, match=r"50\.0% of the labels|0\.0% of the labels"):
        prove(trained, {"c": answers(trained[:, ::-1].copy(), "bfloat16")})


def test_one_label_of_two_hundred_may_change_and_two_may_not() -> None:
    trained = np.tile([[0.56, 0.44]], (200, 1))
    for changed, refused in ((1, False), (2, True)):
        found = trained.copy()
        found[:changed] = [0.495, 0.505]
        agreement = compare(trained, found, 0.05)["label_agreement"]
        assert agreement == 1 - changed / 200
        assert (agreement < 0.995) == refused


@pytest.mark.parametrize("dtype", DTYPE)
def test_every_dtype_has_its_bound(dtype: str) -> None:
    trained = np.array([[0.6, 0.3, 0.1], [0.1, 0.7, 0.2]])
    step = np.array([1.0, -1.0, 0.0])
    near, far = (trained + share * DTYPE[dtype] * step for share in (0.99, 1.01))
    found = prove(trained, {"causal-lm": answers(near, dtype)})["causal-lm"]
    assert found["bound"] == DTYPE[dtype]
    with pytest.raises(GateError, match="causal-lm"):
        prove(trained, {"causal-lm": answers(far, dtype)})


def test_two_formats_that_differ_from_each_other_are_refused_within_the_bound_too() -> None:
    trained = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    moved = trained + np.array([0.006, -0.006, 0.0])
    same = {"causal-lm": answers(moved, "bfloat16"), "classifier": answers(moved, "bfloat16")}
    assert prove(trained, same).keys() == same.keys()
    other = same | {"classifier": answers(trained, "bfloat16")}
    with pytest.raises(GateError, match=r"causal-lm and classifier differ .* by 0\.0060"):
        prove(trained, other)


def test_two_ways_to_ask_that_differ_are_refused_within_the_bound_too() -> None:
    trained = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    way = {"left": ([1], trained[1:] + np.array([0.006, -0.006, 0.0]))}
    with pytest.raises(GateError, match=r"classifier: ways to ask it differ by 0\.0060"):
        prove(trained, {"classifier": answers(trained, "bfloat16", **way)})
    proof = prove(trained, {"int8": answers(trained, "bfloat16", **way)})
    assert proof["int8"]["ways_apart"] == pytest.approx(0.006)


def test_a_process_that_dies_is_an_error_that_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"ended with 1: .*KeyError: 'folders'"):
        answer_in_fresh_process({})


def test_what_stands_in_the_working_folder_is_not_loaded_in_place_of_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert answer_in_fresh_process({"folders": []}) == {}


def test_the_consumer_takes_nothing_from_slant(tmp_path: Path) -> None:
    code = (
        "import sys, slant.export.consumer; "
        "print(sorted(name for name in sys.modules if name.startswith('slant')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip() == "['slant', 'slant.export', 'slant.export.consumer', 'slant.version']"
    )


def test_the_bundle_holds_what_it_says(root: Path, tmp_path: Path) -> None:
    """Asked in a fresh process, all formats in one."""
    names = ["causal-lm", "classifier", "adapter", "int8"]
    bundle = export(root, tmp_path / "bundle", ask=None, export={"formats": names})
    assert {path.name for path in bundle.path.iterdir()} == {
        *("README.md", "manifest.json", "parity.json", "probes.jsonl", "report.json", "slant.json"),
        *names,
    }
    proof = json.loads(bundle.file("parity.json").read_text())
    assert proof["schema"] == "slant.parity/1"
    assert proof["passed"] is True
    assert proof["probes"]["count"] == 8 + EDGE_CASES
    assert proof["merge"] == {"trained_on": "none", "merged_onto": "base"}
    assert bundle.facts["parity"] == proof
    assert set(proof["formats"]) == set(names)
    for name in ("causal-lm", "classifier", "adapter"):
        assert proof["formats"][name]["max_difference"] <= 1e-4
        assert set(proof["formats"][name]["ways"]) >= {"left", "right", "single"}
    assert "pipeline" in proof["formats"]["classifier"]["ways"]
    spec = TaskSpec.load(bundle.path)
    assert spec.fingerprint == bundle.facts["fingerprint"] == proof["fingerprint"]
    assert spec == TaskSpec.load(root / "evaluate")
    assert bundle.file("report.json").read_bytes() == (root / "evaluate/report.json").read_bytes()
    assert not list(bundle.path.rglob("*.bin")) + list(bundle.path.rglob("*.pt"))


def test_no_text_of_the_corpus_is_in_the_proof(root: Path, tmp_path: Path) -> None:
    bundle = export(root, tmp_path / "bundle")
    text = bundle.file("probes.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == bundle.facts["parity"]["probes"]["count"]
    assert all(sum(line["probabilities"]) == pytest.approx(1, abs=1e-5) for line in lines)
    for word in ("bridge", "puente", "мост", "新桥"):
        assert word not in text
        assert word not in bundle.file("parity.json").read_text("utf-8")


def tune_by_hand(root: Path, architecture: str, method: str) -> None:
    """A tune artifact with trained label rows, of weights that were moved and not trained."""
    prepare(root, architecture, adapt=None)
    base, spec = save_base(root / "base", architecture), TaskSpec.load(root / "shard")
    moved = moved_checkpoint(root / "moved", base, spec, method)
    with build(root / "tune", Recipe("tune", {}, {}, 0)) as builder:
        for path in moved.iterdir():
            path.rename(root / "tune" / path.name)
        digest = digest_json([base.digest, digest_tuned(root / "tune")])
        spec.with_weights(digest).save(root / "tune")
        builder.facts.update(tokens=1, steps=1, seconds=1.0, losses=[], validation=[], examples=1)


@pytest.mark.parametrize(("architecture", "method"), [("gemma3", "lora"), ("mistral", "full")])
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
        settings,
        evaluate=evaluated,
        tune=tune,
        base=base,
        out=tmp_path / "bundle",
        ask=answer,
        **common,
    )
    for found in bundle.facts["parity"]["formats"].values():
        assert found["max_difference"] < 1e-4
        assert found["label_agreement"] == 1
    assert (bundle.facts["parity"]["merge"] is None) == (method == "full")
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


def test_nothing_loadable_is_left_when_parity_fails(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    export(root, out)

    def wrong(job: Mapping[str, Any]) -> dict[str, Any]:
        return answer({**job, "temperature": 3 * job["temperature"]})

    with pytest.raises(GateError, match="does not reproduce the model") as caught:
        export(root, out, ask=wrong)
    assert caught.value.exit_code == 3
    assert not {"slant.json", "manifest.json"} & {path.name for path in out.iterdir()}
    assert not list(out.rglob("*.safetensors"))
    assert find(out, "export") is None
    with pytest.raises(ArtifactError):
        Scorer.load(out)
    assert export(root, out).facts["parity"]["probes"]["count"] == 8 + EDGE_CASES


def test_test_examples_that_do_not_fit_the_prompt_are_not_asked_for_parity(root: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    narratives.append(Narrative("n-long", "a very long narrative " * 20))
    tested = [e for e in examples if e.split == "test"]
    examples += [Example(e.document_id, "n-long", "neutral", "test", "d", "f", 9) for e in tested]
    ingest = write_ingest(root / "ingest-long", (documents, narratives, examples))
    evaluate(root, ingest, "evaluate-long", baselines=[])
    bundle = export(root, root / "bundle-long", "evaluate-long", "ingest-long")
    assert bundle.facts["parity"]["probes"]["count"] == 8 + EDGE_CASES
