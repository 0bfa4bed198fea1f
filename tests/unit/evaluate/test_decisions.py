from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from slant.evaluate.calibration import Temperatures, fit_temperatures
from slant.evaluate.decisions import (
    Asked,
    Decisions,
    Promise,
    calibrate,
    describe_calibration,
    find_decisions,
)
from slant.evaluate.metrics import reliability
from slant.evaluate.selective import least_examples
from slant.score.decision import ACCEPT, decide, probabilities
from slant.task.spec import TaskSpec
from tiny_task import tiny_spec

PROMISE = Promise(max_error=0.1, confidence=0.95, by="language", review_usd=0.25)
PLAIN = Temperatures(1.0, {})


def asked(
    langs: list[str | None],
    skill: dict[str | None, float],
    seed: int = 0,
    keys: list[str] | None = None,
) -> Asked:
    """Examples; the larger the skill of a language, the more often and the surer it is right."""
    random = np.random.default_rng(seed)
    gold = random.integers(0, 3, len(langs))
    logits = random.normal(0, 1, (len(langs), 3))
    for row, lang in enumerate(langs):
        logits[row, gold[row]] += skill[lang]
    keys = keys or [f"{seed}-{i}" for i in range(len(langs))]
    return Asked(logits.astype(np.float32), gold, langs, keys)


def some(**counts: int) -> list[str | None]:
    """``en=3`` → three times en; ``none`` stands for a language that is not known."""
    return [
        None if name == "none" else name.replace("_", "-")
        for name, num in counts.items()
        for _ in range(num)
    ]


def split_of(langs: list[str | None], skill: dict[str | None, float]) -> tuple[Asked, Asked, Asked]:
    """Scouts, proofs and test, of the same kind."""
    scouts, proofs, test = (asked(langs, skill, seed) for seed in range(3))
    return scouts, proofs, test


def found_for(
    langs: list[str | None], skill: dict[str | None, float], promise: Promise = PROMISE
) -> tuple[Decisions, Asked]:
    scouts, proofs, test = split_of(langs, skill)
    return find_decisions(scouts, proofs, test, PLAIN, promise), test


def decided(test: Asked, thresholds: dict[str, float], temperatures: Temperatures) -> list[bool]:
    """What scoring does with the test examples: through the task contract, saved as JSON."""
    spec = tiny_spec().with_temperature(temperatures.pooled, temperatures.by_language)
    spec = spec.with_thresholds(thresholds)
    accepted = []
    for lang, row in zip(test.langs, test.logits_NL, strict=True):
        shares = probabilities(row[None], spec.temperature_of(lang))
        accepted.append(decide(float(shares.max()), lang, dict(spec.thresholds)) == ACCEPT)
    return accepted


# Who fits and who proves


def test_a_third_of_the_documents_fits_temperatures_and_none_of_them_proves() -> None:
    langs = some(en=300, ru=300)
    keys = [f"d-{i // 3}" for i in range(600)]  # three examples of each document
    temperatures, scouts, proofs = calibrate(
        asked(langs, {"en": 2, "ru": 2}, keys=keys), PROMISE, seed=5
    )
    assert not set(scouts.keys) & set(proofs.keys)
    assert len(set(scouts.keys)) == round(200 / 3)
    # No document is torn apart.
    assert set(Counter(scouts.keys).values()) == set(Counter(proofs.keys).values()) == {3}
    assert proofs.num_documents == 200 - round(200 / 3)
    again = fit_temperatures(scouts.logits_NL, scouts.gold_N, scouts.langs)
    assert temperatures == again


def test_examples_keep_their_own_logits_labels_and_languages() -> None:
    calibration = asked(some(en=100, none=80), {"en": 2, None: 1})
    _, scouts, proofs = calibrate(calibration, PROMISE, seed=1)
    place = {key: row for row, key in enumerate(calibration.keys)}
    for part in (scouts, proofs):
        for row, key in enumerate(part.keys):
            whole = place[key]
            assert np.array_equal(part.logits_NL[row], calibration.logits_NL[whole])
            assert part.gold_N[row] == calibration.gold_N[whole]
            assert part.langs[row] == calibration.langs[whole]


