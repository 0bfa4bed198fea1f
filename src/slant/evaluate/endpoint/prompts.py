"""What a language model behind an endpoint is asked: instructions, examples, the question.

The instruction is a system message; each example is a user message with its label as the
assistant's answer; the question is the last user message. What all questions of a language share
comes first, so that an endpoint with a prompt cache computes it once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from slant.task.normalise import normalise_text, text_digest

__all__ = ["LONGEST_SHOT", "LONGEST_TEXT", "Message", "Question", "Shot", "ShotPool", "messages"]

Message = dict[str, str]
"""``role`` and ``content``."""
LONGEST_TEXT = 24_000
"""Characters of a document; of a longer one three quarters are its beginning, the rest its end."""
LONGEST_SHOT = 2_000
"""Likewise of an example's document."""
_CUT = "\n[…]\n"


@dataclass(frozen=True)
class Question:
    """A document and what its sentiment is judged toward (None: its overall sentiment).

    ``lang`` is a BCP 47 code, or None where it is not known.
    """

    text: str
    narrative: str | None
    lang: str | None


@dataclass(frozen=True)
class Shot:
    """An example that may be shown: a question with its label."""

    text: str
    narrative: str | None
    lang: str | None
    label: str


@dataclass(frozen=True)
class _Wording:
    """The instruction in one language; ``{labels}`` and ``{form}`` are filled in."""

    toward: str
    overall: str
    word: str
    json: str
    text: str
    narrative: str
    comma: str = ", "


# By primary language subtag. Labels are never translated: they are what is read from the answer.
_WORDINGS = {
    "en": _Wording(
        "You read a text and a narrative: a storyline, a claim or a name. Judge the attitude of "
        "the text toward the narrative.",
        "You read a text. Judge its overall sentiment.",
        "Answer with exactly one of these words and nothing else: {labels}.",
        "Answer with a JSON object of the form {form} and nothing else; the label is exactly one "
        "of these: {labels}.",
        "Text: ",
        "Narrative: ",
    ),
    "es": _Wording(
        "Lees un texto y una narrativa: un relato, una afirmación o un nombre. Juzga la actitud "
        "del texto hacia la narrativa.",
        "Lees un texto. Juzga su sentimiento general.",
        "Responde exactamente con una de estas palabras, sin traducirla, y nada más: {labels}.",
        "Responde con un objeto JSON de la forma {form} y nada más; la etiqueta es exactamente una "
        "de estas, sin traducirla: {labels}.",
        "Texto: ",
        "Narrativa: ",
    ),
    "ru": _Wording(
        "Ты читаешь текст и нарратив: сюжет, утверждение или имя. Определи отношение текста к "
        "нарративу.",
        "Ты читаешь текст. Определи его общую тональность.",
        "Ответь ровно одним из этих слов, не переводя его, и ничем больше: {labels}.",
        "Ответь объектом JSON вида {form} и ничем больше; метка — ровно одно из этих слов, без "
        "перевода: {labels}.",
        "Текст: ",
        "Нарратив: ",
    ),
    "zh": _Wording(
        "你会读到一段文本和一个叙事,即一条故事线、一个说法或一个名称。请判断文本对该叙事的态度。",
        "你会读到一段文本。请判断其整体情感倾向。",
        "只回答以下词语之一,不要翻译,也不要添加任何其他内容:{labels}。",
        "只回答一个形如 {form} 的 JSON 对象,不要添加任何其他内容;"
        "标签必须是以下之一,不要翻译:{labels}。",
        "文本:",
        "叙事:",
        "、",
    ),
    "tl": _Wording(
        "Magbabasa ka ng isang teksto at ng isang naratibo: isang salaysay, pahayag o pangalan. "
        "Tukuyin ang saloobin ng teksto tungo sa naratibo.",
        "Magbabasa ka ng isang teksto. Tukuyin ang pangkalahatang damdamin nito.",
        "Sumagot gamit ang isa lamang sa mga salitang ito, huwag itong isalin, at huwag magdagdag "
        "ng iba pa: {labels}.",
        "Sumagot gamit ang isang JSON object na may anyong {form} at wala nang iba; ang label ay "
        "isa lamang sa mga ito, huwag itong isalin: {labels}.",
        "Teksto: ",
        "Naratibo: ",
    ),
}
_WORDINGS["fil"] = _WORDINGS["tl"]
_FORM = '{"label": "…"}'


