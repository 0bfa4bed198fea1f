"""What is done to a text before it is stored or asked about, and how equal texts are recognised.

As little as possible is done: the model sees what people wrote. Case, white space, emoji,
invisible joiners (needed in Persian, Hindi and emoji) and typography stay as they are.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

__all__ = ["normalise_text", "text_digest"]

# CR, CRLF, vertical tab, form feed and NEL all end a line; dropping them would join two words.
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")


def normalise_text(text: str) -> str:
    """``text`` in Unicode NFC, every line end as ``\\n``, without other control characters.

    Tab and newline stay; nothing is stripped or collapsed. Applying it twice changes nothing.
    """
    # NFC last: dropping a control character can bring a letter and its accent together.
    return unicodedata.normalize("NFC", _CONTROL.sub("", _LINE_END.sub("\n", text)))


def text_digest(text: str) -> str:
    """sha256, in hex, of the text in NFC, case-folded, each run of white space as one space.

    Equal for texts that differ in nothing a reader would call a difference. Splits keep texts of
    equal digest together.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    return hashlib.sha256(" ".join(folded.split()).encode()).hexdigest()
