"""report.html as text: well-formed, self-contained, escaped, honest. A browser sees it in e2e/."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from typing import Any

import pytest

from parsed_page import Page
from slant.errors import InputError
from slant.evaluate.report_html import render_report
from unit.evaluate.sample_report import sample_report

GPT_4 = "endpoint:gpt-4"
HOSTILE = """<script>alert('x')</script>"' onload=alert(1) {{ 7 * 7 }} </blockquote> &amp; <b>"""


def page_of(report: dict[str, Any]) -> Page:
    page = Page(render_report(report))
    assert page.problems == []
    return page


def comparison(report: dict[str, Any], system: str) -> dict[str, Any]:
    return next(entry for entry in report["comparisons"] if entry["system"] == system)


def without(report: dict[str, Any], *ids: str) -> dict[str, Any]:
    report["systems"] = [s for s in report["systems"] if s["id"] not in ids]
    report["comparisons"] = [c for c in report["comparisons"] if c["system"] not in ids]
    return report


def test_the_headline_compares_with_the_model_behind_an_endpoint() -> None:
    report = sample_report()
    comparison(report, GPT_4)["macro_f1"].update(value=0.13, low=0.1, high=0.16)
    text = page_of(report).text
    assert (
        "0.79 macro-F1 [0.76, 0.81] on 1,222 held-out examples; "
        "13 points better than gpt-4 [10, 16]." in text
    )
    assert (
        "$0.014 per 1,000 answers instead of $10.42 (1/766 of that); "
        "38 ms for one document instead of 612 ms (16 times as fast)." in text
    )
    assert "Clearly better than all 4 other systems." in text


def test_without_an_endpoint_the_headline_compares_with_prompting_the_base_model() -> None:
    text = page_of(without(sample_report(), GPT_4)).text
    assert "33 points better than prompting the same base model [29, 36]" in text


def test_without_a_prompted_baseline_the_hardest_other_one_is_named() -> None:
    text = page_of(without(sample_report(), GPT_4, "prompted")).text
    assert "23 points better than TF-IDF and logistic regression" in text


def test_the_strongest_of_several_endpoints_is_the_one_to_beat() -> None:
    report = sample_report()
    other = copy.deepcopy(report["systems"][1])
    other.update(id="endpoint:small", name="small")
    other["overall"]["macro_f1"]["value"] = 0.3
    report["systems"].insert(1, other)
    report["comparisons"].insert(0, {**comparison(report, GPT_4), "system": "endpoint:small"})
    assert "better than gpt-4" in page_of(report).text


def test_an_unclear_outcome_is_no_clear_difference() -> None:
    report = sample_report()
    comparison(report, GPT_4)["macro_f1"].update(value=0.01, low=-0.03, high=0.05)
    comparison(report, GPT_4)["outcome"] = "unclear"
    text = page_of(report).text
    assert "no clear difference from gpt-4: +1 point [\N{MINUS SIGN}3, +5]" in text
    assert "Not clearly better than gpt-4." in text


def test_a_model_worse_than_another_system_is_called_worse() -> None:
    report = sample_report()
    comparison(report, "tfidf")["macro_f1"].update(value=-0.06, low=-0.1, high=-0.02)
    comparison(report, "tfidf")["outcome"] = "worse"
    text = page_of(report).text
    assert "Worse than TF-IDF and logistic regression." in text
    assert "tuned is 6 points worse [2, 10]" in text


def test_a_dearer_and_slower_model_is_said_to_be_so() -> None:
    report = sample_report()
    report["systems"][0]["cost"]["usd_per_1000"] = 20.84
    report["systems"][0]["latency"]["p50"] = 1224.0
    text = page_of(report).text
    assert "$20.84 per 1,000 answers instead of $10.42 (2.0 times as much)" in text
    assert "1,224 ms for one document instead of 612 ms (2.0 times as long)" in text


def test_without_any_other_system_the_page_says_so() -> None:
    report = sample_report()
    report["systems"], report["comparisons"] = report["systems"][:1], []
    text = page_of(report).text
    assert "Measured against no other system." in text
    assert "Against the others" not in text


