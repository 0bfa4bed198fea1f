"""Files at any address: paths of this machine, and the URLs that fsspec knows (``s3://`` …).

Reading and writing over a network goes on after a failure; see ``slant.patience``. Credentials come
from the environment or the instance; a URL that holds some is refused.
"""

from __future__ import annotations

import glob
import io
import logging
import re
from contextlib import suppress
from typing import Any, BinaryIO, final
from urllib.parse import urlsplit

from slant.errors import InputError, StorageError, UsageError
from slant.patience import PATIENCE_S, patiently

__all__ = [
    "BLOCK_BYTES",
    "PATIENCE_S",
    "check_bucket",
    "check_url",
    "file_system",
    "is_url",
    "join_url",
    "list_urls",
    "neighbours",
    "open_url",
    "patiently",
    "read_url",
    "remove_url",
    "url_exists",
    "url_version",
    "write_url",
]

BLOCK_BYTES = 8 << 20
"""How much of a file is asked for at once."""

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure"}
_EXTRAS |= {"abfs": "azure", "abfss": "azure"}
_BUCKETS = tuple(f"{protocol}://" for protocol in _EXTRAS)
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS, the path of a key file",
    "azure": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and "
    "AZURE_STORAGE_ACCOUNT_KEY",
}
# They log what they raise as well, at length and with tracebacks, which Python prints.
_LOUD = ("adlfs", "azure", "gcsfs")
_SIGNATURE = re.compile(
    r"[?&](sig|sv|token|access_token|[a-z]*AccessKeyId|X-(Amz|Goog)-[a-z]+)=", re.IGNORECASE
)
_CHECKSUM_KEYS = ("etag", "md5hash", "content_md5", "blob_id", "last_commit")
_TIME_KEYS = ("lastmodified", "last_modified", "updated", "mtime", "created")


def is_url(location: str) -> bool:
    """Whether ``location`` is a URL and not a path of this machine."""
    return re.match(r"[a-z][a-z0-9+.-]*://", location) is not None


def check_url(url: str) -> None:
    """Refuse a URL that holds a password or a key.

    Raises:
        UsageError: it does, or it is malformed; the message does not repeat it.
    """
    protocol = url.partition("://")[0]
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(
            f"{protocol}://…: is no URL ({error})",
            hint="In a bucket's name, wildcards are not possible.",
        ) from error
    # The user part of abfs://container@account is a name, that of s3://key:secret@bucket is not.
    # A secret may hold "/", and then all that is before it looks like the server's name.
    user, _, server = parts.netloc.rpartition("@")
    _, colon, port = server.partition(":")
    if ":" in user or (colon and (not port.isdigit() or "@" in url)):
        raise UsageError(
            f"{protocol}://…: the URL holds credentials",
            hint="Give them in the environment (for S3: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY), never in a file or a command.",
        )
    if _SIGNATURE.search(url):
        raise UsageError(
            f"{protocol}://{parts.netloc}/…: the URL holds a signature",
            hint="Give the plain address, and credentials in the environment.",
        )


def check_bucket(url: str) -> None:
    """Refuse a URL in a bucket that is not there; no request for a file could tell.

    Raises:
        UsageError: as ``list_urls``.
        StorageError: there is no such bucket.
        InputError: the storage does not answer.
    """
    if not url.startswith(_BUCKETS):
        return
    fs, path = file_system(url)
    bucket = path.partition("/")[0]
    try:
        patiently(lambda: fs.info(bucket), url)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            word = "container" if _EXTRAS[url.partition("://")[0]] == "azure" else "bucket"
            raise StorageError(
                f"{url}: there is no such file or {word}", hint=f"Make the {word} {bucket} first."
            ) from error
        # Who may write need not have the right to ask.
        if not isinstance(error.__cause__, PermissionError):
            raise


def join_url(folder: str, name: str) -> str:
    """The URL of a file inside a folder."""
    return f"{folder.rstrip('/')}/{name}"


