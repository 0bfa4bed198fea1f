"""Pulling: what arrives is what was published, or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slant.artifacts import find, load
from slant.errors import ArtifactError, UsageError
from slant.progress import SilentProgress
from slant.publish.object_store import publish_to_store
from slant.publish.pull import pull_bundle
from slant.publish.release import Pulled, Release
from tiny_release import write_release

WEIGHTS = "causal-lm/model.safetensors"
SILENT = SilentProgress()


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return write_release(tmp_path / "bundle", weights_bytes=50_000)


@pytest.fixture
def to(release: Release, tmp_path: Path) -> Path:
    publish_to_store(release, str(tmp_path / "to"), dry_run=False, aliases=(), progress=SILENT)
    return tmp_path / "to"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pulled"


def pull(to: Path, folder: Path, **options: Any) -> Pulled:
    return pull_bundle(str(to), folder, progress=SILENT, **options)


def in_version(to: Path, name: str) -> Path:
    (version,) = (to / "versions").iterdir()
    return version / name


def with_manifest(to: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the published manifest, with pointer and version as somebody would who forges it."""
    path = in_version(to, "manifest.json")
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    version = f"20260101T000000Z-{digest[:12]}"
    path.parent.rename(to / "versions" / version)
    pointer = json.loads((to / "latest.json").read_text())
    pointer |= {"version": version, "manifest_sha256": digest}
    (to / "latest.json").write_text(json.dumps(pointer))


