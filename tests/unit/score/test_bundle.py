"""A bundle is verified before it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slant.errors import ArtifactError
from slant.score.bundle import verify_bundle
from slant.score.scorer import Scorer
from tiny_release import write_release

WEIGHTS = "causal-lm/model.safetensors"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_release(tmp_path / "bundle", weights_bytes=1000).folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_bundle_as_it_was_exported_is_taken(bundle: Path) -> None:
    verify_bundle(bundle)


@pytest.mark.parametrize("name", ["slant.json", "causal-lm/config.json", WEIGHTS])
@pytest.mark.parametrize(
    ("damage", "words"), [(flip, "is damaged"), (Path.unlink, "is missing")], ids=("flip", "remove")
)
def test_a_damaged_file_is_named(
    name: str, damage: Callable[[Path], object], words: str, bundle: Path
) -> None:
    damage(bundle / name)
    with pytest.raises(ArtifactError, match=words) as caught:
        verify_bundle(bundle)
    assert str(bundle / name) in caught.value.message


def test_a_file_that_is_not_loaded_is_not_read(bundle: Path) -> None:
    flip(bundle / "classifier" / "model.safetensors")
    verify_bundle(bundle)
    flip(bundle / WEIGHTS)
    verify_bundle(bundle, weights=False)  # a server has them
    with pytest.raises(ArtifactError, match="is damaged"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["adapter_config.json", "deep/model-00002.safetensors"])
def test_a_file_that_a_loader_might_take_is_refused(name: str, bundle: Path) -> None:
    path = bundle / "causal-lm" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="is not part of the bundle") as caught:
        verify_bundle(bundle)
    assert str(path) in caught.value.message


def test_hidden_files_and_files_beside_the_model_are_no_matter(bundle: Path) -> None:
    (bundle / "causal-lm" / ".DS_Store").write_text("x")
    (bundle / "notes.txt").write_text("x")
    verify_bundle(bundle)


def test_without_a_manifest_nothing_can_be_verified_and_the_error_says_what_to_do(
    bundle: Path,
) -> None:
    (bundle / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"has no manifest\.json") as caught:
        verify_bundle(bundle)
    assert "slant pull" in caught.value.hint
    assert "--no-verify" in caught.value.hint


@pytest.mark.parametrize("content", [b"{", b"[" * 200_000, b"\xff", b'{"schema": "slant.task/99"}'])
def test_a_damaged_contract_is_found_out_before_it_is_read(content: bytes, bundle: Path) -> None:
    (bundle / "slant.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"slant\.json: is damaged \(its sha256"):
        Scorer.load(bundle)


def test_a_folder_that_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"slant\.json: is not there"):
        Scorer.load(tmp_path)
