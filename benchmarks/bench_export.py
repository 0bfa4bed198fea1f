"""Export of the embedded base model, tuned: time, memory, and how far probabilities moved.

    slant run examples/quickstart/slant.yaml
    python benchmarks/bench_export.py examples/quickstart/slant.yaml
    python benchmarks/bench_export.py examples/quickstart/slant.yaml --formats all

Exports the tuned and evaluated model of a finished project again, into a temporary folder, in a
process of its own, with its default formats and with all of them. Memory is that of this process
and of the one that reads the folders, together.

Writes benchmarks/results/export.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_ingest import Memory
from result import save, stamp

FORMATS = {
    "default": ["causal-lm", "classifier"],
    "all": ["causal-lm", "classifier", "adapter", "int8"],
}
MOST_S, MOST_BYTES = 240, 6e9


class Steps:
    """A progress that remembers when each step was done."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: list[float] = []

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Steps]:
        yield self

    def advance(self, count: int = 1, **facts: float | str) -> None:
        self.seconds.append(time.monotonic() - self.started)

    def say(self, message: str) -> None:
        print(message, file=sys.stderr)


def export(config: Path, out: Path, formats: list[str]) -> None:
    """Export a finished project into another folder; prints seconds and the proof as JSON."""
    from slant.artifacts import load
    from slant.config.load import load_settings
    from slant.export.stage import run_export
    from slant.model.base import resolve_base

    settings = load_settings(config, [f"export.formats={json.dumps(formats)}"])
    work, steps = config.parent / settings.work, Steps()
    base = resolve_base(
        settings.model.base, revision=settings.model.revision, start=config.parent, progress=steps
    )
    if settings.adapt is not None:
        from slant.train.adapt import adapted_model

        base = adapted_model(base, load(work / "adapt", "adapt"))
    steps.started = time.monotonic()
    bundle = run_export(
        settings,
        ingest=load(work / "ingest", "ingest"),
        evaluate=load(work / "evaluate", "evaluate"),
        tune=load(work / "tune", "tune"),
        base=base,
        out=out,
        progress=steps,
    )
    total = time.monotonic() - steps.started
    size = sum(entry["bytes"] for entry in bundle.manifest["files"].values())
    print(json.dumps([total, steps.seconds, size, bundle.facts["parity"]]))


def measure(config: Path, formats: list[str]) -> tuple[list[Any], int]:
    """What ``export`` prints, and the most memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(config), "--into", f"{folder}/bundle"]
        command += ["--formats", ",".join(formats)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        memory = Memory(process.pid)
        memory.start()
        out, _ = process.communicate()
        memory.ended = True
        if process.returncode:
            raise SystemExit(f"the export ended with {process.returncode}")
        return json.loads(out.splitlines()[-1]), memory.most


def rows(name: str, config: Path) -> Iterator[str]:
    (total, steps, size, proof), most = measure(config, FORMATS[name])
    writing = steps[len(FORMATS[name]) - 1]
    yield ""
    yield f"## {', '.join(FORMATS[name])}"
    yield ""
    yield "| what | figure |"
    yield "|---|---|"
    yield f"| export with its proof | **{total:.0f} s** |"
    yield f"| of which writing the folders | {writing:.0f} s |"
    yield f"| most memory, both processes together | {most / 1e9:.2f} GB |"
    yield f"| bundle | {size / 1e6:.0f} MB |"
    yield f"| probes | {proof['probes']['count']} |"
    for format_, found in proof["formats"].items():
        yield (
            f"| `{format_}/` ({found['dtype']}): largest and mean difference of a probability, "
            f"labels that changed | {found['max_difference']:.4f} (bound {found['bound']:g}), "
            f"{found['mean_difference']:.5f}, {found['labels_changed']} |"
        )
    if name == "default":
        assert total <= MOST_S, f"{total:.0f} s are more than {MOST_S}"
        assert most <= MOST_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--formats", default="default,all")
    options = parser.parse_args()
    config = options.config.resolve()
    if options.into is not None:
        export(config, options.into, options.formats.split(","))
        return
    lines = ["# Export", "", f"{stamp()}: `python benchmarks/bench_export.py {options.config}`"]
    for name in options.formats.split(","):
        lines += rows(name, config)
    save("export", lines)


if __name__ == "__main__":
    main()
