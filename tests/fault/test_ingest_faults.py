"""What can go wrong with input files, and a process killed in the middle."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from slant import artifacts
from slant.artifacts import Artifact
from slant.config.ingest_settings import Columns, ExampleSource, IngestSettings
from slant.errors import InputError, UsageError
from slant.ingest import run_ingest
from slant.labels import LabelSet
from slant.progress import SilentProgress
from slant.records import Rejected, read_parquet

LABELS = LabelSet(["negative", "neutral", "positive"])


def good_lines(num: int = 60) -> list[bytes]:
    return [
        json.dumps({"text": f"text {i}", "label": LABELS[i % 3]}).encode() + b"\n"
        for i in range(num)
    ]


def ingest(folder: Path, name: str = "a.jsonl", columns: Columns = Columns()) -> Artifact:  # noqa: B008
    return run_ingest(
        IngestSettings(examples=[ExampleSource(path=name, columns=columns)]),
        labels=LABELS,
        seed=1,
        start=folder,
        out=folder / "work",
        progress=SilentProgress(),
    )


def test_a_missing_file_is_a_usage_error_naming_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.jsonl") as caught:
        ingest(tmp_path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_an_empty_file_is_an_error_naming_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"{name}: is empty"):
        ingest(tmp_path, name)


def test_an_empty_file_among_good_ones_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(good_lines()))
    (tmp_path / "b.jsonl").touch()
    with pytest.raises(InputError, match=r"b\.jsonl: is empty"):
        ingest(tmp_path, "*.jsonl")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"text": "caf\xe9", "label": "neutral"}\n', "not UTF-8"),
        (b'{"text": "cut\n', "not valid JSON"),
        (b'["text"]\n', "not a JSON object"),
        (b'{"text": "a", "label": "Neutral"}\n', "unknown label 'Neutral'"),
        (b'{"text": "a"}\n', "no label"),
        (b'{"label": "neutral"}\n', "empty text"),
        (b'{"text": "\\u0000\\u0007", "label": "neutral"}\n', "empty text"),
    ],
)
def test_a_bad_row_among_good_ones_is_set_aside_with_its_place_and_reason(
    tmp_path: Path, bad: bytes, reason: str
) -> None:
    lines = good_lines()
    (tmp_path / "a.jsonl").write_bytes(b"".join([*lines[:30], bad, *lines[30:]]))
    artifact = ingest(tmp_path)
    (rejected,) = read_parquet(artifact.file("rejected.parquet"), Rejected)
    assert (rejected.file, rejected.row) == ("a.jsonl", 31)
    assert rejected.reason.startswith(reason)
    assert sum(artifact.facts["examples"].values()) == 60


def test_bad_rows_of_a_csv_file_are_set_aside(tmp_path: Path) -> None:
    rows = [f"text {i},{LABELS[i % 3]}".encode() for i in range(60)]
    rows[10:10] = [b'"open,neutral', b"caf\xe9,neutral", b"one", b"a,b,c"]
    (tmp_path / "a.csv").write_bytes(b"\n".join([b"text,label", *rows]))
    artifact = ingest(tmp_path, "a.csv")
    rejected = read_parquet(artifact.file("rejected.parquet"), Rejected)
    assert [record.row for record in rejected] == [11, 12, 13, 14]
    assert sum(artifact.facts["examples"].values()) == 60


def test_an_unknown_column_is_a_usage_error_with_the_closest(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(good_lines()))
    with pytest.raises(UsageError, match=r"a\.jsonl: .*'txt'.*did you mean 'text'"):
        ingest(tmp_path, columns=Columns(text="txt"))


def test_a_source_without_one_good_row_is_an_error_with_the_commonest_reasons(
    tmp_path: Path,
) -> None:
    lines = [b'{"text": "a", "label": 2}\n'] * 5 + [b'{"text": "", "label": 2}\n'] * 3
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(InputError, match="none of its 8 rows can be used") as caught:
        ingest(tmp_path)
    assert "5 x unknown label '2'" in caught.value.message
    assert "3 x empty text" in caught.value.message


def test_a_source_of_nothing_but_duplicates_is_an_error(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(b"".join(good_lines()))
    settings = IngestSettings(examples=[ExampleSource(path=f"{name}.jsonl") for name in "ab"])
    with pytest.raises(InputError, match="60 x duplicate example"):
        run_ingest(
            settings,
            labels=LABELS,
            seed=1,
            start=tmp_path,
            out=tmp_path / "work",
            progress=SilentProgress(),
        )


# --- kill -9

RUN = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from slant.config.ingest_settings import DocumentSource, ExampleSource, IngestSettings
    from slant.ingest import run_ingest
    from slant.labels import LabelSet
    from slant.progress import SilentProgress

    folder = Path(sys.argv[1])
    settings = IngestSettings(
        examples=[ExampleSource(path="a.jsonl")],
        documents=[DocumentSource(path="docs/*.jsonl")],
        workers=2,
    )
    labels = LabelSet(["negative", "neutral", "positive"])
    run_ingest(
        settings,
        labels=labels,
        seed=1,
        start=folder,
        out=folder / sys.argv[2],
        progress=SilentProgress(),
    )
    """
)
WORDS = [f"{a}{b}{c}" for a in "bdgklmnprst" for b in "aeiou" for c in ("n", "ra", "lim", "to")]


