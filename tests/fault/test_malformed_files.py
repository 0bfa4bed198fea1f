"""Hundreds of malformed files: rows, rows with problems or an error of ours; quickly, and in little
memory. They are read in a process of its own, which a crash or a hang ends."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from malformed import malformed_files

CASES = malformed_files()
LIMIT_S = 10
LIMIT_BYTES = 700 << 20  # above what the process has before the first file


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each case."""
    folder = tmp_path_factory.mktemp("malformed")
    results = folder / "results.jsonl"
    found: dict[str, dict[str, Any]] = {}
    while len(found) < len(CASES):
        process = subprocess.run(
            [sys.executable, __file__, str(folder), str(len(found))],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = results.read_text().splitlines() if results.exists() else []
        found = {one["case"]: one for one in map(json.loads, lines)}
        if len(found) < len(CASES):  # ended by the next one
            crash = {"case": CASES[len(found)].case, "crash": process.stderr[-2000:]}
            found[crash["case"]] = crash
            with results.open("a") as file:
                file.write(json.dumps(crash) + "\n")
    return found


def test_there_are_at_least_two_hundred() -> None:
    assert len(CASES) >= 200
    assert len({case.case for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
def test_a_malformed_file_ends_in_rows_problems_or_an_error_of_ours(
    outcomes: dict[str, dict[str, Any]], case: Any
) -> None:
    outcome = outcomes[case.case]
    assert "crash" not in outcome, outcome
    assert outcome["error"] in (None, "InputError", "UsageError"), outcome
    if outcome["error"] is None:
        assert outcome["rows"] > 0
    else:
        assert case.file in outcome["message"]
        assert "\ufffd" not in outcome["message"]
    if case.expected is not None and case.expected[0].isdigit():
        assert f"{outcome['rows']}/{outcome['problems']}" == case.expected, outcome
        assert outcome["error"] is None, outcome
    elif case.expected is not None:
        assert case.expected in outcome["message"]


def test_most_rows_of_a_slightly_damaged_file_are_read(
    outcomes: dict[str, dict[str, Any]],
) -> None:
    damaged = [outcomes[f"{file} flipped {i}"] for file in ("a.jsonl", "a.json") for i in range(4)]
    assert sum(one["rows"] - one["problems"] for one in damaged) > len(damaged) * 30 * 0.7


# --- the process that reads ----------------------------------------------------------------------


def _read(folder: Path, first: int) -> None:
    from slant.errors import SlantError
    from slant.tables.html import extract_article
    from slant.tables.reader import read_rows

    _warm_up(folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with (folder / "results.jsonl").open("a") as results:
        for case in CASES[first:]:
            path = folder / case.file
            path.write_bytes(case.content())
            outcome = {"case": case.case, "rows": 0, "problems": 0, "error": None, "message": ""}
            started = time.perf_counter()
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, resource.RLIM_INFINITY))
            try:
                rows = read_rows(path, name=case.file, columns=("text",), format=case.format)
                for row in rows:
                    outcome["rows"] += 1
                    outcome["problems"] += row.problem is not None
                    assert (row.values is None) == (row.problem is not None)
                    if row.values is not None and "html" in row.values:
                        extract_article(row.values["html"])
            except SlantError as error:
                outcome |= {"error": type(error).__name__, "message": str(error)}
            except Exception as error:
                outcome |= {"error": repr(error)[:500], "message": ""}
            faulthandler.cancel_dump_traceback_later()
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
            outcome["seconds"] = round(time.perf_counter() - started, 3)
            path.unlink()
            results.write(json.dumps(outcome) + "\n")
            results.flush()


def _warm_up(folder: Path) -> None:
    """Read one file with each library, so that what they take for themselves is known."""
    from slant.tables.html import extract_article
    from slant.tables.reader import read_rows

    good = {case.file: case for case in CASES if case.case.endswith(" cut 0")}
    for case in good.values():
        path = folder / case.file
        path.write_bytes(case.content())
        try:
            list(read_rows(path, name=case.file, columns=("text",), format=case.format))
        except Exception:  # it is read again, and judged, among the others
            continue
    extract_article("<p>a</p>")


if __name__ == "__main__":
    faulthandler.enable()
    _read(Path(sys.argv[1]), int(sys.argv[2]))