def test_where_documents_count_once_every_answer_has_its_turn_to_prove() -> None:
    """Were it always the first, narratives that come first in a file would decide alone."""
    keys = [f"d-{i // 2}" for i in range(400)]
    part = asked(some(en=400), {"en": 9}, keys=keys)
    # The second answer about each document is wrong, and as sure as the first.
    part = replace(part, gold_N=np.where(np.arange(400) % 2, (part.gold_N + 1) % 3, part.gold_N))
    once = replace(PROMISE, counting="documents")
    (group,) = find_decisions(part, part, part, PLAIN, once).report["groups"]
    assert (group["examples"], group["documents"], group["most"]) == (200, 200, 1)
    assert 0.3 < group["wrong"] / group["accepted"] < 0.7


def test_by_answers_a_document_counts_with_all_that_the_scouts_documents_have() -> None:
    few, many = ([f"d-{i // size}" for i in range(300)] for size in (2, 30))
    scouts, proofs, test = (asked(some(en=300), {"en": 9}, seed, few) for seed in range(3))
    found = find_decisions(scouts, proofs, test, PLAIN, PROMISE).report
    (group,) = found["groups"]
    assert (group["examples"], group["documents"], group["most"]) == (300, 150, 2)
    assert (group["threshold"], group["cut"], found["counted"]) == (0, False, "")
    # A document with hundreds of answers would leave nothing to prove.
    scouts = asked(some(en=300), {"en": 9}, 0, many)
    proofs = asked(some(en=3000), {"en": 9}, 1, [f"d-{i // 30}" for i in range(3000)])
    found = find_decisions(scouts, proofs, test, PLAIN, PROMISE).report
    (group,) = found["groups"]
    assert (group["examples"], group["documents"], group["most"]) == (1000, 100, 10)
    assert found["counted"] == "counting at most 10 answers of a document"


def test_one_large_document_does_not_decide_how_many_answers_count() -> None:
    """Ten answers about one of 200 documents: with all of them nothing could be shown."""
    keys = [f"d-{max(0, i - 9)}" for i in range(209)]
    scouts, proofs, test = (asked(some(en=209), {"en": 9}, seed, keys) for seed in range(3))
    found = find_decisions(scouts, proofs, test, PLAIN, PROMISE).report
    (group,) = found["groups"]
    assert (group["examples"], group["most"], group["cut"]) == (200, 1, True)
    assert group["threshold"] == 0
    assert found["counted"] == "counting every document once"


def test_answers_that_count_are_drawn_by_lot_whatever_their_order_in_the_file() -> None:
    keys = [f"d-{i // 3}" for i in range(300)]
    part = asked(some(en=300), {"en": 1.5}, 0, keys)
    backwards = part.at(np.arange(300)[::-1])
    once = replace(PROMISE, counting="documents")
    found = [find_decisions(p, p, p, PLAIN, once).report["groups"] for p in (part, backwards)]
    assert found[0][0]["examples"] == 100
    assert found[0] == found[1]


def test_the_error_on_the_test_split_is_no_surer_than_the_number_of_documents_allows() -> None:
    proofs = asked(some(en=100), {"en": 9}, 1)
    test = asked(some(en=50), {"en": 9}, 2, [f"d-{i // 10}" for i in range(50)])
    error = find_decisions(proofs, proofs, test, PLAIN, PROMISE).report["test"]["error"]
    assert error["value"] == 0
    assert error["high"] == pytest.approx(1 - 0.025 ** (1 / 5), abs=1e-5)


