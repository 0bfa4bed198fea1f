"""Each option of tuning runs through the whole stage and leaves what it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from slant.artifacts import Artifact
from slant.config.settings import ProjectSettings
from slant.errors import ModelError
from tiny_stages import prepare, run_stage

QUICK: dict[str, Any] = {"epochs": 1, "lora": {"rank": 4, "alpha": 8}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    prepare(folder, "gemma3", tune=QUICK)
    return folder


def tuned(root: Path, folder: Path, tune: dict[str, Any], **sections: Any) -> Artifact:
    folder.mkdir(exist_ok=True)
    for name in ("base", "shard", "base.json"):
        (folder / name).symlink_to(root / name)
    content = json.loads((root / "settings.json").read_text("utf-8"))
    content["tune"] |= tune
    settings = ProjectSettings.model_validate({**content, **sections})
    (folder / "settings.json").write_text(settings.model_dump_json(), "utf-8")
    return run_stage("tune", folder, folder / "out")


def losses(artifact: Artifact) -> list[float]:
    return [loss for _, loss in artifact.facts["losses"]]


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tuned(root, tmp_path_factory.mktemp("plain"), {})


@pytest.mark.parametrize(
    ("tune", "files"),
    [
        (
            {"label_head": "trained"},
            {"adapter/adapter_model.safetensors", "label_head.safetensors"},
        ),
        ({"method": "full", "lora": {}}, {"model/model.safetensors", "model/tokenizer.json"}),
        ({"lora": {"rank": 4, "dora": True}}, {"adapter/adapter_model.safetensors"}),
        ({"lora": {"rank": 4, "rank_stabilized": True}}, {"adapter/adapter_model.safetensors"}),
    ],
    ids=["label head", "full", "dora", "rslora"],
)
def test_what_is_trained_is_what_is_left(
    root: Path, plain: Artifact, tmp_path: Path, tune: dict[str, Any], files: set[str]
) -> None:
    artifact = tuned(root, tmp_path / "p", tune)
    assert files <= set(artifact.manifest["files"])
    assert losses(artifact)[0] == pytest.approx(losses(plain)[0], abs=2e-4)
    assert losses(artifact)[1:] != losses(plain)[1:]


@pytest.mark.parametrize(
    "tune",
    [{"class_weights": "balanced", "label_smoothing": 0.2}, {"class_weights": {"neutral": 3.0}}],
)
def test_weights_and_smoothing_change_the_loss(
    root: Path, plain: Artifact, tmp_path: Path, tune: dict[str, Any]
) -> None:
    artifact = tuned(root, tmp_path / "p", tune)
    assert losses(artifact)[0] != pytest.approx(losses(plain)[0], abs=1e-3)


def test_soft_labels_change_nothing_where_each_example_has_one_judgement(
    root: Path, plain: Artifact, tmp_path: Path
) -> None:
    assert losses(tuned(root, tmp_path / "p", {"soft_labels": True})) == losses(plain)


def test_activations_computed_again_give_the_same_training(
    root: Path, plain: Artifact, tmp_path: Path
) -> None:
    again = tuned(root, tmp_path / "p", {}, train={"activation_checkpointing": True})
    assert losses(again) == pytest.approx(losses(plain), abs=1e-4)


def test_an_adapter_goes_on_from_where_it_was_left(
    root: Path, plain: Artifact, tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    further = tuned(root, folder, {"start_from": str(plain.path / "adapter"), "lora": {}})
    assert losses(further)[0] != losses(plain)[0]
    before, after = (
        load_file(a.file("adapter/adapter_model.safetensors")) for a in (plain, further)
    )
    assert before.keys() == after.keys()
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}


def test_an_adapter_that_is_not_there_is_an_error_that_names_it(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        tuned(root, tmp_path / "p", {"start_from": str(tmp_path / "nowhere")})
