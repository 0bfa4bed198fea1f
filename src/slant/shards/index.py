"""``index.json``: which shard files a folder holds, how large they are and what they hash to.

Index version 2 of MosaicML's Streaming library (see ``mds`` for the source):

    {"version": 2, "shards": [{
        "format": "mds", "version": 2, "samples": 512,
        "column_names": […], "column_encodings": […], "column_sizes": [8, null, …],
        "compression": "zstd", "hashes": ["sha1", "xxh64"], "size_limit": 67108864,
        "raw_data": {"basename": "shard.00000.mds", "bytes": …, "hashes": {"sha1": …}},
        "zip_data": {"basename": "shard.00000.mds.zstd", …}            (null: not compressed)
    }, …]}

An index is read strictly: every key is needed and no other is allowed, so that damage to the
index itself is noticed and not worked around.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, final

import xxhash
import zstandard

from slant.errors import ShardError, did_you_mean
from slant.shards.mds import Column, parse_columns

__all__ = [
    "INDEX_BASENAME",
    "ShardEntry",
    "ShardFile",
    "compress",
    "decompress",
    "digest",
    "format_index",
    "is_compression",
    "is_hash",
    "parse_index",
    "shard_config",
]

INDEX_BASENAME = "index.json"

_VERSION = 2
_FORMAT = "mds"
_ZSTD_DEFAULT_LEVEL = 3  # what "zstd" without a level means in the reference library

# Fastest first: a first read checks one hash, a full verification all of them.
_HASHES: dict[str, Callable[[Any], Any]] = {
    "xxh3_64": xxhash.xxh3_64,
    "xxh3_128": xxhash.xxh3_128,
    "xxh64": xxhash.xxh64,
    "xxh128": xxhash.xxh128,
    "xxh32": xxhash.xxh32,
    "sha1": hashlib.sha1,
    "sha256": hashlib.sha256,
    "md5": hashlib.md5,
    "blake2b": hashlib.blake2b,
    "blake2s": hashlib.blake2s,
    "sha512": hashlib.sha512,
}


@final
@dataclass(frozen=True)
class ShardFile:
    """One file of a shard: its name inside the folder, its size and its digests in hex."""

    basename: str
    num_bytes: int
    hashes: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The object that the index holds for this file."""
        return {"basename": self.basename, "bytes": self.num_bytes, "hashes": self.hashes}

    def fastest_hash(self) -> tuple[str, ...]:
        """The name of the digest that is quickest to check; empty when there is none."""
        return tuple(name for name in _HASHES if name in self.hashes)[:1]

    def check(self, content: bytes | memoryview, hashes: Iterable[str]) -> None:
        """Raise ShardError where the size, or a digest named in ``hashes``, is another."""
        self.check_size(len(content))
        for name in hashes:
            actual, expected = digest(name, content), self.hashes[name]
            if actual != expected:
                raise ShardError(
                    f"{name} of {self.basename} is {actual}, the index says {expected}"
                )

    def check_size(self, num_bytes: int) -> None:
        """Raise ShardError where a file of ``num_bytes`` cannot be this one."""
        if num_bytes != self.num_bytes:
            raise ShardError(f"has {num_bytes} bytes, the index says {self.num_bytes}")


@final
@dataclass(frozen=True)
class ShardEntry:
    """What the index says of one shard.

    Attributes:
        columns: in the order of the format.
        compression: ``zstd``, ``zstd:<level>`` or None.
        hashes: names of the digests that each file carries.
        size_limit_bytes: where the writer began a new shard; None: nowhere.
        num_samples: samples in this shard.
        raw: the uncompressed file; on disk only when ``zipped`` is None or a reader left it there.
        zipped: the compressed file.
    """

    columns: tuple[Column, ...]
    compression: str | None
    hashes: tuple[str, ...]
    size_limit_bytes: int | None
    num_samples: int
    raw: ShardFile
    zipped: ShardFile | None

    def config(self) -> dict[str, Any]:
        """The part that is repeated inside the shard, between its offsets and its samples."""
        return shard_config(self.columns, self.compression, self.hashes, self.size_limit_bytes)

    def to_json(self) -> dict[str, Any]:
        """The object that the index holds for this shard."""
        return {
            **self.config(),
            "samples": self.num_samples,
            "raw_data": self.raw.to_json(),
            "zip_data": self.zipped.to_json() if self.zipped else None,
        }


