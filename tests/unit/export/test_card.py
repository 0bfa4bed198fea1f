"""The card of a bundle: what it says, what its code does, what hubs read of it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from ruamel.yaml import YAML

from slant.artifacts import Artifact, load
from slant.config.load import dump_settings
from slant.corpus import Corpus
from slant.errors import TaskError
from slant.evaluate.stage import Subject, run_evaluate
from slant.export.card import render_card
from slant.export.origin import describe_origin
from slant.export.stage import run_export
from slant.model.base import BaseModel, load_tokenizer
from slant.progress import SilentProgress
from slant.score.scorer import Scorer
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.template import Template
from tiny_stages import (
    documents_and_examples,
    prepare,
    run_stage,
    save_base,
    tiny_settings,
    write_ingest,
)
from unit.evaluate.sample_report import sample_report

DOCUMENT = ' Мост "рухнул" \\ {narrative} 新桥\n令人失望 <eos> \n'
NARRATIVE = " the {document} bridge's 'end' "
PLACEHOLDERS = ('"path/to/this/folder/classifier"', '"path/to/this/folder"')


def many_held_out(folder: Path) -> Artifact:
    """More than 200 test examples, long ones among them; of English ones few."""
    documents, narratives, examples = documents_and_examples()
    texts = {document.id: document for document in documents}
    for number in range(1, 6):
        for example in examples[:60]:
            document = texts[example.document_id]
            if document.lang == "en":
                continue
            again = f"{document.id}-{number}"
            longer = " ".join([document.text] * number**2)
            if again not in {document.id for document in documents[80:]}:
                documents.append(replace(document, id=again, text=longer, digest=again))
            examples.append(replace(example, document_id=again, split="test"))
    return write_ingest(folder, (documents, narratives, examples))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project that was run, in folders as a project has them."""
    root = tmp_path_factory.mktemp("carded")
    prepare(root, adapt=None, tune={"epochs": 12, "learning_rate": 0.02})
    run_stage("tune", root, root / "tune")
    ingest = many_held_out(root / "held-out")
    base = save_base(root / "base")
    evaluate = run_evaluate(
        tiny_settings(),
        ingest=ingest,
        subject=Subject(load(root / "tune", "tune"), base, base, None),
        out=root / "evaluate",
        progress=SilentProgress(),
        start=root,
    )
    run_export(
        tiny_settings(adapt=None),
        ingest=ingest,
        evaluate=evaluate,
        tune=load(root / "tune", "tune"),
        base=base,
        out=root / "bundle",
        progress=SilentProgress(),
    )
    return root


@pytest.fixture(scope="module")
def bundle(root: Path) -> Artifact:
    return load(root / "bundle", "export")


def origin_of(
    root: Path, processor: str | None = None, base: BaseModel | None = None, **sections: Any
) -> dict[str, Any]:
    """The origin of the bundle, as if it had been trained on that processor."""
    tune = load(root / "tune", "tune")
    if processor is not None:
        facts = {**tune.facts, "processor": processor}
        tune = replace(tune, manifest={**tune.manifest, "facts": facts})
    return describe_origin(
        tiny_settings(**{"adapt": None, **sections}),
        ingest=load(root / "held-out", "ingest"),
        tune=tune,
        evaluate=load(root / "evaluate", "evaluate"),
        base=base or BaseModel("tiny/mistral", root / "base", "0" * 64),
    )


@pytest.fixture(scope="module")
def card(bundle: Artifact) -> str:
    return bundle.file("README.md").read_text("utf-8")


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def run(code: str, bundle: Artifact) -> tuple[dict[str, Any], str]:
    """Run a snippet with its place holders filled in; returns its names and what it printed."""
    folders = (repr(str(bundle.path / "classifier")), repr(str(bundle.path)))
    for holder, value in zip(PLACEHOLDERS, folders, strict=True):
        code = code.replace(holder, value)
    code = code.replace('"…a document…"', repr(DOCUMENT))
    code = code.replace('"…a narrative…"', repr(NARRATIVE))
    assert "…a " not in code
    assert "path/to" not in code
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, names)
    return names, printed.getvalue()


