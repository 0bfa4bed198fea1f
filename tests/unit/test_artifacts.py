from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from slant.artifacts import Recipe, build, digest_file, digest_json, find, load
from slant.disk import exclusive
from slant.errors import ArtifactError, StorageError

RECIPE = Recipe("ingest", {"a.jsonl": "00ff"}, {"split": {"test": 0.1}}, seed=17)
OTHER = Recipe("ingest", {"a.jsonl": "00ff"}, {"split": {"test": 0.2}}, seed=17)


def make(path: Path, recipe: Recipe = RECIPE, text: str = "hello") -> None:
    with build(path, recipe) as builder:
        (path / "data").mkdir(exist_ok=True)
        (path / "data" / "a.txt").write_text(text, "utf-8")
        builder.facts["rows"] = 3


def interrupt(path: Path, recipe: Recipe = RECIPE) -> None:
    with suppress(KeyboardInterrupt), build(path, recipe):
        (path / "half.txt").write_text("half")
        raise KeyboardInterrupt


def names(path: Path) -> set[str]:
    return {child.relative_to(path).as_posix() for child in path.rglob("*") if child.is_file()}


def test_a_built_folder_holds_its_files_its_manifest_and_nothing_else(tmp_path):
    make(tmp_path / "deep" / "out")
    assert names(tmp_path / "deep" / "out") == {"data/a.txt", "manifest.json"}


def test_the_manifest_tells_from_what_and_how_the_artifact_was_made(tmp_path):
    make(tmp_path)
    artifact = load(tmp_path, "ingest")
    assert artifact.key == RECIPE.key
    assert artifact.facts == {"rows": 3}
    assert artifact.manifest["inputs"] == {"a.jsonl": "00ff"}
    assert artifact.manifest["settings"] == {"split": {"test": 0.1}}
    assert artifact.manifest["seed"] == 17
    assert artifact.manifest["versions"]["numpy"]
    assert artifact.manifest["files"]["data/a.txt"]["bytes"] == 5
    assert artifact.file("data/a.txt").read_text() == "hello"


def test_the_key_changes_with_each_part_of_the_recipe_and_not_with_the_order_of_settings():
    parts = {"kind": "k", "inputs": {"a": "1"}, "settings": {"x": 1, "y": 2}, "seed": 1}
    key = Recipe(**parts).key
    assert Recipe(**parts | {"settings": {"y": 2, "x": 1}}).key == key
    for change in ({"kind": "z"}, {"inputs": {"a": "2"}}, {"settings": {"x": 1}}, {"seed": 2}):
        assert Recipe(**parts | change).key != key


