"""Which language a text is in: by its script, by py3langid, and by Tagalog's own small words.

py3langid is naive Bayes over byte n-grams (Lui & Baldwin, "langid.py: An Off-the-shelf Language
Identification Tool", ACL 2012, in a fork that is kept). It is offline: its model is a file of the
package, plain arrays (an .npz read with ``allow_pickle=False``), about 100 MB in memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slant.errors import UsageError, did_you_mean

__all__ = ["LANGUAGES", "LanguageIdentifier"]

# More characters cost time and find no more.
_READ_CHARACTERS = 500
# Addresses, names and tags are in no language, or in another.
_NOISE = re.compile(r"(?:https?://|www\.)\S+|[@#][A-Za-z0-9_.]+|<(?:url|email|phone)>")
_NOISE_SIGNS = ("@", "#", "://", "www.", "<")
_CAPITAL = re.compile("[A-ZÀ-Þ]")
_SHOUTED_SHARE = 0.4
_ASCII_LETTER = re.compile("[A-Za-z]")
_DECISIVE_SHARE = 0.8
_NOTED_SHARE = 0.1

# Where scripts begin, by code point; from Unicode's Blocks.txt, for letters in common use.
_SCRIPTS = (
    (0x0000, ""),
    (0x0041, "Latin"),
    (0x005B, ""),
    (0x0061, "Latin"),
    (0x007B, ""),
    (0x00C0, "Latin"),
    (0x02B0, ""),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0780, ""),
    (0x0900, "Devanagari"),
    (0x0980, "Bengali"),
    (0x0A00, "Gurmukhi"),
    (0x0A80, "Gujarati"),
    (0x0B00, "Oriya"),
    (0x0B80, "Tamil"),
    (0x0C00, "Telugu"),
    (0x0C80, "Kannada"),
    (0x0D00, "Malayalam"),
    (0x0D80, "Sinhala"),
    (0x0E00, "Thai"),
    (0x0E80, "Lao"),
    (0x0F00, "Tibetan"),
    (0x1000, "Burmese"),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, "Ethiopic"),
    (0x13A0, ""),
    (0x1780, "Khmer"),
    (0x1800, ""),
    (0x1E00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, ""),
    (0x3040, "Kana"),
    (0x3100, ""),
    (0x3400, "Han"),
    (0xA000, ""),
    (0xAC00, "Hangul"),
    (0xD7B0, ""),
    (0xF900, "Han"),
    (0xFB00, ""),
    (0xFB50, "Arabic"),
    (0xFE00, ""),
    (0xFE70, "Arabic"),
    (0xFF00, ""),
    (0x20000, "Han"),
    (0x323B0, ""),
)
_NAMES = tuple(dict.fromkeys(name for _, name in _SCRIPTS))
# What a letter weighs. A Chinese word is two characters; and other scripts quote Latin names more
# often than the other way round.
_WEIGHTS = {"": 0, "Latin": 1, "Han": 3, "Kana": 3}

_WRITTEN_IN = {
    "Arabic": "ar fa ps ug ur",
    "Armenian": "hy",
    "Bengali": "as bn",
    "Burmese": "my",
    "Cyrillic": "be bg kk ky mk mn ru sr tg tt uk",
    "Devanagari": "hi mr ne",
    "Ethiopic": "am",
    "Georgian": "ka",
    "Greek": "el",
    "Gujarati": "gu",
    "Gurmukhi": "pa",
    "Han": "ja zh",
    "Hangul": "ko",
    "Hebrew": "he",
    "Kana": "ja",
    "Kannada": "kn",
    "Khmer": "km",
    "Lao": "lo",
    "Latin": "af az br bs ca cs cy da de en eo es et eu fi fr ga gl ha hr ht hu id ig is it jv ku"
    " la lb lt lv mg ms mt nl nn no oc om pl pt qu ro sk sl so sq sr sv sw tk tl tr uz vi wa xh yo"
    " zu",
    "Malayalam": "ml",
    "Oriya": "or",
    "Sinhala": "si",
    "Tamil": "ta",
    "Telugu": "te",
    "Thai": "th",
    "Tibetan": "dz",
}

LANGUAGES = tuple(sorted({code for codes in _WRITTEN_IN.values() for code in codes.split()}))
"""The codes that can be candidates (ISO 639-1), sorted."""

# What else people write for them.
_OTHER_CODES = {
    "cn": "zh",
    "fil": "tl",
    "in": "id",
    "iw": "he",
    "jp": "ja",
    "ua": "uk",
    "zho": "zh",
}

# Words of Tagalog that are frequent in every kind of text and rare or unknown in English.
# Left out on purpose: what is also an English word ("at", "may", "raw", "din", "nag", "wag", "pa").
_TAGALOG = frozenset(
    """
    ako akin agad ang ano ayaw ba bakit daw dahil dito doon dun ganda hindi hnd huwag ikaw isang
    ito itong iyan iyon ka kahit kapag kase kasi kay kayo ko kung lahat lamang lang lng maayos
    mabilis maganda maging mayroon medyo meron mga mo muna na naman namin nang natin nalang ng nga
    ngayon nila nito niya niyo nman nmn noong nung nya nyo paano pag pala parang pati po pwede rin
    sa saan sakin salamat sayo sila siya sobrang sya talaga tapos tayo tlga ulit umano ung upang
    wala walang yan yata yong yun yung
    """.split()  # noqa: SIM905
)
_WORD = re.compile("[A-Za-z]{2,}")
# (different words, share of all words): two different ones, or a single one in a short text.
_ENOUGH = ((2, 0.04), (1, 0.08))


@final
class LanguageIdentifier:
    """Tells which of some languages a text is in.

    The model is loaded by the first text that needs it, which takes about half a second, and
    shared by all identifiers of the same candidates.

    Args:
        candidates: The languages to choose from, ISO 639-1 codes, at least one.

    Raises:
        UsageError: A candidate is not in ``LANGUAGES``.
    """

    def __init__(self, candidates: Sequence[str]) -> None:
        for code in candidates:
            _check(code)
        self._candidates = tuple(dict.fromkeys(candidates))
        self._of_script = {
            script: [code for code in self._candidates if code in codes.split()]
            for script, codes in _WRITTEN_IN.items()
        }

    def identify(self, text: str) -> tuple[str | None, float]:
        """The language of a text, as 500 of its characters show it, and how sure that is.

        Returns:
            A candidate and a confidence from 0 to 1; 1 where the script leaves one choice, so a
            language that is no candidate passes for its neighbour of the same script. (None, 0.0)
            for a text without letters, or in a script that no candidate is written in.
        """
        sample = _sample(text)
        scripts = _scripts(sample)
        if "Kana" in scripts or scripts[:1] == ["Hangul"]:
            scripts = [script for script in scripts if script != "Han"]
        if not scripts or not self._of_script[scripts[0]]:
            return None, 0.0
        choices = [code for script in scripts for code in self._of_script[script]]
        if "zh" in choices and "ja" in choices and "Kana" not in scripts:
            choices.remove("ja")
        if len(choices) == 1:
            return choices[0], 1.0
        lang, confidence = self._classify(sample, choices)
        if lang in {"en", "tl"} and "tl" in choices:
            return _tagalog_or(lang, confidence, sample)
        return lang, confidence

    def _classify(self, sample: str, choices: Sequence[str]) -> tuple[str, float]:
        if _is_shouted(sample):
            sample = sample.lower()  # the model knows few capitals
        ranked = [(lang, p) for lang, p in _model(self._candidates).rank(sample) if lang in choices]
        return ranked[0][0], ranked[0][1] / (sum(p for _, p in ranked) or 1)


def _check(code: str) -> None:
    if code in LANGUAGES:
        return
    bare = re.split("[-_]", code.lower())[0]  # zh-CN
    meant = _OTHER_CODES.get(bare, bare)
    near = f"; did you mean '{meant}'?" if meant in LANGUAGES else did_you_mean(bare, LANGUAGES)
    raise UsageError(
        f"ingest.language.candidates: '{code}' is not a language that can be identified{near}",
        hint=f"The codes are {', '.join(LANGUAGES)}.",
    )


@lru_cache(maxsize=1)  # 100 MB; a project has one list of candidates
def _model(candidates: tuple[str, ...]) -> Any:
    from py3langid.langid import MODEL_FILE
    from py3langid.langid import LanguageIdentifier as Model

    model = Model.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages(candidates)
    return model


@cache
def _script_edges() -> tuple[NDArray[np.uint32], NDArray[np.intp], NDArray[np.int64]]:
    """First code points, the script of each, and the weight of each script."""
    edges = np.array([start for start, _ in _SCRIPTS], np.uint32)
    of_edge = np.array([_NAMES.index(name) for _, name in _SCRIPTS], np.intp)
    return edges, of_edge, np.array([_WEIGHTS.get(name, 2) for name in _NAMES], np.int64)


def _sample(text: str) -> str:
    """Of a long text its beginning and something of its middle, without addresses and names."""
    if len(text) > 2 * _READ_CHARACTERS:
        middle = len(text) // 2
        text = f"{text[:_READ_CHARACTERS]} {text[middle : middle + _READ_CHARACTERS]}"
    if any(sign in text for sign in _NOISE_SIGNS):
        text = _NOISE.sub(" ", text)
    if len(text) > _READ_CHARACTERS:
        half = _READ_CHARACTERS // 2
        text = f"{text[:half]} {text[-half:]}"
    return text


def _scripts(sample: str) -> list[str]:
    """The scripts of a text, the main one first; none without letters.

    Only the main one if nearly all is written in it; others are names then.
    """
    if sample.isascii():
        return ["Latin"] if _ASCII_LETTER.search(sample) else []
    edges, of_edge, weights = _script_edges()
    points = np.frombuffer(sample.encode("utf-32-le", "surrogatepass"), np.uint32)
    places = np.searchsorted(edges, points, side="right") - 1
    counts = np.bincount(of_edge[places], minlength=len(_NAMES)) * weights
    total = int(counts.sum())
    order = np.argsort(-counts, kind="stable")
    if total and counts[order[0]] >= _DECISIVE_SHARE * total:
        order = order[:1]
    return [_NAMES[place] for place in order if counts[place] > _NOTED_SHARE * total]


def _is_shouted(sample: str) -> bool:
    return len(_CAPITAL.findall(sample)) > _SHOUTED_SHARE * len(sample)


def _tagalog_or(lang: str, confidence: float, sample: str) -> tuple[str, float]:
    """Tagalog where the text has its small words: Taglish is English in its long ones.

    The thresholds were chosen on one half of labelled rows and measured on the other
    (benchmarks/results/language.md). Capitals do not count: Ang Lee and Andrew Ng are names.
    """
    words = _WORD.findall(sample.lower() if _is_shouted(sample) else sample)
    found = [word for word in words if word in _TAGALOG]
    distinct = len(set(found))
    if not any(distinct >= least and len(found) >= share * len(words) for least, share in _ENOUGH):
        return lang, confidence
    sure = 1 - 0.4**distinct  # one word alone stays below the default min_confidence
    return "tl", max(sure, confidence) if lang == "tl" else sure
