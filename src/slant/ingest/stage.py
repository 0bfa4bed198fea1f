"""The stage: input files to an ``ingest`` artifact.

    documents.parquet    labelled documents in source order, then unlabelled ones
    narratives.jsonl     the distinct narratives of the examples
    examples.parquet     examples with their split
    rejected.parquet     rows that were set aside, with reasons
    ingest.json          counts: what became of every row

A document is labelled if it has an example.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slant import artifacts
from slant.artifacts import Artifact, Recipe, digest_file
from slant.config.settings import ExampleSource, IngestSettings, SplitSizes
from slant.errors import InputError
from slant.ingest.collect import Candidate, Ledger, Reading, collect_examples
from slant.ingest.sources import Source, find_sources
from slant.ingest.split import Member, assign_splits
from slant.ingest.write import SCHEMA, UNDETERMINED, Placed, write_records
from slant.labels import LabelSet
from slant.progress import Progress
from slant.records import SPLITS

__all__ = ["ingest_recipe", "run_ingest"]

_KIND = "ingest"


def run_ingest(
    settings: IngestSettings,
    *,
    labels: LabelSet,
    seed: int,
    start: Path,
    out: Path,
    progress: Progress,
) -> Artifact:
    """Read the sources, set bad rows aside, split the examples, write the artifact.

    Equal inputs, settings and seed give equal files. If ``out`` holds their artifact already it is
    returned as it is. A run that was killed is run again from the start: it takes seconds.

    Args:
        settings: What to read and how to split it.
        labels: The labels that examples may have.
        seed: Of the split and of the choice of documents under a ``limit``.
        start: The folder that relative paths in ``settings`` start from.
        out: The artifact's folder.
        progress: Told of each file.

    Raises:
        UsageError: A file or a mapped column does not exist.
        InputError: A file is empty or damaged, no row of a source can be used, or the examples do
            not suffice for the splits.
        StorageError: ``out`` cannot be written.
        ArtifactError: Another process is at work in ``out``.
    """
    labelled, unlabelled = _find_sources(settings, start)
    recipe = _recipe(settings, labels, seed, labelled, unlabelled)
    found = artifacts.find(out, _KIND)
    if found is not None and found.key == recipe.key:
        return found
    # Before the folder is touched: unusable examples must not cost the artifact that is there.
    ledger = Ledger()
    reading = Reading(settings, labels, seed, progress)
    candidates = collect_examples(labelled, reading, ledger)
    placed = _place(candidates, labelled, reading)
    short = _short_splits(placed, labelled)
    with artifacts.build(out, recipe) as builder:
        report = write_records(builder.path, placed, unlabelled, reading, ledger)
        report["short"] = short
        text = json.dumps(report, ensure_ascii=False, indent=1)
        artifacts.write_atomically(builder.path / "ingest.json", text + "\n")
        builder.facts.update(_facts(report))
    for message in short:
        progress.say(message)
    return artifacts.load(out, _KIND)


def ingest_recipe(settings: IngestSettings, *, labels: LabelSet, seed: int, start: Path) -> Recipe:
    """What ``run_ingest`` would make its artifact from. Reads every input file for its digest.

    Raises:
        UsageError: A file does not exist.
    """
    return _recipe(settings, labels, seed, *_find_sources(settings, start))


def _find_sources(settings: IngestSettings, start: Path) -> tuple[list[Source], list[Source]]:
    """The labelled and the unlabelled sources with their files."""
    names: dict[str, Path] = {}
    labelled = find_sources("examples", settings.examples, start, names)
    unlabelled = find_sources("documents", settings.documents, start, names)
    return labelled, unlabelled


def _recipe(
    settings: IngestSettings,
    labels: LabelSet,
    seed: int,
    labelled: Sequence[Source],
    unlabelled: Sequence[Source],
) -> Recipe:
    """What the artifact is made from, with file names in place of paths of this machine."""
    inputs = {
        file.name: digest_file(file.path)
        for source in (*labelled, *unlabelled)
        for file in source.files
    }
    resolved = {
        "schema": SCHEMA,
        "labels": list(labels),
        **settings.model_dump(mode="json", exclude={"documents", "examples"}),
        "documents": [_source_settings(source) for source in unlabelled],
        "examples": [_source_settings(source) for source in labelled],
    }
    return Recipe(_KIND, inputs, resolved, seed)


def _source_settings(source: Source) -> dict[str, Any]:
    dumped = source.settings.model_dump(mode="json", exclude={"path"})
    return {"files": [file.name for file in source.files], "dataset": source.dataset, **dumped}


def _place(
    candidates: Sequence[Candidate], sources: Sequence[Source], reading: Reading
) -> list[Placed]:
    """Give each example a split, or none.

    Raises:
        InputError: There are too few examples, or a label has none to train on.
    """
    # Groups reach across sources: a text that stands in two of them has one split.
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.digest, []).append(candidate)
    splits = assign_splits(
        {
            digest: [
                Member(member.source.where, member.document.lang or UNDETERMINED, member.label)
                for member in members
            ]
            for digest, members in groups.items()
        },
        shares=reading.settings.split,
        sizes={source.where: sizes for source in sources if (sizes := _sizes(source))},
        seed=reading.seed,
    )
    # The splits of a group come in the order of its candidates.
    following = {digest: iter(of_group) for digest, of_group in splits.items()}
    placed = [Placed(candidate, next(following[candidate.digest])) for candidate in candidates]
    trained_on = {one.candidate.label for one in placed if one.split == "train"}
    missing = [label for label in reading.labels if label not in trained_on]
    if missing:
        raise InputError(
            f"ingest.examples: no training example has the label '{missing[0]}'",
            hint="Give examples of every label, or take labels that are not used out of `labels`.",
        )
    return placed


def _sizes(source: Source) -> SplitSizes | None:
    return source.settings.sizes if isinstance(source.settings, ExampleSource) else None


def _short_splits(placed: Sequence[Placed], sources: Sequence[Source]) -> list[str]:
    """A sentence for each split of fixed size that could not be filled with whole groups."""
    short = []
    for source in sources:
        sizes = _sizes(source)
        for split in SPLITS if sizes else ():
            asked = getattr(sizes, split)
            num = sum(one.split == split and one.candidate.source is source for one in placed)
            if num < asked:
                short.append(
                    f"{source.dataset}: {split} has {num} of {asked} examples; the others share a "
                    "text with examples of another split"
                )
    return short


def _facts(report: dict[str, Any]) -> dict[str, Any]:
    """The counts that are wanted without opening the files."""
    return {
        "documents": report["documents"],
        "examples": {
            split: sum(sum(labels.values()) for labels in langs.values())
            for split, langs in report["examples"].items()
        },
        "narratives": report["narratives"],
        "rejected": sum(report["reasons"].values()),
        "unused": report["unused"],
    }
