"""Signatures of releases, by the library ``py-minisign`` (extra ``sign``).

The manifest lists the sha256 of every file, so a signature of the manifest covers the release. It
is a minisign signature (Ed25519 over BLAKE2b, https://jedisct1.github.io/minisign/): keys come from
``minisign -G``, and without slant ``minisign -Vm manifest.json -p KEY.pub`` checks the same file.

The same manifest and key give the same signature, byte for byte: no time is in it. A release that
is published again is therefore still equal to what was published before.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from slant.disk import write_atomically
from slant.errors import ArtifactError, UsageError
from slant.publish.release import SIGNATURE

__all__ = ["PASSWORD_VARIABLE", "check_signature", "sign"]

PASSWORD_VARIABLE = "SLANT_SIGN_PASSWORD"
"""Environment variable with the password of an encrypted secret key."""
_TAMPERED = (
    "Somebody changed the release, or another key signed it. Do not use it; ask who published it."
)


def sign(manifest: Path, key: Path) -> Path:
    """Sign a manifest; the signature lies beside it.

    Args:
        manifest: a release's ``manifest.json``.
        key: a minisign secret key, as ``minisign -G`` writes it. If it is encrypted its password
            is read from the environment (SLANT_SIGN_PASSWORD).

    Returns:
        Path of the signature, ``manifest.json.minisig``.

    Raises:
        UsageError: the key cannot be read or decrypted, or the library is not installed.
        StorageError: the signature cannot be written.
    """
    minisign = _library()
    with _read_key(key, minisign.SecretKey, "secret") as secret:
        _decrypt(secret, key)
        signature = secret.sign(manifest.read_bytes(), trusted_comment=f"file:{manifest.name}")
    path = manifest.with_name(SIGNATURE)
    write_atomically(path, bytes(signature) + b"\n")
    return path


def check_signature(manifest: Path, key: Path) -> None:
    """Check that the holder of a key signed a manifest.

    What the manifest lists is not read here: check the files against it as well.

    Args:
        manifest: a release's ``manifest.json``; the signature is looked for beside it.
        key: the minisign public key (``….pub``).

    Raises:
        ArtifactError: the signature is missing, of another key, or not of this manifest.
        UsageError: the key cannot be read, or the library is not installed.
    """
    minisign = _library()
    public = _read_key(key, minisign.PublicKey, "public")
    path = manifest.with_name(SIGNATURE)
    try:
        public.verify(manifest.read_bytes(), minisign.Signature.from_file(path))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{error.filename}: is missing; a signature by {key} is asked for",
            hint="Publish the release with --sign-key, or leave out the key to go without one.",
        ) from error
    except (OSError, minisign.Error) as error:
        raise ArtifactError(
            f"{path}: is no signature by {key} ({error})", hint=_TAMPERED
        ) from error


def _library() -> Any:
    try:
        import minisign
    except ImportError as error:
        raise UsageError(
            "signing needs py-minisign, which is not installed", hint="pip install 'slant[sign]'"
        ) from error
    return minisign


def _read_key(path: Path, kind: Any, name: str) -> Any:
    try:
        return kind.from_file(path)
    except OSError as error:
        raise UsageError(f"{path}: the {name} key cannot be read: {error.strerror}") from error
    except ValueError as error:  # minisign.Error is one
        raise UsageError(
            f"{path}: is no minisign {name} key ({error})",
            hint="`minisign -G -p slant.pub -s slant.key` makes two: slant.key signs, and is kept "
            "secret; slant.pub checks.",
        ) from error


def _decrypt(secret: Any, path: Path) -> None:
    if not secret.is_encrypted():
        return
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is None:
        raise UsageError(
            f"{path}: the secret key is encrypted",
            hint=f"Put its password into the environment as {PASSWORD_VARIABLE}.",
        )
    try:
        secret.decrypt(password)
    except ValueError as error:
        raise UsageError(
            f"{path}: the secret key cannot be decrypted ({error})",
            hint=f"Check the password in {PASSWORD_VARIABLE}.",
        ) from error
