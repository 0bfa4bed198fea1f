"""The words of ingest.html: figures as a person reads them, and sentences that follow from them.

Every function takes the content of ``ingest.json`` or a part of it as it is. A part may be absent
or empty: then nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slant.ingest.part import START_CHARACTERS
from slant.page.languages import language
from slant.page.words import listed, score

__all__ = [
    "count",
    "duplicate_sentence",
    "excerpt",
    "flow",
    "headline",
    "labels",
    "language_counts",
    "language_name",
    "language_sentence",
    "legible",
    "listed",
    "num_documents",
    "num_examples",
    "plural",
    "reliability",
    "sampled",
    "score",
    "share",
    "summary",
    "tiles",
    "total",
]

Report = Mapping[str, Any]

_SPACE = "\N{NO-BREAK SPACE}"
_MOST_LANGUAGES = 6  # named one by one in a sentence


def count(number: int) -> str:
    """``12 480``, with narrow spaces that do not break."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def share(part: float, whole: float) -> str:
    """``12 %``, ``0.4 %``, ``< 0.1 %``; all and nothing are said only where they are true."""
    if whole <= 0:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        text = f"<{_SPACE}0.1"
    elif 99.5 <= percent < 100:
        text = f">{_SPACE}99"
    elif 0 < percent < 9.95:
        text = f"{percent:.1f}"
    else:
        text = f"{percent:.0f}"
    return f"{text}{_SPACE}%"


def plural(number: int, name: str) -> str:
    """``1 row``, ``12 480 rows``."""
    return f"{count(number)} {name}{'' if number == 1 else 's'}"


def language_name(code: str | None) -> str:
    """The English name of a language code, the code, or ``Unknown``."""
    return language(code or "und")


def legible(text: str) -> str:
    """``text`` on one line, with U+FFFD for what no font shows.

    Halves of surrogate pairs, which no file can hold, are among that.
    """
    return "".join(
        character if character.isprintable() or _joins(character) else "\N{REPLACEMENT CHARACTER}"
        for character in " ".join(text.split())
    )


def excerpt(text: str | None) -> str:
    """The beginning of a text, with a mark where it was cut."""
    start = text or ""
    if len(start.rstrip("…")) <= START_CHARACTERS:
        return start
    return start[:START_CHARACTERS] + "…"


def _joins(character: str) -> bool:
    """Joiners and marks of direction: not printable, yet part of how a text is written."""
    return character in "\u00ad\u200b\u200c\u200d\u200e\u200f\u061c\ufeff"


def total(report: Report, key: str) -> int:
    """Sum of ``rows``, ``kept``, ``duplicates``, ``unused`` or ``rejected`` over all sources."""
    return sum(source.get(key) or 0 for source in report.get("sources") or ())


def labels(report: Report) -> list[str]:
    """The labels in the order in which the report first names them."""
    named = list(report.get("labels") or ())
    for languages in (report.get("examples") or {}).values():
        for counts in languages.values():
            named += counts
    for entries in (report.get("breakdown") or {}).values():
        for entry in entries:
            named += entry.get("examples") or {}
    return list(dict.fromkeys(named))


