"""``slant import``: another program's model, then scored with like any bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Cli

from tiny_stages import save_base


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """A classifier as transformers leaves one, in the folder that commands run in."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    save_base(tmp_path / "peer", "llama")
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "peer").config
    config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    config.label2id = {"LABEL_0": 0, "LABEL_1": 1}
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "peer")
    return tmp_path / "peer"


def test_an_imported_model_scores_like_any_bundle(peer: Path, cli: Cli) -> None:
    options = ["--labels", "against, for", "--token-limit", "100"]
    prompts = ["--prompt", r"{document}\n\n{narrative}:", "--prompt-overall", "{document}"]
    done = cli("import", "peer", "bundle", *options, *prompts)
    assert done.code == 0, done.err
    assert done.out.startswith("import    done           bundle\n")
    assert "sequence classifier; asked " in done.out
    assert "labels and its own names of them: against = LABEL_0, for = LABEL_1\n" in done.out
    contract = json.loads((peer.parent / "bundle" / "slant.json").read_text("utf-8"))
    assert contract["template"]["prompt"] == "{document}\n\n{narrative}:"
    scored = cli("score", "bundle", "--text", "The bridge is a ruin.", "--dtype", "float32")
    assert scored.code == 0, scored.err
    assert "against" in scored.out
    again = cli("import", "peer", "bundle", *options, *prompts, "--json")
    assert again.code == 0
    told = json.loads(again.out)
    assert told["fingerprint"] == contract["fingerprint"]
    assert told["source"]["name"] == "peer"
    other = ["--labels", "for = label_1, against=LABEL_0", "--token-limit", "100", "--json"]
    done = cli("import", "peer", "other", *other)
    assert json.loads(done.out)["source"]["labels"] == {"for": "LABEL_1", "against": "LABEL_0"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such", "bundle"], 2, "no-such: there is no such folder"),
        (["peer", "bundle"], 1, "peer does not name its 2 labels"),
        (["peer", "bundle", "--labels", "a,b,c"], 1, "the labels a, b, c are not those of peer"),
        (
            ["peer", "bundle", "--labels", "a=LABEL_0,b"],
            2,
            "--labels a=LABEL_0,b: must be LABEL=",
        ),
        (["peer", "bundle", "--labels", "a=x,a=y"], 2, "--labels a=x,a=y: must be LABEL=ITS-NAME"),
        (["peer", "bundle", "--dtype", "float8"], 2, "--dtype float8: must be one of bfloat16"),
        (["peer", "bundle", "--label-word", "a"], 2, "--label-word a: must be LABEL=WORD"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    arguments: list[str], code: int, message: str, peer: Path, cli: Cli
) -> None:
    done = cli("import", *arguments)
    assert done.code == code
    assert done.err.startswith(f"error: {message}"), done.err
    assert not (peer.parent / "bundle").exists()
