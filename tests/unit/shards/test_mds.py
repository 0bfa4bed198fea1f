import json
import struct

import numpy as np
import pytest

from slant.errors import ShardError
from slant.shards.mds import (
    codec,
    decode_sample,
    encode_sample,
    encode_shard,
    parse_columns,
    read_layout,
)


def test_a_sample_is_the_sizes_of_its_variable_columns_then_all_columns_by_name():
    columns = parse_columns({"b": "str", "c": "int32", "a": "bytes"})
    assert encode_sample(columns, {"b": "né", "c": -2, "a": b"x"}) == (
        struct.pack("<II", 1, 3) + b"x" + "né".encode() + struct.pack("<i", -2)
    )


def test_a_shard_is_count_offsets_config_samples():
    shard = encode_shard(b'{"k": 1}', [b"abc", b"", b"de"])
    assert shard == struct.pack("<5I", 3, 28, 31, 31, 33) + b'{"k": 1}' + b"abcde"
    layout = read_layout(shard)
    assert layout.offsets.tolist() == [28, 31, 31, 33]
    assert layout.config == {"k": 1}


@pytest.mark.parametrize(
    ("array", "encoded"),
    [
        (np.array([7, 8], np.int32), bytes([33, 1 << 2, 2]) + struct.pack("<2i", 7, 8)),
        (np.zeros((1, 0), np.uint8), bytes([8, 2 << 2, 1, 0])),
        (np.zeros(300, np.uint8), bytes([8, 1 << 2 | 1, 44, 1]) + bytes(300)),
        (np.array([1], ">i8"), bytes([65, 1 << 2, 1]) + struct.pack("<q", 1)),
    ],
)
def test_an_array_states_its_dtype_then_its_axes_then_its_shape(array, encoded):
    assert codec("ndarray").encode(array) == encoded
    decoded = codec("ndarray").decode(encoded)
    assert decoded.shape == array.shape
    assert decoded.dtype == array.dtype.newbyteorder("=")
    assert decoded.tolist() == array.tolist()


def test_what_the_column_fixes_is_not_stored_with_the_array():
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert codec("ndarray:int32").encode(array) == bytes([2 << 2, 2, 3]) + array.tobytes()
    assert codec("ndarray:int32:2,3").encode(array) == array.tobytes()
    assert codec("ndarray:int32:2,3").size == 24


def test_a_decoded_array_belongs_to_the_caller():
    columns = parse_columns({"tokens": "ndarray:int32"})
    data = encode_sample(columns, {"tokens": np.arange(3, dtype=np.int32)})
    tokens = decode_sample(columns, data)["tokens"]
    tokens[0] = 9
    assert tokens.base is None
    assert decode_sample(columns, data)["tokens"][0] == 0


def test_numbers_come_back_as_python_numbers():
    columns = parse_columns({"a": "int", "b": "int32", "c": "float32", "d": "float64"})
    sample = {"a": -(2**63), "b": np.int64(5), "c": 0.5, "d": 0.1}
    decoded = decode_sample(columns, encode_sample(columns, sample))
    assert decoded == sample
    assert [type(decoded[name]) for name in "abcd"] == [int, int, float, float]


@pytest.mark.parametrize(
    ("encoding", "value"),
    [
        ("str", b"bytes"),
        ("str", "\ud800"),
        ("bytes", "text"),
        ("int", 2**63),
        ("int", 1.0),
        ("int", "1"),
        ("int32", 2**31),
        ("uint8", -1),
        ("float32", 1e300),
        ("float32", 10**400),
        ("float64", "1.5"),
        ("json", float("nan")),
        ("json", {1, 2}),
        ("ndarray:int32", [1, 2]),
        ("ndarray:int32", np.zeros(2, np.int64)),
        ("ndarray:int32", np.int32(3)),
        ("ndarray:int32", np.array(3, np.int32)),
        ("ndarray:int32:2", np.zeros(3, np.int32)),
        ("ndarray", np.zeros(2, bool)),
        ("ndarray", np.array(["a"])),
    ],
)
def test_a_value_that_its_encoding_cannot_hold_is_refused_by_column_name(encoding, value):
    with pytest.raises(ShardError, match=f"column 'it' \\({encoding}\\)"):
        encode_sample(parse_columns({"it": encoding}), {"it": value})


def test_infinity_is_a_float_like_any_other():
    columns = parse_columns({"x": "float32"})
    assert decode_sample(columns, encode_sample(columns, {"x": float("inf")})) == {"x": np.inf}


def test_a_sample_with_a_missing_or_unknown_column_is_refused():
    columns = parse_columns({"a": "int", "b": "int"})
    with pytest.raises(ShardError, match=r"missing \['b'\], unknown \['c'\]"):
        encode_sample(columns, {"a": 1, "c": 2})


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("pkl", "unpickling runs code"),
        ("strr", "did you mean 'str'"),
        ("jpeg", "not supported"),
        ("ndarray:int33", "not supported"),
        ("ndarray:int32:0", "not supported"),
        ("ndarray:int32:-1", "not supported"),
        ("ndarray:int32:2:3", "not supported"),
        ("ndarray:", "not supported"),
        ("", "not supported"),
    ],
)
def test_an_unknown_encoding_is_refused_with_the_known_ones(encoding, message):
    with pytest.raises(ShardError, match=message) as raised:
        codec(encoding)
    assert "ndarray[:dtype[:shape]]" in raised.value.hint


@pytest.mark.parametrize("columns", [{}, {"": "int"}])
def test_columns_need_names(columns):
    with pytest.raises(ShardError):
        parse_columns(columns)


@pytest.mark.parametrize(
    ("columns", "data"),
    [
        ({"a": "str"}, b"\x01"),
        ({"a": "str"}, struct.pack("<I", 5) + b"abc"),
        ({"a": "str"}, struct.pack("<I", 2) + b"abc"),
        ({"a": "str"}, struct.pack("<I", 1) + b"\xff"),
        ({"a": "int"}, b"1234567"),
        ({"a": "json"}, struct.pack("<I", 1) + b"{"),
        ({"a": "ndarray"}, struct.pack("<I", 0)),
        ({"a": "ndarray"}, struct.pack("<I", 3) + bytes([99, 4, 0])),
        ({"a": "ndarray:int32"}, struct.pack("<I", 1) + bytes([4])),
        ({"a": "ndarray:int32"}, struct.pack("<I", 5) + bytes([4, 2, 0, 0, 0])),
        ({"a": "ndarray:uint8"}, struct.pack("<I", 9) + bytes([7]) + b"\xff" * 8),
    ],
)
def test_bytes_that_are_no_sample_are_refused(columns, data):
    with pytest.raises(ShardError, match=r"sample of|column 'a'"):
        decode_sample(parse_columns(columns), data)


@pytest.mark.parametrize(
    "shard",
    [
        b"",
        struct.pack("<I", 1),
        struct.pack("<II", 2**32 - 1, 8),
        struct.pack("<II", 0, 9) + b"{}",
        struct.pack("<III", 1, 15, 14) + b"{}",
        struct.pack("<III", 1, 12, 14) + b"{}",
        struct.pack("<II", 0, 10) + b"[]",
        struct.pack("<II", 0, 10) + b"{]",
        struct.pack("<II", 0, 4),
    ],
)
def test_bytes_that_are_no_shard_are_refused(shard):
    with pytest.raises(ShardError):
        read_layout(shard)


def test_json_escapes_what_is_not_ascii_as_the_reference_library_does():
    value = {"текст": ["早", None]}
    assert codec("json").encode(value) == json.dumps(value).encode()
    assert codec("json").decode(codec("json").encode(value)) == value
