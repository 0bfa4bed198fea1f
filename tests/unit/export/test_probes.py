from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slant.corpus import Corpus
from slant.export.probes import (
    Probe,
    choose_probes,
    describe_probes,
    probe_lines,
    sample_probes,
)
from slant.records import Document, Example, Narrative
from tiny_stages import documents_and_examples, write_ingest
from tiny_task import TEMPLATE, tiny_encoder, tiny_spec

EDGE_CASES = 15


def chosen(corpus: Corpus | None, count: int, token_limit: int = 200) -> list[Probe]:
    options = {"token_limit": token_limit}
    return choose_probes(tiny_encoder(**options), tiny_spec(**options), count, corpus)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(write_ingest(tmp_path_factory.mktemp("corpus") / "ingest"))


def unbalanced(folder: Path) -> Corpus:
    """A thousand English test documents and three in Tagalog."""
    langs = ["en"] * 1000 + ["tl"] * 3
    documents = [Document(f"d-{i}", "word " * (1 + i), lang=lang) for i, lang in enumerate(langs)]
    examples = [Example(d.id, "n", "neutral", "test", "d", "f", 1) for d in documents]
    return Corpus(write_ingest(folder, (documents, [Narrative("n", "a bridge")], examples)))


@pytest.mark.parametrize("count", [1, 5, 8, 12, 60, 256])
def test_as_many_pairs_as_asked_for_and_the_edge_cases_all_different(
    corpus: Corpus, count: int
) -> None:
    probes = chosen(corpus, count)
    assert len(probes) == count + EDGE_CASES
    assert len({probe.prompt for probe in probes}) == len(probes)
    assert sum(bool(probe.edge_case) for probe in probes) == EDGE_CASES


def test_the_choice_is_the_same_every_time(corpus: Corpus) -> None:
    assert chosen(corpus, 30) == chosen(corpus, 30)


def test_the_corpus_comes_first_then_built_in_texts(corpus: Corpus) -> None:
    splits = ("train", "validation", "calibration", "test")
    texts = {item.text for split in splits for item in corpus.split(split)}
    few = {probe.source for probe in chosen(corpus, 8) if not probe.edge_case}
    assert few <= texts
    many = {probe.source for probe in chosen(corpus, 256)}
    assert texts <= many
    assert any("El puente nuevo es una alegría" in document for document, _ in many)


def test_without_a_corpus_the_texts_are_built_in() -> None:
    probes = chosen(None, 256, token_limit=2000)
    assert len(probes) == 256 + EDGE_CASES
    langs = describe_probes(probes)["languages"]
    assert len(langs) == 11
    assert max(langs.values()) - min(langs.values()) <= 1


def test_a_rare_language_is_asked_as_much_as_there_is_of_it(tmp_path: Path) -> None:
    probes = chosen(unbalanced(tmp_path / "ingest"), 20, token_limit=20_000)
    assert describe_probes(probes)["languages"] == {"en": 17, "tl": 3}


def test_the_shortest_and_the_longest_are_among_them_and_most_are_rather_short(
    tmp_path: Path,
) -> None:
    probes = chosen(unbalanced(tmp_path / "ingest"), 20, token_limit=20_000)
    lengths = sorted(len(p.document.split()) for p in probes if p.lang == "en")
    assert lengths[0] == 1
    assert lengths[-1] == 1000
    assert 13 <= sum(length <= 400 for length in lengths) <= 16
    assert 400 < lengths[-2] < 900


def test_the_texts_of_a_probe_make_its_prompt_again(corpus: Corpus) -> None:
    """Also where the document was cut, has braces in it, or is empty."""
    probes = chosen(corpus, 256, token_limit=120)
    assert any("[…]" in probe.document for probe in probes)
    for probe in probes:
        assert TEMPLATE.render(probe.document, probe.narrative) == probe.prompt
        assert tiny_encoder(token_limit=120).prompt(*probe.source) == probe.prompt


def test_the_edge_cases_are_what_they_say() -> None:
    cases = {probe.edge_case: probe for probe in chosen(None, 1)}
    assert cases["no text"].document == ""
    assert cases["no narrative"].narrative is None
    assert len(cases["one character"].document) == 1
    assert "<eos>" in cases["special tokens"].prompt
    assert "{document}" in cases["placeholders"].prompt
    assert "[…]" in cases["longer than a prompt may be"].document
    assert "\x00" not in cases["control characters"].prompt


def test_pairs_that_cannot_be_asked_are_passed_over(tmp_path: Path) -> None:
    documents, narratives, examples = documents_and_examples()
    narratives.append(Narrative("n-long", "a very long narrative " * 20))
    long = [Example(e.document_id, "n-long", "neutral", "test", "d", "f", 9) for e in examples[:9]]
    corpus = Corpus(write_ingest(tmp_path / "i", (documents, narratives, [*examples, *long])))
    probes = chosen(corpus, 256)
    assert not any("a very long narrative" in probe.prompt for probe in probes)


def test_the_sample_holds_the_edge_cases_but_the_longest_and_mixes_lengths(corpus: Corpus) -> None:
    probes = chosen(corpus, 60)
    sample = sample_probes(probes)
    assert len(sample) == len(set(sample)) == 24
    cases = [probes[place].edge_case for place in sample if probes[place].edge_case]
    assert len(cases) == EDGE_CASES - 1
    assert "longer than a prompt may be" not in cases
    lengths = [len(probes[place].prompt) for place in sample]
    padded = [abs(one - other) for one, other in zip(lengths[::2], lengths[1::2], strict=True)]
    assert sum(length > 0 for length in padded) >= 10
    assert np.mean(padded) > 20


def test_what_is_kept_are_digests_and_probabilities(corpus: Corpus) -> None:
    probes = chosen(corpus, 5)
    rows = np.full((len(probes), 3), 1 / 3)
    lines = [json.loads(line) for line in probe_lines(probes, rows).splitlines()]
    assert [line["edge_case"] for line in lines] == [probe.edge_case or None for probe in probes]
    assert all(line["probabilities"] == [0.333333] * 3 for line in lines)
    assert all(len(line["prompt_sha256"]) == 64 for line in lines)
    assert lines[0].keys() == {"prompt_sha256", "lang", "edge_case", "probabilities"}


def test_the_sha256_of_the_list_follows_every_prompt(corpus: Corpus) -> None:
    probes = chosen(corpus, 5)
    digests = {describe_probes(probes)["sha256"], describe_probes(probes[:-1])["sha256"]}
    digests.add(describe_probes(probes[::-1])["sha256"])
    assert len(digests) == 3
