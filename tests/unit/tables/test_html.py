from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from slant.tables.html import extract_article
from slant.tables.reader import Row, read_rows

PARAGRAPHS = [
    "The ministers met on Tuesday for the first time since the summer and spoke for three hours.",
    "Nobody would say afterwards what had been agreed, but the mood was better than expected.",
    "A second meeting is planned for the spring, when the budget of the next year is to be known.",
]
RUSSIAN = "Министры встретились во вторник впервые с лета и говорили целых три часа подряд."


def page(paragraphs: list[str], head: str = "") -> str:
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return f"""<!DOCTYPE html><html><head><title>Ministers meet</title>{head}</head><body>
        <nav><a href="/">Home</a> <a href="/sport">Sport</a></nav>
        <article><h1>Ministers meet</h1>{body}</article>
        <footer>Copyright 2019 by nobody. All rights reserved.</footer></body></html>"""


def row_of(path: Path, content: bytes) -> Row:
    path.write_bytes(content)
    (row,) = read_rows(path, name=path.name, columns=("text",))
    return row


def text_of(row: Row) -> str:
    assert row.values is not None
    return str(row.values["html"])


@pytest.mark.parametrize(
    ("encoding", "head"),
    [
        ("utf-8", ""),
        ("utf-8", '<meta charset="windows-1251">'),  # wrongly declared
        ("windows-1251", '<meta charset="windows-1251">'),
        ("koi8-r", '<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">'),
        ("windows-1251", ""),
        ("windows-1251", '<meta charset="no-such-encoding">'),
        ("windows-1251", '<meta charset="zlib">'),
        ("utf-16", ""),
        ("utf-8-sig", '<meta charset="koi8-r">'),
        ("utf-32", ""),
    ],
)
def test_a_page_is_decoded_by_its_mark_its_letters_or_its_declaration(
    tmp_path: Path, encoding: str, head: str
) -> None:
    text = page([RUSSIAN] * 3, head)
    row = row_of(tmp_path / "a.html", text.encode(encoding))
    assert text_of(row) == text
    assert row.raw == text.encode(encoding)
    assert row.number == 1


def test_names_of_encodings_mean_what_browsers_take_them_for(tmp_path: Path) -> None:
    quoted = page(["“So it is”"], '<meta charset="iso-8859-1">')
    assert text_of(row_of(tmp_path / "a.html", quoted.encode("cp1252"))) == quoted
    chinese = page(["部长们星期二会晤。镕"], '<meta charset="gb2312">')
    assert text_of(row_of(tmp_path / "b.html", chinese.encode("gb18030"))) == chinese


def test_a_compressed_page_is_a_page(tmp_path: Path) -> None:
    text = page(PARAGRAPHS)
    assert text_of(row_of(tmp_path / "a.html.gz", gzip.compress(text.encode()))) == text


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.html", b"", "empty page"),
        ("a.html", b" \n", "empty page"),
        ("a.html.gz", gzip.compress(b"", mtime=0), "empty page"),
        ("a.html.gz", gzip.compress(b"", mtime=0)[:8], "damaged page"),
        ("a.html.gz", gzip.compress(page(PARAGRAPHS).encode(), mtime=0)[:-20], "damaged page"),
        ("a.html.gz", b"not gzip", "damaged page"),
    ],
)
def test_a_page_without_content_costs_only_itself(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    row = row_of(tmp_path / name, content)
    assert row.problem is not None
    assert row.problem.partition(":")[0] == problem


def test_an_article_is_its_main_text_and_what_the_page_says_of_it() -> None:
    head = """<link rel="canonical" href="https://example.org/ministers">
        <meta property="article:published_time" content="2024-03-05T10:20:00+01:00">"""
    article = extract_article(page(PARAGRAPHS, head))
    assert article is not None
    assert article["title"] == "Ministers meet"
    assert article["published_at"] == "2024-03-05"
    assert article["url"] == "https://example.org/ministers"
    lines = str(article["text"]).splitlines()
    assert lines[-3:] == PARAGRAPHS
    assert "Sport" not in str(article["text"])
    assert "Copyright" not in str(article["text"])


def test_what_a_page_does_not_say_is_none_and_no_date_is_guessed_from_the_text() -> None:
    article = extract_article(page(PARAGRAPHS))
    assert article is not None
    assert article["published_at"] is None
    assert article["url"] is None


@pytest.mark.parametrize(
    "html",
    [
        "",
        "   ",
        "no tags at all",
        "<html><body></body></html>",
        "<html><body><script>alert(1)</script></body></html>",
        "<div>" * 20_000,
        "\0" * 1000,
        "<" * 10_000,
        "<p>" + "&#xD800;" * 100,
        "\ud800",
        '<?xml version="1.0" encoding="utf-16"?><html>',
    ],
    ids=range(11),
)
def test_a_page_without_an_article_gives_none(html: str) -> None:
    assert extract_article(html) is None
