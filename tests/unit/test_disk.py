from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slant.disk import storage_errors, write_atomically
from slant.errors import ShardError, StorageError


def names(path: Path) -> set[str]:
    return {child.relative_to(path).as_posix() for child in path.rglob("*") if child.is_file()}


def test_atomic_writing_takes_text_and_bytes_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "f"
    write_atomically(path, "Привет\n")
    assert path.read_bytes() == "Привет\n".encode()
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(tmp_path) == {"f"}


def test_an_atomic_write_to_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    (tmp_path / "f.tmp").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"cannot write .*/f: No space left") as raised:
        write_atomically(path, "new")
    assert "Free some space" in raised.value.hint
    assert path.read_text() == "old"
    assert names(tmp_path) == {"f"}


def test_a_file_larger_than_the_limit_is_a_storage_error(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match="File too large") as raised:
            write_atomically(tmp_path / "f", b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.hint
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EIO,
        errno.EMFILE,
        errno.ENAMETOOLONG,
    ],
)
def test_every_error_of_the_file_system_names_its_place_and_says_what_to_do(number):
    with pytest.raises(StorageError, match="/data/x: ") as raised, storage_errors(Path("/data")):
        raise OSError(number, os.strerror(number), "/data/x")
    assert os.strerror(number) in raised.value.message
    assert raised.value.hint
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[Errno 28] Error writing bytes to file",
        "PytorchStreamWriter failed: no space left on device",
        "IOError: Disk quota exceeded",
        "write failed: File too large (os error 27)",
    ],
)
def test_a_full_disk_is_seen_in_the_errors_of_native_libraries(text):
    with (
        pytest.raises(StorageError, match="cannot write /data: ") as raised,
        storage_errors(Path("/data")),
    ):
        raise RuntimeError(text)
    assert raised.value.hint


def test_safetensors_that_may_write_no_more_is_a_storage_error(tmp_path):
    # A limit, not /dev/full: safetensors renames, and root would replace the device by a file.
    script = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from slant.disk import storage_errors
from slant.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with storage_errors(Path(sys.argv[1])):
        save_file({"a": np.zeros(100_000)}, Path(sys.argv[1]) / "a.safetensors")
except StorageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "File too large" in done.stdout, done.stderr
    assert "ulimit" in done.stdout


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad value"),
        OSError("the hub says no"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError(errno.ETIMEDOUT, "timed out"),
        RuntimeError("failed (os error 99999)"),
        ShardError("an error of ours"),
    ],
)
def test_other_errors_pass_unchanged(error):
    with pytest.raises(type(error)) as raised, storage_errors(Path("/data")):
        raise error
    assert raised.value is error
