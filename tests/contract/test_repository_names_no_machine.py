"""No file of the repository names a machine, a private folder or a package registry's host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repository import ROOT, files

FORBIDDEN = {
    "a folder of one machine": re.compile(r"(?<![\w.}*$/-])/(?:work|root|home/(?!me\b)\w+|tmp)/\w"),
    "a folder beside the repository": re.compile(r"(?<![\w./-])(?:\.\./)*shared/\w"),
    "a registry's host": re.compile(
        r"pypi\.org/simple|pythonhosted\.org|download\.pytorch\.org|index[-_]url|find[-_]links"
        r"|//[\w.-]*(?:artifactory|nexus|devpi)|https?://(?:\d+\.){3}\d+",
        re.IGNORECASE,
    ),
}
TEXT_SUFFIXES = {
    "", ".cfg", ".css", ".csv", ".html", ".ini", ".j2", ".js", ".json", ".jsonl", ".md", ".py",
    ".sh", ".toml", ".tsv", ".txt", ".typed", ".yaml", ".yml",
}  # fmt: skip


def findings(text: str) -> list[str]:
    return [
        f"line {text.count(chr(10), 0, found.start()) + 1} names {what}: {found[0]!r}"
        for what, pattern in FORBIDDEN.items()
        for found in pattern.finditer(text)
    ]


def test_the_patterns_find_what_they_are_for() -> None:
    for text in (
        "see /work/main/src",
        "`/home/anna/data`",
        "'/tmp/scratch'",
        "(shared/design.md)",
        "https://pypi.org/simple/",
        "--index-url=x",
        "http://10.0.0.7/x",
    ):
        assert findings(text), text
    for text in (
        "examples/quickstart/work/bundle",
        "work/ingest",
        "/examples/*/work/",
        "a shared x",
    ):
        assert not findings(text), text


@pytest.mark.parametrize(
    "path",
    [path for path in files() if path.suffix in TEXT_SUFFIXES and path != Path(__file__)],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_no_file_names_a_machine(path: Path) -> None:
    assert findings(path.read_text("utf-8")) == []