def shard_config(
    columns: Sequence[Column],
    compression: str | None,
    hashes: Sequence[str],
    size_limit_bytes: int | None,
) -> dict[str, Any]:
    """The settings with which a shard was written, as the format spells them."""
    return {
        "version": _VERSION,
        "format": _FORMAT,
        "compression": compression,
        "hashes": list(hashes),
        "size_limit": size_limit_bytes,
        "column_names": [column.name for column in columns],
        "column_encodings": [column.encoding for column in columns],
        "column_sizes": [column.codec.size for column in columns],
    }


def is_hash(name: str) -> bool:
    """Whether digests of this name can be computed here."""
    return name in _HASHES


def digest(name: str, data: bytes | memoryview) -> str:
    """The digest of ``data`` in lower-case hex; ``name`` is one that ``is_hash`` accepts."""
    return str(_HASHES[name](data).hexdigest())


def is_compression(name: str) -> bool:
    """Whether ``name`` is ``zstd`` or ``zstd:1`` … ``zstd:22``."""
    return re.fullmatch(r"zstd(:([1-9]|1[0-9]|2[0-2]))?", name) is not None


def compress(compression: str, data: bytes) -> bytes:
    """One Zstandard frame that states its content size, which the reference library needs."""
    _, _, level = compression.partition(":")
    return zstandard.ZstdCompressor(level=int(level or _ZSTD_DEFAULT_LEVEL)).compress(data)


def decompress(data: bytes | memoryview, num_bytes: int) -> bytes:
    """The content of one Zstandard frame that holds exactly ``num_bytes``.

    Raises:
        ShardError: it is no such frame. Its size is checked before memory is taken for it.
    """
    try:
        stated = zstandard.frame_content_size(data)
        if stated not in (-1, num_bytes):  # -1: the frame does not state it
            raise ShardError(f"decompresses to {stated} bytes, the index says {num_bytes}")
        content = zstandard.ZstdDecompressor().decompress(
            data, max_output_size=num_bytes, allow_extra_data=False
        )
    except (zstandard.ZstdError, MemoryError) as error:
        raise ShardError(f"is not a Zstandard frame of {num_bytes} bytes: {error}") from error
    if len(content) != num_bytes:
        raise ShardError(f"decompresses to {len(content)} bytes, the index says {num_bytes}")
    return content


def format_index(entries: Iterable[ShardEntry]) -> bytes:
    """The bytes of ``index.json``."""
    index = {"version": _VERSION, "shards": [entry.to_json() for entry in entries]}
    return json.dumps(index, sort_keys=True).encode("utf-8")


def parse_index(data: bytes) -> list[ShardEntry]:
    """The shards that an index lists.

    Raises:
        ShardError: it is not JSON, a key is missing or unknown, a value has the wrong type or
            contradicts another, an encoding, hash or compression is not supported, or a basename
            leads out of the folder. The message names the place inside the index.
    """
    try:
        index = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"is not JSON: {error}") from error
    _check_keys(index, {"version", "shards"}, "index")
    _check(index["version"] == _VERSION, "index", f"version {index['version']!r} is not 2")
    _check(isinstance(index["shards"], list), "index", "'shards' is not a list")
    return [_parse_entry(shard, f"shards[{i}]") for i, shard in enumerate(index["shards"])]


def _check(holds: bool, where: str, problem: str) -> None:
    if not holds:
        raise ShardError(f"{where}: {problem}")


