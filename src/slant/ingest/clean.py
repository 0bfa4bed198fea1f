"""Texts cleaned before anything else reads them: repaired, rid of what cannot be seen, masked.

The author's words, quotes, emoji and typography stay as they are. A text with nothing to clean
passes through a few searches and is returned as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any, final

from slant.config.ingest_settings import CleanSettings

__all__ = ["CHANGES", "Cleaner"]

_ENTITIES = "HTML entities decoded"
_ENCODING = "encoding repaired"
_SURROGATES = "broken characters replaced"
_CONTROLS = "control characters removed"
_INVISIBLES = "invisible characters removed"
_NFC = "normalised to NFC"
_BOILERPLATE = "boilerplate removed"

CHANGES = (
    _ENTITIES,
    _ENCODING,
    _SURROGATES,
    _CONTROLS,
    _INVISIBLES,
    _NFC,
    _BOILERPLATE,
    "urls masked",
    "users masked",
    "emails masked",
    "phones masked",
)
"""Every kind of change, in the order in which they are made."""


@final
class Cleaner:
    """Cleans texts by the settings."""

    def __init__(self, settings: CleanSettings) -> None:
        self._repairs = settings.repair
        self._boilerplate = [re.compile(pattern) for pattern in settings.boilerplate]
        self._masks = [name for name in _MASKS if name in settings.mask]

    def clean(self, text: str) -> tuple[str, tuple[str, ...]]:
        """The text cleaned, and the kinds of change made to it, in the order of ``CHANGES``.

        Line ends and tabs stay as they are. Without boilerplate and masks, cleaning a cleaned text
        changes nothing, and the result is in Unicode NFC and can be written as UTF-8.
        """
        changes: set[str] = set()
        while True:  # removing one thing can uncover another: "&am\u200bp;"
            before = text
            if self._repairs:
                text = _repair(text, changes)
            if _ODD.search(text):
                text = _without_odd(text, changes)
            if not unicodedata.is_normalized("NFC", text):
                text = unicodedata.normalize("NFC", text)
                changes.add(_NFC)
            if self._boilerplate:
                text = self._without_boilerplate(text, changes)
            if text == before:
                break
        for name in self._masks:
            before, text = text, _MASKS[name](text)
            if text != before:
                changes.add(f"{name} masked")
        return text, tuple(change for change in CHANGES if change in changes)

    def _without_boilerplate(self, text: str, changes: set[str]) -> str:
        lines = text.splitlines(keepends=True)
        kept = [line for line in lines if not self._is_boilerplate(line.strip())]
        if len(kept) == len(lines):
            return text
        changes.add(_BOILERPLATE)
        return "".join(kept)

    def _is_boilerplate(self, line: str) -> bool:
        return any(pattern.fullmatch(line) for pattern in self._boilerplate)


# --- repair -------------------------------------------------------------------------------------


def _repair(text: str, changes: set[str]) -> str:
    """HTML entities and text that was decoded as what it was not, undone by ftfy."""
    if "&" in text and _ENTITY.search(text):
        from ftfy.fixes import unescape_html

        before, text = text, unescape_html(text)
        if text != before:
            changes.add(_ENTITIES)
    if text.isascii():
        return text
    if _suspect().search(text):
        import ftfy
        from ftfy.badness import is_bad

        if is_bad(text):
            before, text = text, ftfy.fix_text(text, _ftfy_config())
            if text != before:
                changes.add(_ENCODING)
    return text


_ENTITY = re.compile("&#?[0-9A-Za-z]{1,24};")


@cache
def _ftfy_config() -> Any:
    from ftfy import TextFixerConfig

    # fix_encoding and the repairs that belong to it; nothing that is a matter of style, and
    # nothing that is done and counted here.
    return TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )


@cache
def _suspect() -> re.Pattern[str]:
    """Finds something in every text that ftfy.badness.is_bad calls bad, twenty times as fast.

    Made of the same sets of characters: a suspect has one that is rare in its place, beside another
    (a property test holds this to is_bad). NEL (U+0085) by itself is a line end, not an ellipsis
    of Windows-1252.
    """
    from ftfy.badness import MOJIBAKE_CATEGORIES as SETS

    names = (
        "bad",
        "law",
        "currency",
        "start_punctuation",
        "end_punctuation",
        "numeric",
        "upper_accented",
        "lower_accented",
        "box",
    )
    odd = "".join(SETS[name] for name in names)
    letters = SETS["lower_common"] + SETS["upper_common"]
    alone = "\x80-\x84\x86-\x9fÂÃÎÐØÙЂ"
    soft = SETS["common"] + SETS["kaomoji"]
    # It begins with one set so that the search runs at the speed of a set.
    return re.compile(
        f"[{odd}{alone}°](?:"
        f"[{odd}]|(?<=[{alone}])|(?<=[{SETS['box']}{SETS['upper_accented']}√≈‚])[{soft}]"
        f"|(?<=[ВГРС].)[ВГРС]|(?<=[ΒΓΞΟ].)[ΒΓΞΟ]|(?<=[Œœ])[^A-Za-z]"
        f"|(?<=[a-zA-Z][{letters}][{SETS['bad']}])"
        f"|(?<=[{SETS['lower_common']}][{SETS['upper_accented']}])|(?<=β€))",
        re.DOTALL,
    )


# --- what cannot be seen ------------------------------------------------------------------------

_CONTROL = re.compile("\x1b\\[[0-9;]*[A-Za-z]|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EMOJI = "\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_JOINED = (  # Arabic and its kin, the scripts of India, Tibetan, Burmese, Khmer, Mongolian
    "\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc"
    "\U00010f30-\U00010f6f\U00011000-\U00011fff"
)
# Joiners change how letters of those scripts are drawn and what they mean, and tie emoji together.
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
    f"|(?<![{_JOINED}])(?:\u200c|(?<![{_EMOJI}\ufe0f])\u200d|\u200d(?![{_EMOJI}]))"
)
_ODD = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u2069\ufeff\ud800-\udfff]"
)


def _without_odd(text: str, changes: set[str]) -> str:
    if _SURROGATE.search(text):
        # Halves of a pair side by side are the character they were cut from.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        changes.add(_SURROGATES)
    for pattern, change in ((_CONTROL, _CONTROLS), (_INVISIBLE, _INVISIBLES)):
        text, count = pattern.subn("", text)
        if count:
            changes.add(change)
    return text


# --- masks --------------------------------------------------------------------------------------

# Scripts without spaces may touch what is masked: only ASCII belongs to an address, and Cyrillic
# only where a part of the address begins.
_CYRILLIC = "\u0400-\u052f"
_ADDRESS = (
    rf"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]|(?<=://)[{_CYRILLIC}][{_CYRILLIC}0-9.-]*"
    rf"|(?<=[/_=])[{_CYRILLIC}]+)+(?<![.,;:!?'()\[\]*])"
)
_DOMAINS = "com|org|net|info|io|co|me|ly|gl|be|gov|edu|ru|su|cn|es|mx|ar|cl|pe|ph|us|uk|tv|cc|gd"
_URL = re.compile(
    rf"(?:https?|ftp)://{_ADDRESS}"
    rf"|(?<![A-Za-z0-9_@.])www\.[A-Za-z0-9]{_ADDRESS}"
    rf"|(?<![A-Za-z0-9_@./-])(?:[A-Za-z0-9-]{{1,63}}\.){{1,4}}(?:{_DOMAINS})/(?=[A-Za-z0-9]){_ADDRESS}",
    re.IGNORECASE,
)
_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_USER = re.compile(
    r"(?<![A-Za-z0-9_.@<])(?<![A-Za-z0-9]/)@(?:"
    # Twitter, Instagram, Telegram, Mastodon; "@5" is a price
    r"(?![0-9.]+(?![A-Za-z0-9_]))[A-Za-z0-9_]{1,30}(?:\.[a-z0-9_]{1,30})*"
    r"(?:@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4})?"
    # Weibo: a name ends where something else than a name begins
    rf"|[{_HAN}][{_HAN}A-Za-z0-9_-]{{1,29}}(?=[\s:：@/)）”\"】」]|$)"
    rf"|[{_CYRILLIC}][{_CYRILLIC}0-9_]{{2,29}})"
)
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_+-])?"
    r"@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![A-Za-z0-9@])"
)
# What no phone number is: a date, a span of years, part of a longer number, an amount.
_NOT_BEFORE = r"(?<![A-Za-z0-9$€£¥₽₱#_+.-])(?<![0-9][,:/])"
_NOT_AT = (
    r"(?!(?:[0-3]?[0-9][-./ ]){2}(?:19|20)[0-9]{2}(?![0-9]))"
    r"(?!(?:19|20)[0-9]{2}[-./ –](?:[0-9]{1,2}[-./ –]|(?:19|20)[0-9]{2}(?![0-9])))"
)
_NOT_AFTER = (
    r"(?![0-9A-Za-z%_]|[.,:/-][0-9]|\s?(?:[$€£¥₽₱%]|руб|тыс|млн|евро|долл|euros?\b|d[oó]lares"
    r"|pesos?\b|mil\b|元|块|万|亿|人))"
)
_NUMBERS = (  # in an atomic group: a number is taken whole or not at all
    r"\+[1-9](?:[ ().-]{0,2}[0-9]){7,14}",  # +63 917 123 4567
    r"(?:[18][ -]?)?\((?!(?:19|20)[0-9]{2}\))[0-9]{2,5}\)[ -]?"
    r"(?!(?:19|20)[0-9]{2}[ -](?:19|20)[0-9]{2})"
    r"[0-9]{2,4}(?:[ -]?[0-9]{2,4}){1,2}",  # (02) 8123-4567
    r"[78](?:[ -]?)[3489][0-9]{2}[ -]?[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{2}",  # 8-800-555-35-35
    r"(?:1[.-])?[0-9]{3}(?P<dot>[.-])[0-9]{3}(?P=dot)[0-9]{4}",  # 212-555-0123
    r"1[3-9][0-9](?P<gap>[ -]?)[0-9]{4}(?P=gap)[0-9]{4}",  # 138 1234 5678
    r"[48]00-[0-9]{3,4}-[0-9]{3,4}",  # 400-1234-567
    r"0[0-9]{2,3}-[0-9]{7,8}",  # 010-12345678
    r"0[0-9]{1,4}(?:[ -][0-9]{2,4}){2,3}",  # 0917 123 4567
    r"0[0-9]{9,10}",  # 09171234567
    r"[6789][0-9]{2}(?:[ .-][0-9]{2}){3}",  # 612 34 56 78
    r"9[0-9][ .-][0-9]{3}(?:[ .-][0-9]{2}){2}",  # 91 123 45 67
    r"[67][0-9]{2}-[0-9]{3}-[0-9]{3}",  # 612-345-678
)
_PHONE = re.compile(
    rf"(?P<word>){_NOT_BEFORE}{_NOT_AT}(?P<number>(?>{'|'.join(_NUMBERS)})){_NOT_AFTER}"
)
# After such a word any grouping will do: 612 345 678 could be an amount otherwise.
_NAMED_PHONE = re.compile(
    r"(?P<word>\b(?:tel[eé]fono|celular|m[oó]vil|whatsapp|telephone|phone|tel|tlf|cel|телефону?|тел)"
    r"[.:]{0,2} ?|(?:电话|手机|热线|致电)[号码]{0,2}[为是]?[:：]? ?)"
    rf"{_NOT_AT}(?P<number>(?>[+(]?[0-9](?:[ ().-]{{0,2}}[0-9]){{6,13}})){_NOT_AFTER}",
    re.IGNORECASE,
)
_DIGITS = re.compile("[0-9][0-9 ().-]{5,}[0-9]")


def _mask_urls(text: str) -> str:
    return _URL.sub("<url>", text) if "/" in text or "www." in text else text


def _mask_users(text: str) -> str:
    return _USER.sub("@user", text) if "@" in text else text


def _mask_emails(text: str) -> str:
    return _EMAIL.sub("<email>", text) if "@" in text else text


def _mask_phones(text: str) -> str:
    if not _DIGITS.search(text):
        return text
    return _PHONE.sub(_mask_phone, _NAMED_PHONE.sub(_mask_phone, text))


def _mask_phone(match: re.Match[str]) -> str:
    """``match`` masked if it has the length of a phone number and is no round sum."""
    number = match["number"]
    num_digits = sum(character.isdigit() for character in number)
    least, most = (9, 11) if number[0] in "0(" and not match["word"] else (7, 15)
    if not least <= num_digits <= most or number.endswith(("000 000", "000000", "000.000")):
        return match[0]
    return f"{match['word']}<phone>"


# In the order in which they are applied: an address may hold a user, and a user is no e-mail.
_MASKS: dict[str, Callable[[str], str]] = {
    "urls": _mask_urls,
    "users": _mask_users,
    "emails": _mask_emails,
    "phones": _mask_phones,
}
