"""The command line, in this process or in one of its own, and a tiny project to run it on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slant.cli import main
from tiny_stages import documents_and_examples, save_base

SLANT = Path(sys.executable).with_name("slant")
PLAIN = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
PATIENCE_S = 60

CONFIG = """\
seed: 5
model: {base: base, dtype: float32}
task: {token_limit: 200}
ingest:
  examples:
    - path: labelled.jsonl
      columns: {id: id, narrative: narrative, lang: lang}
  split: {validation: 0.1, calibration: 0.1, test: 0.2}
adapt: null
tune:
  epochs: 2
  examples_per_step: 4
  tokens_per_batch: 512
  learning_rate: 5e-3
  lora: {rank: 4, alpha: 8, dropout: 0.1}
evaluate: {bootstrap: 100, latency_documents: 2}
export: {parity_examples: 8}
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **PLAIN, **changes}


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Cli]:
    """Runs a command in this process, which loads torch once; ``tmp_path`` is its folder."""
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["slant", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main.main()
        out, err = capfd.readouterr()
        assert isinstance(end.value.code, int)
        return Done(end.value.code, out, err)

    yield run
    signal.signal(signal.SIGTERM, handler)


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [SLANT, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def run_alone(*arguments: object, cwd: Path) -> Done:
    """Run a command in a process of its own."""
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=PATIENCE_S)
    return Done(process.returncode, out, err)


def wait_for_steps(process: subprocess.Popen[str], events: Path, steps: int) -> None:
    """Wait until a training process has written that many steps."""
    deadline = time.monotonic() + PATIENCE_S
    while not (events.exists() and events.read_bytes().count(b"\n") >= steps):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never came that far"
        time.sleep(0.002)


def write_project(folder: Path) -> Path:
    """``slant.yaml`` with its data and its base model, both tiny; nothing is run."""
    save_base(folder / "base")
    documents, narratives, examples = documents_and_examples()
    texts = {document.id: document for document in documents}
    names = {narrative.id: narrative.text for narrative in narratives}
    with (folder / "labelled.jsonl").open("w", encoding="utf-8") as file:
        for example in examples:
            document = texts[example.document_id]
            row = {
                "id": document.id,
                "text": document.text,
                "narrative": names.get(example.narrative_id or ""),
                "label": example.label,
                "lang": document.lang,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    config = folder / "slant.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    return config


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project that has been run. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    write_project(folder)
    done = run_alone("run", "slant.yaml", cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, in the folder that commands run in."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path
