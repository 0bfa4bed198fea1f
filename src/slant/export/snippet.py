"""The prompt and the answer in plain Python, for the model card: transformers and nothing of slant.

What it does is what ``task.normalise``, ``task.template`` and ``task.encode`` do under
``long_documents: cut``; a test runs both.
"""

from __future__ import annotations

from slant.task.encode import MIN_DOCUMENT_TOKENS
from slant.task.spec import TaskSpec

__all__ = ["prompt_code"]

_CODE = """\
def clean(text):
    text = re.sub(r"\\r\\n?|[\\x0b\\x0c\\x85]", "\\n", text or "")
    text = re.sub(r"[\\x00-\\x08\\x0e-\\x1f\\x7f-\\x9f]", "", text)
    return unicodedata.normalize("NFC", text).strip()

def fill(document, narrative):
    if narrative:
        return {with_narrative}
    return {overall}

def count(prompt):
    return len(tokenizer(prompt).input_ids)

def make_prompt(document, narrative=None, limit={limit}, marker={marker}):
    document, narrative = clean(document), clean(narrative)
    prompt = fill(document, narrative)
    if count(prompt) <= limit:
        return prompt
    # Too long: head and tail stay, the marker stands where the middle was.
    places = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)
    places = places["offset_mapping"]
    room = limit - count(fill(clean(marker), narrative))
    if room < {least}:
        raise ValueError("the narrative leaves no room for the document")
    room = min(room, max(1, len(places) - 1))
    while room > 0:
        head = round(room * {head_share})
        end = places[head - 1][1] if head else 0
        tail = document[places[head - room][0] :] if head < room else ""
        cut = document[:end].rstrip() + marker + tail.lstrip()
        prompt = fill(clean(cut), narrative)
        if count(prompt) <= limit:
            return prompt
        room -= count(prompt) - limit
    raise ValueError("the document cannot be cut to the limit")
"""


def prompt_code(spec: TaskSpec) -> str:
    """Python source of ``make_prompt(document, narrative=None)``, which gives the prompt's text.

    It wants ``re``, ``unicodedata`` and the exported ``tokenizer`` as global names.
    """
    before, _, rest = spec.template.prompt.partition("{document}")
    between, _, after = rest.partition("{narrative}")
    overall_before, _, overall_after = spec.template.prompt_overall.partition("{document}")
    return _CODE.format(
        with_narrative=_sum(before, "document", between, "narrative", after),
        overall=_sum(overall_before, "document", overall_after),
        limit=spec.token_limit,
        marker=repr(spec.marker),
        head_share=repr(spec.head_share),
        least=MIN_DOCUMENT_TOKENS,
    )


def _sum(*parts: str) -> str:
    """Wording (at even places) and names (at odd ones), as a sum of Python."""
    terms = (part if place % 2 else repr(part) for place, part in enumerate(parts))
    return " + ".join(term for term in terms if term != "''")
