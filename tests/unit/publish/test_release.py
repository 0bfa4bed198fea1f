"""What may be published, and under which name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slant.artifacts import Recipe, build, digest_file
from slant.errors import ArtifactError, GateError
from slant.publish.release import Release
from tiny_release import write_release


def bundle(folder: Path, proof: str | None) -> Path:
    with build(folder, Recipe("export", {}, {}, 0)):
        (folder / "slant.json").write_text("{}")
        if proof is not None:
            (folder / "parity.json").write_text(proof)
    return folder


def test_the_version_is_time_and_digest_of_the_manifest_wherever_the_bundle_lies(
    tmp_path: Path,
) -> None:
    release = write_release(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    path = tmp_path / "a" / "manifest.json"
    time, _, digest = release.version.partition("-")
    assert Release.of(tmp_path / "b").version == release.version
    assert digest == digest_file(path)[:12]
    created_at = json.loads(path.read_text())["created_at"]
    assert time == created_at.replace("-", "").replace(":", "").replace("+0000", "Z")


def test_the_manifest_is_sent_last_and_its_signature_before_it(tmp_path: Path) -> None:
    first = write_release(tmp_path / "a")
    assert list(first.files)[-2:] == ["slant.json", "manifest.json"]
    (tmp_path / "a" / "manifest.json.minisig").write_text("signed")
    signed = Release.of(tmp_path / "a")
    assert list(signed.files)[-2:] == ["manifest.json.minisig", "manifest.json"]
    assert signed.version == first.version


def test_a_file_that_the_manifest_does_not_list_is_not_published(tmp_path: Path) -> None:
    write_release(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    assert "notes.txt" not in Release.of(tmp_path / "a").files


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (None, "the proof is missing"),
        ('{"passed": false}', "the proof did not pass"),
        ('{"formats": {}}', "the proof did not pass"),
        ('{"passed": "yes"}', "the proof did not pass"),
        ("[]", "the proof did not pass"),
        ("passed", "is no proof"),
    ],
)
def test_a_bundle_that_does_not_prove_itself_is_refused(
    proof: str | None, words: str, tmp_path: Path
) -> None:
    folder = bundle(tmp_path / "a", proof)
    with pytest.raises(GateError, match=words) as caught:
        Release.of(folder)
    assert "nothing was published" in caught.value.message
    assert caught.value.exit_code == 3


def test_a_proof_that_was_put_beside_the_manifest_does_not_count(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "a", None)
    (folder / "parity.json").write_text('{"passed": true}')
    with pytest.raises(GateError, match="the proof is missing"):
        Release.of(folder)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_release(tmp_path / "a")
    path = tmp_path / "a" / "causal-lm" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.safetensors: is damaged"):
        Release.of(tmp_path / "a")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_release(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    name = "x" * 300  # no file system takes it, which a manifest that was forged may not care about
    manifest["files"][name] = manifest["files"]["slant.json"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="xxx: cannot be read: File name too long"):
        Release.of(tmp_path / "a")


@pytest.mark.parametrize("proof", ["[" * 200_000, "\ud800".encode("utf-8", "surrogatepass")])
def test_a_proof_that_is_no_json_is_refused(proof: str | bytes, tmp_path: Path) -> None:
    with build(tmp_path / "a", Recipe("export", {}, {}, 0)):
        content = proof.encode() if isinstance(proof, str) else proof
        (tmp_path / "a" / "parity.json").write_bytes(content)
    with pytest.raises(GateError, match="is no proof"):
        Release.of(tmp_path / "a")


def test_a_damaged_bundle_tells_whoever_pulled_it_what_to_do(tmp_path: Path) -> None:
    write_release(tmp_path / "a")
    (tmp_path / "a" / "slant.json").write_text("{}")
    with pytest.raises(ArtifactError) as caught:
        Release.of(tmp_path / "a")
    assert "`slant pull` into the same folder" in caught.value.hint


@pytest.mark.parametrize("name", ["slant.json", "manifest.json"])
def test_a_link_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    write_release(tmp_path / "a")
    path = tmp_path / "a" / name
    path.rename(tmp_path / name)
    path.symlink_to(tmp_path / name)
    with pytest.raises(ArtifactError, match="outside the folder"):
        Release.of(tmp_path / "a")


def test_a_bundle_that_was_not_finished_is_refused(tmp_path: Path) -> None:
    write_release(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="the export artifact is not there"):
        Release.of(tmp_path / "a")
