"""``slant score``: pipes, folders, narratives and options, on a bundle with a random model."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import SLANT, Cli, environment

from slant.artifacts import Recipe, build
from slant.cli import score as command
from slant.model.base import load_tokenizer
from slant.score.scorer import Scorer
from tiny import save_tiny_model
from tiny_task import tiny_spec

TEXTS = ["The bridge is a ruin.", "新桥令人高兴，非常漂亮。", "Новый мост — позор 🌉", "الجسر جميل"]
PATIENCE_S = 60


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    with build(folder, Recipe("export", {}, {}, 0)):
        save_tiny_model(folder / "causal-lm")
        spec = tiny_spec(load_tokenizer(folder / "causal-lm"), token_limit=120)
        spec.with_weights("w").save(folder)
    return folder


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def start(*arguments: object, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [SLANT, "score", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def test_rows_of_standard_input_go_to_standard_output_in_order(
    bundle: Path, tmp_path: Path
) -> None:
    rows = [{"id": f"é{n}", "text": text} for n, text in enumerate(TEXTS)]
    process = start(bundle, "--in", "-", "-n", "the bridge", "-n", "新桥", cwd=tmp_path)
    content = b"\xef\xbb\xbf" + lines(rows) + b"\n" + lines([{"text": " "}])
    out, err = process.communicate(content, timeout=PATIENCE_S)
    assert process.returncode == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert [(row["id"], row["narrative"]) for row in found] == [
        (f"é{n}", narrative) for n in range(4) for narrative in ("the bridge", "新桥")
    ]
    assert "新桥".encode() in out
    assert err.decode().endswith("1 rows set aside; the first: text is empty or not a text\n")
    assert list(tmp_path.iterdir()) == []


def test_results_come_while_standard_input_is_still_open(bundle: Path, tmp_path: Path) -> None:
    process = start(bundle, "--in", "-", "--out", "-", "--narratives", "n.txt", cwd=tmp_path)
    (tmp_path / "n.txt").write_text("x\ny\n")
    assert process.stdin
    assert process.stdout
    process.stdin.write(lines([{"text": f"text {n}"} for n in range(512)]))
    process.stdin.flush()
    first = [json.loads(process.stdout.readline()) for _ in range(1024)]
    assert [row["id"] for row in first] == [str(n) for n in range(1, 513) for _ in "xy"]
    process.stdin.write(lines([{"text": "the last"}]))
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["513", "513"]


def test_nothing_on_standard_input_is_an_error(bundle: Path, tmp_path: Path) -> None:
    process = start(bundle, "--in", "-", cwd=tmp_path)
    out, err = process.communicate(b"\n", timeout=PATIENCE_S)
    assert (process.returncode, out) == (1, b"")
    assert err == b"error: standard input: is empty (no rows)\n"


def test_a_column_that_is_not_in_standard_input_is_a_usage_error(
    bundle: Path, tmp_path: Path
) -> None:
    process = start(bundle, "--in", "-", "--text-column", "body", cwd=tmp_path)
    out, err = process.communicate(lines([{"text": "a"}]), timeout=PATIENCE_S)
    assert (process.returncode, out) == (2, b"")
    assert err.startswith(b"error: standard input: there is no column 'body'")


def test_a_reader_that_has_enough_ends_it_quietly(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines([{"text": f"text {n}"} for n in range(3000)]))
    process = start(bundle, "--in", "in.jsonl", cwd=tmp_path)
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read().splitlines()
    process.stderr.close()
    # On a busy machine there is a line of progress every ten seconds, and nothing else.
    assert [line for line in told if not line.startswith(b"score")] == []
    assert process.wait(PATIENCE_S) == 1


def test_ctrl_c_ends_it_without_a_traceback(bundle: Path, tmp_path: Path) -> None:
    process = start(bundle, "--in", "-", cwd=tmp_path)
    assert process.stdin
    assert process.stdout
    process.stdin.write(lines([{"text": f"text {n}"} for n in range(1024)]))
    process.stdin.flush()
    for _ in range(1024):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)  # while it waits for more, and more could come
    assert process.wait(PATIENCE_S) == 130
    _, err = process.communicate(timeout=PATIENCE_S)
    assert b"Traceback" not in err
    assert b"Fatal" not in err


def test_a_folder_with_a_compressed_file_and_a_damaged_one(
    cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    packed = gzip.compress(lines([{"id": str(n), "text": text} for n, text in enumerate(TEXTS)]))
    (tmp_path / "docs" / "a.jsonl.gz").write_bytes(packed)
    (tmp_path / "docs" / "b.parquet").write_bytes(b"PAR1")
    (tmp_path / "docs" / "c.txt").write_text(TEXTS[0])
    done = cli("score", bundle, "--in", "docs", "--out", "out.jsonl", "--strict")
    assert done.code == 1
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["0", "1", "2", "3", "c.txt"]
    assert "5 rows scored → out.jsonl" in done.err
    assert "error: --strict: 1 rows were set aside" in done.err
    assert "docs/b.parquet" in (tmp_path / "out.jsonl.rejected.jsonl").read_text()
    assert cli("score", bundle, "--in", "docs", "--out", "out.jsonl").code == 0
    assert cli("score", bundle, "--in", "docs/c.txt", "--out", "out.csv", "--strict").code == 0


def test_without_out_the_summary_of_json_goes_to_standard_error(
    cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("text\na\n\nb\n")
    done = cli("score", bundle, "--in", "in.csv", "--json")
    assert done.code == 0
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["1", "2"]
    summary = {"scored": 2, "rejected": 0, "rejected_path": None}
    assert json.loads(done.err.splitlines()[-1]) == summary


def test_texts_are_asked_about_every_narrative(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("id,text\nn1,the bridge\nn2,新桥\n", encoding="utf-8")
    options = ["-t", TEXTS[0], "-t", TEXTS[2], "--narratives", "n.csv"]
    done = cli("score", bundle, *options, "--json")
    assert done.code == 0, done.err
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["narrative_id"], row["narrative"]) for row in found] == [
        ("n1", "the bridge"), ("n2", "新桥")
    ] * 2  # fmt: skip
    shown = cli("score", bundle, *options).out.splitlines()
    assert shown[1].endswith(f"[新桥]  {TEXTS[0]}")


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--in", "in.csv", "--id-column", "txt"], "there is no column 'txt' in its header", 2),
        (["--in", "im.csv"], "im.csv: no such file; did you mean 'in.csv'?", 2),
        (["--in", "in.csv", "--in", "in.xlsx"], "files of type '.xlsx' cannot be read", 2),
        (["--in", "empty"], "empty: the folder has no file of a known type", 2),
        (["--in", "in.csv", "--out", "empty"], "empty: files of type '' cannot be written", 2),
        (["--in", "in.csv", "--out", "in.csv"], "in.csv: is the input file", 2),
        (["--in", "in.csv", "--narratives", "none.txt"], "none.txt: has no narrative", 1),
        (["--in", "in.csv", "--device", "cuda:99"], "--device cuda:99: this machine has", 2),
    ],
)
def test_what_cannot_be_is_a_clear_error(  # noqa: PLR0917
    arguments: list[str], message: str, code: int, cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")
    (tmp_path / "in.xlsx").touch()
    (tmp_path / "none.txt").write_text("# none\n")
    (tmp_path / "empty").mkdir()
    done = cli("score", bundle, *arguments)
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
    assert "defect" not in done.err
    assert done.out == ""


def test_a_folder_that_is_no_bundle_is_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    done = cli("score", "folder", "--text", "x")
    assert done.code == 1
    assert "slant.json" in done.err
    assert "defect" not in done.err


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the scorer is loaded with; nothing but the bundle and arithmetic is passed on."""
    calls: list[dict[str, Any]] = []
    load = Scorer.load

    def record(bundle: Path, **options: Any) -> Scorer:
        calls.append(options)
        return load(bundle, dtype="float32", device="cpu")

    monkeypatch.setattr(Scorer, "load", record)
    return calls