def write_corpus(folder: Path) -> None:
    chance = random.Random(5)
    (folder / "a.jsonl").write_bytes(b"".join(good_lines(300)))
    (folder / "docs").mkdir()
    texts = [" ".join(chance.choices(WORDS, k=120)) for _ in range(3600)]
    for i in range(0, 3600, 9):
        texts[i] = texts[(i * 7) % 3600] + " again"
    for part in range(3):
        rows = [json.dumps({"text": text}) + "\n" for text in texts[part::3]]
        (folder / "docs" / f"{part}.jsonl").write_text("".join([*rows, '{"text": \n']))


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, str(folder), out]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def descendants(process: int) -> set[int]:
    listing = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listing.stdout.splitlines()[1:]]
    found = {process}
    for _ in range(4):
        found |= {child for child, parent in pairs if parent in found}
    return found - {process}


def test_a_run_killed_at_twenty_moments_ends_like_one_that_was_not_killed(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    began = time.monotonic()
    assert start(tmp_path, "whole").wait(timeout=120) == 0
    whole_s = time.monotonic() - began
    chance = random.Random(11)
    orphans: set[int] = set()
    num_killed = 0
    while num_killed < 20:
        process = start(tmp_path, "work")
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=chance.uniform(0.2, 0.95) * whole_s)
        orphans |= descendants(process.pid)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            num_killed += 1
            process.wait(timeout=60)
        else:  # what earlier runs had done left too little to do: from the start again
            shutil.rmtree(tmp_path / "work")
            shutil.rmtree(tmp_path / "work.parts")
    assert start(tmp_path, "work").wait(timeout=120) == 0
    whole, work = (artifacts.load(tmp_path / name, "ingest") for name in ("whole", "work"))
    assert work.manifest["files"] == whole.manifest["files"]
    work.verify()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{orphan}").exists() for orphan in orphans):
        assert time.monotonic() < deadline, "worker processes outlive the run that was killed"
        time.sleep(0.2)


def test_with_one_new_file_no_other_is_read_again(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    assert start(tmp_path, "work").wait(timeout=120) == 0
    parts = tmp_path / "work.parts"
    before = {path: path.stat().st_mtime_ns for path in parts.rglob("*.parquet")}
    (tmp_path / "docs" / "new.jsonl").write_text(json.dumps({"text": "a new document"}) + "\n")
    assert start(tmp_path, "work").wait(timeout=120) == 0
    after = {path: path.stat().st_mtime_ns for path in parts.rglob("*.parquet")}
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 1
    assert start(tmp_path, "afresh").wait(timeout=120) == 0
    work, afresh = (artifacts.load(tmp_path / name, "ingest") for name in ("work", "afresh"))
    assert work.manifest["files"] == afresh.manifest["files"]


def test_what_a_killed_worker_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(good_lines()))
    ingest(tmp_path)
    (done,) = (tmp_path / "work.parts").rglob("done.json")
    done.unlink()
    (done.parent / "00001.99.tmp").write_bytes(b"half")
    shutil.rmtree(tmp_path / "work")
    ingest(tmp_path)
    assert sorted(path.name for path in done.parent.iterdir()) == ["00000.parquet", "done.json"]


def test_parts_of_a_file_that_is_gone_are_removed(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    assert start(tmp_path, "work").wait(timeout=120) == 0
    (tmp_path / "docs" / "2.jsonl").unlink()
    assert start(tmp_path, "work").wait(timeout=120) == 0
    assert len([path for path in (tmp_path / "work.parts").iterdir() if path.is_dir()]) == 3
