"""The bytes of an MDS shard: values, samples and the shard around them.

MDS ("Mosaic Data Shard"), index version 2, is the format of MosaicML's Streaming library
(https://github.com/mosaicml/streaming, ``streaming/base/format/mds``). Everything in it is
little-endian:

    shard   uint32  num_samples
            uint32  offsets[num_samples + 1]    from the start of the file; the last is its size
            JSON    config                      columns, compression, hashes, size limit
            bytes   samples
    sample  uint32  sizes of the columns without a fixed size
            bytes   the columns, in the order of their sorted names

This module is functions on bytes and opens no file; ``index`` describes shards, ``writer`` and
``reader`` move them to and from a folder. Encodings that run code (pickle) do not exist here.
"""

from __future__ import annotations

import json
import math
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np
import numpy.typing as npt

from slant.errors import ShardError, did_you_mean

__all__ = [
    "MAX_SHARD_BYTES",
    "SAMPLE_OVERHEAD_BYTES",
    "Codec",
    "Column",
    "ShardLayout",
    "codec",
    "decode_sample",
    "encode_sample",
    "encode_shard",
    "parse_columns",
    "read_layout",
    "shard_overhead_bytes",
]

MAX_SHARD_BYTES = 2**32 - 1
"""Offsets are uint32, so a shard cannot be larger than this."""

SAMPLE_OVERHEAD_BYTES = 4
"""What each sample adds to a shard beside its own bytes: its offset."""

# The number that stands for a dtype where an ndarray carries its own. Its low bits are arbitrary:
# they are the published format. The same names are the scalar encodings.
_DTYPE_CODES = {
    "uint8": 8,
    "int8": 9,
    "uint16": 16,
    "int16": 17,
    "float16": 18,
    "uint32": 32,
    "int32": 33,
    "float32": 34,
    "uint64": 64,
    "int64": 65,
    "float64": 66,
}
_DTYPES_BY_CODE = {number: name for name, number in _DTYPE_CODES.items()}
_SHAPE_DTYPES = ("<u1", "<u2", "<u4", "<u8")
_MAX_AXES = 63  # the number of axes shares one byte with two bits for the width of the shape


@final
@dataclass(frozen=True, slots=True)
class Codec:
    """How one encoding turns a value into bytes and back.

    ``size`` is the number of bytes of every value, or None where it varies. Both functions raise
    ``TypeError`` or ``ValueError`` for what the encoding cannot hold.
    """

    size: int | None
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


@final
@dataclass(frozen=True)
class Column:
    """A named column, its encoding as written in the index, and the codec that it means."""

    name: str
    encoding: str
    codec: Codec

    def __reduce__(self) -> tuple[Callable[[str, str], Column], tuple[str, str]]:
        # The functions of a codec cannot be pickled; its encoding says which they are.
        return _column, (self.name, self.encoding)


@final
@dataclass(frozen=True)
class ShardLayout:
    """Where things lie in a shard.

    Attributes:
        offsets: int64 ``(num_samples + 1,)``; sample i is the bytes ``offsets[i]:offsets[i + 1]``.
        config: the JSON object between the offsets and the first sample.
    """

    offsets: npt.NDArray[np.int64]
    config: dict[str, Any]


def _encode_bytes(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"expected bytes, got {type(value).__name__}")
    return bytes(value)


def _encode_str(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"expected str, got {type(value).__name__}")
    return value.encode("utf-8")


def _decode_str(data: bytes) -> str:
    return data.decode("utf-8")


def _encode_json(value: Any) -> bytes:
    # Default separators and escapes: the bytes are then those that the reference library writes.
    return json.dumps(value, allow_nan=False).encode("utf-8")