def language_counts(report: Report) -> dict[str, dict[str, int]]:
    """Examples of all splits together: language to label to count, the largest language first."""
    result: dict[str, dict[str, int]] = {}
    for languages in (report.get("examples") or {}).values():
        for code, counts in languages.items():
            sums = result.setdefault(code, {})
            for label, number in counts.items():
                sums[label] = sums.get(label, 0) + number
    return dict(sorted(result.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def num_examples(report: Report, split: str | None = None) -> int:
    """Examples of one split, or of all."""
    splits = report.get("examples") or {}
    chosen = splits.values() if split is None else [splits.get(split) or {}]
    return sum(sum(counts.values()) for languages in chosen for counts in languages.values())


def num_documents(report: Report) -> int:
    """Documents kept, labelled or not."""
    return sum((report.get("documents") or {}).values())


def _languages(report: Report) -> list[tuple[str, int]]:
    """Languages that occur and their documents, the largest first."""
    entries = (report.get("breakdown") or {}).get("language") or ()
    found = [(language_name(entry.get("value")), entry.get("documents") or 0) for entry in entries]
    return sorted(found, key=lambda item: (-item[1], item[0]))


def _num_languages(report: Report) -> int:
    return sum(name != language_name(None) for name, _ in _languages(report))


def headline(report: Report) -> dict[str, str]:
    """The result in one sentence, in parts: ``figure`` (printed large), ``rest``."""
    examples, documents = num_examples(report), num_documents(report)
    figure, rest = count(documents), "document" if documents == 1 else "documents"
    if examples:
        noun = "example" if examples == 1 else "examples"
        figure, rest = count(examples), f"labelled {noun} and {plural(documents, 'document')}"
    if number := _num_languages(report):
        rest += f" in {plural(number, 'language')}"
    if rows := total(report, "rows"):
        rest += f", from {plural(rows, 'row')} of {plural(len(report['sources']), 'source')}"
    return {"figure": figure, "rest": f"{rest}."}


def summary(report: Report) -> list[str]:
    """What became of the rows, and what the documents are, in plain sentences."""
    sentences = []
    rows, kept = total(report, "rows"), total(report, "kept")
    if rows:
        left = [
            (total(report, "duplicates"), "were duplicates"),
            (total(report, "unused"), "were not used"),
            (total(report, "rejected"), "could not be used and were set aside"),
        ]
        told = [f"{count(number)} {what}" for number, what in left if number]
        sentences.append(
            f"{count(kept)} of {plural(rows, 'row')} ({share(kept, rows)}) were kept"
            + (f"; {listed(told)}." if told else ".")
        )
    documents = report.get("documents") or {}
    labelled, unlabelled = documents.get("labelled") or 0, documents.get("unlabelled") or 0
    if labelled and unlabelled:
        sentences.append(
            f"{plural(labelled, 'document')} carry labels to tune and test on; "
            f"{count(unlabelled)} have none and serve to adapt the model to the domain."
        )
    if languages := _languages(report):
        everything = sum(number for _, number in languages)
        named = [
            f"{name} ({share(number, everything)})" for name, number in languages[:_MOST_LANGUAGES]
        ]
        if len(languages) > _MOST_LANGUAGES:
            named.append(f"{len(languages) - _MOST_LANGUAGES} more")
        sentences.append(f"By language: {listed(named)}.")
    return sentences


def tiles(report: Report) -> list[tuple[str, str, str]]:
    """The facts below the headline: what, the figure, a note. What is not known is left out."""
    rows, kept, rejected = (total(report, key) for key in ("rows", "kept", "rejected"))
    documents, duplicates = report.get("documents") or {}, report.get("duplicates") or {}
    result = []
    if rows:
        result.append(("Rows kept", share(kept, rows), f"{count(kept)} of {count(rows)}"))
    if documents:
        note = f"{count(documents.get('labelled') or 0)} labelled, "
        note += f"{count(documents.get('unlabelled') or 0)} without labels"
        result.append(("Documents", count(num_documents(report)), note))
    if examples := num_examples(report):
        narratives = report.get("narratives") or 0
        note = f"{plural(narratives, 'narrative')}, " if narratives else ""
        note += f"{count(num_examples(report, 'train'))} to train on"
        result.append(("Examples", count(examples), note))
    if languages := _languages(report):
        name, number = languages[0]
        everything = sum(documents for _, documents in languages)
        note = f"most of them {name} ({share(number, everything)})"
        number = _num_languages(report)
        result.append(("Languages", count(number), note if len(languages) > 1 else name))
    if duplicates:
        exact, near = duplicates.get("exact") or 0, duplicates.get("near") or 0
        result.append(
            ("Duplicates", count(exact + near), f"{count(exact)} exact, {count(near)} near")
        )
    if rows:
        result.append(("Set aside", count(rejected), f"{share(rejected, rows)} of the rows"))
    return result


def flow(source: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """What became of the rows of a source: kind, name, rows."""
    names = {"kept": "kept", "duplicates": "duplicates", "unused": "not used"}
    names["rejected"] = "set aside"
    return [(kind, name, source.get(kind) or 0) for kind, name in names.items()]


def reliability(alpha: float | None) -> str:
    """What Krippendorff's own bounds say of an alpha.

    Source: K. Krippendorff, Content Analysis: An Introduction to Its Methodology, 2nd edition,
    Sage 2004, p. 241: rely on 0.800 and above, draw tentative conclusions from 0.667 and above.
    """
    if alpha is None:
        return "nothing to compare"
    if alpha >= 0.8:
        return "reliable"
    if alpha >= 0.667:
        return "tentative conclusions"
    return "too low to rely on" if alpha > 0 else "no better than chance"


def language_sentence(report: Report) -> str:
    """How many documents came with a language, and how many had to be told by their text."""
    languages = report.get("languages") or {}
    parts = [
        (languages.get("given") or 0, "came with a language"),
        (languages.get("identified") or 0, "were identified by their text"),
        (languages.get("undetermined") or 0, "could not be told"),
    ]
    told = [f"{count(number)} {what}" for number, what in parts if number]
    if not told:
        return ""
    sentence = f"Of {plural(sum(number for number, _ in parts), 'document')}, {listed(told)}."
    given = parts[0][0]
    if different := sum(entry["count"] for entry in languages.get("disagreements") or ()):
        sentence += (
            f" For {count(different)} ({share(different, given)}) of those with a given language "
            "the text looks like another one; the given language was kept."
        )
    elif given:
        sentence += " No given language contradicts its text."
    return sentence


def duplicate_sentence(duplicates: Mapping[str, Any]) -> str:
    """How many rows repeat another one, and what became of the contradictions."""
    exact, near = duplicates.get("exact") or 0, duplicates.get("near") or 0
    sentence = (
        f"{plural(exact, 'row')} say exactly what another row says and {count(near)} nearly so"
        if exact + near
        else "No row repeats another one"
    )
    if clusters := duplicates.get("clusters"):
        sentence += f"; texts that are nearly the same form {plural(clusters, 'cluster')}"
    contradictions = duplicates.get("num_contradictions") or 0
    if contradictions:
        return f"{sentence}. In {plural(contradictions, 'group')} of them the labels differ."
    return f"{sentence}. No labels contradict each other."


def sampled(report: Report) -> str:
    """What to add where lengths were taken from fewer documents than there are."""
    counts = [
        entry.get("count") or 0
        for entry in ((report.get("lengths") or {}).get("by_language") or {}).values()
    ]
    if not counts or sum(counts) >= num_documents(report):
        return ""
    return f" (in a sample of at most {count(max(counts))} each)"