def test_the_snippet_for_plain_transformers_gives_the_scorers_probabilities(
    bundle: Artifact, card: str
) -> None:
    _, plain = snippets(card)
    assert "slant" not in plain
    _, printed = run(plain, bundle)
    answer = eval(printed)
    expected = Scorer.load(bundle.path, dtype="float32").predict_proba(DOCUMENT, NARRATIVE)[0]
    assert list(answer) == ["negative", "neutral", "positive"]
    assert list(answer.values()) == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_consumer_with_the_snippet_alone_has_the_reports_accuracy(
    root: Path, bundle: Artifact, card: str
) -> None:
    names, _ = run(snippets(card)[1], bundle)
    items = Corpus(load(root / "held-out", "ingest")).split("test")
    assert len(items) >= 200
    limit = TaskSpec.load(bundle.path).token_limit
    prompts = [names["make_prompt"](*item.text) for item in items]
    assert sum(" […] " in prompt for prompt in prompts) >= 20
    assert max(names["count"](prompt) for prompt in prompts) <= limit
    found = []
    for item in items:
        answer = names["ask"](*item.text)
        found.append(max(answer, key=answer.__getitem__))
    assert set(found) == {"negative", "neutral", "positive"}
    assert found == pq.read_table(root / "evaluate/predictions.parquet")["label"].to_pylist()
    right = sum(label == item.example.label for label, item in zip(found, items, strict=True))
    report = json.loads(bundle.file("report.json").read_text("utf-8"))
    accuracy = report["systems"][0]["overall"]["accuracy"]["value"]
    assert round(right / len(items), 5) == accuracy


def test_without_a_classifier_the_snippet_reads_the_language_model(bundle: Artifact) -> None:
    proof = json.loads(bundle.file("parity.json").read_text("utf-8"))
    proof["formats"] = {"causal-lm": proof["formats"]["causal-lm"]}
    report = json.loads(bundle.file("report.json").read_text("utf-8"))
    card = render_card(report, TaskSpec.load(bundle.path), proof, origin_of(bundle.path.parent))
    code = snippets(card)[1].replace(
        '"path/to/this/folder/causal-lm"', repr(str(bundle.path / "causal-lm"))
    )
    _, printed = run(code, bundle)
    expected = Scorer.load(bundle.path, dtype="float32").predict_proba(DOCUMENT, NARRATIVE)[0]
    answer = eval(printed)
    assert list(answer) == ["negative", "neutral", "positive"]
    assert list(answer.values()) == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_snippet_for_slant_runs(bundle: Artifact, card: str) -> None:
    with_slant, _ = snippets(card)
    _, printed = run(with_slant, bundle)
    assert printed.split()[0] in ("negative", "neutral", "positive")


def front_matter(card: str) -> dict[str, Any]:
    return YAML(typ="safe").load(card.split("---\n")[1])


def test_the_front_matter_is_what_a_hub_reads(bundle: Artifact, card: str) -> None:
    found = metadata_load(bundle.file("README.md"))
    assert found["base_model"] == "tiny/mistral"
    assert found["language"] == ["en", "es", "ru", "tl", "zh"]
    assert found["pipeline_tag"] == "text-classification"
    assert "license" not in found
    assert ModelCard(card).data.to_dict() == found


def test_the_model_index_has_the_reports_figures(bundle: Artifact, card: str) -> None:
    tuned = json.loads(bundle.file("report.json").read_text("utf-8"))["systems"][0]
    _, results = model_index_to_eval_results(front_matter(card)["model-index"])
    found = {(r.dataset_config, r.metric_type): r.metric_value for r in results}
    expected = {}
    for name, metrics in {"all languages": tuned["overall"], **tuned["slices"]["lang"]}.items():
        expected[name, "accuracy"] = pytest.approx(metrics["accuracy"]["value"], abs=1e-4)
        expected[name, "f1"] = pytest.approx(metrics["macro_f1"]["value"], abs=1e-4)
    assert found == expected


