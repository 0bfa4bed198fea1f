"""What is written as YAML is read back as it was."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from slant.config.load import dump_settings, load_settings
from slant.config.settings import ProjectSettings
from slant.config.yaml_tree import Place, dotted, dump_yaml, parse_yaml, split_dotted

# Texts that YAML readers like to take for something else.
TRICKY = ["no", "Yes", "null", "~", "2e-4", "017", "1_0", "0x1F", "2024-01-01", "1:30", "=", "<<",
          "", " ", "#", "- a", "a: b", "{a", "*a", "&a", "!a", "%a", "@a", "a\n", "\n a\n\n", "\t",
          "'", '"', "\\", "\x85", "\u2028", "\ufeff", "---", "...", "$NAME"]  # fmt: skip
text = st.sampled_from(TRICKY) | st.text(max_size=30)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.integers(min_value=1, max_value=10**12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def projects(draw: st.DrawFn) -> ProjectSettings:
    """Settings with tricky texts wherever a text may stand."""
    labels = draw(st.lists(text, min_size=2, max_size=4, unique=True))
    label = st.sampled_from(labels)
    optional_text = st.none() | text
    document: dict[str, st.SearchStrategy[Any]] = {
        "path": text,
        "columns": st.fixed_dictionaries({"text": text, "lang": optional_text}),
        "lang": optional_text,
        "source": st.sampled_from([None, "news", "other"]),
        "limit": st.none() | positive,
    }
    example = {**document, "labels": st.dictionaries(text, label, max_size=3)}
    strategy = st.fixed_dictionaries(
        {
            "seed": st.integers(),
            "labels": st.just(labels),
            "model": st.fixed_dictionaries({"base": text, "revision": optional_text}),
            "task": st.fixed_dictionaries(
                {
                    "prompt": text.map(lambda between: f"{{document}}{between}{{narrative}}"),
                    "label_words": st.dictionaries(label, text),
                }
            ),
            "ingest": st.fixed_dictionaries(
                {
                    "documents": st.lists(st.fixed_dictionaries(document), max_size=2),
                    "examples": st.lists(st.fixed_dictionaries(example), min_size=1, max_size=2),
                }
            ),
            "adapt": st.none() | st.fixed_dictionaries({"tokens": positive}),
            "tune": st.fixed_dictionaries(
                {"learning_rate": st.floats(0, allow_infinity=False, exclude_min=True)}
            ),
            "evaluate": st.fixed_dictionaries(
                {"gate": st.just({}) | st.just({"macro_f1": {"min": 0.7}})}
            ),
        }
    )
    return ProjectSettings.model_validate(draw(strategy))


@given(projects())
@settings(deadline=None, max_examples=60)
def test_dumped_settings_load_to_equal_settings(project: ProjectSettings) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "slant.yaml")
        path.write_bytes(dump_settings(project).encode())
        assert load_settings(path) == project


@given(values)
@settings(deadline=None)
def test_any_value_survives_being_written_as_yaml(value: object) -> None:
    tree = parse_yaml(dump_yaml(value), lambda line, column: Place(line, ""))
    assert tree.data == value
    assert type(tree.data) is type(value)
    assert not tree.problems


@given(
    st.from_regex(r"[^.\[\]]+", fullmatch=True),
    st.lists(st.integers(0, 999) | st.from_regex(r"[^.\[\]]+", fullmatch=True), max_size=4),
)
def test_a_dotted_key_splits_into_the_parts_that_made_it(first: str, rest: list[str | int]) -> None:
    assert split_dotted(dotted((first, *rest))) == (first, *rest)
