"""Releases in stores of four kinds: a folder, two kinds of fsspec URL, and a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3_server import s3_server
from slant.artifacts import load
from slant.disk import write_atomically
from slant.errors import ArtifactError, StorageError, UsageError
from slant.progress import SilentProgress
from slant.publish.object_store import publish_to_store
from slant.publish.publish import check_target, publish_bundle
from slant.publish.pull import pull_bundle
from slant.publish.release import Published, Pulled, Release
from slant.storage import is_url, list_urls, read_url, remove_url, write_url
from tiny_release import write_release

KINDS = ("folder", "file", "memory", "s3")
SILENT = SilentProgress()


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with s3_server() as server:
        server.put("models", b"")
        yield


@pytest.fixture(params=KINDS)
def to(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = tmp_path.name
    return {
        "folder": str(tmp_path / "to"),
        "file": f"file://{tmp_path}/to",
        "memory": f"memory://{name}/to",
        "s3": f"s3://models/{name}/to",
    }[request.param]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return write_release(tmp_path / "bundle", weights_bytes=20_000)


def publish(release: Release, to: str, *aliases: str, dry_run: bool = False) -> Published:
    return publish_to_store(release, to, dry_run=dry_run, aliases=aliases, progress=SILENT)


def pull(to: str, folder: Path, version: str | None = None) -> Pulled:
    return pull_bundle(to, folder, version=version, progress=SILENT)


def names(to: str) -> list[str]:
    """The files in a store."""
    if is_url(to):
        return [url.partition("/to/")[2] for url in list_urls(to)]
    return sorted(p.relative_to(to).as_posix() for p in Path(to).rglob("*") if p.is_file())


def read(to: str, name: str) -> bytes:
    return read_url(f"{to}/{name}") if is_url(to) else (Path(to) / name).read_bytes()


def write(to: str, name: str, content: bytes) -> None:
    write_url(f"{to}/{name}", content) if is_url(to) else write_atomically(Path(to) / name, content)


def remove(to: str, name: str) -> None:
    remove_url(f"{to}/{name}") if is_url(to) else (Path(to) / name).unlink()


def pointer(to: str, name: str = "latest") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(read(to, f"{name}.json"))
    return content


def test_a_release_comes_back_as_it_went(to: str, release: Release, tmp_path: Path) -> None:
    published = publish(release, to)
    assert published.version == release.version
    assert (published.sent_bytes, published.kept_bytes) == (release.num_bytes, 0)
    assert not published.was_there
    folder = f"versions/{release.version}"
    assert names(to) == sorted(["latest.json", *(f"{folder}/{name}" for name in release.files)])

    pulled = pull(to, tmp_path / "pulled")
    assert pulled.version == release.version
    found = {p.relative_to(pulled.folder).as_posix(): p for p in pulled.folder.rglob("*")}
    assert {name for name, path in found.items() if path.is_file()} == set(release.files)
    for name in release.files:
        assert found[name].read_bytes() == release.path(name).read_bytes()
    assert Release.of(pulled.folder).version == release.version


def test_what_is_there_is_not_sent_again(to: str, release: Release) -> None:
    publish(release, to)
    before = read(to, "latest.json")
    again = publish(release, to)
    assert again.was_there
    assert (again.sent_bytes, again.kept_bytes) == (0, release.num_bytes)
    assert read(to, "latest.json") == before


def test_a_dry_run_tells_what_would_be_sent_and_writes_nothing(to: str, release: Release) -> None:
    planned = publish(release, to, "champion", dry_run=True)
    assert names(to) == []
    assert planned.sent_bytes == release.num_bytes
    assert [file.name for file in planned.files] == list(release.files)
    done = publish(release, to)
    assert (done.version, done.url, done.files) == (planned.version, planned.url, planned.files)
    assert publish(release, to, dry_run=True).was_there


def test_an_upload_that_was_interrupted_is_completed(to: str, release: Release) -> None:
    publish(release, to)
    folder = f"versions/{release.version}"
    for name in ("manifest.json", "slant.json"):
        remove(to, f"{folder}/{name}")
    remove(to, "latest.json")
    weights = "causal-lm/model.safetensors"
    content = bytearray(read(to, f"{folder}/{weights}"))
    content[100] ^= 1
    write(to, f"{folder}/{weights}", bytes(content))
    done = publish(release, to)
    sent = {file.name for file in done.files if file.sent_bytes}
    assert sent == {"manifest.json", "slant.json", weights}
    assert publish(release, to).was_there
    assert pointer(to)["version"] == release.version


def test_a_published_version_is_never_overwritten(to: str, release: Release) -> None:
    publish(release, to)
    name = f"versions/{release.version}/manifest.json"
    other = read(to, name) + b" "
    write(to, name, other)
    with pytest.raises(ArtifactError, match="other contents are published under this version"):
        publish(release, to)
    assert read(to, name) == other


@pytest.mark.parametrize(("change", "words"), [(b"", "is missing"), (b"{}", "is not what was")])
def test_a_published_version_that_was_damaged_is_not_mended_in_silence(
    to: str, release: Release, change: bytes, words: str
) -> None:
    publish(release, to)
    name = f"versions/{release.version}/slant.json"
    write(to, name, change) if change else remove(to, name)
    with pytest.raises(ArtifactError, match=rf"{release.version}/slant\.json: {words}"):
        publish(release, to)


def test_latest_and_aliases_name_the_version_that_was_published_last(
    to: str, release: Release, tmp_path: Path
) -> None:
    newer = write_release(tmp_path / "newer", seed=1, weights_bytes=5_000)
    publish(release, to, "champion")
    publish(newer, to)
    assert pointer(to)["version"] == newer.version
    assert pointer(to, "champion")["version"] == release.version
    for version, expected in [
        (None, newer),
        ("latest", newer),
        ("champion", release),
        (release.version, release),
    ]:
        pulled = pull(to, tmp_path / "pulled", version)
        assert pulled.version == expected.version
        assert load(pulled.folder, "export").facts == expected.facts
    assert publish(release, to).was_there  # which is the way back
    assert pointer(to)["version"] == release.version


@pytest.mark.parametrize("alias", ["latest", "../x", "A", "", "a.json", "1st"])
def test_a_name_that_cannot_be_an_alias_is_refused(alias: str, release: Release, to: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of an alias"):
        publish(release, to, alias)
    assert names(to) == []


def test_a_signature_can_be_added_and_is_not_replaced(to: str, release: Release) -> None:
    publish(release, to)
    signature = release.path("manifest.json.minisig")
    signature.write_text("first")
    done = publish(Release.of(release.folder), to)
    assert [file.name for file in done.files if file.sent_bytes] == ["manifest.json.minisig"]
    signature.write_text("other")
    with pytest.raises(ArtifactError, match=r"minisig: is not what was published"):
        publish(Release.of(release.folder), to)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s4://bucket/x", "cannot be published to"),
        ("s3//bucket/x", "cannot be published to"),
        ("hf://datasets/x", "is no repository"),
        ("s3://key:secret@bucket/x", "holds credentials"),
        ("hf://only-a-name", "is no repository"),
    ],
)
def test_an_address_that_cannot_be_published_to_is_found_out_at_once(
    address: str, words: str, release: Release
) -> None:
    for attempt in (check_target, lambda to: publish_bundle(release.folder, to)):
        with pytest.raises(UsageError, match=words):
            attempt(address)


def test_a_bucket_that_is_not_there_is_an_error_and_is_not_made(release: Release) -> None:
    for dry_run in (True, False):
        with pytest.raises(StorageError, match="there is no such file or bucket"):
            publish(release, "s3://nobucket/x", dry_run=dry_run)


@pytest.mark.parametrize("name", ["latest", "champion"])
@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff", b"[" * 100_000, b'{"model_type": "mistral"}', b'{"schema": "slant.latest/1"}'],
)
def test_a_pointer_that_cannot_be_read_is_found_out_before_anything_is_sent(
    to: str, release: Release, name: str, content: bytes
) -> None:
    if not to.startswith(("memory:", "s3:")):
        Path(to.removeprefix("file://")).mkdir()
    write(to, f"{name}.json", content)
    for dry_run in (True, False):
        with pytest.raises(ArtifactError, match=rf"{name}\.json: ") as error:
            publish(release, to, "champion", dry_run=dry_run)
        assert "remove it" in error.value.hint
    assert names(to) == [f"{name}.json"]
    assert read(to, f"{name}.json") == content
    remove(to, f"{name}.json")
    publish(release, to, "champion")
    assert pointer(to, name)["version"] == release.version