def list_urls(pattern: str, *, patience_s: float = PATIENCE_S) -> list[str]:
    """The files that a URL, a glob or a folder stands for, sorted; empty if there is none.

    Args:
        pattern: A file, a folder (all files in it and below), or a glob (``*``, ``?``, ``[…]``,
            ``**``). A file whose own name looks like a glob is found too.
        patience_s: How long the storage may stay away, in seconds.

    Raises:
        UsageError: the protocol is unknown or its library is not installed, or credentials are in
            the URL.
        InputError: the storage does not answer, or refuses.
    """
    from fsspec.utils import glob_translate

    fs, path = file_system(pattern)
    path = path.rstrip("/")
    root = _without_wildcards(path)
    matches = re.compile(glob_translate(path)).match if root != path else None

    def find() -> list[str]:
        fs.invalidate_cache()
        # fsspec's own glob and walk leave out a folder whose listing fails: files would be missing
        # without a word. So everything below the fixed part is listed, and chosen here.
        try:
            return [path] if _is_file(fs, path) else list(fs.find(root))
        except FileNotFoundError:
            return []

    found = [name for name in patiently(find, pattern, patience_s) if not name.endswith("/")]
    if matches is not None and found != [path]:
        found = [name for name in found if matches(name)]
    fixed_url = pattern.rstrip("/").removesuffix(path.removeprefix(root))
    return sorted(
        # Names that fsspec gives lack parts of some URLs (the account of abfs://container@account).
        fixed_url + name[len(root) :] if name.startswith(root) else str(fs.unstrip_protocol(name))
        for name in found
    )


def neighbours(url: str) -> list[str]:
    """Names of the files and folders beside ``url``, sorted; empty if they cannot be listed."""
    try:
        fs, path = file_system(url)
        names = fs.ls(str(fs._parent(path)), detail=False)
    except Exception:  # only used to suggest a name in another error
        return []
    return sorted(str(name).rstrip("/").rpartition("/")[2] for name in names)


def url_exists(url: str, *, patience_s: float = PATIENCE_S) -> bool:
    """Whether there is a file at ``url``; raises as ``list_urls`` does."""
    fs, path = file_system(url)

    def exists() -> bool:
        fs.invalidate_cache()
        return _is_file(fs, path)

    return patiently(exists, url, patience_s)


def url_version(url: str, *, patience_s: float = PATIENCE_S) -> str:
    """A text that changes when the file's content does: size and entity tag, checksum or time.

    Raises:
        UsageError, InputError: as ``list_urls``; InputError too if there is no such file.
    """
    fs, path = file_system(url)
    return _version(_info(fs, path, url, patience_s))


def read_url(url: str, *, patience_s: float = PATIENCE_S) -> bytes:
    """All of a file; raises as ``url_version`` does."""
    fs, path = file_system(url)
    return bytes(patiently(lambda: fs.cat_file(path), url, patience_s))


def write_url(url: str, content: bytes, *, patience_s: float = PATIENCE_S) -> None:
    """Write a whole file; object stores show it only once it is complete.

    Raises:
        UsageError: as ``list_urls``.
        StorageError: it cannot be written.
    """
    fs, path = file_system(url)
    patiently(lambda: fs.pipe_file(path, content), url, patience_s, writes=True)


def remove_url(url: str, *, patience_s: float = PATIENCE_S) -> None:
    """Remove a file if there is one; raises as ``write_url`` does."""
    fs, path = file_system(url)

    def remove() -> None:
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    patiently(remove, url, patience_s, writes=True)


def open_url(
    url: str, *, patience_s: float = PATIENCE_S, block_bytes: int = BLOCK_BYTES
) -> BinaryIO:
    """Open a file for reading, seekable; a read that fails is asked for again.

    Args:
        url: The file.
        patience_s: How long the storage may stay away, in seconds.
        block_bytes: How much is asked for at once, and held.

    Raises:
        UsageError, InputError: as ``url_version``; InputError also while reading, if the file
            changed meanwhile.
    """
    return io.BufferedReader(_RangeReader(url, patience_s, block_bytes), buffer_size=1 << 20)


