"""Decisions as a person acts on them: what is accepted without a look, and what that risks.

Every function takes the ``decisions`` of ``report.json`` as they are (docs/report-schema.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slant.evaluate import report_words as words
from slant.page.languages import language
from slant.page.shapes import position, round_up
from slant.page.words import listed

__all__ = [
    "Curve",
    "GroupRow",
    "accepted_tile",
    "curves",
    "decision_sentences",
    "exact",
    "group_rows",
    "is_anything_accepted",
]

Decisions = Mapping[str, Any]

_FEWEST = 10  # a share of fewer accepted answers than this jumps with every one
_OTHERS = "*"


@dataclass(frozen=True)
class GroupRow:
    """One group of languages in the table; ``kind`` is group, total or pooled."""

    kind: str
    name: str
    languages: str
    threshold: str
    calibration: str
    accepted: str
    error: str
    is_above: bool
    reason: str


@dataclass(frozen=True)
class Curve:
    """Error by coverage in a square of 100 by 100 with y downwards.

    ``points`` are places on it that are named: x, y, kind, what it is.
    """

    name: str
    path: str
    limit: float
    top: float
    points: tuple[tuple[float, float, str, str], ...]
    summary: str


def is_anything_accepted(decisions: Decisions) -> bool:
    """Whether a group has a threshold."""
    return any(group["threshold"] is not None for group in decisions["groups"])


def decision_sentences(decisions: Decisions) -> list[str]:
    """What to do, what it risks and what it costs; the first one is the most important."""
    if not is_anything_accepted(decisions):
        return _nothing(decisions)
    groups, test = decisions["groups"], decisions["test"]
    open_groups = [group for group in groups if group["threshold"] is not None]
    accepted = _share_accepted(test)
    apart = ", in each group of languages by itself" if len(open_groups) > 1 else ""
    found = "none of the test split was accepted"
    if test["error"] is not None:
        found = f"on the test split {words.percent_interval(test['error'])} were"
    sentences = [
        f"Accept {words.share(accepted)} of the answers without a look: with "
        f"{exact(decisions['confidence'])} confidence at most {exact(decisions['max_error'])} of "
        f"those are wrong{apart}{_counted(decisions)}; {found}.",
        _rest(decisions, accepted),
    ]
    closed = [group for group in groups if group["threshold"] is None]
    if closed:
        where = listed([_group_name(group, groups) for group in closed])
        sentences.append(f"Nothing is accepted in {where}.")
    return [sentence for sentence in (*sentences, _warning(decisions)) if sentence]


def _nothing(decisions: Decisions) -> list[str]:
    groups = decisions["groups"]
    reasons = [f"{_group_name(group, groups)}: {group['reason']}" for group in groups]
    return [
        f"Nothing can be accepted without a look: no threshold shows with "
        f"{exact(decisions['confidence'])} confidence that at most "
        f"{exact(decisions['max_error'])} of what it accepts is wrong{_counted(decisions)}.",
        f"Why: {'; '.join(reasons)}." if reasons else "",
        _rest(decisions, 0.0),
    ]


def _counted(decisions: Decisions) -> str:
    return f", {decisions['counted']}" if decisions["counted"] else ""


def _rest(decisions: Decisions, accepted: float) -> str:
    rest, usd = 1 - accepted, decisions["review_usd_per_1000"]
    if not rest:
        return "Nothing is left for people."
    everything = ""
    if usd and 0 < rest < 1:
        everything = f" instead of {words.money(usd / rest)} for all"
    what = f"The rest, {words.share(rest)}," if accepted else "Everything"
    return f"{what} goes to people: {words.money(usd)} per 1,000 answers{everything}."


def _warning(decisions: Decisions) -> str:
    error, limit = decisions["test"]["error"], decisions["max_error"]
    if error is None or error["value"] <= limit:
        return ""
    if error["low"] is not None and error["low"] > limit:
        return (
            "That is more than was promised, and more than chance explains: the test split differs "
            "from the calibration split. Calibrate on documents like those to be scored."
        )
    return "That is more than was promised, but it may be chance: look at its interval."


def accepted_tile(decisions: Decisions) -> tuple[str, str, str]:
    """What, the figure, a note: how much is accepted, and how much of that is wrong."""
    what, limit = "Accepted without a look", exact(decisions["max_error"])
    test = decisions["test"]
    if not is_anything_accepted(decisions):
        return what, words.percent(0), f"no threshold keeps the error at {limit}"
    if test["error"] is None:
        return what, words.percent(0), "no answer of the test split reaches its threshold"
    note = f"of the answers; {words.percent_interval(test['error'])} of them wrong"
    return what, words.share(_share_accepted(test)), note


def group_rows(decisions: Decisions) -> list[GroupRow]:
    """The groups, their total, and one threshold for all languages for comparison."""
    groups, limit = decisions["groups"], decisions["max_error"]
    rows = [_group_row("group", _group_name(group, groups), group, limit) for group in groups]
    if len(groups) > 1:
        total = {"threshold": None, "reason": "", "languages": [], "test": decisions["test"]}
        rows.append(_group_row("total", "All of these", total, limit))
        name = "One threshold for all languages"
        rows.append(_group_row("pooled", name, decisions["pooled"], limit))
    return rows


def _group_row(kind: str, name: str, group: Mapping[str, Any], limit: float) -> GroupRow:
    test, is_total = group["test"], kind == "total"
    calibration = ""
    if not is_total and group["accepted"]:
        calibration = f"{group['accepted']:,} of {group['examples']:,}, {group['wrong']:,} wrong"
    elif not is_total:
        calibration = f"none of {group['examples']:,}"
    error = test["error"]
    several = kind == "group" and (group["languages"] != [group["name"]])
    return GroupRow(
        kind=kind,
        name=name,
        languages=", ".join(map(language, group["languages"])) if several else "",
        threshold="" if group["threshold"] is None else f"{group['threshold']:.3f}",
        calibration=calibration,
        accepted=f"{words.share(_share_accepted(test))} of {test['count']:,}",
        error=words.percent_interval(error) if error is not None else "",
        is_above=error is not None and error["value"] > limit,
        reason=group["reason"],
    )


def curves(report: Mapping[str, Any]) -> list[Curve]:
    """Error by coverage on the test split: all languages together first, then each of them."""
    decisions = report["decisions"]
    counts = {
        lang: metrics["count"] for lang, metrics in report["systems"][0]["slices"]["lang"].items()
    }
    counts["all"] = decisions["test"]["count"]
    drawn = {
        name: kept
        for name, points in decisions["curve"].items()
        if (kept := [point for point in points if point[0] * counts.get(name, 0) >= _FEWEST])
    }
    errors = [point[1] for points in drawn.values() for point in points]
    top = min(round_up(max([1.6 * decisions["max_error"], *errors])), 1.0)
    names = sorted(drawn, key=lambda name: (name != "all", -counts.get(name, 0), name))
    return [_curve(name, drawn[name], decisions, top) for name in names]


def _curve(name: str, points: Sequence[Sequence[float]], decisions: Decisions, top: float) -> Curve:
    if name == "all":
        marked = [("tuned", "accepted", _operating_point(decisions["test"]))]
        if len(decisions["groups"]) > 1:
            pooled = _operating_point(decisions["pooled"]["test"])
            marked.append(("other", "one threshold for all languages", pooled))
    else:
        marked = [("tuned", "accepted", _point_of_language(name, points, decisions))]
    summary = [f"{words.percent(x)} accepted: {words.tenths(y)} wrong" for x, y in _few(points)]
    return Curve(
        name="All languages" if name == "all" else language(name),
        path="M" + "L".join(f"{position(x):g} {100 - position(y, top):g}" for x, y, _ in points),
        limit=100 - position(decisions["max_error"], top),
        top=top,
        points=tuple(
            (position(place[0]), 100 - position(place[1], top), kind, what + _place(place))
            for kind, what, place in marked
            if place is not None
        ),
        summary="; ".join(summary),
    )


def _operating_point(outcome: Mapping[str, Any]) -> tuple[float, float] | None:
    if outcome["error"] is None:
        return None
    return _share_accepted(outcome), outcome["error"]["value"]


def _point_of_language(
    lang: str, points: Sequence[Sequence[float]], decisions: Decisions
) -> tuple[float, float] | None:
    """Where the threshold of a language's group lies on the language's own curve."""
    group = next((group for group in decisions["groups"] if lang in group["languages"]), None)
    if group is None or group["threshold"] is None:
        return None
    if group["languages"] == [lang]:
        return _operating_point(group["test"])
    reached = [(x, y) for x, y, threshold in points if threshold >= group["threshold"]]
    return reached[-1] if reached else None


def _few(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Some points, evenly spaced, for those who do not see the curve."""
    step = max(len(points) // 5, 1)
    return [(point[0], point[1]) for point in [*points[step - 1 : -1 : step], points[-1]]]


def _place(place: tuple[float, float]) -> str:
    return f": {words.share(place[0])}, {words.tenths(place[1])} wrong"


def _share_accepted(outcome: Mapping[str, Any]) -> float:
    return float(outcome["accepted"] / outcome["count"]) if outcome["count"] else 0.0


def _group_name(group: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> str:
    if group["name"] != _OTHERS:
        return language(group["name"])
    return "all other languages" if len(groups) > 1 else "all languages"


def exact(part: float) -> str:
    """A share that was asked for, as it was written: ``2.5 %``."""
    return f"{100 * part:.6g}\N{NO-BREAK SPACE}%"
