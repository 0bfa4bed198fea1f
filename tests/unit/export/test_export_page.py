"""The code in docs/export.md runs, and gives what the trained checkpoint gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from exporting import Exported, export_moved, moved_checkpoint
from slant.export.parity import BOUNDS, INT8_BOUND, INT8_MEAN_BOUND, LABEL_AGREEMENT
from slant.export.probes import choose_probes
from slant.model.base import load_tokenizer
from slant.task.encode import Encoder
from tiny_stages import save_base
from unit.export.test_formats import make_spec

PAGE = (Path(__file__).parents[3] / "docs" / "export.md").read_text("utf-8")


@pytest.mark.parametrize("rows", [True, False])
def test_the_snippets_give_the_probabilities_of_the_checkpoint(tmp_path: Path, rows: bool) -> None:
    base = save_base(tmp_path / "base", "gemma3")
    spec = make_spec(base, 1.0)
    checkpoint = moved_checkpoint(tmp_path / "tune", base, spec, rows=rows)
    made = export_moved(
        tmp_path / "bundle", base, spec, checkpoint, formats=["classifier", "adapter"]
    )
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(snippets) == 2
    for place, probe in enumerate(made.probes):
        if probe.narrative is None or place % 4:
            continue
        names: dict[str, Any] = {}
        for snippet in snippets:
            exec(_filled_in(snippet, made, probe.document, probe.narrative, rows), names)
        assert names["prompt"] == probe.prompt
        assert names["probabilities"][0].tolist() == pytest.approx(made.trained[place], abs=1e-5)


def _filled_in(code: str, made: Exported, document: str, narrative: str, rows: bool) -> str:
    ids = list(made.spec.verbalizer.token_ids)
    for old, new in (
        ('"…a document…"', repr(document)),
        ('"…a narrative…"', repr(narrative)),
        ('"bundle/', f'"{made.folder}/'),
        ('"path/to/base"', repr(str(made.base.folder))),
        ("[1, 2, 3], 1.0", f"{ids}, {made.spec.temperature}"),
        *([("# rows = ", "rows = ")] if rows else []),
    ):
        code = code.replace(old, new)
    assert "…a " not in code
    return code


def test_the_page_has_the_bounds_that_hold(tmp_path: Path) -> None:
    for bound in (*BOUNDS.values(), INT8_BOUND, INT8_MEAN_BOUND):
        assert f"{bound:f}".rstrip("0") in PAGE
    assert f"more than {100 * (1 - LABEL_AGREEMENT):g} % of them" in PAGE
    base = save_base(tmp_path / "base")
    spec = make_spec(base)
    probes = choose_probes(Encoder(load_tokenizer(base.folder), spec), spec, 1)
    assert sum(bool(probe.edge_case) for probe in probes) == 15  # "Fifteen edge cases"