def test_why_nothing_is_accepted_says_how_many_answers_may_be_wrong_together() -> None:
    keys = [f"d-{max(0, i - 30) // 5 + min(i, 30)}" for i in range(60)]  # of five, or of one
    part = asked(some(en=60), {"en": 9}, keys=keys)
    (group,) = find_decisions(part, part, part, PLAIN, PROMISE).report["groups"]
    assert group["threshold"] is None
    assert group["reason"] == (
        "too few answers are confident enough, for documents of up to 5 answers that may be wrong "
        "together (counting: documents takes fewer examples)"
    )
    once = replace(PROMISE, counting="documents")
    (group,) = find_decisions(part, part, part, PLAIN, once).report["groups"]
    assert group["threshold"] == 0


def test_the_seed_decides_who_proves_and_the_order_of_the_file_does_not() -> None:
    calibration = asked(some(en=200), {"en": 2})
    backwards = calibration.at(np.arange(200)[::-1])

    def proving(which: Asked, seed: int) -> set[str]:
        return set(calibrate(which, PROMISE, seed)[2].keys)

    assert proving(calibration, 3) == proving(calibration, 3) == proving(backwards, 3)
    assert proving(calibration, 3) != proving(calibration, 4)


@pytest.mark.parametrize(("promise", "num"), [(None, 300), (PROMISE, 42)])
def test_all_examples_fit_temperatures_where_nothing_is_or_can_be_proved(
    promise: Promise | None, num: int
) -> None:
    calibration = asked(some(en=num), {"en": 2})
    temperatures, scouts, proofs = calibrate(calibration, promise, seed=0)
    assert list(scouts.keys) == list(calibration.keys)
    assert len(proofs.keys) == 0
    assert temperatures == fit_temperatures(
        calibration.logits_NL, calibration.gold_N, calibration.langs
    )


def test_as_soon_as_something_can_be_proved_a_third_is_left_to_fit() -> None:
    needed = least_examples(PROMISE.max_error, PROMISE.confidence)
    calibration = asked(some(en=44), {"en": 2})
    _, scouts, proofs = calibrate(calibration, PROMISE, seed=0)
    assert (len(scouts.keys), len(proofs.keys)) == (15, needed)


def test_an_empty_calibration_split_decides_nothing_and_leaves_temperatures_at_one() -> None:
    nothing = asked([], {})
    temperatures, scouts, proofs = calibrate(nothing, PROMISE, seed=0)
    assert temperatures == Temperatures(1.0, {})
    test = asked(some(en=20), {"en": 3})
    found = find_decisions(scouts, proofs, test, temperatures, PROMISE)
    assert found.report["test"] == {"count": 20, "accepted": 0, "wrong": 0, "error": None}
    (group,) = found.report["groups"]
    assert (group["threshold"], group["reason"]) == (
        None,
        "0 calibration documents are left for the proof; it takes 29",
    )
    assert not any(decided(test, dict(found.thresholds), temperatures))


# Groups


def test_languages_with_enough_examples_have_their_own_threshold_and_the_rest_share_one() -> None:
    langs = some(en=120, ru=58, tl=57, zh=10, none=9)
    found, test = found_for(langs, dict.fromkeys([*langs], 3.0))
    members = {group["name"]: group["languages"] for group in found.report["groups"]}
    assert members == {"*": ["tl", "und", "zh"], "en": ["en"], "ru": ["ru"]}
    assert [group["examples"] for group in found.report["groups"]] == [76, 120, 58]
    assert sum(group["test"]["count"] for group in found.report["groups"]) == len(test.keys)
    assert set(found.thresholds) == {"*", "en", "ru"}


def test_by_all_there_is_one_threshold_and_it_is_the_pooled_one() -> None:
    langs = some(en=120, ru=120)
    skill: dict[str | None, float] = {"en": 5.0, "ru": 1.0}
    found, _ = found_for(langs, skill, replace(PROMISE, by="all"))
    (group,) = found.report["groups"]
    assert (group["name"], group["languages"]) == ("*", ["en", "ru"])
    assert group == found.report["pooled"]
    by_language, _ = found_for(langs, skill)
    assert by_language.report["pooled"] == found.report["pooled"]
    assert set(by_language.thresholds) == {"en", "ru"}


