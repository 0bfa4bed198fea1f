"""Where a bundle can be published: which texts are addresses, and which of them can be used."""

from __future__ import annotations

import re
from pathlib import Path

from slant.errors import UsageError
from slant.storage import check_url

__all__ = ["HUB", "MLFLOW", "MODELS", "check_address", "is_address"]

HUB = "hf://"
MODELS = "models:/"
MLFLOW = ("mlflow+http://", "mlflow+https://", MODELS)

_BUCKETS = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
_READABLE = ("http://", "https://")
_KNOWN = (*_BUCKETS, "file://", "memory://", HUB, *MLFLOW)
# One letter and a colon is a drive of Windows.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)(:/{0,2}|//)", re.IGNORECASE)
_SCHEMES = {known.partition(":")[0] for known in _KNOWN}
_HINT = (
    "Write s3://bucket/…, gs://…, abfs://…, hf://org/name, mlflow+http://host:port/name, "
    "models:/name or a folder; one that looks like an address is written ./NAME."
)


def is_address(to: str) -> bool:
    """Whether this is meant as an address, be it a right one, and not as a folder."""
    match = _SCHEME.match(to)
    return match is not None and (":" in match[2] or match[1].lower() in _SCHEMES)


def check_address(to: str | Path, *, pulls: bool = False) -> str:
    """The address of a place that a bundle can be published to, its scheme in small letters.

    Args:
        to: an address, or a folder, which is returned as it is.
        pulls: whether a bundle is pulled from there, which a web server will do for.

    Raises:
        UsageError: it looks like an address and is none that can be used, or holds credentials.
    """
    if isinstance(to, Path) or not is_address(to):
        return str(to)
    match = _SCHEME.match(to)
    assert match is not None
    scheme, rest = match[0].lower(), to[match.end() :]
    shown = f"{match[0]}…" if "@" in to else to
    if "://" in scheme:
        check_url(scheme + rest)
    if pulls and scheme in _READABLE:
        return scheme + rest
    if scheme not in _KNOWN:
        raise UsageError(f"{shown}: cannot be published to", hint=_HINT)
    if scheme in _BUCKETS and not re.match(r"[\w.-]+(@[\w.-]+)?(/|$)", rest):
        raise UsageError(f"{shown}: names no bucket", hint=_HINT)
    if scheme == "file://" and not re.match(r"/[^/]|[A-Za-z]:", rest):
        raise UsageError(f"{shown}: is no absolute path", hint="Write file:///folder, or a folder.")
    if not rest.strip("/") or "::" in rest:
        raise UsageError(f"{shown}: cannot be published to", hint=_HINT)
    return scheme + rest
