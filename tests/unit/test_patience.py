"""Errors of the libraries behind fsspec: which are waited for, and what is said of the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from slant.errors import InputError, StorageError
from slant.patience import at_most, patiently

URL = "gs://bucket/a"


def google(status: int, message: str) -> Exception:
    retry = pytest.importorskip("gcsfs.retry")
    error: Exception = retry.HttpError({"code": status, "message": message})
    return error


def azure(status: int, message: str) -> Exception:
    exceptions = pytest.importorskip("azure.core.exceptions")
    error: Exception = exceptions.HttpResponseError(f"{message}\nRequestId:1\nErrorCode:Some")
    error.status_code = status  # type: ignore[attr-defined]
    return error


def azure_identity(message: str) -> Exception:
    exceptions = pytest.importorskip("azure.core.exceptions")

    class CredentialUnavailableError(exceptions.ClientAuthenticationError):  # type: ignore[misc, name-defined]
        pass

    error: Exception = CredentialUnavailableError(f"{message}\nAttempted credentials:\n\tmany")
    return error


def web(status: int) -> Exception:
    import aiohttp

    request: Any = SimpleNamespace(real_url=URL)
    return aiohttp.ClientResponseError(request, (), status=status, message="No")


def asked(error: Exception, *, writes: bool = False) -> tuple[int, Exception]:
    """How often a request was sent that always fails, and what was raised in the end."""
    count = 0

    def ask() -> None:
        nonlocal count
        count += 1
        raise error

    with at_most(0.5), pytest.raises((InputError, StorageError)) as caught:
        patiently(ask, URL, writes=writes)
    return count, caught.value


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (google(401, "Anonymous caller has no access"), "Anonymous caller has no access"),
        (OSError("Forbidden: b/bucket/o\nmia has no access"), "mia has no access"),
        (azure(403, "This request is not authorized."), "This request is not authorized."),
        (azure_identity("No token"), "No token"),
        (web(403), "403"),
    ],
)
def test_a_refusal_is_an_error_at_once_whatever_a_library_calls_it(
    error: Exception, words: str, writes: bool
) -> None:
    count, found = asked(error, writes=writes)
    assert count == 1
    assert type(found) is (StorageError if writes else InputError)
    assert f"{URL}: access is refused (" in str(found)
    assert words in str(found)
    assert isinstance(found.__cause__, PermissionError)


@pytest.mark.parametrize("error", [azure(404, "The container does not exist."), web(404)])
def test_a_missing_file_is_an_error_at_once_whatever_a_library_calls_it(error: Exception) -> None:
    count, found = asked(error)
    assert count == 1
    assert "there is no such file" in str(found)
    assert isinstance(found.__cause__, FileNotFoundError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (google(416, "Range"), "Range"),
        (azure(400, "Header"), "Header"),
        (web(410), "410"),
        (ValueError("Bad Request: b/bucket/o\nthe name is no name"), "the name is no name"),
    ],
)
def test_a_request_that_the_server_calls_wrong_is_not_sent_again(
    error: Exception, words: str
) -> None:
    count, found = asked(error)
    assert count == 1
    assert f"{URL}: cannot be used: " in str(found)
    assert words in str(found)


@pytest.mark.parametrize("error", [google(503, "Busy"), azure(429, "Slow down"), web(500)])
def test_a_server_in_trouble_is_asked_again_and_told_of_in_a_line(error: Exception) -> None:
    count, found = asked(error)
    assert count > 1
    assert isinstance(found, InputError)
    assert "no answer for 0.5 s" in found.message
    assert "\n" not in found.message