DEFAULTS = {
    "engine": "torch",
    "url": None,
    "dtype": "auto",
    "device": None,
    "quantize": None,
    "compile": False,
    "tokens_per_batch": None,
    "verify": True,
}


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ([], {}),
        (["--dtype", "float32", "--device", "cpu"], {"dtype": "float32", "device": "cpu"}),
        (["--quantize", "int8"], {"quantize": "int8"}),
        (["--no-verify"], {"verify": False}),
        (["--compile", "--tokens-per-batch", "99"], {"compile": True, "tokens_per_batch": 99}),
        (
            ["--engine", "vllm", "--url", "http://a:1"],
            {"engine": "vllm", "url": "http://a:1"},
        ),
    ],
)
def test_options_of_the_engine_reach_the_scorer(
    arguments: list[str],
    changes: dict[str, Any],
    cli: Cli,
    bundle: Path,
    loaded: list[dict[str, Any]],
) -> None:
    assert cli("score", bundle, "--text", "x", *arguments).code == 0
    assert loaded == [DEFAULTS | changes]


def test_what_is_much_is_compiled_unless_told_otherwise(
    cli: Cli,
    bundle: Path,
    tmp_path: Path,
    loaded: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "_COMPILE_FROM_BYTES", 20)
    (tmp_path / "small.csv").write_text("text\na\n")
    (tmp_path / "large.csv").write_text("text\n" + "a\n" * 20)
    for arguments in (
        ["--text", "x" * 50],
        ["--in", "small.csv"],
        ["--in", "large.csv"],
        ["--in", "large.csv", "--no-compile"],
        ["--in", "large.csv", "--engine", "vllm", "--url", "http://a:1"],
    ):
        assert cli("score", bundle, *arguments).code == 0
    assert [call["compile"] for call in loaded] == [False, False, True, False, False]
