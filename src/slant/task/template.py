"""The prompt: document first, narrative next, cue last."""

from __future__ import annotations

from dataclasses import dataclass

from slant.errors import TaskError
from slant.task.normalise import normalise_text

__all__ = ["Template"]


@dataclass(frozen=True)
class Template:
    """Wording of the prompt.

    The document comes first, so that the narratives asked of one document share its tokens.

    Attributes:
        prompt: holds ``{document}`` and, after it, ``{narrative}``, each once.
        prompt_overall: holds ``{document}`` once; used where no narrative is given.

    Raises:
        TaskError: they do not.
    """

    prompt: str
    prompt_overall: str

    def __post_init__(self) -> None:
        if not 0 <= self.prompt.find("{document}") < self.prompt.find("{narrative}"):
            raise TaskError("the prompt must hold {document} and, after it, {narrative}")
        if "{document}" not in self.prompt_overall:
            raise TaskError("the prompt without a narrative must hold {document}")
        wording = {
            "the prompt": (self.prompt, ("{document}", "{narrative}")),
            "the prompt without a narrative": (self.prompt_overall, ("{document}",)),
        }
        for name, (text, places) in wording.items():
            for place in places:
                if text.count(place) > 1:
                    raise TaskError(f"{name} holds {place} more than once")
        if "{narrative}" in self.prompt_overall:
            raise TaskError("the prompt without a narrative must not hold {narrative}")

    def render(self, document: str, narrative: str | None) -> str:
        """The prompt of a document's text under a narrative's text (None: overall sentiment).

        Both are normalised as at ingestion (``normalise_text``) and lose the white space around
        them. Braces in the texts stay as they are.
        """
        document = normalise_text(document).strip()
        narrative = normalise_text(narrative or "").strip()
        if not narrative:
            return self.prompt_overall.replace("{document}", document, 1)
        head, tail = self.prompt.split("{document}", 1)
        return head + document + tail.replace("{narrative}", narrative, 1)
