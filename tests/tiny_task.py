"""A TaskSpec on a tiny tokenizer."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

from slant.labels import LabelSet
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.template import Template
from tiny import LABEL_WORDS, PAD, tiny_tokenizer

TEMPLATE = Template(
    "{document}\n\nNarrative: {narrative}\nSentiment toward the narrative:",
    "{document}\n\nOverall sentiment:",
)


def tiny_spec(
    tokenizer: Tokenizer | None = None, *, token_limit: int = 200, **changes: Any
) -> TaskSpec:
    settings: dict[str, Any] = {
        "template": TEMPLATE,
        "labels": LabelSet(LABEL_WORDS),
        "label_words": {},
        "pad_token_id": PAD,
        "base": ("tiny", "0" * 64),
    }
    return TaskSpec.create(
        tokenizer or tiny_tokenizer(), token_limit=token_limit, **settings | changes
    )


def tiny_encoder(tokenizer: Tokenizer | None = None, **changes: Any) -> Encoder:
    tokenizer = tokenizer or tiny_tokenizer()
    return Encoder(tokenizer, tiny_spec(tokenizer, **changes))