def test_an_endpoint_that_was_not_asked_to_the_end_is_a_notice() -> None:
    text = page_of(sample_report()).text
    assert (
        "gpt-4.1 was not asked to the end: its budget of $5.00 is spent. It answered 431 of 1,222 "
        "examples for $4.99 and is in no comparison." in text
    )


def test_the_gate_is_a_table_of_what_is_met() -> None:
    text = page_of(sample_report()).text
    assert "Gate: 2 of 3 bounds met" in text
    assert "Macro-F1 Tagalog at least 0.7 0.680 ✗ not met" in text
    assert "ECE overall at most 0.05 0.028 ✓ met" in text
    assert "Gate" not in page_of({**sample_report(), "gate": []}).text


def test_a_metric_that_was_not_measured_does_not_meet_its_bound() -> None:
    report = sample_report()
    report["gate"] = [
        {"metric": "auroc", "where": "every language", "bound": 0.8, "value": None, "met": False}
    ]
    assert "AUROC every language at least 0.8 – ✗ not met" in page_of(report).text


def test_quality_cost_latency_and_missing_answers_stand_in_one_row() -> None:
    text = page_of(sample_report()).text
    row = "$10.42 612 ms 1,483 ms 12: 8 unreadable, 3 refused, 1 failed"
    assert f"gpt-4 0.66 [0.63, 0.68] 0.68 [0.65, 0.70] {row}" in text
    assert "Majority class 0.22 [0.19, 0.24] 0.24 [0.21, 0.26] – – – 0" in text


def test_cost_is_drawn_where_two_systems_have_a_price() -> None:
    report = sample_report()
    assert "TF-IDF and logistic regression: 0.56 at $0.00060" in page_of(report).text
    for system in report["systems"][1:]:
        system["cost"] = None
    assert "Macro-F1 by the cost" not in page_of(report).text
    report["systems"][1]["cost"] = {"usd": 0.0, "usd_per_1000": 0.0, "basis": "nothing"}
    assert "Macro-F1 by the cost" not in page_of(report).text


def test_each_language_says_whether_the_difference_is_one() -> None:
    text = page_of(sample_report()).text
    assert "Against gpt-4: better overall and in es, ru, zh, tl; no evidence" in text
    assert "<0.001 51 : 12 ▲ better" in text
    assert "1.000 11 : 8 ≈ unclear" in text


def test_the_same_report_gives_the_same_page() -> None:
    assert render_report(sample_report()) == render_report(copy.deepcopy(sample_report()))


def test_rendering_leaves_the_report_as_it_was() -> None:
    report = sample_report()
    render_report(report)
    assert report == sample_report()


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = page_of(sample_report())
    links = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "srcset", "action", "poster", "data"}
    ]
    assert links
    assert all(link.startswith("#") for link in links)
    assert all(url.startswith("#") for url in re.findall(r"url\(\s*['\"]?([^)]*)", page.html))
    assert "@import" not in page.html
    assert not page.all("link")
    assert not page.all("img")


def test_links_lead_to_sections_that_exist() -> None:
    for mistakes in (0, 3):
        page = page_of(sample_report(num_mistakes=mistakes))
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(set(ids)) == len(ids)
        assert {f"#{name}" for name in ids} >= {a["href"] for a in page.all("a")}


def test_the_only_script_is_ours_and_the_policy_names_its_digest() -> None:
    page = page_of(sample_report())
    (script,) = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def hostile_report() -> dict[str, Any]:
    report = sample_report(labels=(HOSTILE, "neutral", "positive"))
    report["task"].update(base=HOSTILE, prompt=HOSTILE, prompt_overall=HOSTILE)
    report["machine"]["processor"] = HOSTILE
    report["data"]["languages"].append(HOSTILE)
    report["unfinished"][0].update(name=HOSTILE, reason=HOSTILE)
    report["gate"][0].update(where=HOSTILE)
    report["calibration"]["languages"][HOSTILE] = report["calibration"]["languages"]["es"]
    for entry in report["comparisons"]:
        entry["sentence"] = HOSTILE
        entry["languages"][HOSTILE] = entry["languages"]["es"]
    decisions = report["decisions"]
    decisions["groups"][0].update(name=HOSTILE, languages=[HOSTILE])
    decisions["groups"][3].update(reason=HOSTILE)
    decisions["curve"][HOSTILE] = decisions["curve"]["es"]
    report["training"]["adapt"]["perplexity"][HOSTILE] = {"before": 3.0, "after": 2.0}
    for mistake in report["mistakes"]:
        for key in ("text", "narrative", "document_id", "lang", "source"):
            mistake[key] = HOSTILE
    for system in report["systems"]:
        system["name"] = system["description"] = HOSTILE
        if system["cost"]:
            system["cost"]["basis"] = HOSTILE
        for slices in system["slices"].values():
            slices[HOSTILE] = slices[next(iter(slices))]
    return report


