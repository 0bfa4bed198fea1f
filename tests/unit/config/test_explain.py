"""The settings described for people and for editors."""

from __future__ import annotations

from typing import Any

import pytest

from slant.config.explain import explain, json_schema, reference_markdown
from slant.config.fields import iter_keys, shape_at
from slant.errors import UsageError


def test_every_key_has_a_help_text_that_is_a_sentence() -> None:
    for key in iter_keys():
        assert key.help, key.path
        assert key.help.endswith("."), key.path


def test_every_key_is_found_again_by_its_path() -> None:
    for key in iter_keys():
        steps = key.path.replace("[]", ".0").split(".")
        assert shape_at(int(step) if step == "0" else step for step in steps) == key.shape


def test_without_a_key_everything_is_listed_in_the_order_of_the_file() -> None:
    listed = [line for line in explain().splitlines() if line and not line.startswith(" ")]
    assert listed == [key.path for key in iter_keys()]


def test_a_key_is_explained_with_its_type_default_and_help() -> None:
    assert explain("tune.epochs") == (
        "tune.epochs\n"
        "    a whole number greater than 0; default 2\n"
        "    Passes over the training examples.\n"
    )


def test_a_section_is_explained_with_the_keys_below_it_and_no_others() -> None:
    text = explain("tune.lora")
    assert [line for line in text.splitlines() if line and not line.startswith(" ")] == [
        "tune.lora", "tune.lora.rank", "tune.lora.alpha", "tune.lora.dropout",
        "tune.lora.rank_stabilized", "tune.lora.dora",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "key",
    ["ingest.examples[0].path", "ingest.examples[].path", "ingest.examples.0.path",
     "ingest.examples.path"],
)  # fmt: skip
def test_an_item_of_a_list_is_found_however_it_is_written(key: str) -> None:
    assert explain(key).startswith("ingest.examples[].path\n    text; required\n")


def test_a_name_in_a_mapping_is_found() -> None:
    assert explain("evaluate.gate.macro_f1.min").startswith("evaluate.gate.*.min\n")


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("tune.lora.rnk", "did you mean 'tune.lora.rank'?"),
        ("rank", "did you mean adapt.lora.rank or tune.lora.rank?"),
        ("zzz", "slant.yaml has no key zzz"),
    ],
)
def test_an_unknown_key_is_a_usage_error_with_a_suggestion(key: str, suggestion: str) -> None:
    with pytest.raises(UsageError) as caught:
        explain(key)
    assert suggestion in caught.value.message


def test_the_json_schema_refuses_unknown_keys_and_describes_every_field() -> None:
    schema = json_schema()
    sections: list[dict[str, Any]] = [schema, *schema["$defs"].values()]
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["required"] == ["ingest"]
    for section in sections:
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            # pydantic leaves out a description that repeats the one of the section referred to.
            assert "description" in field or "$ref" in field, name


def test_the_reference_page_names_every_key_once_and_no_machine() -> None:
    page = reference_markdown()
    for key in iter_keys():
        rows = page.count(f"\n| `{key.path}` |") + page.count(f"\n## `{key.path}`\n")
        assert rows == 1, key.path
    assert "/work/" not in page
    assert "/home/" not in page
    assert all(len(row.replace(r"\|", "").split("|")) == 6 for row in page.splitlines()
               if row.startswith("| `"))  # fmt: skip