def shown(figure: dict[str, Any]) -> str:
    """Figures of few examples, and those without a mistake, have no interval."""
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def test_the_figures_are_those_of_the_report(bundle: Artifact, card: str) -> None:
    report = json.loads(bundle.file("report.json").read_text("utf-8"))
    for measured in report["systems"]:
        figure = measured["overall"]["macro_f1"]
        row = f" {shown(figure)} |"
        assert measured["id"] == "tuned" or f"- Against {measured['name']}: " in card
        assert any(
            line.startswith(f"| {measured['name']} ") and line.endswith(row)
            for line in card.splitlines()
        )
    few = [system["slices"]["lang"]["en"] for system in report["systems"]]
    figures = "".join(f" {shown(metrics['macro_f1'])} |" for metrics in few)
    row = f"| en | {few[0]['count']} |{figures} {few[0]['ece']['value']:.3f} |"
    assert row in card
    assert TaskSpec.load(bundle.path).fingerprint in card


def rendered(bundle: Artifact, report: dict[str, Any], **changes: Any) -> str:
    spec = TaskSpec(**{**vars(TaskSpec.load(bundle.path)), **changes})
    return render_card(report, spec, bundle.facts["parity"], origin_of(bundle.path.parent))


def test_the_card_says_what_may_be_decided_and_what_that_promises(bundle: Artifact) -> None:
    card = rendered(bundle, sample_report())
    decides = " ".join(card.split("## What it may decide alone")[1].split("## ")[0].split())
    assert "With 95 % confidence, at most 10 % of the answers are wrong" in decides
    assert "it accepted 50 % of the answers, of which 7.1 % were wrong" in decides
    assert "| es | 0.770 | 106 of 167, 4 | 63%, 7.0% |" in decides
    assert "| tl | nothing is accepted | 43 of 101, 5 | – |" in decides
    assert "| others (en, ca) |" in decides


def test_a_model_that_may_decide_nothing_alone_is_said_to_be_one(bundle: Artifact) -> None:
    report = sample_report()
    for group in report["decisions"]["groups"]:
        group["threshold"] = None
    card = " ".join(rendered(bundle, report).split())
    assert "Nothing: no confidence was found from which on" in card
    assert "marks every answer `review`" in card
    report["decisions"] = None
    assert "decide alone\n" not in rendered(bundle, report)


def test_what_a_promise_counts_is_said_with_it(bundle: Artifact) -> None:
    report = sample_report()
    once = "of the answers are wrong that reach these confidences, in each line by itself, counting"
    assert once not in " ".join(rendered(bundle, report).split())
    report["decisions"]["counted"] = "counting every document once"
    card = " ".join(rendered(bundle, report).split())
    assert f"{once} every document once." in card
    for group in report["decisions"]["groups"]:
        group["threshold"] = None
    card = " ".join(rendered(bundle, report).split())
    assert "at most 10 % of the answers are wrong, counting every document once. `slant`" in card


@pytest.mark.parametrize(
    ("formats", "said"),
    [
        (
            ["causal-lm", "classifier", "int8", "adapter"],
            "it is part of the weights of `classifier/` and `int8/`; the logits of `causal-lm/` "
            "and `adapter/` are to be divided by it",
        ),
        (["causal-lm"], "the logits of `causal-lm/` are to be divided by it"),
    ],
)
def test_the_card_says_where_the_temperature_is(
    bundle: Artifact, root: Path, formats: list[str], said: str
) -> None:
    proof = json.loads(bundle.file("parity.json").read_text("utf-8"))
    proof["formats"] = dict.fromkeys(formats, proof["formats"]["causal-lm"])
    report, spec = sample_report(), TaskSpec.load(bundle.path)
    card = " ".join(render_card(report, spec, proof, origin_of(root)).split())
    assert f"fitted on {report['calibration']['examples']} other examples: {said}." in card
    report["calibration"]["examples"] = 0
    card = " ".join(render_card(report, spec, proof, origin_of(root)).split())
    assert "The probabilities are not calibrated" in card
    assert "fitted on" not in card


