"""Scoring files, folders and standard input into one file or onto standard output, in order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slant.errors import InputError, UsageError
from slant.progress import Progress, SilentProgress
from slant.records import Narrative
from slant.score.inputs import STDIN, Columns, Inputs, find_inputs, listed
from slant.score.meter import metered
from slant.score.narratives import unique_narratives
from slant.score.pairs import Refused, Run
from slant.score.results import Rejected, Result, rejected_path
from slant.score.scorer import Scorer
from slant.tables.writer import check_writable

__all__ = ["FileOutcome", "check_target", "score_files"]


@dataclass(frozen=True)
class FileOutcome:
    """How many predictions were made, how much was set aside, and where that is listed.

    Attributes:
        scored: rows of the result: one for each document and narrative.
        rejected: rows that were set aside, and files that could not be read to their end.
        rejected_path: lists them; None if the result went to standard output.
        first_reason: why the first of them was set aside; empty if none was.
    """

    scored: int
    rejected: int
    rejected_path: Path | None
    first_reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        path = self.rejected_path if self.rejected else None
        return {
            "scored": self.scored,
            "rejected": self.rejected,
            "rejected_path": str(path) if path else None,
        }


def check_target(inputs: Inputs, target: str | Path) -> None:
    """Raises UsageError if ``target`` cannot be a result file, or would replace an input."""
    if str(target) == STDIN:
        return
    path = Path(target)
    check_writable(path)
    written = {path.resolve(), rejected_path(path).resolve()}
    for source in inputs.sources:
        if source.path and source.path.resolve() in written:
            raise UsageError(
                f"{source.shown}: is the input file", hint="Name another file with --out."
            )


def score_files(
    scorer: Scorer,
    inputs: Inputs | Sequence[str | Path] | str | Path,
    target: str | Path,
    *,
    narratives: Sequence[Narrative | str] | str = (),
    columns: Columns | None = None,
    progress: Progress | None = None,
) -> FileOutcome:
    """Ask about every document of files and folders, with bounded memory.

    Args:
        scorer: a loaded bundle.
        inputs: files of any format that ``slant.tables`` reads, folders of them, URLs of files, and
            ``-`` for JSONL on standard input; or what ``find_inputs`` found of them.
        target: gets ``id``, ``label``, ``confidence``, ``p_<label>`` for each label, and
            ``decision`` if the bundle has thresholds. With several narratives, or with ids of
            narratives, ``narrative_id`` (if there are ids) and ``narrative`` stand behind ``id``.
            Its ending chooses the format; it appears when everything is scored. ``-``: JSONL on
            standard output, each row as soon as it is known.
        narratives: every document is asked about each, but for rows that name one themselves. None
            given: those are asked for their overall sentiment.
        columns: where text, id, narrative and language are; by default in columns of these names.
            The language decides which temperature and which threshold are taken.
        progress: told of documents, or of the bytes they take.

    Documents come in input order, the narratives of one in the order given. A row without an id
    gets its number, and with several files or a folder ``<file>:<number>``; a file that is one
    document (.txt, .html) gets its path.

    What cannot be read or scored is listed in ``<target>.rejected.jsonl``, in input order, with
    file, row number, reason and the sha256 of the row; that file is only there if there is any. Of
    a file that is damaged, the rows before the damage are scored. Rows are scored in chunks of
    1,024 pairs: standard input is waited for until there are so many, or until it ends.

    Raises:
        UsageError: an input is not there, has an unknown type or lacks a column; ``target`` cannot
            be, or is an input.
        InputError: nothing at all can be scored, or two narratives have one id.
        StorageError: no space left or no permission.
        BrokenPipeError: nobody reads standard output any more.
    """
    columns = columns or Columns()
    found = inputs if isinstance(inputs, Inputs) else find_inputs(inputs, columns)
    check_target(found, target)
    progress = progress or SilentProgress()
    asked = _asked(narratives, progress)
    if found.left_out:
        progress.say(f"left out, of unknown type: {listed(found.left_out)}")
    with ExitStack() as stack:
        run = Run(found, columns, asked)
        result = Result(target, scorer, asked, stack)
        rejected = Rejected(target, stack, with_narrative=result.with_narrative)
        meter = stack.enter_context(metered(progress, found))
        num_unknown = 0
        for outcome in run.outcomes(scorer):
            if isinstance(outcome, Refused):
                rejected.write(outcome)
                if outcome.ends_document:
                    meter.advance(outcome.num_bytes)
                continue
            prediction, pair = outcome
            num_unknown += prediction.decision is not None and pair.lang is None
            result.write(prediction, pair.narrative)
            if pair.ends_document:
                meter.advance(pair.num_bytes)
        if not result.num_rows:
            raise run.error or _nothing_scored(found, rejected)
        rejected.remove_earlier()
    if num_unknown and not scorer.has_threshold(None):
        progress.say(
            f"{num_unknown} answers are for review because their documents tell no language: name "
            "it, in a column lang or for all of them"
        )
    return FileOutcome(result.num_rows, rejected.count, rejected.path, rejected.first_reason)


def _nothing_scored(inputs: Inputs, rejected: Rejected) -> InputError:
    return InputError(
        f"{inputs.named}: none of its {rejected.count} rows can be scored; "
        f"the first one: {rejected.first_reason}"
    )


def _asked(
    narratives: Sequence[Narrative | str] | str, progress: Progress
) -> tuple[Narrative, ...]:
    given = [narratives] if isinstance(narratives, str) else narratives
    kept, repeated = unique_narratives(
        Narrative("", each) if isinstance(each, str) else each for each in given
    )
    for narrative in repeated:
        progress.say(f"narrative given twice, asked once: {narrative.text}")
    return tuple(kept)
