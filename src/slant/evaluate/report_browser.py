"""The error browser of report.html: mistakes as shown, and what they can be filtered by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from slant.page.languages import language
from slant.records import OVERALL
from slant.task.languages import UNKNOWN_LANGUAGE

__all__ = ["browser_filters", "shown_mistakes"]

Mistake = Mapping[str, Any]


def shown_mistakes(mistakes: Sequence[Mistake]) -> list[dict[str, Any]]:
    """The report's mistakes, with names for what is not known and what filters compare.

    Languages and sources get the names that their slices have where a document came without these.
    """
    return [
        {
            **mistake,
            "lang": mistake["lang"] or UNKNOWN_LANGUAGE,
            "source": mistake["source"] or "other",
            "about": OVERALL if mistake["narrative"] is None else mistake["narrative"],
            "whole_percent": math.floor(100 * mistake["confidence"]),
        }
        for mistake in mistakes
    ]


def browser_filters(mistakes: Sequence[Mistake], labels: Sequence[str]) -> dict[str, Any]:
    """Choices that occur among ``shown_mistakes``.

    Returns:
        ``selects``: ``(key, name, [(value, text), …])`` each; ``lowest`` and ``highest`` confidence
        in whole percent.
    """
    found = {
        key: {mistake[key] for mistake in mistakes}
        for key in ("lang", "about", "gold", "predicted")
    }
    by_label = {key: sorted(found[key], key=labels.index) for key in ("gold", "predicted")}
    levels = [mistake["whole_percent"] for mistake in mistakes]
    return {
        "selects": [
            ("lang", "Language", [(v, language(v)) for v in sorted(found["lang"], key=language)]),
            ("narrative", "Narrative", [(v, v) for v in sorted(found["about"])]),
            ("gold", "Gold", [(v, v) for v in by_label["gold"]]),
            ("predicted", "Predicted", [(v, v) for v in by_label["predicted"]]),
        ],
        "lowest": min(levels, default=0),
        "highest": max(levels, default=100),
    }