def test_the_snippet_refuses_what_slant_refuses(bundle: Artifact, card: str) -> None:
    names, _ = run(snippets(card)[1], bundle)
    spec = TaskSpec.load(bundle.path)
    encoder = Encoder(load_tokenizer(bundle.path / "causal-lm"), spec)
    around = names["count"](names["fill"](names["clean"](spec.marker), "n"))
    document = "The bridge is a ruin. " * 40
    for room in (8, 7):
        narrative = "n" * (spec.token_limit - around + 1 - room)
        if room == 8:
            assert names["make_prompt"](document, narrative) == encoder.prompt(document, narrative)
            continue
        with pytest.raises(TaskError, match="no room"):
            encoder.prompt(document, narrative)
        with pytest.raises(ValueError, match="no room"):
            names["make_prompt"](document, narrative)


def test_temperatures_of_languages_are_of_slant_alone(bundle: Artifact) -> None:
    report = sample_report()
    card = rendered(bundle, report, temperatures=(("es", 1.48), ("tl", 2.14)))
    assert "one of its own for each of these languages: es (1.48), tl (2.14)" in card
    assert "other\nprograms do not" in card
    assert "of these languages" not in rendered(bundle, report, temperatures=())


def test_a_bar_in_a_systems_name_does_not_end_its_cell(bundle: Artifact) -> None:
    report = sample_report()
    report["systems"][1]["name"] = "gpt|4"
    assert "\n| gpt\\|4 | 0.678" in rendered(bundle, report)


def test_a_prompt_with_quotes_and_backslashes_is_shown_as_it_is_used(bundle: Artifact) -> None:
    template = Template("\"a\\n'{document}'\n«{narrative}»:", "{document}:")
    names, _ = run(snippets(rendered(bundle, odd_report(bundle), template=template))[1], bundle)
    assert names["fill"]("a\\b", "'c'") == template.render("a\\b", "'c'")
    assert names["fill"]("d", None) == template.render("d", None)


def odd_report(bundle: Artifact) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(bundle.file("report.json").read_text("utf-8"))
    return report


@pytest.mark.parametrize(
    ("name", "is_local", "known_as"),
    [
        ("org/model-7B", False, "org/model-7B"),
        ("gemma-3-270m", False, "google/gemma-3-270m"),
        ("./models/no: such", False, None),
        ("#7", False, None),
        ("models/mine", True, None),
    ],
)
def test_any_name_of_a_base_gives_front_matter_that_a_hub_takes(
    bundle: Artifact, root: Path, name: str, is_local: bool, known_as: str | None
) -> None:
    """A hub refuses a card that names a base model that no hub can have."""
    base = BaseModel(name, root / "base", "0" * 64, is_local)
    spec = replace(TaskSpec.load(bundle.path), base=name)
    origin = origin_of(root, base=base)
    card = render_card(odd_report(bundle), spec, bundle.facts["parity"], origin)
    assert front_matter(card).get("base_model") == known_as
    assert f"`{name}`" in card
    assert ("huggingface.co" in card) is (known_as is not None)


@pytest.mark.parametrize("langs", [["und"], ["en", "zh-hant", "x-taglish", "und"]])
def test_languages_are_named_as_hubs_name_them(bundle: Artifact, langs: list[str]) -> None:
    report = odd_report(bundle)
    report["data"]["languages"] = langs
    found = front_matter(rendered(bundle, report))
    assert found.get("language", []) == [lang for lang in ("en", "zh") if len(langs) > 1]


def with_origin(bundle: Artifact, origin: dict[str, Any]) -> str:
    return render_card(
        odd_report(bundle), TaskSpec.load(bundle.path), bundle.facts["parity"], origin
    )