def test_variants_of_a_language_go_by_that_of_the_language() -> None:
    langs = some(pt=80, pt_BR=20, zh_TW=70, zh=10)
    found, test = found_for(langs, dict.fromkeys([*langs], 3.0))
    members = {group["name"]: group["languages"] for group in found.report["groups"]}
    # zh itself has too few for its own, and may not go by that of Taiwan.
    assert members == {"*": ["zh"], "pt": ["pt", "pt-BR"], "zh-tw": ["zh-TW"]}
    counts = {group["name"]: group["examples"] for group in found.report["groups"]}
    assert counts == {"*": 10, "pt": 100, "zh-tw": 70}
    assert found.report["test"]["accepted"] == sum(decided(test, dict(found.thresholds), PLAIN))


def test_a_language_that_fails_does_not_fall_to_the_threshold_of_others() -> None:
    langs = some(en=100, ru=100, tl=50, zh=50)
    skill: dict[str | None, float] = {"en": 6.0, "ru": -1.0, "tl": 6.0, "zh": 6.0}
    found, test = found_for(langs, skill)
    groups = {group["name"]: group for group in found.report["groups"]}
    assert groups["*"]["threshold"] is not None
    assert groups["ru"]["threshold"] is None
    assert groups["ru"]["reason"] == "too many of the most confident answers are wrong"
    assert groups["ru"]["test"]["accepted"] == 0
    accepted = decided(test, dict(found.thresholds), PLAIN)
    by_lang = Counter(lang for lang, yes in zip(test.langs, accepted, strict=True) if yes)
    assert by_lang["ru"] == 0
    assert by_lang["en"] > 50
    # Not even a prediction that is entirely sure.
    assert decide(1.0, "ru", found.thresholds) == "review"
    assert decide(1.0, "ru-RU", found.thresholds) == "review"


def test_all_answers_of_a_language_that_is_never_seen_go_by_the_rest_or_to_people() -> None:
    with_rest, _ = found_for(some(en=100, tl=50), {"en": 6.0, "tl": 6.0})
    assert decide(1.0, "sw", with_rest.thresholds) == "accept"
    without, _ = found_for(some(en=100), {"en": 6.0})
    assert set(without.thresholds) == {"en", "und"}
    # It is the project's only language: a document that tells none is taken to be in it.
    assert decide(1.0, None, without.thresholds) == "accept"
    assert decide(1.0, "sw", without.thresholds) == "review"


def test_a_test_split_with_languages_that_calibration_lacks_is_decided_by_the_rest() -> None:
    scouts, proofs = (asked(some(en=100), {"en": 6.0}, seed) for seed in range(2))
    test = asked(some(en=10, ru=10, none=5), {"en": 6.0, "ru": 6.0, None: 6.0}, 2)
    found = find_decisions(scouts, proofs, test, PLAIN, PROMISE)
    groups = {group["name"]: group for group in found.report["groups"]}
    assert groups["*"]["languages"] == ["ru", "und"]
    assert groups["*"]["reason"] == "0 calibration documents are left for the proof; it takes 29"
    assert groups["*"]["test"] == {"count": 15, "accepted": 0, "wrong": 0, "error": None}
    assert found.report["test"]["accepted"] == sum(decided(test, dict(found.thresholds), PLAIN))


def test_documents_that_say_their_language_is_not_known_are_like_those_that_say_nothing() -> None:
    """``und`` is BCP 47 for it, and a file may well hold it."""
    langs = some(und=80, none=10)
    found, test = found_for(langs, {"und": 5.0, None: 5.0})
    assert found.report["test"]["accepted"] == sum(decided(test, dict(found.thresholds), PLAIN))


