"""What a benchmark leaves behind: a page in benchmarks/results, dated, with the machine named."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["save", "stamp"]

FOLDER = Path(__file__).resolve().parent / "results"


def save(name: str, lines: Iterable[str]) -> None:
    """Write ``lines`` to benchmarks/results/NAME.md and print them."""
    text = "\n".join(lines).rstrip("\n")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.md").write_text(f"{text}\n", "utf-8")
    print(text)


def stamp() -> str:
    """The day and the machine: ``2026-11-24, Intel(R) Xeon(R), 2 cores, Python 3.11.7``."""
    machine = f"{_processor()}, {os.cpu_count()} cores"
    return f"{datetime.now(UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")  # of Linux; platform.processor() is empty there
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