def test_the_card_of_a_bundle_has_its_origin(root: Path, bundle: Artifact, card: str) -> None:
    assert card == with_origin(bundle, origin_of(root))


def test_the_card_names_the_data_the_artifacts_and_the_settings(
    root: Path, bundle: Artifact
) -> None:
    origin = origin_of(root)
    origin["data"]["sources"] = {"labelled|1.jsonl": "ab" * 32}
    card = with_origin(bundle, origin)
    assert f"\n| labelled\\|1.jsonl | `{'ab' * 32}` |\n" in card
    for kind in ("tune", "evaluate"):
        assert f"| `{kind}` | `{load(root / kind, kind).digest}` |" in card
    (settings,) = re.findall(r"```yaml\n(.*?)```", card, flags=re.DOTALL)
    assert YAML(typ="safe").load(settings)["tune"]["learning_rate"] == 5e-3
    assert origin["reproduce"]["config_sha256"] in card
    assert "| `tune` | " in card.split("## What training took")[1]


def test_the_license_of_the_base_is_passed_on(root: Path, bundle: Artifact, tmp_path: Path) -> None:
    license_ = "---\nlicense: other\nlicense_name: mine\nlicense_link: https://a.example/l\n---\n"
    (tmp_path / "README.md").write_text(license_, "utf-8")
    card = with_origin(bundle, origin_of(root, base=BaseModel("tiny/b", tmp_path, "0" * 64)))
    found = front_matter(card)
    assert found["license"] == "other"
    assert found["license_name"] == "mine"
    assert found["license_link"] == "https://a.example/l"
    assert "licence, [mine](https://a.example/l), applies to this model" in card


def test_a_base_without_a_license_is_said_to_be_one(root: Path, bundle: Artifact) -> None:
    card = with_origin(bundle, origin_of(root))
    assert "license" not in front_matter(card)
    assert "names no licence" in card
    gemma = with_origin(bundle, origin_of(root, base=BaseModel("gemma-3-270m", root, "0" * 64)))
    assert front_matter(gemma)["license"] == "gemma"
    assert "https://ai.google.dev/gemma/terms" in gemma


def test_cost_and_energy_are_said_only_where_they_are_known(root: Path, bundle: Artifact) -> None:
    card = with_origin(bundle, origin_of(root))
    assert "Cost:" not in card
    assert "Energy" not in card
    plan = {"card": "a10", "price_per_hour": {"a10": 0.75, "l4": 2}, "power_w": {"a10": 150}}
    origin = origin_of(root, plan=plan)
    hours = load(root / "tune", "tune").facts["seconds"] / 3600
    assert origin["training"]["cost"]["total"] == pytest.approx(0.75 * hours, abs=1e-4)
    assert origin["training"]["energy"]["kwh"] == pytest.approx(0.15 * hours, abs=1e-4)
    card = with_origin(bundle, origin)
    assert "at 0.75 an hour of a10" in card
    assert "Energy, an estimate and not a measurement" in card


@pytest.mark.parametrize(
    ("processor", "card"),
    [("NVIDIA A10", "a10"), ("NVIDIA A100-SXM4-80GB", None), ("NVIDIA A10G", "a10g")],
)
def test_without_a_named_card_the_price_is_that_of_the_processor(
    root: Path, processor: str, card: str | None
) -> None:
    origin = origin_of(root, processor, plan={"price_per_hour": {"a10": 0.75, "a10g": 1.0}})
    assert origin["training"]["processor"] == processor
    assert (origin["training"]["cost"] or {"card": None})["card"] == card


def test_the_origin_is_a_function_of_the_artifacts(root: Path) -> None:
    first, second = origin_of(root), origin_of(root)
    assert json.dumps(first) == json.dumps(second)
    text = dump_settings(tiny_settings(adapt=None))
    assert first["reproduce"]["config_sha256"] == hashlib.sha256(text.encode()).hexdigest()