def test_the_validation_split_proposes_thresholds_and_proves_none() -> None:
    """It chose the weights, and looks better than it is; the proofs decide."""
    langs = some(en=100)
    fitted, proofs, test = split_of(langs, {"en": 1.0})
    flattering = asked(some(en=500), {"en": 9.0}, 3)
    together = fitted + flattering
    assert len(together.keys) == len(together.langs) == len(together.gold_N) == 600
    assert np.array_equal(together.logits_NL[100:], flattering.logits_NL)
    found = find_decisions(together, proofs, test, PLAIN, PROMISE)
    assert found.report["examples"] == 100
    assert found.report["groups"][0]["threshold"] is None
    # The control: with proofs like them it would be accepted.
    assert find_decisions(together, flattering, test, PLAIN, PROMISE).thresholds["en"] < 1


# What the report says is what is done


@pytest.mark.parametrize("by", ["language", "all"])
def test_thresholds_in_the_task_contract_decide_as_the_report_says(by: str, tmp_path: Any) -> None:
    langs = some(en=150, ru=120, tl=60, zh=9, pt_BR=30, none=20)
    skill: dict[str | None, float] = {
        "en": 3.0, "ru": 1.5, "tl": 0.0, "zh": 2.0, "pt-BR": 2.5, None: 2.0,
    }  # fmt: skip
    calibration, test = asked(langs * 3, skill, 7), asked(langs, skill, 8)
    promise = replace(PROMISE, by=by)
    temperatures, scouts, proofs = calibrate(calibration, promise, seed=4)
    found = find_decisions(scouts, proofs, test, temperatures, promise)
    spec = tiny_spec().with_temperature(temperatures.pooled, temperatures.by_language)
    spec.with_thresholds(found.thresholds).save(tmp_path)
    loaded = TaskSpec.load(tmp_path)
    accepted = decided(test, dict(loaded.thresholds), temperatures)
    right = test.logits_NL.argmax(axis=1) == test.gold_N
    outcome = found.report["test"]
    assert 0 < outcome["accepted"] < outcome["count"] == len(langs)
    assert outcome["accepted"] == sum(accepted)
    assert outcome["wrong"] == sum(
        yes and not ok for yes, ok in zip(accepted, right.tolist(), strict=True)
    )
    assert outcome["error"]["value"] == pytest.approx(
        outcome["wrong"] / outcome["accepted"], abs=1e-5
    )
    assert outcome["error"]["low"] <= outcome["error"]["value"] <= outcome["error"]["high"]
    for name in ("accepted", "wrong", "count"):
        assert outcome[name] == sum(group["test"][name] for group in found.report["groups"])
    people = 1 - outcome["accepted"] / outcome["count"]
    assert found.report["review_usd_per_1000"] == pytest.approx(1000 * people * 0.25, abs=0.01)
    assert found.report["examples"] == len(proofs.keys)
    assert json.loads(json.dumps(found.report)) == found.report


def test_thresholds_are_of_the_calibrated_confidence() -> None:
    """In one language it changes hardly any order: about the same answers, another threshold."""
    scouts, proofs, test = split_of(some(en=300), {"en": 2.2})
    cold, warm = (
        find_decisions(scouts, proofs, test, Temperatures(t, {}), PROMISE) for t in (0.5, 2.0)
    )
    assert cold.thresholds["en"] > warm.thresholds["en"] > 1 / 3
    accepted = [found.report["test"]["accepted"] for found in (cold, warm)]
    assert accepted[0] == pytest.approx(accepted[1], abs=20)
    assert 20 < accepted[0] < 280


def test_curves_are_of_all_and_of_each_language_that_is_not_alone() -> None:
    found, test = found_for(some(en=150, none=40), {"en": 3.0, None: 1.0})
    curve = found.report["curve"]
    assert list(curve) == ["all", "en", "und"]
    for points in curve.values():
        assert 0 < len(points) <= 100
        assert points[-1][0] == 1
    wrong = (test.logits_NL.argmax(axis=1) != test.gold_N).mean()
    assert curve["all"][-1][1] == pytest.approx(wrong, abs=1e-5)
    alone, _ = found_for(some(en=150), {"en": 3.0})
    assert list(alone.report["curve"]) == ["all"]


