from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from slant.errors import ArtifactError, TaskError
from slant.labels import LabelSet
from slant.task.spec import TaskSpec, tokenizer_digest
from slant.task.template import Template
from slant.task.verbalizer import Verbalizer
from tiny import BOS, PAD, tiny_spaceless_tokenizer, tiny_tokenizer
from tiny_task import TEMPLATE, tiny_spec

SPEC = tiny_spec().with_weights("abc").with_temperature(1.37)

OTHER = {
    "template": Template("{document} {narrative}:", "{document}:"),
    "labels": LabelSet(["bad", "so-so", "good"]),
    "verbalizer": Verbalizer(("negative", "neutral", "positive"), (1, 2, 3)),
    "bos_token_id": None,
    "pad_token_id": 0,
    "token_limit": 199,
    "base": "other",
    "base_digest": "1" * 64,
    "tokenizer_digest": "2" * 64,
    "marker": " ... ",
    "head_share": 0.5,
    "long_documents": "passages",
    "quantize": "int8",
    "weights": "def",
    "temperature": 1.38,
    "temperatures": (("ru", 2.0),),
    "thresholds": (("*", 0.9), ("de", 0.8)),
}


def test_a_contract_is_made_from_the_tokenizer():
    spec = tiny_spec()
    assert (spec.bos_token_id, spec.pad_token_id, spec.token_limit) == (BOS, PAD, 200)
    assert (spec.base, spec.base_digest) == ("tiny", "0" * 64)
    assert spec.tokenizer_digest == tokenizer_digest(tiny_tokenizer())
    assert (spec.weights, spec.temperature) == ("", 1.0)


def test_the_fingerprint_covers_every_field():
    assert OTHER.keys() == {field.name for field in fields(TaskSpec)}
    prints = {replace(SPEC, **{name: value}).fingerprint for name, value in OTHER.items()}
    prints.add(SPEC.fingerprint)
    assert len(prints) == len(OTHER) + 1


def test_the_fingerprint_covers_the_label_words():
    words = Verbalizer(("bad", "neutral", "positive"), SPEC.verbalizer.token_ids)
    assert replace(SPEC, verbalizer=words).fingerprint != SPEC.fingerprint


def test_the_fingerprint_is_pinned_because_stored_predictions_carry_it():
    # If this changes, raise the schema's number: old bundles no longer load.
    pinned = replace(SPEC, tokenizer_digest="")
    assert pinned.fingerprint == (
        "f36282895ac9616dd62aa485bdf9a30eea9660664a3b62077aade4935c8b71ae"
    )


def test_a_saved_contract_comes_back_equal_with_an_equal_fingerprint(tmp_path):
    spec = replace(SPEC, template=Template("文 {document} — «{narrative}»:", "{document}\n:"))
    spec.save(tmp_path)
    loaded = TaskSpec.load(tmp_path)
    assert loaded == spec
    assert loaded.fingerprint == spec.fingerprint
    assert "文" in (tmp_path / "slant.json").read_text("utf-8")


@pytest.mark.parametrize("name", OTHER)
def test_every_field_is_saved(tmp_path, name):
    spec = replace(SPEC, **{name: OTHER[name]})
    spec.save(tmp_path)
    assert TaskSpec.load(tmp_path) == spec


def paths_of(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from paths_of(inner, (*path, i))
    else:
        yield path


def test_an_edit_of_any_value_is_noticed(tmp_path):
    SPEC.save(tmp_path)
    path = tmp_path / "slant.json"
    content = path.read_text("utf-8")
    edits = list(paths_of(json.loads(content)))
    assert len(edits) > 20
    for edit in edits:
        if edit == ("padding_side",):
            continue  # said for readers; there is no other
        for value in ("edited", None, 12345, []):
            edited = json.loads(content)
            target = edited
            for step in edit[:-1]:
                target = target[step]
            if target[edit[-1]] == value:
                continue
            target[edit[-1]] = value
            path.write_text(json.dumps(edited), "utf-8")
            with pytest.raises(ArtifactError, match=r"slant\.json"):
                TaskSpec.load(tmp_path)


def test_a_value_taken_out_is_noticed(tmp_path):
    SPEC.save(tmp_path)
    path = tmp_path / "slant.json"
    content = json.loads(path.read_text("utf-8"))
    for key in content:
        if key == "padding_side":
            continue
        path.write_text(json.dumps({k: v for k, v in content.items() if k != key}), "utf-8")
        with pytest.raises(ArtifactError, match=r"slant\.json"):
            TaskSpec.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff"])
def test_a_file_that_is_no_contract_is_refused_by_name(tmp_path, content):
    (tmp_path / "slant.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"slant\.json"):
        TaskSpec.load(tmp_path)


def test_a_missing_file_says_what_to_name_instead(tmp_path):
    with pytest.raises(ArtifactError, match=r"slant\.json: is not there") as raised:
        TaskSpec.load(tmp_path)
    assert "slant export" in raised.value.hint


def test_a_language_has_its_own_temperature_or_else_the_pooled_one():
    spec = SPEC.with_temperature(1.5, {"ru": 2.0, "pt": 0.5})
    found = {lang: spec.temperature_of(lang) for lang in ("ru", "pt-BR", "en", "", None)}
    assert found == {"ru": 2.0, "pt-BR": 0.5, "en": 1.5, "": 1.5, None: 1.5}
    assert SPEC.temperature_of("ru") == SPEC.temperature == 1.37


def test_a_new_calibration_replaces_all_of_the_old_one():
    spec = SPEC.with_temperature(1.5, {"ru": 2.0}).with_thresholds({"ru": 0.7})
    assert spec.with_temperature(1.4).temperatures == ()
    assert spec.with_thresholds({"*": 0.8}).thresholds == (("*", 0.8),)


def test_the_order_in_which_languages_are_named_has_no_part_in_the_fingerprint():
    one = SPEC.with_temperature(1.5, {"ru": 2.0, "en": 1.0}).with_thresholds({"ru": 0.7, "*": 0.6})
    other = SPEC.with_temperature(1.5, {"en": 1.0, "ru": 2.0}).with_thresholds(
        {"*": 0.6, "ru": 0.7}
    )
    assert one == other
    assert one.fingerprint == other.fingerprint


def test_another_tokenizer_is_refused():
    SPEC.check_tokenizer(tiny_tokenizer())
    with pytest.raises(TaskError, match="the tokenizer's digest") as raised:
        SPEC.check_tokenizer(tiny_spaceless_tokenizer())
    assert raised.value.hint


def test_padding_and_truncation_settings_are_not_part_of_a_tokenizers_identity(tmp_path):
    tokenizer = tiny_tokenizer()
    digest = tokenizer_digest(tokenizer)
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(32)
    assert tokenizer_digest(tokenizer) == digest
    tokenizer.add_tokens(["new"])
    assert tokenizer_digest(tokenizer) != digest


def test_a_tokenizer_saved_and_loaded_has_the_same_digest(tmp_path):
    from tokenizers import Tokenizer

    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer_digest(loaded) == tokenizer_digest(tiny_tokenizer())


def test_an_unknown_rule_for_long_documents_is_refused():
    with pytest.raises(TaskError, match="must be one of cut, windows, passages"):
        tiny_spec(long_documents="summary")


def test_words_that_cannot_be_told_apart_make_no_contract():
    with pytest.raises(TaskError, match="same token"):
        tiny_spec(label_words={"neutral": "negative too"}, template=TEMPLATE)
