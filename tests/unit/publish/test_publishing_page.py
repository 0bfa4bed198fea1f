"""What docs/publishing.md shows can be run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import slant
from tiny_release import write_release

PAGE = Path(__file__).resolve().parents[3] / "docs" / "publishing.md"
ADDRESS = "s3://bucket/models/narratives"


def test_the_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    release = write_release(tmp_path / "work" / "bundle", weights_bytes=1000)
    (block,) = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    *lines, load = block.replace(ADDRESS, "models").splitlines()
    assert load == "scorer = slant.Scorer.load(pulled.folder)"  # the tiny bundle has no model
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    assert capsys.readouterr().out.startswith(release.version)
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_folders_may_be_texts_and_paths(tmp_path: Path) -> None:
    write_release(tmp_path / "made", weights_bytes=1000)
    published = slant.publish_bundle(tmp_path / "made", tmp_path / "to")
    pulled = slant.pull_bundle(tmp_path / "to", str(tmp_path / "pulled"))
    assert pulled.version == published.version
    assert pulled.folder == tmp_path / "pulled"
