import json

import pytest
import zstandard

from slant.errors import ShardError
from slant.shards.index import (
    ShardEntry,
    ShardFile,
    compress,
    decompress,
    digest,
    format_index,
    is_compression,
    parse_index,
)
from slant.shards.mds import parse_columns


def entry(basename="shard.00000.mds"):
    return ShardEntry(
        columns=parse_columns({"tokens": "ndarray:int32", "id": "int"}),
        compression="zstd",
        hashes=("sha1", "xxh64"),
        size_limit_bytes=1000,
        num_samples=3,
        raw=ShardFile(basename, 100, {"sha1": "aa", "xxh64": "bb"}),
        zipped=ShardFile(basename + ".zstd", 50, {"sha1": "cc", "xxh64": "dd"}),
    )


def altered(**changes):
    """An index of one shard with some of its keys replaced; a dotted key reaches inside."""
    index = json.loads(format_index([entry()]))
    for key, value in changes.items():
        *path, last = key.split("__")
        target = index["shards"][0]
        for part in path:
            target = target[part]
        target[last] = value
    return json.dumps(index).encode()


def test_an_index_is_read_as_it_was_written():
    entries = [entry(), entry("shard.00001.mds")]
    assert parse_index(format_index(entries)) == entries


def test_an_index_has_the_keys_of_the_format():
    shard = json.loads(format_index([entry()]))["shards"][0]
    assert shard == {
        "column_encodings": ["int", "ndarray:int32"],
        "column_names": ["id", "tokens"],
        "column_sizes": [8, None],
        "compression": "zstd",
        "format": "mds",
        "hashes": ["sha1", "xxh64"],
        "raw_data": {
            "basename": "shard.00000.mds",
            "bytes": 100,
            "hashes": {"sha1": "aa", "xxh64": "bb"},
        },
        "samples": 3,
        "size_limit": 1000,
        "version": 2,
        "zip_data": {
            "basename": "shard.00000.mds.zstd",
            "bytes": 50,
            "hashes": {"sha1": "cc", "xxh64": "dd"},
        },
    }


def test_a_shard_may_lie_in_a_folder_below():
    name = "part-1/shard.00000.mds"
    index = altered(raw_data__basename=name, zip_data__basename=f"{name}.zstd")
    assert parse_index(index)[0].raw.basename == name


@pytest.mark.parametrize(
    "basename",
    ["../shard.mds", "a/../../b", "/etc/passwd", "..", ".", "", "a\\b", "C:x", "a\x00b", 7, None],
)
def test_a_basename_that_leads_out_of_the_folder_is_refused(basename):
    with pytest.raises(ShardError, match=r"shards\[0\].zip_data: unsafe name"):
        parse_index(altered(zip_data__basename=basename))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 1},
        {"format": "csv"},
        {"samples": -1},
        {"samples": 1.5},
        {"samples": True},
        {"size_limit": "64mb"},
        {"compression": "br"},
        {"compression": 3},
        {"compression": None},
        {"zip_data": None},
        {"zip_data": []},
        {"hashes": "sha1"},
        {"hashes": ["sha1", "crc"]},
        {"hashes": ["sha1"]},
        {"column_names": ["tokens", "id"]},
        {"column_names": ["id"]},
        {"column_names": ["id", "id"]},
        {"column_encodings": ["int", "pkl"]},
        {"column_sizes": [4, None]},
        {"column_sizes": None},
        {"raw_data__basename": "shard.00001.mds"},
        {"raw_data__bytes": -1},
        {"raw_data__hashes": {}},
        {"raw_data__hashes__sha1": 5},
        {"raw_data__more": 1},
        {"more": 1},
    ],
)
def test_an_index_that_contradicts_the_format_is_refused_with_the_place(changes):
    with pytest.raises(ShardError, match=r"^shards\[0\]"):
        parse_index(altered(**changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"version": 3, "shards": []}',
        b'{"version": 2, "shards": {}}',
        b'{"version": 2, "shards": [1]}',
    ],
)
def test_what_is_no_index_is_refused(data):
    with pytest.raises(ShardError):
        parse_index(data)


def test_compressions_are_zstd_with_and_without_a_level():
    assert all(is_compression(name) for name in ("zstd", "zstd:1", "zstd:22"))
    names = ("zstd:0", "zstd:23", "zstd:", "zstd:03", "gz", "", "zstd:3\n")
    assert not any(is_compression(name) for name in names)


def test_the_level_is_used():
    data = b"".join(f"{i * i} at {i}".encode() for i in range(5000))
    assert len(compress("zstd:19", data)) < len(compress("zstd:1", data))
    assert compress("zstd", data) == compress("zstd:3", data)


def test_decompressing_checks_the_size_before_taking_memory():
    bomb = zstandard.ZstdCompressor().compress(bytes(10_000_000))
    with pytest.raises(ShardError, match="decompresses to 10000000 bytes, the index says 10"):
        decompress(bomb, 10)


def test_a_frame_that_does_not_state_its_size_is_held_to_it():
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    assert decompress(compressor.compress(b"abc" * 100), 300) == b"abc" * 100
    for wrong in (299, 301):
        with pytest.raises(ShardError):
            decompress(compressor.compress(b"abc" * 100), wrong)


@pytest.mark.parametrize("data", [b"", b"not zstd", compress("zstd", b"abc")[:-1]])
def test_what_is_no_whole_frame_is_refused(data):
    with pytest.raises(ShardError, match="is not a Zstandard frame of 3 bytes"):
        decompress(data, 3)


def test_bytes_after_a_frame_are_refused():
    with pytest.raises(ShardError):
        decompress(compress("zstd", b"abc") + b"x", 3)


def test_digests_are_lower_case_hex_of_the_published_algorithms():
    assert digest("sha1", b"abc") == "a9993e364706816aba3e25717850c26c9cd0d89d"
    assert digest("xxh64", b"abc") == "44bc2cf5ad770999"


def test_the_fastest_hash_is_chosen_among_those_that_are_there():
    assert entry().raw.fastest_hash() == ("xxh64",)
    assert ShardFile("a", 1, {}).fastest_hash() == ()
