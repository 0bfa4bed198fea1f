"""A pull into a folder that holds something: what is there stays until all of the new is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slant.artifacts import Recipe, build, find, load
from slant.errors import ArtifactError, UsageError
from slant.progress import SilentProgress
from slant.publish.object_store import publish_to_store
from slant.publish.pull import pull_bundle
from slant.publish.release import Release
from tiny_release import write_release

SILENT = SilentProgress()
NEW = "classifier/model.safetensors"


def publish(release: Release, to: Path) -> None:
    publish_to_store(release, str(to), dry_run=False, aliases=(), progress=SILENT)


@pytest.fixture
def old(tmp_path: Path) -> Release:
    return write_release(tmp_path / "old", weights_bytes=20_000, extra="only-old.txt")


@pytest.fixture
def new(tmp_path: Path) -> Release:
    return write_release(tmp_path / "new", seed=1, weights_bytes=30_000, extra="only-new.txt")


@pytest.fixture
def to(tmp_path: Path, old: Release) -> Path:
    publish(old, tmp_path / "to")
    return tmp_path / "to"


@pytest.fixture
def folder(tmp_path: Path, to: Path) -> Path:
    pull_bundle(to, tmp_path / "pulled")
    return tmp_path / "pulled"


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def files(folder: Path) -> set[str]:
    return {name for name, content in contents(folder).items() if content is not None}


def test_the_bundle_that_is_there_stays_until_the_new_one_is_whole(
    old: Release, new: Release, to: Path, folder: Path
) -> None:
    publish(new, to)
    missing = to / "versions" / new.version / NEW
    missing.rename(missing.with_name("away"))
    with pytest.raises(ArtifactError, match="is missing"):
        pull_bundle(to, folder)
    assert Release.of(folder).version == old.version
    missing.with_name("away").rename(missing)
    pulled = pull_bundle(to, folder)
    assert pulled.version == new.version
    assert pulled.kept_bytes > new.files["causal-lm/model.safetensors"].num_bytes
    assert files(folder) == set(new.files)


def test_files_that_both_bundles_have_are_not_fetched(new: Release, to: Path, folder: Path) -> None:
    publish(new, to)
    pulled = pull_bundle(to, folder)
    same = [
        name for name in new.files if name.endswith(("config.json", "README.md", "parity.json"))
    ]
    assert pulled.kept_bytes == sum(new.files[name].num_bytes for name in same)


KILLED = """
import os, signal, sys
from slant.publish.pull import pull_bundle
steps, folder = int(sys.argv[3]), sys.argv[2]
def hook(event, arguments):
    # Killed before the n-th change to the folder, whatever that is.
    global steps
    if event in ("os.remove", "os.rename", "os.rmdir") and folder in str(arguments[0]):
        steps -= 1
        if steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
pull_bundle(sys.argv[1], folder)
"""


def test_killed_at_any_moment_there_is_the_old_bundle_or_the_new_one_or_the_next_pull_ends_it(
    old: Release, new: Release, to: Path, tmp_path: Path
) -> None:
    publish(new, to)
    step, seen, done = 0, set(), 1
    while done:
        folder = tmp_path / f"pulled-{step}"
        pull_bundle(to, folder, version=old.version)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, to, folder, str(step)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        ).returncode
        assert done in (0, -signal.SIGKILL)
        bundle = find(folder, "export")
        if bundle is not None:
            bundle.verify()
        seen.add(None if bundle is None else Release.of(folder).version)
        last = new if step % 2 else old  # whichever is pulled next, nothing of another is left
        publish(last, to)
        assert pull_bundle(to, folder).version == last.version
        assert files(folder) - {".lock"} == set(last.files)
        publish(new, to)
        step += 3
    assert seen == {old.version, None, new.version}


@pytest.mark.parametrize("name", ["notes.txt", "causal-lm/README.md", ".hidden"])
def test_a_file_of_somebody_else_in_the_bundle_is_never_removed(
    name: str, old: Release, new: Release, to: Path, folder: Path
) -> None:
    (folder / name).write_text("mine")
    publish(new, to)
    before = contents(folder)
    with pytest.raises(ArtifactError, match=name) as caught:
        pull_bundle(to, folder)
    assert "empty folder" in caught.value.hint
    assert contents(folder) == before
    assert Release.of(folder).version == old.version


def write_thesis(folder: Path) -> None:
    (folder / "thesis.txt").write_text("years")


def write_tune(folder: Path) -> None:
    with build(folder, Recipe("tune", {}, {}, 0)):
        (folder / "adapter.safetensors").write_text("hours")


def write_begun(folder: Path) -> None:
    (folder / "building.json").write_text('{"key": "0123"}')
    (folder / "checkpoint").write_text("hours")


def write_web_page(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"name": "My web application", "start_url": "/"}')


@pytest.mark.parametrize("write", [write_thesis, write_tune, write_begun, write_web_page])
def test_a_folder_with_anything_else_in_it_is_left_as_it_is(
    write: Callable[[Path], None], to: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine")
    before = contents(tmp_path / "mine")
    with pytest.raises(ArtifactError) as caught:
        pull_bundle(to, tmp_path / "mine")
    assert "Name an empty folder" in caught.value.hint
    assert contents(tmp_path / "mine") == before


@pytest.mark.parametrize("kind", ["", "file://"])
@pytest.mark.parametrize("place", ["old", "old/inside", "."])
def test_a_store_and_a_bundle_are_never_in_one_another(
    kind: str, place: str, old: Release, to: Path, tmp_path: Path
) -> None:
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="bundle"):
        publish_to_store(
            old, f"{kind}{tmp_path}/{place}", dry_run=False, aliases=(), progress=SILENT
        )
    for folder in (to, to / "inside", to / "versions" / old.version, to.parent):
        with pytest.raises(UsageError, match="bundle"):
            pull_bundle(f"{kind}{to}", folder)
    assert contents(tmp_path) == before


def test_a_signature_is_written_once_and_goes_with_its_bundle(
    old: Release, new: Release, to: Path, folder: Path
) -> None:
    path = folder / "manifest.json.minisig"
    old.path(path.name).write_text("signed")
    publish(Release.of(old.folder), to)
    assert pull_bundle(to, folder).fetched_bytes == 0
    assert path.read_text() == "signed"
    written_at = path.stat().st_mtime_ns
    pull_bundle(to, folder)
    assert path.stat().st_mtime_ns == written_at
    publish(new, to)
    pull_bundle(to, folder)
    assert not path.exists()
    load(folder, "export").verify()


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(
    old: Release, to: Path, folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    (folder / "slant.json").rename(elsewhere)
    (folder / "slant.json").symlink_to(elsewhere)
    assert pull_bundle(to, folder).fetched_bytes == old.files["slant.json"].num_bytes
    assert not (folder / "slant.json").is_symlink()
    assert json.loads(elsewhere.read_text()) == {"seed": 0}
