"""What an endpoint answered, and which label that is.

L labels in label order. The shape of an answer is that of OpenAI's API reference (chat
completions). Nothing here raises on what an endpoint sends: what cannot be read is no label.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONGEST_CONTENT", "Reply", "TokenChoice", "label_of", "probabilities_of", "read_reply"]

LONGEST_CONTENT = 1_000
"""Characters of an answer that are kept and read."""
_TOKENS_KEPT = 16
_LEAST_LOGPROB = -9999.0
_LEAST_PROBABILITY = 1e-9
_FENCE = re.compile(r"^```\w*\s*(.*?)\s*```$", re.DOTALL)
_THOUGHT = re.compile(r"^\s*(?:<think>)?.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class TokenChoice:
    """A token of an answer, and what the model might have said: ``(token, log-probability)``."""

    token: str
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Reply:
    """What is kept of an answer.

    Attributes:
        content: its text without thoughts (``<think>…</think>``), its first ``LONGEST_CONTENT``
            characters; None where there is none.
        refused: the endpoint's filter or the model declined.
        finish_reason: as the endpoint says it.
        tokens: the first tokens with their alternatives; None where it tells none.
        input_tokens: of the prompt, as it counts them; None where it does not say.
        output_tokens: of the answer, likewise.
    """

    content: str | None = None
    refused: bool = False
    finish_reason: str | None = None
    tokens: tuple[TokenChoice, ...] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


def read_reply(body: Any) -> Reply:
    """The reply in the JSON value of an answer; an empty one where it has another shape."""
    if not isinstance(body, dict):
        return Reply()
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    input_tokens = _count(usage.get("prompt_tokens"))
    output_tokens = _count(usage.get("completion_tokens"))
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Reply(input_tokens=input_tokens, output_tokens=output_tokens)
    finish = choice.get("finish_reason")
    finish = finish[:40] if isinstance(finish, str) else None
    text = _text(message.get("content"))
    content = None if text is None else _THOUGHT.sub("", text).strip()
    return Reply(
        content=None if content is None else _sendable(content)[:LONGEST_CONTENT],
        refused=finish == "content_filter" or bool(message.get("refusal")),
        finish_reason=finish,
        # Of an answer that begins with thoughts, the first tokens are thoughts.
        tokens=_tokens(choice.get("logprobs")) if content == (text or "").strip() else None,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _text(content: Any) -> str | None:
    if isinstance(content, list):  # some endpoints answer in parts
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None


def _sendable(text: str) -> str:
    # JSON may hold half a surrogate pair, which no file takes.
    return text.encode("utf-8", "replace").decode()


def _tokens(logprobs: Any) -> tuple[TokenChoice, ...] | None:
    listed = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(listed, list):
        return None
    found = []
    for entry in listed[:_TOKENS_KEPT]:
        if not isinstance(entry, dict):
            return None
        top = entry.get("top_logprobs")
        top = list(top) if isinstance(top, list) else []
        alternatives = [pair for one in top if (pair := _alternative(one)) is not None]
        token = entry.get("token")
        if not isinstance(token, str) or not alternatives:
            return None
        found.append(TokenChoice(_sendable(token), tuple(alternatives)))
    return tuple(found) or None


def _alternative(one: Any) -> tuple[str, float] | None:
    if not isinstance(one, dict) or not isinstance(one.get("token"), str):
        return None
    value = one.get("logprob")
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return _sendable(one["token"]), min(0.0, max(_LEAST_LOGPROB, float(value)))


def label_of(content: str | None, labels: Sequence[str], answer: Literal["word", "json"]) -> int:
    """Index of the label that an answer names, or -1 if it names none or more than one.

    Both are compared without case, punctuation and Markdown, in Unicode NFKC. ``word``: the answer
    is a label, or exactly one label occurs in it as a whole word (of labels within each other, the
    longer). ``json``: an object, in a code fence or not, whose ``label`` is a label; or else the
    answer is a label.
    """
    if content is None:
        return -1
    if answer == "json":
        content = _json_label(content)
    folded = _folded(labels)
    text = _fold(content, keep=_keeps(labels))
    if text in folded:
        return folded.index(text)
    return _occurring(text, folded) if answer == "word" else -1


def _json_label(content: str) -> str:
    fenced = _FENCE.match(content.strip())
    text = fenced[1] if fenced else content.strip()
    for candidate in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        label = value.get("label") if isinstance(value, dict) else value
        if isinstance(label, str | int) and not isinstance(label, bool):
            return str(label)
        return ""
    return text


def _fold(text: str, *, keep: bool) -> str:
    """NFKC, without case; unless ``keep``, letters and digits alone, with single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    if not keep:
        text = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return " ".join(text.split())


