"""``slant score`` on a tiny bundle: files of every format, bad rows, full disks."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SLANT, Cli, environment

from slant.score.scorer import Scorer

COLUMNS = ["id", "label", "confidence", "p_negative", "p_neutral", "p_positive", "decision"]
ROWS = [
    {"id": "en", "text": "The new bridge is a ruin.", "narrative": "the new bridge", "lang": "en"},
    {"id": "zh", "text": "新桥令人高兴，非常漂亮。", "narrative": "新桥", "lang": "zh"},
    {"id": "ru", "text": "Новый мост — позор 🌉", "narrative": "новый мост", "lang": "ru"},
    {"id": "ar", "text": "الجسر الجديد جميل", "narrative": None, "lang": "ar"},
    {
        "id": "tl",
        "text": 'Sabi niya, "ang ganda"\nng tulay, grabe.',
        "narrative": None,
        "lang": "tl",
    },
]


@pytest.fixture
def bundle(finished: Path) -> Path:
    return finished / "work" / "bundle"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    else:
        with path.open(encoding="utf-8", newline="") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            rows = list(csv.DictReader(file, delimiter=delimiter))
    return [
        {name: float(value) if name in COLUMNS[2:-1] else value for name, value in row.items()}
        for row in rows
    ]


@pytest.fixture
def expected(bundle: Path) -> list[dict[str, Any]]:
    """What the SDK says of ROWS, row by row."""
    scorer = Scorer.load(bundle, dtype="float32")
    found = []
    for row in ROWS:
        (prediction,) = scorer.predict(row["text"], row["narrative"])
        scores = [round(p, 6) for p in (prediction.confidence, *prediction.probabilities)]
        found.append(
            {"id": row["id"], "label": prediction.label}
            | dict(zip(COLUMNS[2:-1], scores, strict=True))
            | {"decision": prediction.decision}
        )
    return found


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_every_format_goes_in_and_out_in_input_order(
    suffix: str, cli: Cli, bundle: Path, tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    source, target = write(tmp_path / f"in.{suffix}", ROWS), tmp_path / f"out.{suffix}"
    done = cli("score", bundle, "--in", source, "--out", target, "--dtype", "float32")
    assert done.code == 0, done.err
    assert f"5 rows scored → {target}" in done.err
    assert done.out == ""
    rows = read(target)
    assert [list(row) for row in rows] == [COLUMNS] * 5
    for row, wanted in zip(rows, expected, strict=True):
        assert row == wanted | {name: pytest.approx(wanted[name], abs=2e-6) for name in COLUMNS[2:]}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, target.name])


def test_rows_that_cannot_be_scored_are_set_aside_in_input_order(
    cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    lines = [
        b'{"id": "good", "text": "The bridge is fine."}',
        b'{"id": "empty", "text": "  "}',
        b'{"id": "bad bytes", "text": "caf\xe9"}',
        b'{"id": "number", "text": 7}',
        b'{"id": "long", "text": "x", "narrative": "' + b"on and on " * 40 + b'"}',
        b"not JSON",
        '{"text": "Мост хороший."}'.encode(),
        b'{"id": "control", "text": "\\u0000"}',
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    done = cli("score", bundle, "--in", "in.jsonl", "--out", "out.csv", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {
        "scored": 2,
        "rejected": 6,
        "rejected_path": "out.csv.rejected.jsonl",
    }
    # A row without an id gets its row number.
    assert [row["id"] for row in read(tmp_path / "out.csv")] == ["good", "7"]
    rejected = read(tmp_path / "out.csv.rejected.jsonl")
    assert [(row["row"], row["id"]) for row in rejected] == [
        (2, "empty"),
        (3, None),
        (4, "number"),
        (5, "long"),
        (6, None),
        (8, "control"),
    ]
    reasons = [row["reason"] for row in rejected]
    assert reasons[0] == reasons[2] == reasons[5] == "text is empty or not a text"
    assert reasons[1].startswith("not UTF-8: byte")
    assert "no room is left for the document" in reasons[3]
    assert reasons[4].startswith("not valid JSON")
    for row in rejected:
        assert row["raw_digest"] == hashlib.sha256(lines[row["row"] - 1] + b"\n").hexdigest()


def test_a_later_run_without_bad_rows_takes_their_list_away(
    cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    for text, listed in (('{"text": ""}\n', True), ("", False)):
        (tmp_path / "in.jsonl").write_text(text + '{"text": "A bridge."}\n')
        assert cli("score", bundle, "--in", "in.jsonl", "--out", "out.jsonl").code == 0
        assert (tmp_path / "out.jsonl.rejected.jsonl").exists() is listed


def test_the_narrative_option_is_for_rows_that_have_none(
    cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    text = "The new bridge is a ruin."
    narratives = ["the new bridge", "", " ", None, "新桥"]
    write(tmp_path / "in.jsonl", [{"text": text, "narrative": n} for n in narratives])
    arguments = ["--in", "in.jsonl", "--out", "out.jsonl", "--dtype", "float32"]
    assert cli("score", bundle, *arguments, "-n", "the new bridge").code == 0
    first, empty, blank, null, other = (row["p_negative"] for row in read(tmp_path / "out.jsonl"))
    assert empty == blank == null == pytest.approx(first, abs=2e-6)
    assert other != pytest.approx(first, abs=2e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "in.jsonl: is empty (0 bytes)"),
        (b"\n\n", "in.jsonl: is empty (no rows)"),
        (b'{"text": ""}\n{"text": ""}\n', "in.jsonl: none of its 2 rows can be scored; the first"),
    ],
)
def test_a_file_without_a_row_that_can_be_scored_leaves_nothing_behind(
    content: bytes, message: str, cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    done = cli("score", bundle, "--in", "in.jsonl", "--out", "out.jsonl")
    assert done.code == 1
    assert f"error: {message}" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_earlier_result_stays_where_the_new_one_fails(
    cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").write_text("earlier")
    (tmp_path / "in.jsonl").write_text('{"text": ""}\n')
    assert cli("score", bundle, "--in", "in.jsonl", "--out", "out.jsonl").code == 1
    assert (tmp_path / "out.jsonl").read_text() == "earlier"


def test_a_damaged_file_is_an_error_that_leaves_no_result(
    cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    content = write(tmp_path / "whole.parquet", ROWS).read_bytes()
    (tmp_path / "in.parquet").write_bytes(content[: len(content) // 2])
    done = cli("score", bundle, "--in", "in.parquet", "--out", "out.parquet")
    assert done.code == 1
    assert "in.parquet: is not a Parquet file that can be read" in done.err
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("out.xlsx", "files of type '.xlsx' cannot be written"),
        ("no/out.csv", "the folder no does not exist"),
        ("in.jsonl", "in.jsonl: is the input file"),
        ("folder.csv", "folder.csv: is a folder"),
    ],
)
def test_a_target_that_cannot_be_is_known_before_the_model_is_loaded(
    target: str, message: str, cli: Cli, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "folder.csv").mkdir()
    done = cli("score", "no-bundle-here", "--in", "in.jsonl", "--out", target)
    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_full_disk_leaves_nothing_half_written(suffix: str, bundle: Path, tmp_path: Path) -> None:
    # Digests do not compress.
    rows = [{"id": hashlib.sha256(bytes([n])).hexdigest(), "text": "A bridge."} for n in range(200)]
    write(tmp_path / "in.jsonl", rows)
    limit = 3000
    done = subprocess.run(
        [SLANT, "score", bundle, "--in", "in.jsonl", "--out", f"out.{suffix}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert f"error: cannot write out.{suffix}: File too large" in done.stderr
    assert "ulimit -f" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_result_is_on_the_disk_before_it_has_its_name(
    cli: Cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write(tmp_path / "in.jsonl", ROWS)
    assert cli("score", bundle, "--in", "in.jsonl", "--out", "out.jsonl").code == 0
    inodes = [(tmp_path / "out.jsonl").stat().st_ino, tmp_path.stat().st_ino]
    assert [inode for inode in synced if inode in inodes] == inodes


def test_texts_of_the_command_line_are_scored_in_order(cli: Cli, bundle: Path) -> None:
    texts = [row["text"] for row in ROWS]
    options = [word for text in texts for word in ("--text", text)]
    done = cli("score", bundle, "-n", "the new bridge", "--dtype", "float32", *options)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) == len(ROWS)
    for line, text in zip(lines, texts, strict=True):
        assert line.endswith("  " + " ".join(text.split()))
        assert line.split()[0] in ("negative", "neutral", "positive")
    done = cli("score", bundle, "-n", "the new bridge", "--dtype", "float32", "--json", *options)
    predictions = Scorer.load(bundle, dtype="float32").predict(texts, "the new bridge")
    for line, prediction in zip(done.out.splitlines(), predictions, strict=True):
        record = json.loads(line)
        assert list(record) == COLUMNS[1:]
        assert record.pop("label") == prediction.label
        # The calibration split of this project is too small to accept anything.
        assert record.pop("decision") == prediction.decision == "review"
        wanted = [prediction.confidence, *prediction.probabilities]
        assert list(record.values()) == pytest.approx(wanted, abs=2e-6)
