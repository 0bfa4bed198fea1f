"""slant.yaml to settings: what is accepted, and what a mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slant.config.load import dump_settings, expand_variables, load_settings
from slant.config.settings import ProjectSettings
from slant.config.training_settings import AdaptSettings
from slant.errors import ConfigError, ConfigProblem, UsageError

GOLDEN = Path(__file__).parents[2] / "golden"
EXAMPLES = Path(__file__).parents[3] / "examples"
MINIMAL = "ingest: {examples: [{path: labelled.csv}]}\n"
FIVE_MISTAKES = """\
# One of each kind.
model:
  base: gemma-3-270m
  dtype: bfloat61
tune:
  epochs: two
  lora:
    rnk: 32
ingest:
  split: {validation: 0.5, test: 0.6}
  examples:
    - columns: {text: sentence}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes slant.yaml in an empty working folder, so that places read ``slant.yaml:line``."""
    monkeypatch.chdir(tmp_path)

    def write_file(content: str | bytes) -> Path:
        path = Path("slant.yaml")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def problems(path: Path, *overrides: str) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, overrides)
    return list(caught.value.problems)


def only_problem(path: Path, *overrides: str) -> str:
    (problem,) = problems(path, *overrides)
    return str(problem)


# What is accepted


def test_a_minimal_file_takes_every_default(write: Write) -> None:
    settings = load_settings(write(MINIMAL))
    assert settings.ingest.examples[0].path == "labelled.csv"
    assert settings.adapt == AdaptSettings()
    assert settings.seed == 17


def test_scalars_follow_yaml_1_2_whatever_the_file_declares(write: Write) -> None:
    body = "{adapt: {tokens: 50_000_000, learning_rate: 2e-4}, tune: {learning_rate: 1}, ingest: "
    body += "{examples: [{path: 2024-01-01, lang: no, limit: 017}]}}"
    for head in ("", "%YAML 1.1\n---\n", "\ufeff"):
        settings = load_settings(write(head + body))
        source = settings.ingest.examples[0]
        assert (source.lang, source.path, source.limit) == ("no", "2024-01-01", 17)
        assert settings.adapt is not None
        assert (settings.adapt.tokens, settings.adapt.learning_rate) == (50_000_000, 0.0002)
        assert settings.tune.learning_rate == 1.0


def test_label_values_may_be_written_without_quotes(write: Write) -> None:
    path = write("ingest: {examples: [{path: a, labels: {-1: negative, 1.0: positive}}]}")
    labels = load_settings(path).ingest.examples[0].labels
    assert labels == {"-1": "negative", "1.0": "positive"}


def test_anchors_repeat_a_part(write: Write) -> None:
    path = write(
        "ingest:\n  documents: [{path: d, columns: &c {text: body}}]\n"
        "  examples: [{path: e, columns: *c}]\n"
    )
    settings = load_settings(path, ["ingest.documents[0].columns.text=other"])
    assert settings.ingest.documents[0].columns.text == "other"
    assert settings.ingest.examples[0].columns.text == "body"


def test_the_mistral_example_is_the_target_it_claims_to_be() -> None:
    settings = load_settings(EXAMPLES / "mistral-7b-a10" / "slant.yaml")
    assert settings.model.base == "mistralai/Mistral-7B-v0.3"
    assert (settings.model.dtype, settings.model.quantize) == ("bfloat16", "nf4")
    assert settings.adapt is not None
    assert settings.adapt.tokens == 50_000_000
    assert settings.tune.learning_rate == 2e-4
    assert settings.task.token_limit == 2048
    assert settings.tune.tokens_per_batch >= settings.task.token_limit
    assert settings.evaluate.gate["macro_f1"].min == 0.70


def test_a_long_prompt_is_dumped_without_losing_a_space(write: Write) -> None:
    prompt = "{document}" + "a  b \n" * 4000 + "{narrative}"
    settings = load_settings(write(MINIMAL)).model_dump() | {"task": {"prompt": prompt}}
    dumped = dump_settings(ProjectSettings.model_validate(settings))
    assert load_settings(write(dumped)).task.prompt == prompt


# Mistakes


def test_five_mistakes_are_reported_at_once(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(FIVE_MISTAKES))
    assert len(caught.value.problems) == 5
    assert f"{caught.value}\n" == (GOLDEN / "config_errors.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("seed: '17'", "seed: must be a whole number, got '17'; write it without quotes"),
        ("seed: 17.0", "seed: must be a whole number, got 17.0; write 17"),
        ("seed: true", "seed: must be a whole number, got true"),
        ("work: 5", "work: must be text, got 5; put it in quotes"),
        ("work:", "work: must be text, got null"),
        ("labels: [a]", "labels: must be a list of text (at least 2), got ['a']"),
        ("labels: [a, a]", "labels: must be different, got ['a', 'a']"),
        (
            "tune: {learning_rate: .inf}",
            "tune.learning_rate: must be a number greater than 0, got inf",
        ),
        (
            "tune: {learning_rate: .nan}",
            "tune.learning_rate: must be a number greater than 0, got nan",
        ),
        ("tune:", "tune: must be a section, got null; leave the key out for its defaults"),
        (
            "adapt: {lora: 8}",
            "adapt.lora: must be a section, got 8; its keys are rank, alpha, dropout, "
            "rank_stabilized, dora",
        ),
        (
            "shard: {compression: zst}",
            "shard.compression: must be one of none, zstd, got 'zst'; did you mean 'zstd'?",
        ),
        (
            "evaluate: {baselines: tfidf}",
            "evaluate.baselines: must be a list of any of prompted, tfidf, embedding, majority, "
            "got 'tfidf'; write [tfidf]",
        ),
        (
            "evaluate: {baselines: [tfidf, major]}",
            "evaluate.baselines[1]: must be one of prompted, tfidf, embedding, majority, got "
            "'major'; did you mean 'majority'?",
        ),
        (
            "evaluate: {gate: {f1_macro: {min: 0.7}}}",
            "evaluate.gate.f1_macro: is not a known key; did you mean 'macro_f1'? "
            "Known here: accuracy, macro_f1, f1_polar, mcc, auroc, ece, brier",
        ),
        (
            "task: {prompt: 'no placeholders'}",
            "task.prompt: must hold {document} and, after it, {narrative}",
        ),
        (
            "export: {to: 's3://key:word@bucket/x'}",
            "export.to: the URL holds credentials. Give them in the environment (for S3: "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), never in a file or a command.",
        ),
        ("seed: 1\nseed: 2", "seed: is given twice; the first is at slant.yaml:2"),
        ("seed: !dice 6", "seed: has the tag !dice; tags are not used here"),
    ],
)
def test_a_mistake_is_told_in_plain_words(write: Write, line: str, expected: str) -> None:
    last_line = 2 + line.count("\n")
    found = [str(problem) for problem in problems(write(MINIMAL + line + "\n"))]
    assert f"slant.yaml:{last_line}: {expected}" in found


def test_a_section_that_is_missing_is_reported_at_the_nearest_parent(write: Write) -> None:
    path = write("# settings\n\nseed: 1\ningest:\n  min_characters: 2\n")
    expected = (
        "slant.yaml:4: ingest.examples: is missing; it must be a list of sections (at least 1)"
    )
    assert only_problem(path) == expected


def test_a_label_that_does_not_exist_is_reported_where_it_is_mapped(write: Write) -> None:
    path = write("ingest:\n  examples:\n    - path: a\n    - path: b\n      labels: {0: neutra}\n")
    found = only_problem(path)
    assert found.startswith("slant.yaml:5: ingest.examples[1].labels: maps '0' to 'neutra'")
    assert found.endswith("did you mean 'neutral'?")


def test_a_long_value_is_shortened(write: Write) -> None:
    message = only_problem(write(f"{MINIMAL}seed: {'x' * 500}\n"))
    assert "…" in message
    assert len(message) < 120


def test_the_value_of_an_unknown_key_is_not_shown_because_it_may_be_a_secret(write: Write) -> None:
    assert "hunter2" not in only_problem(write(f"{MINIMAL}api_key: hunter2\n"))


# Files that cannot be read at all


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        ("a:\n\tb: 1\n", "slant.yaml:2:1", "a tab cannot indent YAML"),
        ("a: b: c\n", "slant.yaml:1:5", "put text that holds ': ' in quotes"),
        ("a: [1,\n", "slant.yaml:2:1", "inside an open bracket"),
        ("a: 'b\n", "slant.yaml:2:1", "never closed"),
        ("a: 1\n---\nb: 2\n", "slant.yaml:2:1", "a second document"),
        ("a: 1\nb: \x07\n", "slant.yaml:2:4", "control character U+0007"),
        ("[" * 5000, "slant.yaml:1:41", "nested too deeply"),
        (b"a: 1\nb: caf\xe9\n", "slant.yaml:2", "is not UTF-8"),
        ("", "slant.yaml:1", "is empty"),
        ("# nothing\n", "slant.yaml:1", "is empty"),
        ("- a\n", "slant.yaml:1", "must be a mapping of keys, got ['a']"),
    ],
)
def test_what_is_not_a_yaml_mapping_is_refused_with_its_place(
    write: Write, content: str | bytes, place: str, words: str
) -> None:
    (problem,) = problems(write(content))
    assert problem.where == place
    assert words in problem.message


def test_an_alias_of_itself_is_refused(write: Write) -> None:
    assert "labels[0]: refers to itself" in only_problem(write(f"{MINIMAL}labels: &x [*x, a]"))


@pytest.mark.parametrize("value", ["!dice 6", "!!int six", "!!set {6}", "9" * 5000])
def test_what_cannot_be_read_as_a_value_is_reported_once(write: Write, value: str) -> None:
    assert only_problem(write(f"{MINIMAL}seed: {value}\n")).startswith("slant.yaml:2: seed: ")


def test_a_missing_file_is_a_usage_error_that_names_a_similar_one(write: Write) -> None:
    write(MINIMAL)
    with pytest.raises(UsageError, match=r"slant\.yml; did you mean 'slant\.yaml'\?") as caught:
        load_settings(Path("slant.yml"))
    assert caught.value.exit_code == 2
    assert caught.value.hint
    with pytest.raises(UsageError, match="cannot be read"):
        load_settings(Path())


# --set


def test_overrides_win_over_the_file_and_the_last_one_wins(write: Write) -> None:
    path = write(MINIMAL + "tune: {epochs: 5}\nadapt: null\n")
    settings = load_settings(
        path,
        ["tune.epochs=3", "tune.lora.rank=8", "tune.lora.rank=32", "adapt.tokens=1_000",
         "labels=[against, for]", "ingest.examples[0].limit=5", "ingest.examples.0.lang=no",
         "evaluate.gate.macro_f1.min=0.5", "model.revision=a=b"],
    )  # fmt: skip
    assert (settings.tune.epochs, settings.tune.lora.rank) == (3, 32)
    assert settings.adapt is not None
    assert settings.adapt.tokens == 1000
    assert settings.labels == ["against", "for"]
    assert (settings.ingest.examples[0].limit, settings.ingest.examples[0].lang) == (5, "no")
    assert settings.evaluate.gate["macro_f1"].min == 0.5
    assert settings.model.revision == "a=b"
    assert load_settings(path, ["adapt=null"]).adapt is None


@pytest.mark.parametrize(
    ("override", "where", "key", "words"),
    [
        ("tune.lora.rnk=3", "--set tune.lora.rnk", "tune.lora.rnk", "did you mean 'rank'?"),
        ("tun.epochs=3", "--set tun.epochs", "tun", "did you mean 'tune'?"),
        ("tune={epochs: 0}", "--set tune", "tune.epochs", "greater than 0, got 0"),
        ("model={base: a, base: b}", "--set model", "model.base", "is given twice"),
        ("ingest.split.test=1", "--set ingest.split.test", "ingest.split", "add up to 1.15"),
        ("tune.epochs", "--set tune.epochs", "", "must read key=value"),
        ("tune..epochs=1", "--set tune..epochs", "", "is not a dotted key"),
        ("task.prompt=[", "--set task.prompt", "", "not valid YAML"),
        ("task.prompt=a: b", "--set task.prompt", "task.prompt", "put text in quotes"),
        ("ingest.examples[1].limit=1", "--set ingest.examples[1].limit", "ingest.examples[1]",
         "is not in the list, which holds ingest.examples[0]"),
        ("ingest.examples.first=1", "--set ingest.examples.first", "ingest.examples.first",
         "is not in the list"),
        ("labels[0]=x", "--set labels[0]", "labels", "is not a list in the file"),
        ("tune[0]=x", "--set tune[0]", "tune", "is not a list in the file"),
        ("seed.x=1", "--set seed.x", "seed.x", "seed is 3, not a section"),
    ],
)  # fmt: skip
def test_a_bad_override_is_reported_at_its_own_place(
    write: Write, override: str, where: str, key: str, words: str
) -> None:
    (problem,) = problems(write(MINIMAL + "seed: 3\ntune: {}\n"), override)
    assert (problem.where, problem.key) == (where, key)
    assert words in problem.message


def test_mistakes_of_the_file_come_before_those_of_overrides(write: Write) -> None:
    found = problems(write("sead: 1\n" + MINIMAL + "tune: {epochs: 0}\n"), "foo", "adapt=3")
    expected = ["slant.yaml:1", "slant.yaml:3", "--set foo", "--set adapt"]
    assert [problem.where for problem in found] == expected


def test_an_override_repairs_the_file(write: Write) -> None:
    path = write("tune: {epochs: two}\n" + MINIMAL)
    assert load_settings(path, ["tune.epochs=2"]).tune.epochs == 2


# Paths of sources


def test_variables_are_checked_at_load_and_kept_as_written(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("ingest:\n  examples:\n    - lang: en\n      path: ${SLANT_TEST_DATA}/a.csv\n")
    monkeypatch.delenv("SLANT_TEST_DATA", raising=False)
    found = only_problem(path)
    assert found.startswith(
        "slant.yaml:4: ingest.examples[0].path: environment variable SLANT_TEST_"
    )
    assert "export SLANT_TEST_DATA=" in found

    monkeypatch.setenv("SLANT_TEST_DATA", "/machine/only")
    settings = load_settings(path)
    assert settings.ingest.examples[0].path == "${SLANT_TEST_DATA}/a.csv"
    assert "/machine/only" not in dump_settings(settings)


def test_a_variable_in_the_place_of_the_shards_is_checked_at_load_too(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(MINIMAL + "shard:\n  compression: none\n  to: ${SLANT_TEST_BUCKET}/shards\n")
    monkeypatch.delenv("SLANT_TEST_BUCKET", raising=False)
    found = only_problem(path)
    assert found.startswith("slant.yaml:4: shard.to: environment variable SLANT_TEST_BUCKET is not")
    assert "export SLANT_TEST_BUCKET=" in found
    overridden = only_problem(path, "shard.to=${SLANT_TEST_BUCKET}")
    assert overridden.startswith("--set shard.to: shard.to: ")

    monkeypatch.setenv("SLANT_TEST_BUCKET", "s3://bucket")
    assert load_settings(path).shard.to == "${SLANT_TEST_BUCKET}/shards"


@pytest.mark.parametrize("shard", ["5", "[to]", "{to: 5}"])
def test_what_is_no_place_for_shards_is_reported_once(write: Write, shard: str) -> None:
    assert only_problem(write(f"shard: {shard}\n{MINIMAL}")).startswith("slant.yaml:1: shard")


def test_variables_are_put_in_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLANT_TEST_DATA", "data")
    assert expand_variables("${SLANT_TEST_DATA}/a.csv") == "data/a.csv"
    monkeypatch.setenv("SLANT_TEST_DATA", "s3://bucket//x")
    assert expand_variables("${SLANT_TEST_DATA}/a.csv") == "s3://bucket//x/a.csv"
    monkeypatch.setenv("SLANT_TEST_DATA", "")
    with pytest.raises(UsageError, match="SLANT_TEST_DATA is not set"):
        expand_variables("${SLANT_TEST_DATA}/a.csv")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('ingest:\n  examples: [{path: "s3://AKIA:sekret@bucket/a"}]\n', "ingest.examples[0].path"),
        (MINIMAL + 'shard: {to: "s3://AKIA:sekret@bucket/a"}\n', "shard.to"),
    ],
)
def test_a_url_with_credentials_is_refused_and_not_repeated(
    write: Write, text: str, key: str
) -> None:
    found = only_problem(write(text))
    assert found.startswith(f"slant.yaml:2: {key}: the URL holds credentials")
    assert "AKIA" not in found
    assert "sekret" not in found
