"""ingest.html as text: well-formed, self-contained, escaped, honest. A browser sees it in e2e/."""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsed_page import Page
from slant.errors import InputError
from slant.ingest.report_html import render_report
from slant.ingest.report_words import count, excerpt, legible, reliability, share
from unit.ingest.sample_ingest_report import sample_ingest_report

HOSTILE = (
    """</script><img src=x onerror=alert(1)>"' onload=alert(1) {{ 7 * 7 }} </table> &amp; <b>"""
)
PARTS = sorted(set(sample_ingest_report()) - {"schema"})


def page_of(report: dict[str, Any]) -> Page:
    page = Page(render_report(report))
    assert page.problems == []
    return page


@functools.cache
def sample_page() -> Page:
    return page_of(sample_ingest_report())


def finding_of(report: dict[str, Any]) -> str:
    return page_of(report).text.partition("Worth a look")[2].partition("What became of")[0]


# --- what it says --------------------------------------------------------------------------------


def test_the_summary_accounts_for_every_row() -> None:
    text = sample_page().text
    assert (
        "4 905 labelled examples and 11 680 documents in 5 languages, "
        "from 15 031 rows of 6 sources." in text
    )
    assert (
        "13 595 of 15 031 rows (90 %) were kept; 673 were duplicates, 240 were not used and "
        "523 could not be used and were set aside." in text
    )
    assert "Spanish (36 %), Russian (27 %), Chinese (21 %), Tagalog (10 %) and English" in text


def test_documents_without_a_language_are_named_but_are_no_language() -> None:
    report = sample_ingest_report()
    report["breakdown"]["language"].append({"value": "und", "documents": 320, "examples": {}})
    text = page_of(report).text
    assert "in 5 languages" in text
    assert "and Unknown (2.7 %)" in text


def test_what_deserves_a_look_is_named() -> None:
    found = finding_of(sample_ingest_report())
    assert "trams: test has 9 of 10 examples" in found
    assert "5 groups of rows with the same text and narrative but different labels" in found
    assert "alpha is below 0.667 for Tagalog (0.52)" in found
    assert "positive in Russian (8.0 %)" in found
    assert "786 of 10 160 documents with a given language (7.7 %)" in found
    assert "longer than 1 024 tokens and will be cut in the middle: Russian (5.8 %)" in found


def clean_report() -> dict[str, Any]:
    report = sample_ingest_report()
    report["duplicates"].update(num_contradictions=0, contradictions=[])
    report["languages"].update(disagreements=[], undetermined=0)
    report["judgements"]["tl"].update(alpha=0.7)
    report["lengths"]["by_language"]["ru"].update(over_limit=2)
    report["short"] = []
    for split in report["examples"].values():
        split["ru"] = {"negative": 30, "neutral": 30, "positive": 30}
    return report


def test_a_clean_ingest_asks_for_no_second_look() -> None:
    text = page_of(clean_report()).text
    assert "Nothing here asks for a second look." in text
    assert "Worth a look" not in text
    assert "No labels contradict each other." in text
    assert "No given language contradicts its text." in text


@pytest.mark.parametrize(("count_", "named"), [(508, False), (509, True)])
def test_disagreeing_languages_are_named_above_five_percent(count_: int, named: bool) -> None:
    report = clean_report()
    report["languages"]["disagreements"] = [
        {"given": "tl", "identified": "en", "count": count_, "samples": []}
    ]
    assert ("look like another" in finding_of(report)) is named


@pytest.mark.parametrize(("alpha", "named"), [(0.667, False), (0.66, True), (None, False)])
def test_an_alpha_below_its_authors_bound_is_named(alpha: float | None, named: bool) -> None:
    report = clean_report()
    report["judgements"]["tl"]["alpha"] = alpha
    assert ("agree too little" in finding_of(report)) is named


