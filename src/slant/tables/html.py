"""Pages of HTML, and the article in one."""

from __future__ import annotations

import codecs
import io
import logging
import re

from slant.tables.opening import MAX_LINE_BYTES
from slant.tables.row import Row

__all__ = ["extract_article", "read_html"]

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins with UTF-16's
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,400}?(?:charset|encoding)\s*=\s*["']?([\w.:-]{2,40})""", re.I
)
_DECLARED_WITHIN_BYTES = 4096
# https://encoding.spec.whatwg.org/#names-and-labels: what browsers take these names for.
_BROWSER_NAMES = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "utf-16": "utf-8",  # the declaration could be read, so it is not
    "utf-16-le": "utf-8",
    "utf-16-be": "utf-8",
}
_DETECTED_WITHIN_BYTES = 32 << 10


def read_html(file: io.BufferedReader) -> Row:
    """The only row of a page: ``html`` is its text, decoded. Takes no more than 64 MiB.

    A page that is empty or damaged is a row with a problem: the pages beside it are read.
    """
    try:
        page = file.read(MAX_LINE_BYTES + 1)
    except OSError as error:
        return Row(1, None, f"damaged page: {error}", b"")
    if not page.strip():
        return Row(1, None, "empty page", page)
    if len(page) > MAX_LINE_BYTES:
        return Row(1, None, f"page too long: over {MAX_LINE_BYTES >> 20} MiB", page)
    return Row(1, {"html": _decoded(page)}, None, page)


def _decoded(page: bytes) -> str:
    """A page as text: by its mark, as UTF-8 if it is that, as it declares, or by a guess.

    What is valid UTF-8 with letters beyond ASCII is UTF-8, whatever it declares.
    """
    for mark, encoding in _MARKS.items():
        if page.startswith(mark):
            return page[len(mark) :].decode(encoding, "replace")
    if not page.isascii():
        try:
            return page.decode()
        except UnicodeDecodeError:
            pass
    return page.decode(_declared(page) or _detected(page), "replace")


def _declared(page: bytes) -> str | None:
    """The encoding that a page says it has, if Python knows it."""
    found = _DECLARED.search(page, 0, _DECLARED_WITHIN_BYTES)
    if found is None:
        return None
    try:
        name = codecs.lookup(found[1].decode()).name
        b" ".decode(name)  # refuses codecs that are no text encodings
    except (LookupError, ValueError):
        return None
    return _BROWSER_NAMES.get(name, name)


def _detected(page: bytes) -> str:
    if page.isascii():
        return "ascii"
    import charset_normalizer

    start = page[:_DETECTED_WITHIN_BYTES]
    start = start[: start.rfind(b">") + 1] or start  # in no character's middle
    best = charset_normalizer.from_bytes(start).best()
    return best.encoding if best else "cp1252"


def extract_article(html: str) -> dict[str, str | None] | None:
    """The article of a page: its main text, and what the page says about it.

    Args:
        html: The page, decoded.

    Returns:
        ``text`` (paragraphs on lines of their own), ``title``, ``published_at`` (``YYYY-MM-DD``,
        only where the page's markup tells it) and ``url`` (the page's canonical address); None for
        what is not there. None if the page has no main text.
    """
    import trafilatura

    # It warns of every page without an article; those are counted as rejected rows.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        found = trafilatura.bare_extraction(
            html,
            with_metadata=True,
            include_comments=False,
            # A guess at the date from the text would be worse than none; and without a fixed end
            # the same page would read otherwise on another day.
            date_extraction_params={
                "original_date": True,
                "extensive_search": False,
                "max_date": "2099-12-31",
            },
        )
    except Exception:  # pages are written to be shown, not to be parsed, and some break parsers
        return None
    text = getattr(found, "text", None)
    if found is None or not text or not text.strip():
        return None
    article = {"title": found.title, "published_at": found.date, "url": found.url}
    return {"text": text.strip(), **{key: value or None for key, value in article.items()}}