def test_equal_contents_have_an_equal_digest_wherever_and_from_whatever_they_were_made(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b", OTHER)
    make(tmp_path / "c", text="other")
    a, b, c = (load(tmp_path / name, "ingest").digest for name in "abc")
    assert a == b != c


def test_the_digest_of_json_does_not_depend_on_the_order_of_keys_and_tells_scripts_apart():
    assert digest_json({"a": 1, "б": [2]}) == digest_json({"б": [2], "a": 1})
    assert digest_json("a") != digest_json("а")


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert digest_file(tmp_path / "f").startswith("ba7816bf8f01cfea")


def test_a_file_that_the_manifest_does_not_list_is_refused(tmp_path):
    make(tmp_path)
    (tmp_path / "stray.txt").write_text("")
    with pytest.raises(ArtifactError, match=r"has no stray\.txt"):
        load(tmp_path, "ingest").file("stray.txt")


def test_an_interrupted_build_is_not_an_artifact_and_the_next_one_finds_what_it_left(tmp_path):
    interrupt(tmp_path)
    with pytest.raises(ArtifactError, match="was not finished") as raised:
        load(tmp_path, "ingest")
    assert "slant ingest" in raised.value.hint
    with build(tmp_path, RECIPE):
        assert (tmp_path / "half.txt").read_text() == "half"
    assert load(tmp_path, "ingest").manifest["files"].keys() == {"half.txt"}


def test_what_an_atomic_write_left_when_it_was_killed_does_not_become_part_of_the_artifact(
    tmp_path,
):
    interrupt(tmp_path)
    (tmp_path / "report.json.tmp").write_text("ha")
    (tmp_path / "building.json.tmp").write_text("{")
    with build(tmp_path, RECIPE):
        pass
    assert load(tmp_path, "ingest").manifest["files"].keys() == {"half.txt"}


def test_another_recipe_starts_with_an_empty_folder(tmp_path):
    interrupt(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/etc", target_is_directory=True)
    with build(tmp_path, OTHER):
        assert names(tmp_path) - {".lock"} == {"building.json"}
    assert Path("/etc").is_dir()


def test_building_again_replaces_the_artifact(tmp_path):
    make(tmp_path)
    with build(tmp_path, RECIPE):
        assert find(tmp_path, "ingest") is None
        (tmp_path / "new.txt").write_text("")
    assert names(tmp_path) == {"new.txt", "manifest.json"}


def test_a_finished_artifact_of_another_kind_is_never_removed(tmp_path):
    make(tmp_path)
    other = Recipe("export", {}, {}, 0)
    with (
        pytest.raises(ArtifactError, match="another artifact, of the kind ingest") as raised,
        build(tmp_path, other),
    ):
        pass
    assert "empty folder" in raised.value.hint
    load(tmp_path, "ingest").verify()


@pytest.mark.parametrize("name", ["thesis.docx", "manifest.json", "building.json", ".hidden"])
def test_files_that_slant_did_not_write_are_never_removed(tmp_path, name):
    (tmp_path / name).write_text('{"name": "My web application", "start_url": "/"}')
    (tmp_path / "photo.jpg").write_text("precious")
    with (
        pytest.raises(ArtifactError, match="files that slant did not write"),
        build(tmp_path, RECIPE),
    ):
        pass
    assert (tmp_path / "photo.jpg").read_text() == "precious"
    assert (tmp_path / name).exists()


def test_a_first_start_that_was_killed_at_once_does_not_block_the_folder(tmp_path):
    (tmp_path / "building.json.tmp").write_text("{")
    (tmp_path / ".lock").touch()
    make(tmp_path)
    assert names(tmp_path) == {"data/a.txt", "manifest.json"}


CLEARING = """
import os, shutil, signal, sys
from pathlib import Path
from slant.artifacts import Recipe, build
steps = int(sys.argv[2])
def hook(event, arguments):
    # Killed before the n-th change to the folder, whatever that is.
    global steps
    if event in ("os.remove", "os.rename", "os.rmdir") and sys.argv[1] in str(arguments[0]):
        steps -= 1
        if steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
with build(Path(sys.argv[1]), Recipe("ingest", {}, {"new": 1}, 17)):
    (Path(sys.argv[1]) / "new.txt").write_text("new")
"""


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_killed_at_any_change_a_rebuild_leaves_old_or_new_or_nothing_and_the_next_succeeds(
    tmp_path,
):
    new = Recipe("ingest", {}, {"new": 1}, 17)
    for step in range(100):
        path = tmp_path / str(step)
        make(path)
        (path / "b.txt").write_text("b")
        done = run_script(CLEARING, path, step)
        found = find(path, "ingest")
        if found:
            found.verify()
            assert found.key in (RECIPE.key, new.key)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        with build(path, new):
            (path / "new.txt").write_text("new")
        assert names(path) == {"new.txt", "manifest.json"}
    assert 6 <= step < 99


def test_a_folder_is_filled_by_one_process_at_a_time(tmp_path):
    script = """
import sys, time
from pathlib import Path
from slant.artifacts import Recipe, build
with build(Path(sys.argv[1]), Recipe("ingest", {}, {}, 1)):
    print("in", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "in\n"
        with (
            pytest.raises(ArtifactError, match="another process is at work") as raised,
            build(tmp_path, RECIPE),
        ):
            pass
        assert raised.value.hint
    finally:
        process.kill()
        process.wait()
    make(tmp_path)  # the lock of a dead process holds nobody up
    assert load(tmp_path, "ingest").facts == {"rows": 3}


def test_a_lock_is_free_again_after_its_block_even_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / ".lock"):
        raise ZeroDivisionError
    with (
        exclusive(tmp_path / ".lock"),
        pytest.raises(ArtifactError),
        exclusive(tmp_path / ".lock"),
    ):
        pass


def test_many_threads_that_build_one_folder_never_work_at_the_same_time(tmp_path):
    inside, most, refused = [0], [0], [0]

    def work() -> None:
        for _ in range(5):
            try:
                with build(tmp_path / "x", RECIPE):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.001)
                    inside[0] -= 1
            except ArtifactError:
                refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    load(tmp_path / "x", "ingest").verify()


def test_an_artifact_of_another_kind_is_refused(tmp_path):
    make(tmp_path)
    with pytest.raises(ArtifactError, match="is a ingest artifact, not a tune artifact"):
        load(tmp_path, "tune")
    assert find(tmp_path, "tune") is None
    assert find(tmp_path / "nowhere", "tune") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda m: [],
        lambda m: {**m, "schema": "slant.manifest/9"},
        lambda m: {k: v for k, v in m.items() if k != "kind"},
        lambda m: {k: v for k, v in m.items() if k != "files"},
        lambda m: {**m, "facts": None},
        lambda m: {**m, "files": {"a.txt": "sha"}},
        lambda m: {**m, "files": {"../a.txt": {"bytes": 1, "sha256": ""}}},
        lambda m: {**m, "files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}},
        lambda m: {**m, "files": {"": {"bytes": 1, "sha256": ""}}},
    ],
)
def test_a_manifest_that_is_malformed_or_points_outside_is_refused_by_name(tmp_path, change):
    make(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        load(tmp_path, "ingest")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_manifest_that_cannot_be_read_is_refused_by_name(tmp_path, content):
    make(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        load(tmp_path, "ingest")


def test_verifying_names_the_file_that_is_missing_or_damaged(tmp_path):
    make(tmp_path)
    artifact = load(tmp_path, "ingest")
    artifact.verify()
    (tmp_path / "data" / "a.txt").write_text("hallo")
    with pytest.raises(ArtifactError, match=r"data/a\.txt: is damaged") as raised:
        artifact.verify()
    assert raised.value.hint
    (tmp_path / "data" / "a.txt").unlink()
    with pytest.raises(ArtifactError, match=r"data/a\.txt: is missing"):
        artifact.verify()


def test_verifying_does_not_follow_a_link_out_of_the_folder(tmp_path):
    make(tmp_path / "a")
    outside = tmp_path / "a.txt"
    outside.write_text("hello")
    inside = tmp_path / "a" / "data" / "a.txt"
    inside.unlink()
    inside.symlink_to(outside)
    with pytest.raises(ArtifactError, match="outside"):
        load(tmp_path / "a", "ingest").verify()


def test_a_missing_permission_on_the_folder_is_a_storage_error(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    script = """
import os, sys
from pathlib import Path
from slant.artifacts import Recipe, build
from slant.errors import StorageError
if os.geteuid() == 0:
    os.setuid(65534)  # root may write everywhere
try:
    with build(Path(sys.argv[1]), Recipe("ingest", {}, {}, 1)):
        pass
except StorageError as error:
    print(error)
"""
    for target in (tmp_path / "closed", tmp_path / "closed" / "sub"):
        done = run_script(script, target)
        assert "Permission denied" in done.stdout, done.stderr
        assert str(tmp_path / "closed") in done.stdout


def test_a_build_that_fills_the_disk_is_a_storage_error_and_not_an_artifact(tmp_path):
    with pytest.raises(StorageError, match="No space left"), build(tmp_path, RECIPE):
        Path("/dev/full").write_text("x")
    assert find(tmp_path, "ingest") is None


def test_scratch_is_no_part_of_an_artifact_and_goes_only_when_it_is_sealed(tmp_path: Path) -> None:
    recipe = Recipe("tune", {}, {}, 1)

    def broken_off() -> None:
        with build(tmp_path / "a", recipe) as builder:
            (builder.scratch / "checkpoint").write_text("half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        broken_off()
    with build(tmp_path / "a", recipe) as builder:
        assert (builder.scratch / "checkpoint").read_text() == "half"
        (tmp_path / "a" / "result").write_text("whole")
    assert list(load(tmp_path / "a", "tune").manifest["files"]) == ["result"]
    assert not builder.scratch.exists()