def test_the_bounds_of_alpha_are_krippendorffs() -> None:
    assert reliability(0.8) == "reliable"
    assert reliability(0.79) == reliability(0.667) == "tentative conclusions"
    assert reliability(0.666) == "too low to rely on"
    assert reliability(-0.1) == "no better than chance"


@pytest.mark.parametrize(("positive", "named"), [(20, False), (19, True), (0, True)])
def test_a_label_is_rare_below_a_tenth_of_a_language(positive: int, named: bool) -> None:
    report = clean_report()
    labels = {"negative": 100, "neutral": 200 - 100 - positive, "positive": positive}
    report["examples"] = {"train": {"zh": labels}}
    assert ("positive in Chinese" in finding_of(report)) is named


def test_a_source_that_holds_most_rejects_is_named() -> None:
    report = clean_report()
    assert "of all rows set aside" not in finding_of(report)
    report["sources"][0]["rejected"], report["sources"][4]["rejected"] = 9, 800
    assert "social/tl-posts.parquet, holds 92 % of all rows set aside" in finding_of(report)


def test_nothing_kept_is_the_first_thing_said() -> None:
    report = sample_ingest_report()
    report["documents"] = {"labelled": 0, "unlabelled": 0}
    assert finding_of(report).split("!")[1].strip().startswith("No document was kept.")


def test_a_sample_of_lengths_is_called_one() -> None:
    report = sample_ingest_report()
    assert "(in a sample of at most 1 000 each)" in page_of(report).text
    report["documents"] = {"labelled": 2000, "unlabelled": 3000}
    assert "in a sample" not in page_of(report).text


def test_a_sample_row_stands_under_the_reason_without_its_details() -> None:
    _, _, text = sample_page().text.rpartition("What is not in the result")
    reasons = text.partition("fewer than min_characters (20)")[2].partition("near duplicate")[0]
    assert reasons.endswith(
        "365 31 % social/tl-posts.parquet, row 17 charot lang! "
        "11 characters, fewer than min_characters (20) "
    )


def test_a_month_without_documents_keeps_its_place_on_the_axis() -> None:
    page = sample_page()
    bars = [float(rect["x"] or 0) for rect in page.all("rect") if rect.get("class") == "documents"][
        :21
    ]
    gaps = [round(b - a, 1) for a, b in itertools.pairwise(bars)]
    assert len(set(gaps)) == 2  # one gap is twice as wide as all others
    assert max(gaps) == pytest.approx(2 * min(gaps), abs=0.2)
    assert "214 documents without a date." in page.text


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (["2026-01"], "month"),
        (["2017-01", "2026-12"], "month"),
        (["2016-12", "2026-12"], "year"),
        (["1850-05", "2026-12"], "decade"),
        (["0001-01", "9999-12"], "century"),
    ],
)
def test_a_long_time_is_shown_in_longer_periods(values: list[str], unit: str) -> None:
    report = sample_ingest_report()
    report["breakdown"]["month"] = [
        {"value": value, "documents": 3, "examples": {}} for value in values
    ]
    assert f"Documents by {unit}" in page_of(report).text


# --- figures -------------------------------------------------------------------------------------


def test_a_million_rows_are_read_in_groups_of_three() -> None:
    report = sample_ingest_report()
    report["sources"][0].update(rows=1_000_000, kept=999_999, duplicates=0, rejected=1)
    html = render_report(report)
    assert "999\u202f999" in html
    text = page_of(report).text
    assert "999 999 > 99 %" in text  # all is said only where it is true
    assert "1 < 0.1 %" in text


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_shares_say_all_and_nothing_only_where_they_are_true(part: int, rest: int) -> None:
    whole = part + rest
    assert share(part, whole) != share(1, 1)
    assert (share(part, whole) == share(0, 1)) is (part == 0)


@given(st.integers(0, 10**12))
def test_separators_change_no_digit(number: int) -> None:
    assert int(count(number).replace("\u202f", "")) == number