def messages(
    question: Question,
    labels: Sequence[str],
    *,
    shots: Sequence[Shot] = (),
    answer: Literal["word", "json"] = "word",
    instructions: Literal["english", "document"] = "english",
) -> list[Message]:
    """The messages of one request.

    Args:
        question: what is asked.
        labels: names in label order, as the answer must have them.
        shots: shown before the question, in this order.
        answer: a label alone, or an object ``{"label": …}``.
        instructions: in English, or in the question's language where there is a translation
            (Spanish, Russian, Chinese, Tagalog).
    """
    language = _primary(question.lang) if instructions == "document" else None
    wording = _WORDINGS.get(language or "en", _WORDINGS["en"])
    judge = wording.toward if _has_narrative(question.narrative) else wording.overall
    form = wording.word if answer == "word" else wording.json
    form = form.replace("{form}", _FORM).replace("{labels}", wording.comma.join(labels))
    found = [{"role": "system", "content": f"{judge} {form}"}]
    for shot in shots:
        shown = shot.label
        if answer == "json":
            shown = json.dumps({"label": shot.label}, ensure_ascii=False)
        text = _user(wording, shot.text, shot.narrative, LONGEST_SHOT)
        found += [{"role": "user", "content": text}, {"role": "assistant", "content": shown}]
    text = _user(wording, question.text, question.narrative, LONGEST_TEXT)
    return [*found, {"role": "user", "content": text}]


def _user(wording: _Wording, text: str, narrative: str | None, longest: int) -> str:
    content = wording.text + _cut(_clean(text), longest)
    if _has_narrative(narrative):
        content += f"\n\n{wording.narrative}{_clean(narrative or '')}"
    return content


def _has_narrative(narrative: str | None) -> bool:
    return bool((narrative or "").strip())


def _clean(text: str) -> str:
    # Half a surrogate pair cannot be sent as UTF-8.
    return normalise_text(text).strip().encode("utf-8", "replace").decode()


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    head = longest * 3 // 4
    return text[:head] + _CUT + text[len(text) - (longest - head - len(_CUT)) :]


def _primary(lang: str | None) -> str | None:
    """The language of a code without its region or script; Filipino is written as Tagalog."""
    code = (lang or "").split("-", maxsplit=1)[0].lower()
    return "tl" if code == "fil" else code or None


@final
class ShotPool:
    """Chooses the examples that are shown before a question.

    Which they are depends on the seed, the pool and the question's language and kind (with a
    narrative or without), so that questions alike see the same examples. Examples of the question's
    language come first, then those of its kind. No example has the question's own text, and no two
    of one label have the same.

    Args:
        shots: to choose from, in any order.
        labels: names in label order; shots with another label are never shown.
        per_label: examples of each label, fewer where the pool has fewer.
        seed: of the choice.
    """

    def __init__(
        self, shots: Sequence[Shot], labels: Sequence[str], per_label: int, seed: int
    ) -> None:
        self._shots, self._labels = tuple(shots), tuple(labels)
        self._per_label, self._seed = per_label, seed
        self._ranked: dict[tuple[str | None, bool], list[tuple[str, Shot]]] = {}
        self._digests: dict[str, str] = {}

    def choose(self, question: Question) -> list[Shot]:
        """``per_label`` examples of each label, labels mixed."""
        if not self._per_label or not self._shots:
            return []
        own = self._digest(question.text)
        found: list[tuple[str, Shot]] = []
        for label in self._labels:
            seen = {own}
            for rank, shot in self._rank(question):
                if len(seen) > self._per_label:
                    break
                if shot.label == label and (digest := self._digest(shot.text)) not in seen:
                    seen.add(digest)
                    found.append((rank, shot))
        # Not label by label: a model prefers the label that it saw last.
        return [shot for _, shot in sorted(found, key=lambda pair: pair[0])]

    def _rank(self, question: Question) -> list[tuple[str, Shot]]:
        kind = (_primary(question.lang), _has_narrative(question.narrative))
        if kind not in self._ranked:
            lang, targeted = kind
            ranked = [(_rank(self._seed, lang, shot), shot) for shot in self._shots]
            ranked.sort(
                key=lambda pair: (
                    lang is None or _primary(pair[1].lang) != lang,
                    _has_narrative(pair[1].narrative) != targeted,
                    pair[0],
                )
            )
            self._ranked[kind] = ranked
        return self._ranked[kind]

    def _digest(self, text: str) -> str:
        if text not in self._digests:
            self._digests[text] = text_digest(text.encode("utf-8", "replace").decode())
        return self._digests[text]


def _rank(seed: int, lang: str | None, shot: Shot) -> str:
    parts = json.dumps([seed, lang, shot.text, shot.narrative, shot.label])
    return hashlib.sha256(parts.encode()).hexdigest()
