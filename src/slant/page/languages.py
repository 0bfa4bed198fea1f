"""Names of languages for people."""

from __future__ import annotations

__all__ = ["language"]

# By primary language subtag; another language is shown by its code.
# fmt: off
_LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fil": "Filipino", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian",
    "ms": "Malay", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog",
    "tr": "Turkish", "uk": "Ukrainian", "und": "Unknown", "ur": "Urdu", "vi": "Vietnamese",
    "zh": "Chinese",
}
# fmt: on


def language(code: str) -> str:
    """The English name of a BCP 47 code, with what stands behind its first part; or the code."""
    first, _, rest = code.partition("-")
    name = _LANGUAGES.get(first.lower())
    if name is None:
        return code
    return f"{name} ({rest})" if rest else name
