"""Releases in S3: uploads in parts that go on where they were interrupted.

A large file is a multipart upload. Parts that S3 has are found by asking it, so that nothing need
be remembered here: after a kill the next run lists the unfinished uploads of the key and their
parts, and sends those whose size or checksum is not right. Every part goes with its MD5 and sha256,
which S3 checks. The sha256 of the whole file is kept as metadata of the object, since the entity
tag of a multipart upload is no digest of its content.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

import base64
import errno
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, final

from slant.disk import reading
from slant.errors import StorageError
from slant.publish.release import Entry
from slant.publish.stores import Advance, UrlStore, ahead, check_sent, digest_md5
from slant.storage import file_system, patiently

__all__ = ["PART_BYTES", "S3Store"]

PART_BYTES = 16 << 20
"""Size of a part where the file is not too large for it."""
_MOST_PARTS = 10_000  # of one upload, by S3's rules
_SHA256 = "sha256"
_ATTEMPTS = 2


class _Listing(NamedTuple):
    """A method that lists, and what tells it where the next page begins."""

    method: str
    markers: tuple[str, ...]


_UPLOADS = _Listing("list_multipart_uploads", ("KeyMarker", "UploadIdMarker"))
_PARTS = _Listing("list_parts", ("PartNumberMarker",))


class _Part(NamedTuple):
    """A part of a file: its number from 1 on, its content and the content's checksums."""

    number: int
    content: bytes
    md5: bytes
    sha256: bytes

    @classmethod
    def of(cls, number: int, content: bytes) -> _Part:
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        return cls(number, content, md5, hashlib.sha256(content).digest())

    def is_in(self, stored: Mapping[str, Any] | None) -> bool:
        """Whether S3 has this part, by what it tells of it."""
        if stored is None or stored["Size"] != len(self.content):
            return False
        if sha256 := stored.get("ChecksumSHA256"):
            return bool(sha256 == _base64(self.sha256))
        return bool(stored["ETag"].strip('"') == self.md5.hex())


class _Upload(NamedTuple):
    """An unfinished upload and its parts by their numbers."""

    id: str
    parts: Mapping[int, Mapping[str, Any]]


