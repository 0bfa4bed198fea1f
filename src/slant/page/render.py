"""One self-contained HTML page from a folder of templates: no request, no file beside it.

Texts, narratives and label names are written by strangers. Jinja escapes all of them, and the
page's own content security policy forbids every script but ours and every request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["render_page"]

_SHARED = Path(__file__).parent / "templates"


def render_page(
    templates: Path, values: Mapping[str, Any], filters: Mapping[str, Callable[..., str]]
) -> str:
    """The page of one report as a single HTML file.

    Args:
        templates: a folder with ``report.html.j2``, which extends ``page.html.j2``, and perhaps
            ``report.css`` and ``report.js``, which go behind the shared ones.
        values: all that the templates name.
        filters: the page's own ways to write figures.

    Returns:
        HTML5 text; the same for the same arguments, byte for byte.
    """
    environment = Environment(
        loader=FileSystemLoader([templates, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    # Style and script are ours and hold no text of a document, so they alone go in unescaped.
    style = _joined(_SHARED / "page.css", templates / "report.css")
    script = _joined(_SHARED / "page.js", templates / "report.js")
    # The browser runs the script only if it has this digest, whatever else ends up in the page.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        values, style=Markup(style), script=Markup(script), script_digest=digest
    )


def _joined(*files: Path) -> str:
    return "\n".join(file.read_text("utf-8") for file in files if file.is_file())