@given(st.text())
def test_any_text_can_be_shown_and_stored(text: str) -> None:
    shown = excerpt(legible(text)) + legible(text)
    shown.encode("utf-8")
    assert "\n" not in shown
    assert "\0" not in shown


def test_half_a_surrogate_pair_can_be_stored() -> None:
    report = sample_ingest_report()
    for place in (report["rejected_samples"][0], report["duplicates"]["contradictions"][0]):
        place["start"] = "\ud83d half"
    report["breakdown"]["narrative"][0]["value"] = "\udc00"
    report["reasons"]["unknown label '\ud800'"] = 2
    assert "\ufffd half" in render_report(report).encode("utf-8").decode()


# --- escaping ------------------------------------------------------------------------------------


def hostile_report() -> dict[str, Any]:
    report = sample_ingest_report()
    report["sources"][0].update(file=HOSTILE, dataset=HOSTILE)
    for languages in report["examples"].values():
        languages[HOSTILE] = {HOSTILE: 60, "neutral": 3}
    for entries in report["breakdown"].values():
        entries[0]["value"] = HOSTILE
    for entry in report["languages"]["disagreements"]:
        entry.update(given=HOSTILE)
        for sample in entry["samples"]:
            sample.update(id=HOSTILE, start=HOSTILE)
    report["lengths"]["by_language"][HOSTILE] = report["lengths"]["by_language"]["es"]
    for one in report["duplicates"]["contradictions"]:
        one.update(
            places=[HOSTILE, f"a: {HOSTILE}"], narrative=HOSTILE, start=HOSTILE, kind=HOSTILE
        )
    report["cleaning"]["kinds"][HOSTILE] = 3
    report["judgements"][HOSTILE] = {**report["judgements"]["es"], "alpha": 0.1}
    report["reasons"][HOSTILE] = report["notes"][HOSTILE] = 5
    for sample in report["rejected_samples"]:
        sample.update(reason=HOSTILE, file=HOSTILE, start=HOSTILE)
    report["short"] = report["warnings"] = [HOSTILE]
    return report


def test_hostile_text_stays_text() -> None:
    harmless, hostile = sample_page(), page_of(hostile_report())
    assert len(hostile.all("script")) == 1
    assert not hostile.all("img")
    assert "{{ 7 * 7 }}" in hostile.text
    assert "onerror=alert(1)>" in hostile.text  # shown as it was written
    known = {name for _, attributes in harmless.tags for name in attributes}
    assert {name for _, attributes in hostile.tags for name in attributes} <= known


def test_the_only_script_is_ours_and_the_policy_names_its_digest() -> None:
    page = page_of(hostile_report())
    (script,) = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (m["content"] or "" for m in page.all("meta") if "http-equiv" in m)
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = page_of(hostile_report())
    links = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "srcset", "action", "poster", "data"}
    ]
    assert all(link.startswith("#") for link in links)
    assert all(url.startswith("#") for url in re.findall(r"url\(\s*['\"]?([^)]*)", page.html))
    assert not page.all("link")


@pytest.mark.parametrize(
    "text", ["外国势力操纵抗议活动", "Вакцины опаснее", "الهجرة تهدد الاقتصاد"]
)
def test_narratives_of_any_script_are_shown_in_their_own_direction(text: str) -> None:
    page = sample_page()
    assert text in page.text
    assert re.search(rf'<span lang="" dir="auto">{text}', page.html)


# --- what is absent ------------------------------------------------------------------------------


def test_an_empty_report_is_a_page() -> None:
    page = page_of({"schema": "slant.ingest/2"})
    assert "0 documents." in page.text
    assert "No document was kept." in page.text
    assert len(page.all("section")) == 1
    assert render_report(dict.fromkeys(PARTS) | {"schema": "slant.ingest/2"}) == page.html


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("absent", [True, False])
def test_each_part_may_be_absent_or_empty(part: str, absent: bool) -> None:
    report = sample_ingest_report()
    value = report.pop(part)
    if not absent:
        report[part] = None if isinstance(value, int) else type(value)()
    page = page_of(report)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {f"#{name}" for name in ids} >= {link["href"] for link in page.all("a")}
    assert {"finding"} < {section["id"] for section in page.all("section")}


