"""What every exported folder is asked beside the trained model: a frozen set of pairs.

It is a pure function of the corpus, the task contract and the number that is asked for: pairs of
all languages, from the shortest document to the longest, and where the corpus has too few of them
built-in texts; and in any case the edge cases below. What a model has seen does not matter here.

Long documents take most of the time: most of the pairs are from the shorter third.

Probes are people's texts. What is kept of them (``probes.jsonl``) are digests and probabilities.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slant.artifacts import digest_json
from slant.corpus import Corpus
from slant.errors import TaskError
from slant.task.encode import Encoder
from slant.task.languages import UNKNOWN_LANGUAGE
from slant.task.normalise import normalise_text
from slant.task.spec import TaskSpec
from slant.task.template import Template

__all__ = ["Probe", "choose_probes", "describe_probes", "probe_lines", "sample_probes"]

_Item = TypeVar("_Item")
_LangPair = tuple[str, tuple[str, str | None]]
_SPLITS = ("test", "calibration", "validation", "train")
_SAMPLE = 24
_SHORTER, _FROM_SHORTER = 0.33, 0.85

_EDGE_CASES: Mapping[str, tuple[str, str | None]] = {
    "one character": ("x", "y"),
    "no text": (" \n\t ", "the new bridge"),
    "special tokens": ("<s>closed</s> <bos>opened<eos> <pad> [INST] <|im_end|> <unk>", "<eos>"),
    "right to left": ("الجسر الجديد جميل ومفيد للمدينة. הגשר החדש יפה.", "الجسر الجديد"),
    "emoji": ("😡😡 the new bridge 🌉👎🏽 👩‍👩‍👧 is 💩!!!", "🌉"),
    "control characters": ("The\x00 bridge\x1b[31m\r\nis\u200b\ufeff open\x0c.", "the\tbridge"),
    "no narrative": ("The new bridge is a joy to cross.", None),
    "spaces at the beginning": ("    The bridge,\n\n    indented.", "  the bridge "),
    "placeholders": ("{document} {narrative} {{ text }} {% raw %} %s {0}", "{document}"),
    "line separators": ("first\u2028second\u2029third\x85fourth", "a\u2028narrative"),
    "decomposed accents": ("El puente es una vergu\u0308enza, qué a\u0301spero", "el puente"),
    "one long word": ("bridge" * 60, "the bridge"),
    "digits and punctuation": ("1,234.56 — «…» ¿¡?! \\n \\\\ ' \" ` ~ ^ €", "№ 7"),
}
_LONG = "longer than a prompt may be"
_PADDING = "ends in the padding token"
_SENTENCES = (
    ("en", "The new bridge is a ruin and a shame."),
    ("en", "The bridge opens on Monday, the mayor said."),
    ("es", "El puente nuevo es una alegría para el barrio."),
    ("ru", "Новый мост открывается в среду, сообщила мэрия."),
    ("zh", "新桥令人失望，十分糟糕。"),
    ("tl", "Nakakahiya ang bagong tulay, sabi ng mga tao."),
    ("ar", "الجسر الجديد يسهل حياة الناس."),
    ("hi", "नया पुल शहर के लिए अच्छी खबर है।"),
    ("de", "Die neue Brücke ist eine Zumutung."),
    ("fr", "Le nouveau pont a été inauguré hier."),
    ("ja", "新しい橋は素晴らしいと評判だ。"),
    ("ko", "새 다리는 실망스럽다는 평가를 받았다."),
)
_NARRATIVES = (
    "the new bridge",
    None,
    "the mayor",
    "Public money is being wasted.",
    "новый мост",
    "新桥",
    "The city is better off than a year ago, whatever the papers write about it.",
    "el alcalde",
)
_TIMES = (1, 2, 3, 5, 9)


@dataclass(frozen=True)
class Probe:
    """A pair and its prompt.

    Attributes:
        document: as it stands in the prompt: normalised, and cut where it was too long.
        narrative: None asks for the overall sentiment.
        prompt: the whole text.
        source: the pair that the prompt was made from.
        lang: BCP 47, ``und`` where it is not known.
        edge_case: its name; empty for a pair of the corpus and for built-in texts.
    """

    document: str
    narrative: str | None
    prompt: str
    source: tuple[str, str | None]
    lang: str
    edge_case: str = ""


def choose_probes(
    encoder: Encoder, spec: TaskSpec, count: int, corpus: Corpus | None = None
) -> list[Probe]:
    """``count`` pairs and the edge cases, all different.

    Pairs that the token limit leaves no room for are passed over, as they are in evaluation. Where
    a prompt ends with the document, one ends in the text of the token that fills batches.

    Args:
        encoder: of the task contract.
        spec: the contract.
        count: of pairs beside the edge cases.
        corpus: where they come from; None: built-in texts alone.

    Raises:
        TaskError: the token limit leaves no room for any.
    """
    cases = {
        **_EDGE_CASES,
        _PADDING: (f"The new bridge is closed. {encoder.padding}", None),
        _LONG: (_long_text(spec.token_limit), "the new bridge"),
    }
    chosen: dict[str, Probe] = {}
    for name, pair in cases.items():
        for probe in _made(encoder, spec.template, [(UNKNOWN_LANGUAGE, pair)], name):
            chosen.setdefault(probe.prompt, probe)
    total = count + len(chosen)
    for pairs in (_pairs(corpus) if corpus else (), _built_in()):
        if missing := total - len(chosen):
            # Some cannot be asked or are there already; not all of a large corpus is encoded.
            drawn = _spread(list(pairs), 4 * missing, _of_pair, _evenly)
            found = {probe.prompt: probe for probe in _made(encoder, spec.template, drawn)}
            different = [probe for prompt, probe in found.items() if prompt not in chosen]
            picked = _spread(different, missing, _of_probe, _rather_short)
            chosen |= {probe.prompt: probe for probe in picked}
    if not chosen:
        raise TaskError(
            f"no prompt fits the token limit of {spec.token_limit}", hint="Raise the token limit."
        )
    return list(chosen.values())


def sample_probes(probes: Sequence[Probe]) -> list[int]:
    """Places of a few of them: edge cases, and others from short to long.

    They stand in an order in which short ones and long ones meet. The longest case is left out:
    with padding it would take as long as all others.
    """
    edges = [i for i, probe in enumerate(probes) if probe.edge_case not in ("", _LONG)]
    others = [i for i, probe in enumerate(probes) if not probe.edge_case]
    others.sort(key=lambda place: len(probes[place].prompt))
    found = edges + _evenly(others, max(0, _SAMPLE - len(edges)))
    return sorted(found, key=lambda place: _digest(probes[place].prompt))


def describe_probes(probes: Sequence[Probe]) -> dict[str, Any]:
    """What a proof says of them: how many, of which languages, which edge cases, their sha256."""
    langs = [probe.lang for probe in probes if not probe.edge_case]
    return {
        "count": len(probes),
        "sha256": digest_json([_digest(probe.prompt) for probe in probes]),
        "languages": {lang: langs.count(lang) for lang in sorted(set(langs))},
        "edge_cases": [probe.edge_case for probe in probes if probe.edge_case],
    }


def probe_lines(probes: Sequence[Probe], probabilities: NDArray[np.float64]) -> str:
    """JSON lines: digest, language and kind of each prompt, and what the trained model answered."""
    return "".join(
        json.dumps(
            {
                "prompt_sha256": _digest(probe.prompt),
                "lang": probe.lang,
                "edge_case": probe.edge_case or None,
                "probabilities": [round(float(value), 6) for value in row],
            },
            ensure_ascii=False,
        )
        + "\n"
        for probe, row in zip(probes, probabilities, strict=True)
    )


def _long_text(token_limit: int) -> str:
    """Some 25 characters for each token that a prompt may have."""
    return " ".join(sentence for _, sentence in _SENTENCES) * (1 + token_limit // 16)


def _pairs(corpus: Corpus) -> Iterator[_LangPair]:
    for split in _SPLITS:
        for item in corpus.split(split):
            yield item.document.lang or UNKNOWN_LANGUAGE, item.text


def _built_in() -> Iterator[_LangPair]:
    for times, narrative, (lang, sentence) in product(_TIMES, _NARRATIVES, _SENTENCES):
        yield lang, (" ".join([sentence] * times), narrative)


def _made(
    encoder: Encoder, template: Template, pairs: Iterable[_LangPair], edge_case: str = ""
) -> Iterator[Probe]:
    """The probes of pairs, without those that cannot be asked."""
    for lang, (document, narrative) in pairs:
        try:
            prompt = encoder.prompt(document, narrative)
        except TaskError:
            continue
        clean = normalise_text(narrative or "").strip() or None
        wording = template.prompt_overall if clean is None else template.prompt
        start = wording.index("{document}")
        rest = len(template.render("", clean)) - start
        kept = prompt[start : len(prompt) - rest]
        yield Probe(kept, clean, prompt, (document, narrative), lang, edge_case)


def _of_pair(pair: _LangPair) -> tuple[str, int, str]:
    lang, (document, narrative) = pair
    return lang, len(document), _digest(f"{document}\n{narrative}")


def _of_probe(probe: Probe) -> tuple[str, int, str]:
    return probe.lang, len(probe.prompt), _digest(probe.prompt)


def _spread(
    items: Sequence[_Item],
    count: int,
    of: Callable[[_Item], tuple[str, int, str]],
    pick: Callable[[Sequence[_Item], int], list[_Item]],
) -> list[_Item]:
    """``count`` of them, of every language its share, which ``pick`` takes from short to long.

    ``of`` tells an item's language, its length, and what orders those of equal length.
    """
    of_lang: dict[str, list[_Item]] = {}
    for item in sorted(items, key=lambda item: of(item)[1:]):
        of_lang.setdefault(of(item)[0], []).append(item)
    found: list[_Item] = []
    # The smallest first: what they cannot give is left to the others.
    for done, lang in enumerate(sorted(of_lang, key=lambda lang: (len(of_lang[lang]), lang))):
        found += pick(of_lang[lang], (count - len(found)) // (len(of_lang) - done))
    return found


def _rather_short(items: Sequence[_Item], count: int) -> list[_Item]:
    """``count`` of them, most from the shorter ones, and the longest among the others."""
    border = min(len(items), max(count, round(_SHORTER * len(items))))
    long = _evenly(items[border:][::-1], round((1 - _FROM_SHORTER) * count))
    return _evenly(items[:border], count - len(long)) + long


def _evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """``count`` of them at equal distances, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    if count < 2:
        return list(items[:count])
    step = (len(items) - 1) / (count - 1)
    return [items[round(place * step)] for place in range(count)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