def begun(folder: Path) -> Path:
    """Where an interrupted pull keeps what it has fetched."""
    (staging,) = (folder / ".pulling").iterdir()
    return staging


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip, r"model\.safetensors: is damaged \(its sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is damaged .it is shorter"),
        (Path.unlink, r"model\.safetensors: is missing|cannot be read"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_counts_as_pulled(
    damage: Callable[[Path], object], words: str, to: Path, folder: Path
) -> None:
    damage(in_version(to, WEIGHTS))
    with pytest.raises(ArtifactError, match=words) as caught:
        pull(to, folder)
    assert str(in_version(to, WEIGHTS)) in caught.value.message
    assert find(folder, "export") is None
    assert not (folder / WEIGHTS).exists()


def test_a_damaged_manifest_is_refused(to: Path, folder: Path) -> None:
    flip(in_version(to, "manifest.json"))
    with pytest.raises(ArtifactError, match=r"manifest\.json: is damaged"):
        pull(to, folder)
    (version,) = (to / "versions").iterdir()
    with pytest.raises(ArtifactError, match=r"manifest\.json: is damaged"):
        pull(to, folder, version=version.name)
    assert not folder.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"schema": "slant.latest/2"}',
        b'{"schema": "slant.latest/1", "version": "../../x", "manifest_sha256": "0"}',
        b'{"schema": "slant.latest/1", "version": "20260101T000000Z-0123456789ab", '
        b'"manifest_sha256": ""}',
    ],
)
def test_a_damaged_pointer_is_refused(content: bytes, to: Path, folder: Path) -> None:
    (to / "latest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"latest\.json: "):
        pull(to, folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", ["../outside", "/outside", "a/../../outside", "..\\outside", "C:\\outside"]
)
def test_a_manifest_that_names_a_file_outside_is_refused(name: str, to: Path, folder: Path) -> None:
    def add(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["slant.json"]

    with_manifest(to, add)
    with pytest.raises(ArtifactError, match="lies outside the folder"):
        pull(to, folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", ["./manifest.json", "a//b", "a/./b", "a/", ".", "a\0b", "a\ud800b"]
)
def test_a_manifest_that_spells_a_name_in_another_way_is_refused(
    name: str, to: Path, folder: Path
) -> None:
    def add(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["slant.json"]

    with_manifest(to, add)
    with pytest.raises(ArtifactError, match="is no name of a file"):
        pull(to, folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    "created_at", ["yesterday", None, 5, "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"]
)
def test_a_manifest_that_does_not_say_when_it_was_made_is_refused_before_anything_is_fetched(
    created_at: object, to: Path, folder: Path
) -> None:
    with_manifest(to, lambda manifest: manifest.update(created_at=created_at))
    with pytest.raises(ArtifactError, match=r"manifest\.json: is damaged .created_at is"):
        pull(to, folder)
    assert not folder.exists()


@pytest.mark.parametrize("num_bytes", [-1, True, 1.5, "3"])
def test_a_manifest_with_a_size_that_is_none_is_refused(
    num_bytes: object, to: Path, folder: Path
) -> None:
    with_manifest(to, lambda manifest: manifest["files"]["slant.json"].update(bytes=num_bytes))
    with pytest.raises(ArtifactError, match=r"is damaged \(the entry of 'slant\.json'\)"):
        pull(to, folder)
    assert not folder.exists()


def test_a_manifest_that_is_nested_without_end_is_refused(to: Path, folder: Path) -> None:
    path = in_version(to, "manifest.json")
    path.write_bytes(b"[" * 200_000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    version = f"20260101T000000Z-{digest[:12]}"
    path.parent.rename(to / "versions" / version)
    with pytest.raises(ArtifactError, match=r"manifest\.json: cannot be read"):
        pull(to, folder, version=version)
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", ["manifest.json", "building.json", ".lock", "manifest.json.minisig", ".pulling/x"]
)
def test_a_manifest_that_names_a_file_of_the_folder_itself_is_refused(
    name: str, to: Path, folder: Path
) -> None:
    def add(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["slant.json"]

    with_manifest(to, add)
    with pytest.raises(ArtifactError, match=rf"is damaged \(the entry of '{name}'\)"):
        pull(to, folder)
    assert not folder.exists()


def test_a_link_in_the_folder_does_not_lead_out_of_it(
    to: Path, folder: Path, tmp_path: Path
) -> None:
    flip(in_version(to, WEIGHTS))
    with pytest.raises(ArtifactError):
        pull(to, folder)  # now it is a pull to be continued
    (tmp_path / "elsewhere").mkdir()
    (begun(folder) / "classifier").symlink_to(tmp_path / "elsewhere")
    flip(in_version(to, WEIGHTS))
    with pytest.raises(ArtifactError, match="lies outside the folder"):
        pull(to, folder)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("is_right", [True, False])
def test_a_pull_that_was_interrupted_goes_on_within_a_file(
    is_right: bool, release: Release, to: Path, folder: Path
) -> None:
    path = in_version(to, WEIGHTS)
    path.rename(path.with_name("away"))
    with pytest.raises(ArtifactError):
        pull(to, folder)
    names = ("README.md", "config.json")
    kept = sum(p.stat().st_size for p in begun(folder).rglob("*") if p.name in names)
    assert kept
    path.with_name("away").rename(path)
    start = path.read_bytes()[:30_000] if is_right else b"x" * 30_000
    (begun(folder) / f"{WEIGHTS}.part").write_bytes(start)
    pulled = pull(to, folder)
    total = release.num_bytes - release.files["manifest.json"].num_bytes
    already = kept + (30_000 if is_right else 0)
    assert (pulled.fetched_bytes, pulled.kept_bytes) == (total - already, already)
    load(folder, "export").verify()
    assert not list(folder.rglob("*.part"))


def test_a_file_that_was_damaged_since_is_fetched_again_and_only_that(
    release: Release, to: Path, folder: Path
) -> None:
    pull(to, folder)
    assert pull(to, folder).fetched_bytes == 0
    flip(folder / WEIGHTS)
    assert pull(to, folder).fetched_bytes == release.files[WEIGHTS].num_bytes
    load(folder, "export").verify()


def test_a_newer_version_takes_the_place_of_the_bundle(
    to: Path, folder: Path, tmp_path: Path
) -> None:
    pull(to, folder)
    newer = write_release(tmp_path / "newer", seed=1, weights_bytes=10, extra="more.txt")
    publish_to_store(newer, str(to), dry_run=False, aliases=(), progress=SILENT)
    assert pull(to, folder).version == newer.version
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(newer.files)


@pytest.mark.parametrize("version", ["../latest", "LATEST", "20260101"])
def test_what_is_neither_a_version_nor_an_alias_is_a_mistake_of_the_command(
    version: str, to: Path, folder: Path
) -> None:
    with pytest.raises(UsageError, match="is neither a version nor an alias"):
        pull(to, folder, version=version)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("champion", r"champion\.json: is not there, so there is no version 'champion'"),
        ("20260101T000000Z-0123456789ab", r"0123456789ab/manifest\.json: is missing"),
    ],
)
def test_a_version_that_is_not_there_is_an_error_with_its_place(
    version: str, words: str, to: Path, folder: Path
) -> None:
    with pytest.raises(ArtifactError, match=words):
        pull(to, folder, version=version)


def test_nothing_is_written_of_a_release_without_the_right_signature(
    release: Release, to: Path, folder: Path, tmp_path: Path
) -> None:
    minisign = pytest.importorskip("minisign")
    from slant.publish.publish import publish_bundle

    keys = []
    for name in ("ours", "theirs"):
        pair = minisign.KeyPair.generate()
        secret, public = tmp_path / f"{name}.key", tmp_path / f"{name}.pub"
        secret.write_bytes(bytes(pair.secret_key))
        public.write_bytes(bytes(pair.public_key))
        keys.append((secret, public))
    (ours, our_public), (_, their_public) = keys
    with pytest.raises(ArtifactError, match=r"manifest\.json\.minisig: is missing") as caught:
        pull(to, folder, verify_key=our_public)
    assert str(in_version(to, "manifest.json.minisig")) in caught.value.message
    publish_bundle(release.folder, str(to), sign_key=ours)
    with pytest.raises(ArtifactError, match="is no signature by"):
        pull(to, folder, verify_key=their_public)
    assert not folder.exists()
    pull(to, folder, verify_key=our_public)
    assert (folder / "manifest.json.minisig").read_bytes() == (
        release.path("manifest.json.minisig").read_bytes()
    )
    with pytest.raises(ArtifactError, match="is no signature by"):
        pull(to, folder, verify_key=their_public)
