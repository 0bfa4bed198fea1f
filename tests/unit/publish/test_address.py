"""Addresses: what can be published to, what is a folder, and what is a mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slant.errors import UsageError
from slant.publish.address import check_address, is_address


@pytest.mark.parametrize(
    "to",
    [
        "s3://bucket",
        "s3://bucket/models/narratives",
        "s3a://bucket/x/",
        "gs://bucket/x",
        "gcs://bucket/x",
        "az://container/x",
        "abfs://container@account.dfs.core.windows.net/x",
        "file:///srv/models",
        "memory://x/to",
        "hf://org/name@branch",
        "mlflow+http://host:5000/name",
        "mlflow+https://host/prefix/name",
        "models:/name",
    ],
)
def test_an_address_is_taken_as_it_is_written(to: str) -> None:
    assert is_address(to)
    assert check_address(to) == to


@pytest.mark.parametrize(
    ("to", "expected"),
    [("S3://Bucket/X", "s3://Bucket/X"), ("HF://Org/Name", "hf://Org/Name")],
)
def test_a_scheme_may_be_in_capitals(to: str, expected: str) -> None:
    assert is_address(to)
    assert check_address(to) == expected


@pytest.mark.parametrize(
    "to",
    ["bundle", "models/best", "/srv/models", "C:\\models", "C:/models", "./a:b", "a b:c", "x//y"],
)
def test_everything_else_is_a_folder(to: str) -> None:
    assert not is_address(to)
    assert check_address(to) == to


def test_a_path_is_always_a_folder() -> None:
    assert check_address(Path("a:b")) == "a:b"


@pytest.mark.parametrize(
    "to",
    [
        "https://host/x",
        "ftp://host/x",
        "zip://x.zip",
        "jlab://x",
        "data:x",
        "simplecache::s3://bucket/x",
        "s3://bucket/x::file:///y",
        "s4://bucket/x",
        "s3:/bucket/x",
        "s3:bucket/x",
        "s3//bucket/x",
        "S3//bucket/x",
        "s3:///x",
        "s3://",
        "gs://*/x",
        "hf:org/name",
        "hf//org/name",
        "models:name",
        "models://name",
        "models:/",
        "file://?",
        "file://relative",
        "file:///",
        "memory://",
    ],
)
def test_what_only_looks_like_an_address_is_refused_with_those_that_are(to: str) -> None:
    assert is_address(to)
    with pytest.raises(UsageError, match=re.escape(to)) as error:
        check_address(to)
    assert "Write " in error.value.hint


@pytest.mark.parametrize(
    "to",
    [
        "s3://key:secret@bucket/x",
        "ftp://me:secret@host/x",
        "https://secret@host/x",
        "S3://key:secret@bucket",
        "s3:/key:secret@bucket",
        "hf://me:secret@org/name",
        "s3://bucket/x?X-Amz-Signature=secret",
    ],
)
def test_what_may_be_a_secret_is_not_repeated(to: str) -> None:
    with pytest.raises(UsageError) as error:
        check_address(to)
    assert "secret" not in str(error.value)
