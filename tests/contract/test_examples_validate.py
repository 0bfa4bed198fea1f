"""Every configuration in the examples and in the docs loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repository import ROOT, pages

from slant.config.load import load_settings

EXAMPLES = sorted((ROOT / "examples").glob("*/slant.yaml"))
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT).as_posix()}-{number}")
    for page in pages()
    for number, block in enumerate(
        re.findall(r"^```ya?ml\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL), 1
    )
    if re.search(r"^ingest:", block, re.MULTILINE)
]


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLANT_PUBLIC_DATA", "DATA"):
        monkeypatch.setenv(name, str(tmp_path))


def test_there_are_examples_in_folders_and_on_pages() -> None:
    assert EXAMPLES
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_loads(path: Path) -> None:
    load_settings(path)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_configuration_on_a_page_loads(block: str, tmp_path: Path) -> None:
    path = tmp_path / "slant.yaml"
    path.write_text(block, encoding="utf-8")
    load_settings(path)
