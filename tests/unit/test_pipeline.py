"""Where a pipeline keeps its artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest

from slant.config.load import load_settings
from slant.errors import UsageError
from slant.pipeline import Pipeline
from slant.progress import SilentProgress


def pipeline(folder: Path, to: str) -> Pipeline:
    config = folder / "slant.yaml"
    config.write_text(f"ingest: {{examples: [{{path: a.csv}}]}}\nexport: {{to: '{to}'}}\n", "utf-8")
    return Pipeline(load_settings(config), folder, SilentProgress())


@pytest.mark.parametrize(
    ("to", "folder"),
    [
        ("bundle", "bundle"),
        ("models/best", "models/best"),
        ("${MODELS}/best", "models/best"),
        ("s3://bucket/models/x", "bundle"),
        ("S3://bucket/models/x", "bundle"),
        ("${BUCKET}", "bundle"),
        ("${BUCKET}/x", "bundle"),
        ("hf://org/name", "bundle"),
        ("mlflow+http://host:5000/name", "bundle"),
        ("models:/name", "bundle"),
    ],
)
def test_a_bundle_is_written_to_a_folder_and_published_to_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, folder: str
) -> None:
    monkeypatch.setenv("MODELS", "models")
    monkeypatch.setenv("BUCKET", "s3://bucket")
    assert pipeline(tmp_path, to).folder("export") == tmp_path / "work" / folder


@pytest.mark.parametrize("to", ["${KEYS}", "s3://${WORD}@bucket"])
def test_credentials_that_a_variable_brings_into_an_address_are_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.setenv("KEYS", "s3://key:secret@bucket/x")
    monkeypatch.setenv("WORD", "key:secret")
    with pytest.raises(UsageError, match="holds credentials") as error:
        pipeline(tmp_path, to).run()
    assert "secret" not in str(error.value)
