"""What can go wrong with input files, and a process killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from slant import artifacts
from slant.artifacts import Artifact
from slant.config.settings import Columns, DocumentSource, ExampleSource, IngestSettings
from slant.errors import ArtifactError, InputError, UsageError
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

# The process kills itself when it reports the given number of rows of the given file, so that the
# moment is exact. It is a Progress of its own: a seam that every caller has.
KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from contextlib import contextmanager
    from pathlib import Path
    from slant.config.settings import DocumentSource, ExampleSource, IngestSettings
    from slant.ingest import run_ingest
    from slant.labels import LabelSet

    folder, file, rows = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

    class Killing:
        @contextmanager
        def task(self, name, total, unit, done=0):
            self.here = name == f"read {file}"
            yield self

        def advance(self, count=1, **facts):
            if self.here and facts["rows"] == rows:
                os.kill(os.getpid(), signal.SIGKILL)

        def say(self, message):
            pass

    settings = IngestSettings(
        examples=[ExampleSource(path="a.jsonl")], documents=[DocumentSource(path="docs.jsonl")]
    )
    labels = LabelSet(["negative", "neutral", "positive"])
    run_ingest(
        settings, labels=labels, seed=1, start=folder, out=folder / "work", progress=Killing()
    )
    """
)


@pytest.mark.parametrize(
    ("file", "rows"),
    [("a.jsonl", "1000"), ("docs.jsonl", "20000"), ("docs.jsonl", "30000")],
    ids=["examples are read", "documents are written", "documents are read to the end"],
)
def test_a_run_killed_while_and_run_again_ends_like_one_that_was_not(
    tmp_path: Path, file: str, rows: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(good_lines(3000)))
    documents = (json.dumps({"text": f"document {i}"}) + "\n" for i in range(30_000))
    (tmp_path / "docs.jsonl").write_text("".join(documents))
    command = [sys.executable, "-c", KILLED, str(tmp_path), file, rows]
    killed = subprocess.run(command, check=False, env={**os.environ}, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    work = tmp_path / "work"
    with pytest.raises(ArtifactError):
        artifacts.load(work, "ingest")
    if file == "docs.jsonl":
        assert (work / "documents.parquet").exists()  # it was in the middle
    settings = IngestSettings(
        examples=[ExampleSource(path="a.jsonl")], documents=[DocumentSource(path="docs.jsonl")]
    )
    digests = {
        run_ingest(
            settings,
            labels=LABELS,
            seed=1,
            start=tmp_path,
            out=out,
            progress=SilentProgress(),
        ).digest
        for out in (work, tmp_path / "uninterrupted")
    }
    assert len(digests) == 1
    artifacts.load(work, "ingest").verify()