def _decode_json(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"))


def _scalar_codec(dtype_name: str) -> Codec:
    dtype = np.dtype(dtype_name).newbyteorder("<")

    def encode_integer(value: Any) -> bytes:
        # operator.index refuses floats and strings; np.array refuses what the width cannot hold.
        return np.array(operator.index(value), dtype).tobytes()

    def encode_float(value: Any) -> bytes:
        if not isinstance(value, (float, int, np.floating, np.integer)):
            raise TypeError(f"expected a number, got {type(value).__name__}")
        with np.errstate(over="ignore"):
            stored = np.array(value, dtype)
        if math.isfinite(value) and not np.isfinite(stored):
            raise ValueError(f"{value} is too large for {dtype_name}")
        return stored.tobytes()

    def decode(data: bytes) -> Any:
        return np.frombuffer(data, dtype, count=1)[0].item()

    encode = encode_float if dtype.kind == "f" else encode_integer
    return Codec(dtype.itemsize, encode, decode)


def _encode_shape(shape: tuple[int, ...]) -> bytes:
    if not 1 <= len(shape) <= _MAX_AXES:
        raise ValueError(f"an array needs 1 to {_MAX_AXES} axes, got {len(shape)}")
    largest = max(shape)
    width = next(i for i, bits in enumerate((8, 16, 32, 64)) if largest < 1 << bits)
    return bytes([len(shape) << 2 | width]) + np.array(shape, _SHAPE_DTYPES[width]).tobytes()


def _decode_shape(data: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """The shape that begins at ``start``, and where the values after it begin."""
    num_axes, width = data[start] >> 2, data[start] & 3
    dtype = np.dtype(_SHAPE_DTYPES[width])
    shape = np.frombuffer(data, dtype, count=num_axes, offset=start + 1)
    return tuple(shape.tolist()), start + 1 + num_axes * dtype.itemsize


def _ndarray_codec(dtype_name: str | None, shape: tuple[int, ...] | None) -> Codec:
    """Arrays whose dtype and shape are each fixed by the column or carried by every value."""

    def encode(value: Any) -> bytes:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"expected a numpy array, got {type(value).__name__}")
        name = value.dtype.name
        if name not in _DTYPE_CODES or dtype_name not in (None, name):
            raise TypeError(f"expected an array of {dtype_name or 'numbers'}, got {name}")
        if shape is not None and value.shape != shape:
            raise ValueError(f"expected an array of shape {shape}, got {value.shape}")
        head = b"" if dtype_name else bytes([_DTYPE_CODES[name]])
        if shape is None:
            head += _encode_shape(value.shape)
        return head + value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()

    def decode(data: bytes) -> npt.NDArray[Any]:
        start, name, dims = 0, dtype_name, shape
        if name is None:
            name, start = _DTYPES_BY_CODE.get(data[0]), 1
            if name is None:
                raise ValueError(f"{data[0]} stands for no dtype")
        if dims is None:
            dims, start = _decode_shape(data, start)
        dtype = np.dtype(name).newbyteorder("<")
        if start + math.prod(dims) * dtype.itemsize != len(data):
            raise ValueError(f"{len(data) - start} bytes cannot be {name} of shape {dims}")
        values = np.frombuffer(data, dtype, offset=start)
        # A copy: it is writable, and it does not keep the bytes of the whole shard alive.
        return values.reshape(dims).astype(np.dtype(name), copy=True)

    fixed = dtype_name is not None and shape is not None
    size = math.prod(shape) * np.dtype(dtype_name).itemsize if fixed and shape else None
    return Codec(size, encode, decode)


_PLAIN_CODECS = {
    "bytes": Codec(None, _encode_bytes, bytes),
    "str": Codec(None, _encode_str, _decode_str),
    "json": Codec(None, _encode_json, _decode_json),
    "int": _scalar_codec("int64"),
    **{name: _scalar_codec(name) for name in _DTYPE_CODES},
}


@lru_cache(maxsize=256)
def codec(encoding: str) -> Codec:
    """The codec that an encoding string of the format names.

    Args:
        encoding: ``bytes``, ``str``, ``json``, ``int`` (int64), a scalar (``int32``, ``float32``,
            ``float64``, …), ``ndarray:int32`` (fixed dtype, any shape), ``ndarray:int32:2,3``
            (both fixed) or ``ndarray`` (both carried by the value).

    Raises:
        ShardError: the encoding is unknown or not supported; pickles and images are not.
    """
    if encoding in _PLAIN_CODECS:
        return _PLAIN_CODECS[encoding]
    kind, *details = encoding.split(":")
    if kind == "ndarray" and len(details) <= 2 and (not details or details[0] in _DTYPE_CODES):
        dims = details[1].split(",") if len(details) == 2 else None
        if dims is None:
            return _ndarray_codec(details[0] if details else None, None)
        if all(dim.isdecimal() and int(dim) > 0 for dim in dims):
            return _ndarray_codec(details[0], tuple(map(int, dims)))
    reason = "unpickling runs code" if encoding == "pkl" else "it is not known here"
    raise ShardError(
        f"encoding {encoding!r} is not supported: {reason}{did_you_mean(encoding, _PLAIN_CODECS)}",
        hint=f"Supported: {', '.join(sorted(_PLAIN_CODECS))}, ndarray[:dtype[:shape]].",
    )


def parse_columns(columns: Mapping[str, str]) -> tuple[Column, ...]:
    """Columns in the order of the format, which is the order of their sorted names.

    Args:
        columns: column name → encoding.

    Raises:
        ShardError: there is no column, a name is empty, or an encoding is not supported.
    """
    if not columns:
        raise ShardError("a shard needs at least one column")
    if "" in columns:
        raise ShardError("a column has an empty name")
    return tuple(_column(name, columns[name]) for name in sorted(columns))


def _column(name: str, encoding: str) -> Column:
    return Column(name, encoding, codec(encoding))


def encode_sample(columns: Sequence[Column], sample: Mapping[str, Any]) -> bytes:
    """The bytes of one sample.

    Args:
        columns: from ``parse_columns``.
        sample: a value for each column, and nothing else.

    Raises:
        ShardError: a column is missing or unknown, or its encoding cannot hold the value.
    """
    names = [column.name for column in columns]
    if sample.keys() != set(names):
        missing, unknown = sorted(set(names) - sample.keys()), sorted(sample.keys() - set(names))
        raise ShardError(f"sample does not fit its columns: missing {missing}, unknown {unknown}")
    sizes: list[int] = []
    parts: list[bytes] = []
    for column in columns:
        try:
            part = column.codec.encode(sample[column.name])
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ShardError(f"column {column.name!r} ({column.encoding}): {error}") from error
        if column.codec.size is None:
            sizes.append(len(part))
        parts.append(part)
    if sum(sizes) > MAX_SHARD_BYTES:
        raise ShardError(f"sample of {sum(sizes)} bytes is larger than any shard can be")
    return b"".join([struct.pack(f"<{len(sizes)}I", *sizes), *parts])


def decode_sample(columns: Sequence[Column], data: bytes) -> dict[str, Any]:
    """The inverse of ``encode_sample``; arrays are the caller's own and may be written to.

    Integers and floats come back as Python numbers whatever their width.

    Raises:
        ShardError: the bytes are too few, too many, or not what the encoding says.
    """
    num_sizes = sum(column.codec.size is None for column in columns)
    start = 4 * num_sizes
    if len(data) < start:
        raise ShardError(f"sample of {len(data)} bytes ends inside its column sizes")
    sizes = iter(struct.unpack_from(f"<{num_sizes}I", data))
    sample: dict[str, Any] = {}
    for column in columns:
        size = column.codec.size if column.codec.size is not None else next(sizes)
        part = data[start : start + size]
        start += size
        try:
            if len(part) != size:
                raise ValueError(f"needs {size} bytes, {len(part)} are left")
            sample[column.name] = column.codec.decode(part)
        except (ValueError, LookupError, RecursionError) as error:
            raise ShardError(f"column {column.name!r} ({column.encoding}): {error}") from error
    if start != len(data):
        raise ShardError(f"sample of {len(data)} bytes has columns of {start} bytes")
    return sample


def shard_overhead_bytes(config: bytes) -> int:
    """Size of a shard before its first sample: count, first offset, config."""
    return 4 + 4 + len(config)


def encode_shard(config: bytes, samples: Sequence[bytes]) -> bytes:
    """The bytes of one shard.

    Args:
        config: the JSON object of ``ShardEntry.config``, encoded.
        samples: each from ``encode_sample``.

    Raises:
        ShardError: the shard would be larger than its offsets can express (4 GiB).
    """
    first = shard_overhead_bytes(config) + SAMPLE_OVERHEAD_BYTES * len(samples)
    offsets = first + np.cumsum([0, *map(len, samples)], dtype=np.int64)
    if offsets[-1] > MAX_SHARD_BYTES:
        raise ShardError(f"shard of {offsets[-1]} bytes is larger than its offsets can express")
    head = struct.pack("<I", len(samples)) + offsets.astype("<u4").tobytes() + config
    return b"".join([head, *samples])


def read_layout(shard: bytes | memoryview) -> ShardLayout:
    """Where the samples of a shard lie, after checking that they lie inside it.

    Args:
        shard: the whole file, decompressed.

    Raises:
        ShardError: the shard is truncated, its offsets do not ascend to its end, or its config is
            not a JSON object.
    """
    if len(shard) < 8:
        raise ShardError(f"shard of {len(shard)} bytes is shorter than any shard")
    (num_samples,) = struct.unpack_from("<I", shard)
    config_start = 8 + 4 * num_samples
    if len(shard) < config_start:
        raise ShardError(f"shard of {len(shard)} bytes ends inside its {num_samples + 1} offsets")
    offsets = np.frombuffer(shard, "<u4", count=num_samples + 1, offset=4).astype(np.int64)
    ascending = offsets[0] >= config_start and bool(np.all(np.diff(offsets) >= 0))
    if not ascending or offsets[-1] != len(shard):
        raise ShardError(f"sample offsets do not ascend from {config_start} to {len(shard)}")
    try:
        config = json.loads(bytes(shard[config_start : offsets[0]]))
    except (ValueError, RecursionError) as error:
        raise ShardError(f"shard config is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ShardError(f"shard config is a {type(config).__name__}, not an object")
    return ShardLayout(offsets, config)
