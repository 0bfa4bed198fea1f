"""The sample report of the evaluation's tests, for those of the trackers."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "evaluate"))
from sample_report import LANGUAGES, NARRATIVES, TEXTS, sample_report

__all__ = ["LANGUAGES", "NARRATIVES", "REPORT", "TEXTS"]

REPORT = sample_report()
