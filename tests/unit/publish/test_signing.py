"""Signatures of a manifest. The signature in ``_MADE_BY_MINISIGN`` is of the tool itself (0.11)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from slant.errors import ArtifactError, UsageError
from slant.publish.signing import PASSWORD_VARIABLE, check_signature, sign

minisign = pytest.importorskip("minisign", reason="the extra sign is not installed")

_MADE_BY_MINISIGN = {
    "manifest.json": '{"files": {}}',
    "manifest.json.minisig": """untrusted comment: signature from minisign secret key
RUR8Ca8bxgMRIQy8g+i1As4hjv0X3iYxgETWxHZ2nqsBV05PTsg96P2XCddb3ovcIih0vfjaP5r+hMEti8ypFjJrltWbbHCqwgE=
trusted comment: timestamp:1795861787	file:manifest.json	hashed
p0NC4um/9+T8/afNjroPCgAPwsZgWDtaK4AxJCDMLVhGP7kMzMeVniAmSffHsCdylVD0rhbWU/+LyBgOzrujBQ==
""",
    "slant.pub": """untrusted comment: minisign public key 211103C61BAF097C
RWR8Ca8bxgMRIVmCkiTlqmnRK+N1gD5Vjw6y2QyvxmsfHsmdXLvEhwjW
""",
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text('{"files": {"slant.json": {"sha256": "00"}}}', "utf-8")
    return path


def write_keys(folder: Path, password: str | None = None) -> tuple[Path, Path]:
    """A secret and a public key, as ``minisign -G`` leaves them."""
    pair = minisign.KeyPair.generate()
    public = folder / "slant.pub"
    public.write_bytes(bytes(pair.public_key) + b"\n")
    if password is not None:
        pair.secret_key.encrypt(password)
    secret = folder / "slant.key"
    secret.write_bytes(bytes(pair.secret_key) + b"\n")
    return secret, public


def test_what_was_signed_is_accepted(manifest: Path, tmp_path: Path) -> None:
    secret, public = write_keys(tmp_path)
    assert sign(manifest, secret) == tmp_path / "manifest.json.minisig"
    check_signature(manifest, public)


def test_a_signature_of_the_tool_minisign_is_accepted(tmp_path: Path) -> None:
    for name, content in _MADE_BY_MINISIGN.items():
        (tmp_path / name).write_text(content, "utf-8")
    check_signature(tmp_path / "manifest.json", tmp_path / "slant.pub")


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")
def test_the_tool_minisign_accepts_our_signature(manifest: Path, tmp_path: Path) -> None:
    secret, public = write_keys(tmp_path)
    sign(manifest, secret)
    subprocess.run(["minisign", "-V", "-m", str(manifest), "-p", str(public)], check=True)


def test_signing_again_gives_the_same_bytes(manifest: Path, tmp_path: Path) -> None:
    secret, _ = write_keys(tmp_path)
    first = sign(manifest, secret).read_bytes()
    assert sign(manifest, secret).read_bytes() == first


def test_a_manifest_changed_by_one_byte_is_refused(manifest: Path, tmp_path: Path) -> None:
    secret, public = write_keys(tmp_path)
    sign(manifest, secret)
    manifest.write_text(manifest.read_text("utf-8").replace("00", "01"), "utf-8")
    with pytest.raises(ArtifactError, match="signature verification failed"):
        check_signature(manifest, public)


def test_the_signature_of_another_key_is_refused(manifest: Path, tmp_path: Path) -> None:
    secret, _ = write_keys(tmp_path)
    sign(manifest, secret)
    (tmp_path / "theirs").mkdir()
    _, public = write_keys(tmp_path / "theirs")
    with pytest.raises(ArtifactError, match="is no signature by"):
        check_signature(manifest, public)


def test_a_changed_comment_is_refused(manifest: Path, tmp_path: Path) -> None:
    secret, public = write_keys(tmp_path)
    signature = sign(manifest, secret)
    changed = signature.read_text("utf-8").replace("file:manifest.json", "file:manifest.jsoN")
    signature.write_text(changed, "utf-8")
    with pytest.raises(ArtifactError, match="is no signature by"):
        check_signature(manifest, public)


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"a\nb\nc\nd\n"])
def test_a_file_that_is_no_signature_is_refused(
    content: bytes, manifest: Path, tmp_path: Path
) -> None:
    _, public = write_keys(tmp_path)
    (tmp_path / "manifest.json.minisig").write_bytes(content)
    with pytest.raises(ArtifactError, match="is no signature by"):
        check_signature(manifest, public)


def test_a_missing_signature_is_refused(manifest: Path, tmp_path: Path) -> None:
    _, public = write_keys(tmp_path)
    with pytest.raises(ArtifactError, match=r"manifest\.json\.minisig: is missing"):
        check_signature(manifest, public)


def test_an_encrypted_key_takes_its_password_from_the_environment(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, public = write_keys(tmp_path, password="correct horse")
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    with pytest.raises(UsageError, match="is encrypted") as missing:
        sign(manifest, secret)
    assert PASSWORD_VARIABLE in missing.value.hint
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    with pytest.raises(UsageError, match="cannot be decrypted") as wrong:
        sign(manifest, secret)
    assert "wrong\n" not in str(wrong.value)
    assert not (tmp_path / "manifest.json.minisig").exists()
    monkeypatch.setenv(PASSWORD_VARIABLE, "correct horse")
    sign(manifest, secret)
    check_signature(manifest, public)


def test_the_wrong_half_of_a_pair_is_told(manifest: Path, tmp_path: Path) -> None:
    secret, public = write_keys(tmp_path)
    with pytest.raises(UsageError, match="is no minisign secret key"):
        sign(manifest, public)
    with pytest.raises(UsageError, match="is no minisign public key"):
        check_signature(manifest, secret)


def test_a_key_that_is_not_there_is_told(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        sign(manifest, tmp_path / "none.key")
    with pytest.raises(UsageError, match="No such file"):
        check_signature(manifest, tmp_path / "none.pub")