def _check_keys(value: Any, keys: set[str], where: str) -> None:
    _check(isinstance(value, dict), where, f"expected an object, got {type(value).__name__}")
    missing, unknown = sorted(keys - value.keys()), sorted(value.keys() - keys)
    _check(not missing and not unknown, where, f"missing keys {missing}, unknown keys {unknown}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_list_of_str(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _parse_entry(shard: Any, where: str) -> ShardEntry:
    config_keys = set(shard_config((), None, (), None))
    _check_keys(shard, config_keys | {"samples", "raw_data", "zip_data"}, where)
    _check(shard["version"] == _VERSION, where, f"version {shard['version']!r} is not 2")
    _check(shard["format"] == _FORMAT, where, f"format {shard['format']!r} is not 'mds'")
    for key in ("column_names", "column_encodings", "hashes"):
        _check(_is_list_of_str(shard[key]), where, f"{key!r} is not a list of strings")
    _check(_is_count(shard["samples"]), where, f"samples {shard['samples']!r} is not a count")
    limit, compression, hashes = shard["size_limit"], shard["compression"], shard["hashes"]
    _check(limit is None or _is_count(limit), where, f"size_limit {limit!r} is not a count")
    _check(
        compression is None or (isinstance(compression, str) and is_compression(compression)),
        where,
        f"compression {compression!r} is not supported; supported: zstd, zstd:1 … zstd:22",
    )
    for name in hashes:
        _check(is_hash(name), where, f"hash {name!r} is not known{did_you_mean(name, _HASHES)}")
    zipped, has_zip = shard["zip_data"], compression is not None
    _check((zipped is not None) == has_zip, where, "'zip_data' and 'compression' disagree")
    raw_file = _parse_file(shard["raw_data"], hashes, f"{where}.raw_data")
    zip_file = _parse_file(zipped, hashes, f"{where}.zip_data") if has_zip else None
    names_agree = zip_file is None or zip_file.basename == f"{raw_file.basename}.zstd"
    _check(names_agree, where, "the basenames of 'raw_data' and 'zip_data' do not belong together")
    return ShardEntry(
        columns=_parse_shard_columns(shard, where),
        compression=compression,
        hashes=tuple(hashes),
        size_limit_bytes=limit,
        num_samples=shard["samples"],
        raw=raw_file,
        zipped=zip_file,
    )


def _parse_shard_columns(shard: dict[str, Any], where: str) -> tuple[Column, ...]:
    names, encodings = shard["column_names"], shard["column_encodings"]
    ordered = names == sorted(set(names)) and len(names) == len(encodings)
    _check(ordered, where, "column names are not sorted, or not as many as encodings")
    try:
        columns = parse_columns(dict(zip(names, encodings, strict=True)))
    except ShardError as error:
        raise ShardError(f"{where}: {error.message}", hint=error.hint) from error
    sizes = [column.codec.size for column in columns]
    _check(shard["column_sizes"] == sizes, where, f"column sizes must be {sizes}")
    return columns


def _parse_file(value: Any, hashes: list[str], where: str) -> ShardFile:
    _check_keys(value, {"basename", "bytes", "hashes"}, where)
    basename, num_bytes, digests = value["basename"], value["bytes"], value["hashes"]
    _check(isinstance(basename, str) and _is_inside(basename), where, f"unsafe name {basename!r}")
    _check(_is_count(num_bytes), where, f"bytes {num_bytes!r} is not a count")
    _check_keys(digests, set(hashes), f"{where}.hashes")
    _check(all(isinstance(d, str) for d in digests.values()), where, "a hash is not a string")
    return ShardFile(basename, num_bytes, digests)


def _is_inside(basename: str) -> bool:
    """Whether a name stays in the folder that it is joined to, on any operating system.

    A folder in between is allowed: merged indexes have them. Links are followed, because a folder
    of links to a store of files is how download caches look; what a name may not do is climb.
    """
    path = PurePosixPath(basename)
    climbs = path.is_absolute() or ".." in path.parts or not path.parts
    return not climbs and not re.search(r"[\\:\x00-\x1f]", basename)
