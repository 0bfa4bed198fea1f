"""A file arrives in a store as the release lists it, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3_server import s3_server
from slant.artifacts import load
from slant.errors import ArtifactError, InputError
from slant.progress import SilentProgress
from slant.publish.object_store import publish_to_store
from slant.publish.pull import pull_bundle
from slant.publish.release import Entry, Release
from slant.publish.s3_store import S3Store
from slant.publish.stores import Store, open_store
from slant.storage import BLOCK_BYTES
from tiny_release import write_release

PART_BYTES = 5 << 20
SIZES = (1000, BLOCK_BYTES + 1000)
NAME = "versions/1/model.safetensors"
SILENT = SilentProgress()


class StopError(Exception):
    """What ends a program in the middle of its work."""


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with s3_server() as server:
        server.put("models", b"")
        yield


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {
        "folder": str(tmp_path / "to"),
        "file": f"file://{tmp_path}/to",
        "memory": f"memory://{tmp_path.name}/to",
        "s3": f"s3://models/{tmp_path.name}/to",
    }[request.param]


def store_at(to: str) -> Store:
    return S3Store(to, part_bytes=PART_BYTES) if to.startswith("s3") else open_store(to)


def make_file(tmp_path: Path, num_bytes: int) -> tuple[Path, Entry]:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(num_bytes))
    return path, Entry.of(path)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("num_bytes", SIZES)
def test_a_file_that_changed_since_it_was_listed_is_an_error(
    num_bytes: int, to: str, tmp_path: Path
) -> None:
    path, entry = make_file(tmp_path, num_bytes)
    flip(path)
    with pytest.raises(ArtifactError, match="changed while it was sent") as caught:
        store_at(to).send(NAME, path, entry, lambda num_bytes: None)
    assert str(path) in caught.value.message
    if num_bytes < BLOCK_BYTES or not to.startswith("memory"):  # which has no temporary names
        assert store_at(to).read(NAME) is None


@pytest.mark.parametrize("name", ["slant.json", "manifest.json"])
def test_a_bundle_that_is_exported_again_while_it_is_sent_does_no_lasting_harm(
    name: str, to: str, tmp_path: Path
) -> None:
    release = write_release(tmp_path / "bundle", weights_bytes=1000)
    content = release.path(name).read_bytes()
    release.path(name).write_bytes(content.replace(b"0", b"1"))
    with pytest.raises(ArtifactError, match=rf"{name}: changed while it was sent"):
        publish_to_store(release, to, dry_run=False, aliases=(), progress=SILENT)
    assert open_store(to).read(f"versions/{release.version}/manifest.json") is None
    release.path(name).write_bytes(content)
    publish_to_store(Release.of(release.folder), to, dry_run=False, aliases=(), progress=SILENT)
    assert pull_bundle(to, tmp_path / "pulled", progress=SILENT).version == release.version
    load(tmp_path / "pulled", "export").verify()


@pytest.mark.parametrize("kind", ["", "file://"])
def test_a_second_sender_of_a_file_that_is_stopped_does_not_spoil_the_first(
    kind: str, tmp_path: Path
) -> None:
    path, entry = make_file(tmp_path, 2 * BLOCK_BYTES + 1000)
    store, sent_bytes = open_store(f"{kind}{tmp_path}/to"), 0

    def stop(num_bytes: int) -> None:
        raise StopError

    def advance(num_bytes: int) -> None:
        nonlocal sent_bytes
        sent_bytes += num_bytes
        assert not (tmp_path / "to" / NAME).exists()  # a file is there whole or not at all
        if sent_bytes == entry.num_bytes:
            with pytest.raises(StopError):
                store.send(NAME, path, entry, stop)

    store.send(NAME, path, entry, advance)
    assert (tmp_path / "to" / NAME).read_bytes() == path.read_bytes()
    assert files(tmp_path / "to") == {NAME}


def test_a_file_that_cannot_be_read_is_an_error_with_its_name(to: str, tmp_path: Path) -> None:
    path, entry = make_file(tmp_path, 1000)
    path.unlink()
    path.mkdir()  # root may read everything but this
    with pytest.raises(ArtifactError, match=r"model\.safetensors: cannot be read: Is a directory"):
        store_at(to).send(NAME, path, entry, lambda num_bytes: None)


@pytest.mark.parametrize("kind", ["", "file://"])
def test_a_file_in_a_store_that_cannot_be_read_is_an_error_with_its_name(
    kind: str, tmp_path: Path
) -> None:
    path, entry = make_file(tmp_path, 1000)
    store, name = open_store(f"{kind}{tmp_path}/to"), "x" * 300
    (tmp_path / "to").mkdir()
    for attempt in (
        lambda: store.holds(name, path, entry),
        lambda: store.read(name),
        lambda: list(store.blocks(name, 0, 1000)),
    ):
        with pytest.raises(InputError, match="xxx: cannot be read: File name too long"):
            attempt()


@pytest.mark.parametrize("kind", ["", "file://"])
def test_a_full_disk_is_an_error_that_leaves_nothing(kind: str, tmp_path: Path) -> None:
    path, _ = make_file(tmp_path, 1000)
    script = """
import resource, signal, sys
from pathlib import Path
from slant.errors import StorageError
from slant.publish.release import Entry
from slant.publish.stores import open_store
entry = Entry.of(Path(sys.argv[2]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    open_store(sys.argv[1]).send(sys.argv[3], Path(sys.argv[2]), entry, lambda num_bytes: None)
except StorageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, f"{kind}{tmp_path}/to", path, NAME],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"cannot write {tmp_path}/to/{NAME}: File too large" in done.stdout
    assert files(tmp_path / "to") == set()


def test_what_a_killed_sender_left_is_removed_but_not_what_one_is_writing(tmp_path: Path) -> None:
    path, entry = make_file(tmp_path, 1000)
    folder = (tmp_path / "to" / NAME).parent
    folder.mkdir(parents=True)
    for name in ("model.safetensors.old.part", "model.safetensors.new.part", "other.old.part"):
        (folder / name).write_bytes(b"half")
        if "old" in name:
            os.utime(folder / name, (1e9, 1e9))
    open_store(str(tmp_path / "to")).send(NAME, path, entry, lambda num_bytes: None)
    found = {"model.safetensors", "model.safetensors.new.part", "other.old.part"}
    assert files(folder) == found