def test_hostile_text_stays_text() -> None:
    harmless, hostile = page_of(sample_report()), page_of(hostile_report())
    assert len(hostile.all("script")) == 1
    assert "<b>" in hostile.text  # shown as it was written
    assert "{{ 7 * 7 }}" in hostile.text
    assert HOSTILE in (hostile.all("blockquote")[0]["lang"] or "")
    known = {name for _, attributes in harmless.tags for name in attributes}
    assert {name for _, attributes in hostile.tags for name in attributes} <= known


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_any_number_of_labels_has_its_row_and_column(count: int) -> None:
    labels = tuple(f"label {i}" for i in range(count))
    page = page_of(sample_report(labels=labels))
    cells = [td for td in page.all("td") if td.get("style", "")]
    # One system left some examples without an answer: a column more.
    assert len(cells) == 5 * count * count + count


def test_one_language_makes_no_weakest_language() -> None:
    report = sample_report()
    report["data"]["languages"] = ["es"]
    for system in report["systems"]:
        system["slices"]["lang"] = {"es": system["slices"]["lang"]["es"]}
    assert "Weakest language" not in page_of(report).text


def test_twenty_languages_and_three_hundred_narratives_all_appear() -> None:
    report = sample_report()
    for system in report["systems"]:
        slices = system["slices"]
        slices["lang"] = {f"q{i:02}": slices["lang"]["es"] for i in range(20)}
        slices["narrative"] = {f"claim no. {i}": slices["source"]["blog"] for i in range(300)}
    text = page_of(report).text
    assert all(f"q{i:02}" in text for i in range(20))
    assert all(f"claim no. {i}" in text for i in range(300))


def test_the_missing_parts_of_a_report_are_left_out() -> None:
    report = sample_report(num_mistakes=0)
    report["training"]["adapt"] = None
    report["training"]["tune"].update(losses=[], validation=[])
    for system in report["systems"]:
        system["reliability"] = None
    page = page_of(report)
    assert "Domain adaptation" not in page.text
    assert "No reliability bins were measured." in page.text
    assert "Most confident mistakes" not in page.text
    assert not page.all("blockquote")


def test_a_system_without_price_time_or_beliefs_is_shown_with_dashes() -> None:
    report = sample_report()
    for system in report["systems"]:
        system.update(seconds=None, latency=None, cost=None, tokens=None, reliability=None)
        for metrics in [system["overall"], *system["slices"]["lang"].values()]:
            metrics.update(dict.fromkeys(("auroc", "ece", "brier", "f1_polar")))
    page = page_of(report)
    assert "Tuned model 0.79 [0.76, 0.81] 0.81 [0.78, 0.83] – – – 0" in page.text
    assert "instead of" not in page.text.split("Against the others")[0]
    assert "Brier score" not in page.text


def test_empty_reliability_bins_are_not_drawn() -> None:
    report = sample_report()
    for bin_ in report["systems"][0]["reliability"]["bins"]:
        bin_.update(count=0, confidence=None, accuracy=None)
    assert "No reliability bins were measured." in page_of(report).text