@final
class S3Store:
    """A place in S3, or in a store that speaks its protocol. See Store.

    Args:
        url: ``s3://bucket/prefix``.
        part_bytes: size of a part, 5 MiB or more; larger ones are taken where a file needs them.
    """

    def __init__(self, url: str, *, part_bytes: int = PART_BYTES) -> None:
        self._plain = UrlStore(url)
        self._fs, _ = file_system(url)
        self._part_bytes = part_bytes

    def place(self, name: str) -> str:
        """See Store."""
        return self._plain.place(name)

    def read(self, name: str) -> bytes | None:
        """See Store."""
        return self._plain.read(name)

    def write(self, name: str, content: bytes) -> None:
        """See Store."""
        self._plain.write(name, content)

    def blocks(self, name: str, start: int, num_bytes: int) -> Iterator[bytes]:
        """See Store."""
        return self._plain.blocks(name, start, num_bytes)

    def holds(self, name: str, path: Path, entry: Entry) -> bool | None:
        """See Store."""
        found = self._head(name)
        if found is None:
            return None
        if found["ContentLength"] != entry.num_bytes:
            return False
        if sha256 := found.get("Metadata", {}).get(_SHA256):
            return bool(sha256 == entry.sha256)
        # Written by another program. Under some kinds of encryption the tag is no MD5.
        return found["ETag"].strip('"') == digest_md5(path) or self._plain.has_digest(name, entry)

    def send(self, name: str, path: Path, entry: Entry, advance: Advance) -> int:
        """See Store."""
        if entry.num_bytes <= self._part_bytes:
            self._put(name, path, entry)
            advance(entry.num_bytes)
            return entry.num_bytes
        for attempt in range(_ATTEMPTS):
            told = advance if attempt == 0 else _told_before
            try:
                sent_bytes = self._send_parts(name, path, entry, told)
            except StorageError as error:
                # Another process of this release may have completed the same upload.
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                sent_bytes = 0
            # The metadata is that of whoever began the upload, so it is looked at once more.
            if self.holds(name, path, entry):
                return sent_bytes
        raise StorageError(
            f"{self.place(name)}: is not what was sent",
            hint="Somebody else writes there; run the same command again once they are done.",
        )

    def _put(self, name: str, path: Path, entry: Entry) -> None:
        with reading(path):
            part = _Part.of(1, path.read_bytes())
        check_sent(path, part.sha256.hex(), entry)
        self._ask(
            name,
            "put_object",
            Body=part.content,
            ContentMD5=_base64(part.md5),
            ChecksumSHA256=_base64(part.sha256),
            Metadata={_SHA256: entry.sha256},
        )

    def _send_parts(self, name: str, path: Path, entry: Entry, advance: Advance) -> int:
        part_bytes = max(self._part_bytes, math.ceil(entry.num_bytes / _MOST_PARTS))
        upload = self._unfinished(name) or self._begin(name, entry)
        digest, done, sent_bytes = hashlib.sha256(), [], 0

        def parts() -> Iterator[_Part]:
            with reading(path), path.open("rb") as file:
                number = 0
                while content := file.read(part_bytes):
                    digest.update(content)
                    number += 1
                    yield _Part.of(number, content)

        def send(part: _Part) -> tuple[dict[str, Any], int, int]:
            stored = upload.parts.get(part.number)
            kept = part.is_in(stored)
            if stored is None or not kept:
                stored = self._send_part(name, upload.id, part)
            listed = {
                "PartNumber": part.number,
                "ETag": stored["ETag"],
                "ChecksumSHA256": _base64(part.sha256),
            }
            return listed, len(part.content), 0 if kept else len(part.content)

        for listed, num_bytes, num_sent in ahead(send, parts()):
            done.append(listed)
            sent_bytes += num_sent
            advance(num_bytes)
        check_sent(path, digest.hexdigest(), entry)
        self._complete(name, upload.id, done)
        return sent_bytes

    def _send_part(self, name: str, upload_id: str, part: _Part) -> dict[str, Any]:
        return self._ask(
            name,
            "upload_part",
            UploadId=upload_id,
            PartNumber=part.number,
            Body=part.content,
            ContentMD5=_base64(part.md5),
            ChecksumSHA256=_base64(part.sha256),
        )

    def _begin(self, name: str, entry: Entry) -> _Upload:
        begun = self._ask(
            name,
            "create_multipart_upload",
            ChecksumAlgorithm="SHA256",
            Metadata={_SHA256: entry.sha256},
        )
        return _Upload(begun["UploadId"], {})

    def _complete(self, name: str, upload_id: str, parts: list[dict[str, Any]]) -> None:
        def complete() -> None:
            try:
                self._call(
                    name,
                    "complete_multipart_upload",
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                )
            except FileNotFoundError:
                # The answer to an earlier try was lost, or another process completed it.
                if self._head(name) is None:
                    raise

        patiently(complete, self.place(name), writes=True)

    def _unfinished(self, name: str) -> _Upload | None:
        """The unfinished upload of a file that has most parts; None if there is none.

        Who may not list uploads, or asks a store that cannot, begins a new one.
        """
        key = self._address(name)["Key"]
        try:
            uploads = [
                _Upload(listed["UploadId"], self._parts(name, listed["UploadId"]))
                for page in self._pages(_UPLOADS, Bucket=self._address(name)["Bucket"], Prefix=key)
                for listed in page.get("Uploads", [])
                if listed["Key"] == key
            ]
        except StorageError as error:
            cause = error.__cause__
            refused = isinstance(cause, FileNotFoundError | PermissionError)
            if refused or getattr(cause, "errno", None) == errno.ENOSYS:
                return None
            raise
        return max(uploads, key=lambda upload: len(upload.parts), default=None)

    def _parts(self, name: str, upload_id: str) -> dict[int, Mapping[str, Any]]:
        pages = self._pages(_PARTS, **self._address(name), UploadId=upload_id)
        return {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}

    def _pages(self, listing: _Listing, **arguments: Any) -> Iterator[Mapping[str, Any]]:
        """The answers of a listing that S3 gives in pages."""
        url = f"s3://{arguments['Bucket']}/{arguments.get('Key', arguments.get('Prefix'))}"
        while True:
            asked = dict(arguments)
            page = patiently(
                lambda asked=asked: self._fs.call_s3(listing.method, **asked),  # type: ignore[misc]
                url,
                writes=True,
            )
            yield page
            if not page.get("IsTruncated"):
                return
            arguments |= {marker: page[f"Next{marker}"] for marker in listing.markers}

    def _head(self, name: str) -> Mapping[str, Any] | None:
        def ask() -> Mapping[str, Any] | None:
            try:
                return dict(self._call(name, "head_object"))
            except FileNotFoundError:
                return None

        return patiently(ask, self.place(name))

    def _ask(self, name: str, method: str, **arguments: Any) -> dict[str, Any]:
        return patiently(
            lambda: self._call(name, method, **arguments), self.place(name), writes=True
        )

    def _call(self, name: str, method: str, **arguments: Any) -> dict[str, Any]:
        return dict(self._fs.call_s3(method, **self._address(name), **arguments))

    def _address(self, name: str) -> dict[str, str]:
        bucket, key, _ = self._fs.split_path(self.place(name))
        return {"Bucket": bucket, "Key": key}


def _told_before(num_bytes: int) -> None:
    """Progress of bytes that were reported when they were sent for the first time."""


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
