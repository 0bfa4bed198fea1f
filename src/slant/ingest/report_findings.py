"""What deserves a look before anyone trains on the data: the rules behind the list in ingest.html.

Names that strangers wrote stand in ``<bdi>``, so that one of another direction cannot reorder the
sentence; `markupsafe` escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from slant.ingest import report_words as words

__all__ = ["Finding", "findings"]

Report = Mapping[str, Any]

_DISAGREEING = 0.05  # of the documents whose language was given
_UNDETERMINED = 0.05  # of all documents
_RARE = 0.10  # of a language's examples
_FEW = 20  # examples of a language below which shares of labels say nothing
_OVER_LIMIT = 0.05  # of a language's documents
_REJECTED = 0.05  # of the rows
_ONE_SOURCE = 0.80  # of the rejects
_FEW_REJECTS = 10  # rejects below which nobody asks where they come from
_ALPHA = 0.667  # see report_words.reliability
_MOST_NAMED = 6


@dataclass(frozen=True)
class Finding:
    """One sentence, and the section that shows more (empty: none)."""

    text: Markup
    section: str = ""


def findings(report: Report) -> list[Finding]:
    """What a person should look at, the gravest first; empty when nothing stands out."""
    rules = (_nothing, _told, _contradictions, _agreement, _rare, _disagreeing, _cut, _rejects)
    return [finding for rule in rules for finding in rule(report)]


def _name(text: object) -> Markup:
    return Markup("<bdi>{}</bdi>").format(text)


def _nothing(report: Report) -> Iterator[Finding]:
    if not words.num_documents(report):
        yield Finding(Markup("No document was kept."), "sources")
    elif "examples" in report and not words.num_examples(report):
        yield Finding(Markup("No example was kept: there is nothing to tune on."), "sources")


def _told(report: Report) -> Iterator[Finding]:
    """What the stage itself says: splits that are too small, and its warnings."""
    for text in (*(report.get("short") or ()), *(report.get("warnings") or ())):
        yield Finding(_name(text))


def _contradictions(report: Report) -> Iterator[Finding]:
    duplicates = report.get("duplicates") or {}
    number = duplicates.get("num_contradictions") or len(duplicates.get("contradictions") or ())
    if number:
        text = "{} with the same text and narrative but different labels."
        yield Finding(Markup(text).format(words.plural(number, "group") + " of rows"), "duplicates")


def _agreement(report: Report) -> Iterator[Finding]:
    low = [
        Markup("{} ({})").format(
            "all languages" if code == "all" else _name(words.language_name(code)),
            words.score(entry["alpha"]),
        )
        for code, entry in (report.get("judgements") or {}).items()
        if entry.get("alpha") is not None and entry["alpha"] < _ALPHA
    ]
    if low:
        text = "Annotators agree too little: Krippendorff’s alpha is below {} for {}."
        yield Finding(Markup(text).format(f"{_ALPHA:.3f}", _some(low)), "agreement")


def _rare(report: Report) -> Iterator[Finding]:
    labels = words.labels(report)
    rare = []
    for code, counts in words.language_counts(report).items():
        everything = sum(counts.values())
        rare += [
            (
                counts.get(label, 0) / everything,
                Markup("{} in {} ({})").format(
                    _name(label),
                    _name(words.language_name(code)),
                    words.share(counts.get(label, 0), everything),
                ),
            )
            for label in labels
            if everything >= _FEW and counts.get(label, 0) < _RARE * everything
        ]
    if rare:
        named = [text for _, text in sorted(rare, key=lambda entry: entry[0])]
        yield Finding(
            Markup("Rare labels, below {} of a language’s examples: {}.").format(
                words.share(_RARE, 1), _some(named)
            ),
            "labels",
        )


def _disagreeing(report: Report) -> Iterator[Finding]:
    languages = report.get("languages") or {}
    given = languages.get("given") or 0
    number = sum(entry["count"] for entry in languages.get("disagreements") or ())
    if number > _DISAGREEING * given:
        text = "{} of {} with a given language ({}) look like another. The given one was kept."
        yield Finding(
            Markup(text).format(
                words.count(number), words.plural(given, "document"), words.share(number, given)
            ),
            "languages",
        )
    undetermined, documents = languages.get("undetermined") or 0, words.num_documents(report)
    if undetermined > _UNDETERMINED * documents:
        text = "{} ({}) have no language: none was given and none could be told."
        yield Finding(
            Markup(text).format(
                words.plural(undetermined, "document"), words.share(undetermined, documents)
            ),
            "languages",
        )


def _cut(report: Report) -> Iterator[Finding]:
    lengths = report.get("lengths") or {}
    long = [
        Markup("{} ({})").format(
            _name(words.language_name(code)), words.share(entry["over_limit"], entry["count"])
        )
        for code, entry in (lengths.get("by_language") or {}).items()
        if (entry.get("over_limit") or 0) > _OVER_LIMIT * entry["count"]
    ]
    if long and lengths.get("limit"):
        text = "Many documents are longer than {} {} and will be cut in the middle: {}."
        limit = words.count(lengths["limit"])
        yield Finding(Markup(text).format(limit, lengths["unit"], _some(long)), "lengths")


def _rejects(report: Report) -> Iterator[Finding]:
    rows, rejected = words.total(report, "rows"), words.total(report, "rejected")
    if rejected > _REJECTED * rows:
        text = "{} ({}) could not be used."
        yield Finding(
            Markup(text).format(words.plural(rejected, "row"), words.share(rejected, rows)),
            "rejected",
        )
    sources = report.get("sources") or ()
    for source in sources:
        part = source.get("rejected") or 0
        if len(sources) > 1 and rejected >= _FEW_REJECTS and part > _ONE_SOURCE * rejected:
            text = "One source, {}, holds {} of all rows set aside."
            yield Finding(
                Markup(text).format(_name(source["file"]), words.share(part, rejected)), "sources"
            )


def _some(named: list[Markup]) -> Markup:
    """The first few, and how many more there are."""
    shown = Markup(", ").join(named[:_MOST_NAMED])
    left = len(named) - _MOST_NAMED
    return shown + Markup(" and {} more").format(left) if left > 0 else shown
