"""The stage: input files to an ``ingest`` artifact.

    documents.parquet    labelled documents in source order, then unlabelled ones
    narratives.jsonl     the distinct narratives of the examples
    examples.parquet     examples with their split
    judgements.parquet   what each annotator said, where annotators are named
    rejected.parquet     rows that were set aside, with reasons
    ingest.json          counts: what became of every row
    ingest.html          the same as a page to look at

A document is labelled if it has an example. Reading and cleaning is done file by file and kept
beside the artifact (see ``parts``); what needs all files at once (one text an id, duplicates,
splits) is done afterwards, on what is light enough to be held in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slant import artifacts
from slant.artifacts import Artifact, Recipe
from slant.config.ingest_settings import ExampleSource, IngestSettings, SplitSizes
from slant.disk import exclusive, write_atomically
from slant.errors import InputError
from slant.ingest.candidates import LabelledPair, collect_pairs, collect_unlabelled
from slant.ingest.clusters import Clusters, cluster_texts
from slant.ingest.inputs import KIND, Inputs, Reading
from slant.ingest.judgements import agreement
from slant.ingest.ledger import Fate, Ledger
from slant.ingest.parts import FileParts, make_parts, remove_unused_parts
from slant.ingest.report import (
    SCHEMA,
    UNDETERMINED,
    DocumentFigures,
    RejectedFigures,
    TokenCounter,
    breakdown,
    contradictions,
    example_figures,
    listed_contradictions,
)
from slant.ingest.report_html import render_report
from slant.ingest.sources import Source
from slant.ingest.split import Member, assign_splits
from slant.ingest.texts import read_texts
from slant.ingest.write import PlacedPair, write_documents, write_examples, write_rejected
from slant.labels import LabelSet
from slant.progress import Progress
from slant.records import SPLITS

__all__ = ["ingest_recipe", "run_ingest"]


def run_ingest(
    settings: IngestSettings,
    *,
    labels: LabelSet,
    seed: int,
    start: Path,
    out: Path,
    progress: Progress,
    counter: TokenCounter | None = None,
) -> Artifact:
    """Read the sources, set bad rows aside, split the examples, write the artifact.

    Equal inputs, settings and seed give equal files. If ``out`` holds their artifact already it is
    returned as it is. A run that was killed goes on after the last chunk of rows it had read.

    Args:
        settings: What to read and how to split it.
        labels: The labels that examples may have.
        seed: Of the split and of the choice of documents under a ``limit``.
        start: The folder that relative paths in ``settings`` start from.
        out: The artifact's folder; what was read is kept in a folder beside it.
        progress: Told of each file.
        counter: Counts tokens for the report; without it lengths are in characters.

    Raises:
        UsageError: A file or a mapped column does not exist.
        InputError: A file is empty or damaged, no row of a source can be used, or the examples do
            not suffice for the splits.
        StorageError: ``out`` cannot be written.
        ArtifactError: Another process is at work in ``out``.
    """
    inputs = Inputs.find(settings, start)
    reading = Reading(settings, labels, seed, progress)
    recipe = inputs.recipe(settings, labels, seed)
    found = artifacts.find(out, KIND)
    if found is not None and found.key == recipe.key:
        return found
    parts_folder = out.with_name(f"{out.name}.parts")
    parts_folder.mkdir(parents=True, exist_ok=True)
    with exclusive(parts_folder / ".lock"):
        files = make_parts(inputs, reading, parts_folder)
        # Before the folder is touched: unusable examples must not cost the artifact that is there.
        standing = _decide(files, inputs, reading)
        with artifacts.build(out, recipe) as builder:
            report = _write(builder.path, files, standing, reading, counter)
            builder.facts.update(_facts(report))
        remove_unused_parts(parts_folder, files)
    for message in report["short"]:
        progress.say(message)
    return artifacts.load(out, KIND)


def ingest_recipe(settings: IngestSettings, *, labels: LabelSet, seed: int, start: Path) -> Recipe:
    """What ``run_ingest`` would make its artifact from. Reads every input file for its digest.

    Raises:
        UsageError: A file does not exist.
    """
    return Inputs.find(settings, start).recipe(settings, labels, seed)


# --- deciding -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Standing:
    """What stands, and what became of everything else."""

    placed: list[PlacedPair]
    clusters: Clusters
    ledger: Ledger
    agreement: dict[str, Any]
    short: list[str]


def _decide(files: list[FileParts], inputs: Inputs, reading: Reading) -> _Standing:
    ledger, labels = Ledger.of(files), reading.labels
    pairs, units = collect_pairs(
        files, ledger, labels=labels, rule=reading.settings.judgements, seed=reading.seed
    )
    unlabelled = collect_unlabelled(files, pairs, ledger, seed=reading.seed)
    clusters = cluster_texts(files, pairs, unlabelled, ledger, reading)
    placed = _place(pairs, clusters, inputs.labelled, ledger, reading)
    _check_labels(placed, labels)
    for place in clusters.unlabelled.places():
        ledger.keep(place)
    known = [(lang or UNDETERMINED, judgements) for lang, judgements in units]
    return _Standing(
        placed,
        clusters,
        ledger,
        agreement(known, labels) if known else {},
        _short_splits(placed, inputs.labelled),
    )


def _place(
    pairs: Sequence[LabelledPair],
    clusters: Clusters,
    sources: Sequence[Source],
    ledger: Ledger,
    reading: Reading,
) -> list[PlacedPair]:
    """Give each pair a split, or none.

    Raises:
        InputError: There are too few examples.
    """
    # Groups reach across sources: texts that are nearly the same have one split.
    groups: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        cluster = clusters.of_labelled[pair.first.digest]
        groups.setdefault(cluster.hex(), []).append(pair)
    splits = assign_splits(
        {digest: [_member(pair) for pair in group] for digest, group in groups.items()},
        shares=reading.settings.split,
        sizes={source.where: sizes for source in sources if (sizes := _sizes(source))},
        seed=reading.seed,
    )
    placed: dict[int, PlacedPair] = {}
    for digest, group in groups.items():
        for pair, split in zip(group, splits[digest], strict=True):
            if split in SPLITS:
                placed[id(pair)] = PlacedPair(pair, split)
            for row in pair.judgements:
                if split in SPLITS:
                    ledger.keep(row.place)
                elif split is None:
                    ledger.leave(row.place)
                else:  # the reason why it leaks
                    ledger.reject(row.place, Fate(split, split))
    return [placed[id(pair)] for pair in pairs if id(pair) in placed]


def _member(pair: LabelledPair) -> Member:
    first = pair.first
    return Member(
        first.source.where,
        first.lang or UNDETERMINED,
        pair.label,
        dataset=first.source.dataset,
        narrative=first.narrative,
        published_at=first.published_at,
        own_split=first.own_split,
    )


def _check_labels(placed: Sequence[PlacedPair], labels: LabelSet) -> None:
    trained_on = {one.pair.label for one in placed if one.split == "train"}
    missing = [label for label in labels if label not in trained_on]
    if missing:
        raise InputError(
            f"ingest.examples: no training example has the label '{missing[0]}'",
            hint="Give examples of every label, or take labels that are not used out of `labels`.",
        )


def _sizes(source: Source) -> SplitSizes | None:
    return source.settings.sizes if isinstance(source.settings, ExampleSource) else None


def _short_splits(placed: Sequence[PlacedPair], sources: Sequence[Source]) -> list[str]:
    """A sentence for each split of fixed size that could not be filled with whole groups."""
    short = []
    for source in sources:
        sizes = _sizes(source)
        for split in SPLITS if sizes else ():
            asked = getattr(sizes, split)
            num = sum(one.split == split and one.pair.first.source is source for one in placed)
            if num < asked:
                short.append(
                    f"{source.dataset}: {split} has {num} of {asked} examples; the others share a "
                    "text with examples of another split"
                )
    return short


# --- writing ------------------------------------------------------------------------------------


def _write(
    folder: Path,
    files: list[FileParts],
    standing: _Standing,
    reading: Reading,
    counter: TokenCounter | None,
) -> dict[str, Any]:
    """Write all files of the artifact; returns the content of ``ingest.json``."""
    placed, clusters, ledger = standing.placed, standing.clusters, standing.ledger
    documents = DocumentFigures(counter)
    for dataset, batch in write_documents(
        folder / "documents.parquet", files, placed, clusters, reading.progress
    ):
        documents.add(dataset, batch)
    rejected = RejectedFigures()
    for row in write_rejected(folder, files, ledger):
        rejected.add(row)
    num_narratives = write_examples(folder, placed)
    groups = contradictions(placed, clusters.of_labelled)
    num_labelled = documents.num - len(clusters.unlabelled)
    notes: Counter[str] = sum((parts.notes for parts in files), start=Counter())
    report = {
        "schema": SCHEMA,
        "labels": list(reading.labels),
        "sources": ledger.files_as_json(),
        "documents": {"labelled": num_labelled, "unlabelled": len(clusters.unlabelled)},
        "examples": example_figures(placed, reading.labels),
        "narratives": num_narratives,
        "breakdown": breakdown(placed, documents, reading.labels),
        **documents.as_json(),
        "duplicates": {
            "exact": ledger.duplicates["exact"],
            "near": ledger.duplicates["near"],
            "clusters": clusters.num_clusters,
            "num_contradictions": len(groups) + ledger.reasons["contradicts another row"],
            "contradictions": listed_contradictions(
                groups, lambda pair: next(read_texts(files, [pair.first.place]))
            ),
        },
        "judgements": standing.agreement,
        **rejected.as_json(ledger),
        "notes": dict(sorted(notes.items())),
        "unused": sum(count.unused for count in ledger.files),
        "short": standing.short,
    }
    text = json.dumps(report, ensure_ascii=False, indent=1)
    write_atomically(folder / "ingest.json", text + "\n")
    write_atomically(folder / "ingest.html", render_report(report))
    return report


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
        "contradictions": report["duplicates"]["num_contradictions"],
    }
