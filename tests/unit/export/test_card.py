from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from typing import Any

import pytest
from ruamel.yaml import YAML

from slant.artifacts import Artifact, load
from slant.evaluate.stage import Subject, run_evaluate
from slant.export.card import render_card
from slant.export.stage import run_export
from slant.progress import SilentProgress
from slant.score.scorer import Scorer
from slant.task.spec import TaskSpec
from slant.task.template import Template
from tiny_stages import prepare, run_stage, save_base, tiny_settings
from unit.evaluate.sample_report import sample_report

DOCUMENT = ' Мост "рухнул" \\ {narrative} 新桥\n令人失望 <eos> \n'
NARRATIVE = " the {document} bridge's 'end' "


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("carded")
    prepare(root, adapt=None)
    tune = run_stage("tune", root, root / "tune")
    base = save_base(root / "base")
    ingest = load(root / "ingest", "ingest")
    evaluate = run_evaluate(
        tiny_settings(),
        ingest=ingest,
        subject=Subject(tune, base, base, None),
        out=root / "evaluate",
        progress=SilentProgress(),
        start=root,
    )
    return run_export(
        tiny_settings(),
        ingest=ingest,
        evaluate=evaluate,
        tune=tune,
        base=base,
        out=root / "bundle",
        progress=SilentProgress(),
    )


@pytest.fixture(scope="module")
def card(bundle: Artifact) -> str:
    return bundle.file("README.md").read_text("utf-8")


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def run(code: str, bundle: Artifact) -> tuple[dict[str, Any], str]:
    """Run a snippet with its place holders filled in; returns its names and what it printed."""
    for holder, value in (
        ('"path/to/this/folder/classifier"', repr(str(bundle.path / "classifier"))),
        ('"path/to/this/folder"', repr(str(bundle.path))),
        ('"…a document…"', repr(DOCUMENT)),
        ('"…a narrative…"', repr(NARRATIVE)),
    ):
        code = code.replace(holder, value)
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
    names, printed = run(plain, bundle)
    expected = Scorer.load(bundle.path, dtype="float32").predict_proba(DOCUMENT, NARRATIVE)[0]
    assert names["probabilities"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert list(eval(printed)) == ["negative", "neutral", "positive"]


def test_the_snippet_for_slant_runs(bundle: Artifact, card: str) -> None:
    with_slant, _ = snippets(card)
    _, printed = run(with_slant, bundle)
    assert printed.split()[0] in ("negative", "neutral", "positive")


def front_matter(card: str) -> dict[str, Any]:
    return YAML(typ="safe").load(card.split("---\n")[1])


def test_the_front_matter_is_yaml_that_a_hub_reads(card: str) -> None:
    found = front_matter(card)
    assert found["base_model"] == "tiny/mistral"
    assert found["language"] == ["en", "es", "ru", "tl", "zh"]
    assert found["pipeline_tag"] == "text-classification"
    assert "license" not in found


def test_the_figures_are_those_of_the_report(bundle: Artifact, card: str) -> None:
    report = json.loads(bundle.file("report.json").read_text("utf-8"))
    for measured in report["systems"]:
        figure = measured["overall"]["macro_f1"]
        row = f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] |"
        assert measured["id"] == "tuned" or f"- Against {measured['name']}: " in card
        assert any(
            line.startswith(f"| {measured['name']} ") and line.endswith(row)
            for line in card.splitlines()
        )
    # Languages with few examples have a figure without an interval.
    few = report["systems"][0]["slices"]["lang"]["en"]
    ece = few["ece"]["value"]
    assert f"| en | {few['count']} | {few['macro_f1']['value']:.3f} | {ece:.3f} |" in card
    assert TaskSpec.load(bundle.path).fingerprint in card


def rendered(bundle: Artifact, report: dict[str, Any], **changes: Any) -> str:
    spec = TaskSpec(**{**vars(TaskSpec.load(bundle.path)), **changes})
    return render_card(report, spec, bundle.facts["parity"])


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


def test_a_prompt_with_quotes_and_backslashes_is_shown_as_it_is_used(
    bundle: Artifact,
) -> None:
    spec = TaskSpec.load(bundle.path)
    template = Template("\"a\\n'{document}'\n«{narrative}»:", "{document}:")
    odd = TaskSpec(**{**vars(spec), "template": template})
    report = json.loads(bundle.file("report.json").read_text("utf-8"))
    card = render_card(report, odd, bundle.facts["parity"])
    (line,) = [line for line in snippets(card)[1].splitlines() if line.startswith("prompt = ")]
    names = {"document": DOCUMENT, "narrative": NARRATIVE}
    exec(line, names)
    assert names["prompt"] == template.render(DOCUMENT, NARRATIVE)


@pytest.mark.parametrize("name", ["google/gemma-3-270m", "./models/no: such", "#7"])
def test_any_name_of_a_base_gives_valid_front_matter(bundle: Artifact, name: str) -> None:
    spec = TaskSpec(**{**vars(TaskSpec.load(bundle.path)), "base": name})
    report = json.loads(bundle.file("report.json").read_text("utf-8"))
    found = front_matter(render_card(report, spec, bundle.facts["parity"]))
    assert found["base_model"] == name
    assert found.get("license") == ("gemma" if "gemma" in name else None)