def test_no_documents_at_all_make_no_empty_sections() -> None:
    report = sample_ingest_report()
    report["documents"] = {"labelled": 0, "unlabelled": 0}
    report["examples"] = {"train": {}, "test": {}}
    report["breakdown"] = {name: [] for name in report["breakdown"]}
    report["lengths"] = {"unit": "characters", "limit": None, "by_language": {}}
    report["languages"] = {"given": 0, "identified": 0, "undetermined": 0, "disagreements": []}
    report["duplicates"] = {"exact": 0, "near": 0, "clusters": 0, "contradictions": []}
    report["judgements"], report["notes"] = {}, {}
    report["cleaning"] = {"documents_changed": 0, "kinds": {}}
    sections = [section["id"] for section in page_of(report).all("section")]
    assert sections == ["finding", "sources", "rejected"]


def test_lengths_in_characters_without_a_limit_have_no_mark() -> None:
    report = sample_ingest_report()
    report["lengths"].update(unit="characters", limit=None)
    page = page_of(report)
    assert "Length in characters" in page.text
    assert not [path for path in page.all("path") if path.get("class") == "mark"]
    assert "over the limit" not in page.text


def test_empty_texts_have_a_length_of_their_own() -> None:
    report = sample_ingest_report()
    report["lengths"]["by_language"] = {
        "es": {**report["lengths"]["by_language"]["es"], "histogram": [[0, 2], [1, 3], [2, 1]]}
    }
    html = render_report(report)
    assert "<title>0 tokens: 2 documents" in html
    assert "<title>1 tokens: 3 documents" in html


@pytest.mark.parametrize("number", [1, 2, 3, 5, 9])
def test_any_number_of_labels_has_its_own_tone(number: int) -> None:
    report = sample_ingest_report()
    report["examples"] = {"train": {"es": {f"label {i}": 10 for i in range(number)}}}
    report["breakdown"] = {}
    page = page_of(report)
    tones = {
        (span["class"], span.get("style"))
        for span in page.all("span")
        if (span.get("title") or "").startswith("label")
    }
    assert len(tones) == number


def test_hundreds_of_sources_are_drawn_as_some_and_the_rest() -> None:
    report = sample_ingest_report()
    source = report["sources"][0]
    report["sources"] = [{**source, "file": f"part-{i:03}.jsonl"} for i in range(300)]
    page = page_of(report)
    assert "280 smaller sources" in page.text
    assert "part-019.jsonl" in page.text
    assert "part-020.jsonl" not in page.text


# --- the page as a whole -------------------------------------------------------------------------


def test_the_same_report_gives_the_same_page_and_stays_as_it_was() -> None:
    report = sample_ingest_report()
    before = copy.deepcopy(report)
    assert render_report(report) == render_report(before)
    assert report == before


def test_every_picture_is_named_or_hidden() -> None:
    page = sample_page()
    pictures = page.all("svg")
    named = sum(svg.get("role") == "img" for svg in pictures)
    assert named + sum(svg.get("aria-hidden") == "true" for svg in pictures) == len(pictures)
    assert len(re.findall(r"<svg[^>]*role=\"img\"[^>]*>\s*<title>[^<]", page.html)) == named
    stacks = [div for div in page.all("div") if div.get("class") == "stack"]
    assert stacks
    assert all(div.get("aria-label") for div in stacks)


def test_tables_have_captions_and_their_heads_a_scope() -> None:
    page = sample_page()
    assert len(page.all("caption")) == len(page.all("table")) == 7
    assert all(th.get("scope") for th in page.all("th"))


def test_another_schema_is_refused() -> None:
    with pytest.raises(InputError, match=r"slant\.ingest/1"):
        render_report({"schema": "slant.ingest/1"})