def test_the_promise_holds_for_every_language_from_calibration_to_scoring() -> None:
    """Sixty times calibrated and decided anew, with a model that is too sure of itself."""
    skill: dict[str | None, float] = {"en": 2.5, "tl": 1.2}
    truth = {}
    for lang, level in skill.items():
        population = asked([lang] * 20_000, {lang: level}, 1000)
        truth[lang] = replace(population, logits_NL=population.logits_NL * 3)
    nothing = asked([], {})
    broken: Counter[str] = Counter()
    found_any: Counter[str] = Counter()
    for seed in range(60):
        calibration = asked(some(en=180, tl=180), skill, seed)
        calibration = replace(calibration, logits_NL=calibration.logits_NL * 3)
        temperatures, scouts, proofs = calibrate(calibration, PROMISE, seed)
        found = find_decisions(scouts, proofs, nothing, temperatures, PROMISE)
        for lang, population in truth.items():
            accepted, wrong = population.answered(temperatures).accepted(found.thresholds[lang])
            found_any[lang] += accepted > 0
            broken[lang] += wrong > 0.1 * max(1, accepted)
    limit = 3 + 3 * (60 * 0.05 * 0.95) ** 0.5
    assert max(broken.values()) <= limit
    assert found_any["en"] > 40


# What the report says of the temperatures


def test_the_calibration_is_described_for_all_and_for_every_language_of_the_test_split() -> None:
    langs = some(en=200, ru=200, none=50)
    skill: dict[str | None, float] = {"en": 2.0, "ru": 1.0, None: 1.0}
    calibration, test = asked(langs, skill, 1), asked([*langs, "pt-BR"], {**skill, "pt-BR": 1.0}, 2)
    temperatures, scouts, _ = calibrate(calibration, PROMISE, seed=0)
    found = describe_calibration(scouts, test, temperatures)
    assert found["temperature"] == temperatures.pooled
    assert found["temperatures"] == temperatures.by_language
    assert found["examples"] == len(scouts.keys) == 150
    before, after = (probabilities(test.logits_NL, t) for t in (1.0, temperatures.of(test.langs)))
    assert found["ece_before"] == pytest.approx(reliability(before, test.gold_N).ece, abs=1e-5)
    assert found["ece_after"] == pytest.approx(reliability(after, test.gold_N).ece, abs=1e-5)
    assert sum(one["count"] for one in found["bins_before"]) == len(test.keys)
    each = found["languages"]
    assert {lang: of["count"] for lang, of in each.items()} == {
        "en": 200, "pt-BR": 1, "ru": 200, "und": 50,
    }  # fmt: skip
    assert sum(of["examples"] for of in each.values()) == 150
    assert each["pt-BR"] == {
        "examples": 0,
        "temperature": temperatures.pooled,
        "count": 1,
        "ece_before": pytest.approx(each["pt-BR"]["ece_before"]),
        "ece_after": pytest.approx(each["pt-BR"]["ece_after"]),
    }
    assert each["und"]["temperature"] == temperatures.pooled
    assert each["en"]["temperature"] == temperatures.by_language["en"]
    rows = np.array([lang == "ru" for lang in test.langs])
    expected = reliability(after[rows], test.gold_N[rows]).ece
    assert each["ru"]["ece_after"] == pytest.approx(expected, abs=1e-5)


def test_calibration_of_a_boastful_model_lowers_the_error_that_is_told() -> None:
    langs = some(en=600)
    made = [asked(langs, {"en": 1.0}, seed) for seed in range(2)]
    boastful = [replace(part, logits_NL=part.logits_NL * 4) for part in made]
    temperatures, scouts, _ = calibrate(boastful[0], PROMISE, seed=0)
    found = describe_calibration(scouts, boastful[1], temperatures)
    assert found["ece_before"] > 0.15
    assert found["ece_after"] < 0.08
