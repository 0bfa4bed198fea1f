"""The proof asks vLLM; here an executable that speaks as it does and computes nothing."""

from __future__ import annotations

import io
import json
import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from exporting import answer, export_moved, moved_checkpoint, prepare_evaluated
from fake_vllm import FakeVllm
from slant.artifacts import Artifact, find, load
from slant.errors import GateError, ModelError, UsageError
from slant.export import served
from slant.export.parity import Answers, prove
from slant.export.served import ask_vllm, find_vllm
from slant.export.stage import export_recipe, run_export
from slant.progress import LineProgress
from slant.task.spec import TaskSpec
from tiny_stages import LABELS, save_base, tiny_settings
from tiny_task import tiny_spec
from unit.export.test_formats import make_spec

pytest.importorskip("httpx", reason="the extra vllm is not installed")

FORMATS = ["causal-lm", "classifier", "int8"]


def export(
    root: Path,
    name: str,
    told: io.StringIO | None = None,
    formats: Sequence[str] = FORMATS,
    **more: Any,
) -> Artifact:
    return run_export(
        tiny_settings(export={"formats": list(formats), **more}),
        ingest=load(root / "ingest", "ingest"),
        evaluate=load(root / "evaluate", "evaluate"),
        tune=load(root / "tune", "tune"),
        base=save_base(root / "base"),
        out=root / name,
        progress=LineProgress(told or io.StringIO()),
        ask=answer,
        start=root,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned and evaluated tiny model, and in ``known/`` a bundle that vLLM was not asked of."""
    folder = tmp_path_factory.mktemp("served")
    prepare_evaluated(folder)
    export(folder, "known")
    return folder


@pytest.fixture(scope="module")
def answers(root: Path) -> dict[str, list[float]]:
    """What the trained model answers, rounded, by the sha256 of the prompt."""
    lines = (root / "known/probes.jsonl").read_text("utf-8").splitlines()
    return {told["prompt_sha256"]: told["probabilities"] for told in map(json.loads, lines)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a server is started with: of a classifier, the fake one reads nothing."""
    config = {"architectures": ["MistralForSequenceClassification"], "model_type": "mistral"}
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier/config.json").write_text(json.dumps(config), "utf-8")
    return tmp_path / "classifier"


def ask(fake: FakeVllm, folder: Path, *prompts: str) -> tuple[str, np.ndarray]:
    log = folder.with_name("vllm.log")
    return ask_vllm(str(fake.path), folder, tiny_spec(), prompts or ("one", "two"), log=log)


def test_vllm_is_a_further_way_to_ask_each_classifier(
    root: Path, answers: dict[str, list[float]]
) -> None:
    fake = FakeVllm(root / "good", labels=LABELS, answers=answers)
    told = io.StringIO()
    bundle = export(root, "proved", told, vllm="good/vllm")
    formats = bundle.facts["parity"]["formats"]
    assert "vllm" not in formats["causal-lm"]["ways"]
    for name in ("classifier", "int8"):
        assert formats[name]["ways"]["vllm"]["count"] == len(answers)
        assert formats[name]["ways"]["vllm"]["max_difference"] <= 1e-6
        assert formats[name]["reader"].startswith("transformers ")
        assert formats[name]["reader"].endswith("; vLLM 0.0.fake (float32)")
        assert f"vLLM is started with {name}/" in told.getvalue()
        assert f"vLLM 0.0.fake (float32) answered {len(answers)} prompts with {name}/" in (
            told.getvalue()
        )
    assert "export: 8/8 steps" in told.getvalue()
    card = " ".join(bundle.file("README.md").read_text("utf-8").split())
    assert "before they were published, `classifier/` and `int8/` in a vLLM server too;" in card
    assert "vLLM server too" not in (root / "known/README.md").read_text("utf-8")
    limit = str(TaskSpec.load(bundle.path).token_limit)
    for name, start in zip(("classifier", "int8"), fake.starts(), strict=True):
        assert start[:4] == ["serve", str(root / "proved" / name), "--host", "127.0.0.1"]
        options = ["--runner", "pooling", "--dtype", "float32", "--max-model-len", limit]
        assert start[6:] == options
    assert not list(bundle.path.rglob("*.log"))
    assert fake.processes() == []


def test_a_classifier_that_vllm_reads_otherwise_is_not_published(
    root: Path, answers: dict[str, list[float]]
) -> None:
    digest, row = next(iter(answers.items()))
    wrong = {**answers, digest: [row[0] + 0.01, row[1] - 0.01, row[2]]}
    fake = FakeVllm(root / "wrong", labels=LABELS, answers=wrong)
    with pytest.raises(
        GateError, match=r"classifier \(vllm\): a probability moved by 0\.0100"
    ) as caught:
        export(root, "refused", vllm=str(fake.path))
    assert caught.value.exit_code == 3
    assert not {*FORMATS, "slant.json", "manifest.json"} & {
        path.name for path in (root / "refused").iterdir()
    }
    assert find(root / "refused", "export") is None
    assert fake.processes() == []


def test_eight_bits_that_vllm_reads_otherwise_are_known_by_the_mean() -> None:
    trained = np.array([[0.6, 0.3, 0.1]] * 40)
    near, far = ((range(40), trained + np.array([step, -step, 0])) for step in (0.02, 0.1))
    for way, refused in ((near, False), (far, True)):
        found = Answers("both", "int8", [], {"right": near, "vllm": way})
        with pytest.raises(GateError, match=r"int8: .* by 0\.0667") if refused else nullcontext():
            prove(trained, {"int8": found})


def test_a_folder_that_transformers_reads_otherwise_is_not_served(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeVllm(root / "unasked", labels=LABELS)
    monkeypatch.setattr("slant.export.parity.BOUNDS", {"float32": -1.0})
    with pytest.raises(GateError):
        export(root, "refused-before", formats=FORMATS[:2], vllm=str(fake.path))
    assert not fake.has_started


def test_a_server_that_dies_at_the_start_is_told_with_its_last_lines(root: Path) -> None:
    fake = FakeVllm(root / "dying", exits=7, says="no memory\n\nand no hope")
    with pytest.raises(ModelError) as caught:
        export(root, "died", formats=FORMATS[:2], vllm=str(fake.path))
    log = root / "died/scratch/vllm-classifier.log"
    assert "ended with 7 before it answered:\n    no memory\n    and no hope" in str(caught.value)
    assert str(root / "died/classifier") in caught.value.message
    assert str(log) in caught.value.hint
    assert "no hope" in log.read_text("utf-8")
    assert not (root / "died/slant.json").exists()
    assert fake.processes() == []


def test_a_server_that_never_answers_is_ended(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeVllm(tmp_path / "slow", never_ready=True, says="")
    clock = SimpleNamespace(sleep=time.sleep, monotonic=lambda: 901.0 * fake.has_started)
    monkeypatch.setattr(served, "time", clock)
    with pytest.raises(ModelError, match=r"did not answer within 900 s; it printed nothing"):
        ask(fake, folder)
    assert fake.processes() == []


def test_ctrl_c_while_it_answers_leaves_no_process(tmp_path: Path, folder: Path) -> None:
    fake = FakeVllm(tmp_path / "stopped", labels=LABELS, interrupts=True)
    # A shell's background jobs, and what they start, ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            ask(fake, folder)
    finally:
        signal.signal(signal.SIGINT, before)
    assert fake.processes() == []


def test_ctrl_c_while_it_starts_leaves_no_process(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeVllm(tmp_path / "stopped", never_ready=True)

    def interrupt(seconds: float) -> None:
        if fake.has_started:
            raise KeyboardInterrupt

    clock = SimpleNamespace(sleep=interrupt, monotonic=time.monotonic)
    monkeypatch.setattr(served, "time", clock)
    with pytest.raises(KeyboardInterrupt):
        ask(fake, folder)
    assert fake.processes() == []


def test_a_server_that_does_not_stop_is_killed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "_STOP_S", 0.2)
    fake = FakeVllm(tmp_path / "stubborn", labels=LABELS, stays=True)
    reader, rows = ask(fake, folder)
    assert reader == "vLLM 0.0.fake (float32)"
    assert rows == pytest.approx(np.full((2, 3), 1 / 3))
    assert fake.processes() == []


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"status": 400, "content": {"error": {"message": "no"}}}, "refused /classify.*400: no"),
        ({"status": 500}, r"does not answer /classify: status 500 \(2 attempts\)"),
        ({"content": {"data": []}}, "gave no list of 1 answers"),
        ({"content": ["?"]}, "did not answer with a JSON object"),
        ({"labels": ["good", "bad", "so so"]}, "answers 'good' where the bundle has"),
    ],
)
def test_answers_that_are_none_are_an_error_that_names_the_log(
    tmp_path: Path, folder: Path, plan: dict[str, Any], says: str
) -> None:
    fake = FakeVllm(tmp_path / "odd", **{"labels": LABELS, "says": "last words", **plan})
    with pytest.raises(ModelError, match=f"{folder}: .*{says}.*:\n    last words") as caught:
        ask(fake, folder)
    assert str(tmp_path / "vllm.log") in caught.value.hint
    assert fake.processes() == []


