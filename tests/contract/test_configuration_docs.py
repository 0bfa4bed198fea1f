"""docs/configuration.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from slant.config.explain import reference_markdown
from slant.config.load import load_settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_configuration_page_is_the_one_written_from_the_settings() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_markdown(), (
        "write it again: python -c 'from slant.config.explain import reference_markdown as page; "
        'print(page(), end="")\' > docs/configuration.md'
    )


def test_every_yaml_example_on_the_page_loads(tmp_path: Path) -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert examples
    for example in examples:
        path = tmp_path / "slant.yaml"
        path.write_text(example, encoding="utf-8")
        load_settings(path)