def _keeps(labels: Sequence[str]) -> bool:
    """Whether labels differ by punctuation, as "+" and "-" do: then it must be kept."""
    folded = [_fold(label, keep=False) for label in labels]
    return "" in folded or len(set(folded)) < len(folded)


def _folded(labels: Sequence[str]) -> list[str]:
    keep = _keeps(labels)
    return [_fold(label, keep=keep) for label in labels]


def _occurring(text: str, folded: Sequence[str]) -> int:
    longest_first = sorted(folded, key=len, reverse=True)
    pattern = "|".join(_word(label) for label in longest_first)
    found = {match[0] for match in re.finditer(pattern, text)}
    return folded.index(found.pop()) if len(found) == 1 else -1


def _word(label: str) -> str:
    """A pattern of the label as a whole word; scripts without spaces have no such bounds."""
    before = "" if _is_wide(label[0]) else r"(?<!\w)"
    after = "" if _is_wide(label[-1]) else r"(?!\w)"
    return before + re.escape(label) + after


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def probabilities_of(reply: Reply, label: int, labels: Sequence[str]) -> NDArray[np.float64] | None:
    """``(L,)`` probabilities from the alternatives of the answer's token; None if they tell none.

    That token is the first one that begins the label which the answer names; without one, the first
    that is no white space or punctuation. A token stands for the label of which it is, without
    case, punctuation and white space, the beginning; one that begins several stands for none. The
    probabilities of a label's tokens are added: they exclude each other.

    A label without a token among the alternatives gets all that a single token can still have. The
    endpoint lists the most likely ones ("top_logprobs", OpenAI's API reference), so that each other
    has at most the least probability listed, and at most what is left of 1. This bound is above the
    label's true probability, so that no label is ruled out, and falls as more alternatives are
    listed. The row is then divided by its sum.

    Args:
        reply: the answer.
        label: index of the label that the answer names.
        labels: names in label order.
    """
    folded = _folded(labels)
    keep = _keeps(labels)
    stands_for = [
        _begun(_fold(token.token, keep=keep), folded, keep=keep) for token in reply.tokens or ()
    ]
    words = [i for i, token in enumerate(reply.tokens or ()) if _fold(token.token, keep=keep)]
    if not words or reply.tokens is None:
        return None
    place = stands_for.index(label) if label in stands_for else words[0]
    found: NDArray[np.float64] = np.zeros(len(labels))
    seen: set[int] = set()
    chances = [math.exp(logprob) for _, logprob in reply.tokens[place].alternatives]
    for (token, _), chance in zip(reply.tokens[place].alternatives, chances, strict=True):
        at = _begun(_fold(token, keep=keep), folded, keep=keep)
        if at >= 0:
            found[at] += chance
            seen.add(at)
    if label not in seen:
        return None  # the token begins several labels, or is none: its alternatives tell nothing
    bound = max(min(*chances, 1.0 - sum(chances)), _LEAST_PROBABILITY)
    found[[at for at in range(len(labels)) if at not in seen]] = bound
    np.maximum(found, _LEAST_PROBABILITY, out=found)
    found /= found.sum()
    return found


def _begun(token: str, folded: Sequence[str], *, keep: bool) -> int:
    """Index of the only label that a token begins, or -1."""
    if not token:
        return -1
    if token in folded:  # "very" is a label of its own beside "very good"
        return folded.index(token)
    begun = [i for i, label in enumerate(folded) if label.startswith(token)]
    return begun[0] if len(begun) == 1 else -1
