from __future__ import annotations

from pathlib import Path

import pytest

from slant.config.load import load_settings
from slant.errors import ConfigError

MINIMAL = "ingest: {examples: [{path: a.jsonl}]}\n"


def test_causal_lm_and_classifier_are_exported_and_256_pairs_are_asked(tmp_path: Path) -> None:
    (tmp_path / "slant.yaml").write_text(MINIMAL, "utf-8")
    settings = load_settings(tmp_path / "slant.yaml").export
    assert settings.formats == ["causal-lm", "classifier"]
    assert settings.parity_examples == 256


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            "export: {formats: [classifier]}",
            "export.formats: causal-lm is needed: slant scores with it",
        ),
        ("export: {formats: [causal-lm, causal-lm]}", "export.formats: a format is named twice"),
        (
            "export: {formats: [causal-lm, gguf]}",
            "export.formats[1]: must be one of causal-lm, classifier, adapter, int8, got 'gguf'",
        ),
        (
            "export: {formats: [causal-lm], vllm: vllm}",
            "export.vllm: reads classifier and int8, and formats names neither",
        ),
        (
            "tune: {method: full}\nexport: {formats: [causal-lm, adapter]}",
            "export.formats: names adapter, and tune.method: full trains none",
        ),
    ],
)
def test_formats_that_cannot_be_are_refused_before_anything_is_run(
    tmp_path: Path, lines: str, expected: str
) -> None:
    (tmp_path / "slant.yaml").write_text(f"{MINIMAL}{lines}\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "slant.yaml")
    assert expected in caught.value.message