@final
class _RangeReader(io.RawIOBase):
    """Reads a remote file by ranges, so that a failure costs one range and not the position."""

    def __init__(self, url: str, patience_s: float, block_bytes: int) -> None:
        super().__init__()
        self._url = url
        self._patience_s = patience_s
        self._block_bytes = block_bytes
        self._fs, self._path = file_system(url)
        found = self._info()
        self._size = int(found["size"])
        self._version = _version(found)
        self._position = 0
        self._block = b""
        self._block_start = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size or not len(buffer):
            return 0
        within = self._position - self._block_start
        if not 0 <= within < len(self._block):
            self._fetch()
            within = 0
        part = self._block[within : within + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _fetch(self) -> None:
        start, end = self._position, min(self._position + self._block_bytes, self._size)
        block = patiently(
            lambda: self._fs.cat_file(self._path, start=start, end=end),
            self._url,
            self._patience_s,
        )
        # Asked once more at the end, so that no two versions are read as one file.
        replaced = end == self._size and start > 0 and _version(self._info()) != self._version
        if len(block) != end - start or replaced:
            raise InputError(
                f"{self._url}: changed while it was read",
                hint="Run the same command again once nobody writes to the file.",
            )
        self._block, self._block_start = bytes(block), start

    def _info(self) -> dict[str, Any]:
        return _info(self._fs, self._path, self._url, self._patience_s)


def _without_wildcards(path: str) -> str:
    """The folders that a glob begins with; a path without wildcards as it is."""
    if not glob.has_magic(path):
        return path
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first])


def _is_file(fs: Any, path: str) -> bool:
    """As ``fs.isfile``, which however says no when the storage does not answer."""
    try:
        return bool(fs.info(path)["type"] == "file")
    except FileNotFoundError:
        return False


def _info(fs: Any, path: str, url: str, patience_s: float) -> dict[str, Any]:
    def ask() -> dict[str, Any]:
        fs.invalidate_cache()
        found = dict(fs.info(path))
        if found["type"] != "file":
            raise FileNotFoundError
        return found

    return patiently(ask, url, patience_s)


def _version(info: dict[str, Any]) -> str:
    found = {str(key).lower(): value for key, value in info.items()}
    for key in (*_CHECKSUM_KEYS, *_TIME_KEYS):
        if found.get(key):
            return f"{key}:{found[key]};size:{found.get('size')}".replace('"', "")
    return f"size:{found.get('size')}"


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path inside it; UsageError as ``list_urls``."""
    import fsspec

    check_url(url)
    protocol = url.partition("://")[0]
    extra = _EXTRAS.get(protocol)
    try:
        fsspec.get_filesystem_class(protocol)
        _hush()
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        hint = f"Install it: pip install 'slant[{extra}]'." if extra else str(error)
        raise UsageError(
            f"{url}: reading {protocol}:// needs a library that is not installed", hint=hint
        ) from error
    except Exception as error:
        if protocol not in fsspec.available_protocols():
            raise UsageError(
                f"{url}: '{protocol}://' is no protocol that can be read",
                hint="Known are s3://, gs://, abfs://, hf:// and the others of fsspec.",
            ) from error
        # Only a plain ValueError of its own repeats no secret: others may hold a whole request.
        is_own = type(error) is ValueError and error.__cause__ is None
        reason = str(error) if is_own else type(error).__name__
        hint = f"Set {_CREDENTIALS[extra]}, in the environment." if extra else ""
        raise UsageError(f"{url}: cannot be used: {reason}", hint=hint) from error
    return fs, str(path)


def _hush() -> None:
    """Let libraries log what is fatal to them only, unless somebody set a level for them."""
    for name in _LOUD:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
