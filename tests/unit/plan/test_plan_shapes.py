from __future__ import annotations

import json
from pathlib import Path

import pytest

from slant.errors import ModelError, UsageError
from slant.model.embedded import EMBEDDED
from slant.model.flops import Shape
from slant.plan.shapes import PUBLISHED, find_shape, read_shape
from tiny_stages import tiny_config


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mistralai/Mistral-7B-v0.3", 7_248_023_552),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("gemma-3-270m", 268_098_176),
    ],
)
def test_published_sizes_give_the_published_number_of_parameters(
    name: str, parameters: int, tmp_path: Path
) -> None:
    shape, source = find_shape(name, revision=None, start=tmp_path)
    assert (shape.num_params, source) == (parameters, "the published sizes")


def test_embedded_models_can_be_planned_without_being_installed() -> None:
    assert set(EMBEDDED) <= set(PUBLISHED)


def test_a_folder_is_asked_first_and_needs_no_weights(tmp_path: Path) -> None:
    folder = tmp_path / "mistralai" / "Mistral-7B-v0.3"
    folder.mkdir(parents=True)
    tiny_config("mistral").save_pretrained(folder)
    shape, source = find_shape("mistralai/Mistral-7B-v0.3", revision=None, start=tmp_path)
    assert shape == Shape.from_config(tiny_config("mistral").to_dict())
    assert source == "mistralai/Mistral-7B-v0.3/config.json"


def test_the_hubs_cache_is_asked_before_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--Qwen--Qwen2.5-7B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    tiny_config("llama").save_pretrained(snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc", "utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    shape, source = find_shape("Qwen/Qwen2.5-7B", revision=None, start=tmp_path)
    assert (shape.hidden, source) == (32, "config.json in the hub's cache")


def test_without_a_network_an_unknown_hub_id_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="sizes of 'nobody/no-such-model' are not known") as error:
        find_shape("nobody/no-such-model", revision=None, start=tmp_path)
    assert "config.json alone" in error.value.hint
    assert "mistralai/Mistral-7B-v0.3" in error.value.hint


def test_a_misspelt_name_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'gemma-3-270m'"):
        find_shape("gemma-3-27m", revision=None, start=tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", json.dumps({"model_type": "llama"})])
def test_a_config_that_tells_no_sizes_is_an_error_that_names_it(
    content: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(content, "utf-8")
    with pytest.raises(ModelError, match=r"config\.json"):
        read_shape(tmp_path)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_shape(tmp_path / "absent")
