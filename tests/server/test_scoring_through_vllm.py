"""A real vLLM server on an exported classifier gives the probabilities that slant gives.

Runs where the environment variable SLANT_VLLM names the ``vllm`` executable (``make vllm``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from slant.errors import ModelError
from slant.model.base import load_causal_lm, load_tokenizer
from slant.model.label_head import LabelModel
from slant.score.decision import probabilities
from slant.score.scorer import Scorer
from slant.score.torch_engine import TorchEngine
from slant.score.vllm_engine import Retries, VllmEngine
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from vllm_server import VllmServer, write_tiny_bundle

pytest.importorskip("httpx", reason="the extra vllm is not installed")

SENTENCES = (
    "The new tram line opened on time, and the stops are clean.",
    "Трамвай опять стоит. Третий раз за неделю опоздала на работу.",
    "泽林格勒新电车线路将于下月公布票价。",
    "Ang bagong linya ng tram ay mabilis, pero mahal ang pamasahe.",
    "El alcalde promete más líneas; los vecinos no le creen.",
)
NARRATIVES = ("The new tram line", "市长", "Мэр города", None)
NUM_DOCUMENTS = 60
MAX_DIFFERENCE = 0.02
LABEL_AGREEMENT = 0.995
BLOCK_TOKENS = 16


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "bundle"
    write_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[VllmServer]:
    executable = os.environ.get("SLANT_VLLM")
    if not executable:
        pytest.skip("no vLLM: SLANT_VLLM names no vllm executable")
    log = bundle.with_name("vllm.log")
    server = VllmServer(executable, bundle / "classifier", log, "--dtype", "float32")
    yield server
    server.stop()


def pairs() -> tuple[list[str], list[str | None]]:
    """Documents of random length, each with every narrative."""
    rng = np.random.default_rng(5)
    documents, narratives = [], []
    for _ in range(NUM_DOCUMENTS):
        document = " ".join(rng.choice(SENTENCES, size=rng.integers(1, 9)))
        documents += [document] * len(NARRATIVES)
        narratives += NARRATIVES
    return documents, narratives


def encoded(bundle: Path, spec: TaskSpec) -> list[list[int]]:
    encoder = Encoder(load_tokenizer(bundle / "causal-lm"), spec)
    return encoder.encode_batch(list(zip(*pairs(), strict=True)))


def torch_probabilities(bundle: Path, spec: TaskSpec, prompts: list[list[int]]) -> np.ndarray:
    causal_lm = load_causal_lm(bundle / "causal-lm", dtype=torch.float32)
    model = LabelModel(causal_lm, spec.verbalizer.token_ids).eval()
    logits = TorchEngine(model, spec.pad_token_id).label_logits(prompts)
    return probabilities(logits, spec.temperature)


def test_probabilities_are_those_of_the_torch_engine(
    server: VllmServer, bundle: Path, record_property: Callable[[str, object], None]
) -> None:
    spec = TaskSpec.load(bundle)
    prompts = encoded(bundle, spec)
    assert len(prompts) >= 200
    ours = torch_probabilities(bundle, spec, prompts)
    assert ours.std(axis=0).min() > 0.1, "the probabilities are too equal to compare anything"
    assert len(set(ours.argmax(axis=1).tolist())) == 3

    with VllmEngine.for_bundle(server.url, spec) as engine:
        logits = engine.label_logits(prompts, groups=pairs()[0])
    theirs = probabilities(logits, spec.temperature)
    difference = float(np.abs(theirs - ours).max())
    agreement = float((theirs.argmax(axis=1) == ours.argmax(axis=1)).mean())
    record_property("label_agreement", agreement)
    record_property("max_difference", difference)
    assert agreement >= LABEL_AGREEMENT
    assert difference <= MAX_DIFFERENCE


def test_what_prompts_begin_with_is_computed_once(server: VllmServer, bundle: Path) -> None:
    spec = TaskSpec.load(bundle)
    prompts = encoded(bundle, spec)
    name = "vllm:prefix_cache_hits_total"
    with VllmEngine.for_bundle(server.url, spec) as engine:
        first = engine.label_logits(prompts, groups=pairs()[0])
        before = server.metric(name)
        second = engine.label_logits(prompts, groups=pairs()[0])
    hits = server.metric(name) - before
    whole = sum(len(ids) - len(ids) % BLOCK_TOKENS for ids in prompts)
    assert hits > whole / 2
    np.testing.assert_allclose(first, second, atol=1e-3)


def test_a_scorer_takes_the_engine(server: VllmServer, bundle: Path) -> None:
    spec = TaskSpec.load(bundle)
    encoder = Encoder(load_tokenizer(bundle / "causal-lm"), spec)
    with VllmEngine.for_bundle(server.url, spec) as engine:
        found = Scorer(spec, encoder, engine).predict_proba(SENTENCES, NARRATIVES[1])
    ours = Scorer.load(bundle, dtype="float32", device="cpu", verify=False)
    expected = ours.predict_proba(SENTENCES, NARRATIVES[1])
    np.testing.assert_allclose(found, expected, atol=MAX_DIFFERENCE)


def test_the_longest_prompt_that_the_server_takes(server: VllmServer, bundle: Path) -> None:
    spec = TaskSpec.load(bundle)
    with VllmEngine.for_bundle(server.url, spec) as engine:
        limit = int(engine.check()["max_model_len"])
        assert engine.label_logits([[256] + [65] * (limit - 1)]).shape == (1, 3)
        with pytest.raises(ModelError, match=f"takes at most {limit}"):
            engine.label_logits([[65] * (limit + 1)])
        engine._served = {"id": engine.check()["id"]}  # what the server itself says of it
        with pytest.raises(ModelError, match="status 400"):
            engine.label_logits([[65] * (limit + 1)])


def test_another_bundle_of_this_machine_is_found_out(server: VllmServer, bundle: Path) -> None:
    with pytest.raises(ModelError, match="fingerprint"):
        VllmEngine.for_bundle(server.url, TaskSpec.load(bundle).with_temperature(2.0))


def test_a_server_that_dies_in_the_middle_is_named(server: VllmServer, bundle: Path) -> None:
    """The last test of this file: it ends the server."""
    spec = TaskSpec.load(bundle)
    retries = Retries(attempts=3, first_pause_s=0.1, longest_pause_s=0.2)
    with VllmEngine.for_bundle(
        server.url, spec, retries=retries, prompts_per_request=1, concurrency=1
    ) as engine:
        done: list[int] = []

        def kill(count: int) -> None:
            done.append(count)
            if len(done) == 5:
                server.kill()

        with pytest.raises(ModelError, match=r"does not answer /classify: .*\(3 attempts\)"):
            engine.label_logits(encoded(bundle, spec), kill)
    assert 5 <= len(done) < 240