def test_a_test_split_too_small_for_intervals_is_shown_without_them() -> None:
    report = sample_report()
    for system in report["systems"]:
        for metrics in (
            system["overall"],
            *(m for s in system["slices"].values() for m in s.values()),
        ):
            metrics["count"] = 4
            for figure in (*metrics.values(), *metrics["f1"].values()):
                if isinstance(figure, dict) and "low" in figure:
                    figure.update(low=None, high=None)
    for entry in report["comparisons"]:
        entry.update(p_value=None, outcome="unclear")
        for found in (entry, *entry["languages"].values()):
            found["macro_f1"].update(low=None, high=None)
    text = page_of(report).text
    assert "0.79 macro-F1 on 4 held-out examples; no clear difference from gpt-4: +13" in text
    assert "there are too few examples for one here" in text
    assert "The test split is small: 4 examples." in text


def test_a_slice_too_small_for_an_interval_is_marked() -> None:
    page = page_of(sample_report())
    # Catalan in two kinds of tables (one for each other system), a source, a narrative.
    assert sum("few" in (row.get("class") or "") for row in page.all("tr")) == 1 + 4 + 1 + 1
    assert "Narratives with too few test examples for an interval: 1 of 8." in page.text


def test_a_perfect_model_has_no_worst_confusion() -> None:
    report = sample_report()
    report["systems"][0]["confusion"] = [[5, 0, 0, 0], [0, 7, 0, 0], [0, 0, 0, 0]]
    assert "No test example was labelled wrong." in page_of(report).text


def test_the_most_frequent_confusion_is_named() -> None:
    report = sample_report()
    report["systems"][0]["confusion"] = [[50, 3, 2, 90], [4, 40, 11, 0], [1, 2, 60, 0]]
    assert "neutral taken for positive, 11 of 55 times" in page_of(report).text


def test_losses_that_are_no_numbers_are_not_drawn() -> None:
    report = sample_report()
    report["training"]["tune"].update(
        losses=[[1, 1.0], [2, float("nan")], [3, None], [4, float("inf")], [5, 0.5]],
        validation=[[5, float("nan"), 0.6]],
    )
    page = page_of(report)
    paths = " ".join(path["d"] or "" for path in page.all("path"))
    assert "M20 0L100 50" in paths
    assert "nan" not in paths
    assert "inf" not in paths


def test_a_long_training_is_drawn_with_few_points() -> None:
    report = sample_report()
    report["training"]["tune"]["losses"] = [[step, 1 / step] for step in range(1, 50_001)]
    assert len(render_report(report)) < len(render_report(sample_report())) + 10_000


def test_every_picture_is_named_or_hidden() -> None:
    page = page_of(sample_report())
    named = sum(svg.get("role") == "img" for svg in page.all("svg"))
    hidden = sum(svg.get("aria-hidden") == "true" for svg in page.all("svg"))
    assert named + hidden == len(page.all("svg"))
    assert len(re.findall(r"<svg[^>]*role=\"img\"[^>]*>\s*<title>[^<]", page.html)) == named


def test_tables_have_captions_and_their_heads_a_scope() -> None:
    page = page_of(sample_report())
    assert len(page.all("caption")) == len(page.all("table")) == 22
    assert all(th.get("scope") for th in page.all("th"))


def test_texts_carry_their_language() -> None:
    page = page_of(sample_report(num_mistakes=5))
    assert [quote["lang"] for quote in page.all("blockquote")] == ["es", "ru", "zh", "tl", "en"]


def test_a_document_without_language_or_source_is_shown() -> None:
    report = sample_report(num_mistakes=1)
    report["mistakes"][0].update(lang=None, source=None)
    page = page_of(report)
    assert "Unknown · other" in page.text
    assert page.all("blockquote")[0]["lang"] == "und"


def test_scores_and_percentages_of_one_figure_round_alike() -> None:
    report = sample_report()
    report["systems"][0]["overall"]["accuracy"].update(value=0.74, low=0.695, high=0.785)
    text = page_of(report).text
    low, high = re.findall(r"0\.74 \[0\.(\d\d), 0\.(\d\d)\]", text)[0]
    assert f"[{low}, {high}]" in text


def test_another_schema_is_refused() -> None:
    with pytest.raises(InputError, match=r"slant\.report/1"):
        render_report({**sample_report(), "schema": "slant.report/1"})