def test_what_is_no_program_is_an_error(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "vllm").write_text("#!/nowhere/at/all\n", "utf-8")
    (tmp_path / "vllm").chmod(0o755)
    with pytest.raises(ModelError, match="cannot be run: No such file"):
        ask_vllm(str(tmp_path / "vllm"), folder, tiny_spec(), ["x"], log=tmp_path / "log")


def test_the_executable_is_found_on_path_or_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeVllm(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_vllm("vllm", tmp_path) == str(fake.path)
    assert find_vllm("bin/vllm", tmp_path) == str(fake.path)
    assert find_vllm("./vllm", tmp_path / "bin") == str(fake.path)
    assert find_vllm(str(fake.path), Path("elsewhere")) == str(fake.path)
    with pytest.raises(UsageError, match="no program 'wllm' on PATH"):
        find_vllm("wllm", tmp_path)
    with pytest.raises(UsageError, match="lib/vllm is not there"):
        find_vllm("lib/vllm", tmp_path)
    fake.path.chmod(0o644)
    with pytest.raises(UsageError, match="bin/vllm cannot be run"):
        find_vllm("bin/vllm", tmp_path)


def test_an_executable_that_is_not_there_is_told_before_anything_is_written(root: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        export(root, "nowhere", vllm="no/vllm")
    assert not (root / "nowhere").exists()


def test_vllm_that_is_installed_and_not_asked_is_mentioned(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise InterruptedError  # what comes afterwards is not looked at

    monkeypatch.setattr("slant.export.stage.write_formats", stop)
    fake = FakeVllm(tmp_path / "bin")
    for path, formats, mentioned in (
        (tmp_path / "bin", ["causal-lm", "classifier"], True),
        (tmp_path / "bin", ["causal-lm"], False),
        (tmp_path, ["causal-lm", "classifier"], False),
    ):
        monkeypatch.setenv("PATH", str(path))
        told = io.StringIO()
        with pytest.raises(InterruptedError):
            export(root, "mentioned", told, formats)
        assert ("export.vllm" in told.getvalue()) == mentioned
        assert (str(fake.path) in told.getvalue()) == mentioned


def test_where_vllm_lies_makes_no_other_bundle(root: Path) -> None:
    inputs = load(root / "evaluate", "evaluate"), load(root / "tune", "tune")
    keys = [
        export_recipe(tiny_settings(export={"vllm": vllm}), *inputs).key
        for vllm in (None, "vllm", "other/vllm")
    ]
    assert keys[0] != keys[1] == keys[2]
    assert keys[0] == export_recipe(tiny_settings(), *inputs).key


def test_vllm_is_told_what_a_gemma_classifier_is_made_of(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "gemma3")
    spec = make_spec(base)
    checkpoint = moved_checkpoint(tmp_path / "tune", base, spec)
    made = export_moved(tmp_path / "out", base, spec, checkpoint, formats=["classifier"], count=1)
    fake = FakeVllm(tmp_path / "bin", labels=list(spec.labels))
    ask_vllm(str(fake.path), made.folder / "classifier", spec, ["x"], log=tmp_path / "log")
    (start,) = fake.starts()
    overrides = start[start.index("--hf-overrides") + 1]
    assert start[start.index("--convert") + 1] == "classify"
    assert json.loads(overrides) == {"architectures": ["Gemma3ForCausalLM"]}


def test_eight_bits_are_multiplied_in_16_bit_arithmetic_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for on_gpu, expected in ((False, "float32"), (True, "auto")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda on_gpu=on_gpu: on_gpu)
        assert served._dtype({}) == "float32"
        assert served._dtype({"quantization_config": {}}) == expected
