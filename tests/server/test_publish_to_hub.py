"""Releases on the Hub: the library's own client against a server that speaks its protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hub_server import TOKEN, File, Hub, Repo, hub_server
from slant.errors import ArtifactError, StorageError, UsageError
from slant.progress import SilentProgress
from slant.publish.hub import hub_address, hub_revision, publish_to_hub
from slant.publish.publish import publish_bundle
from slant.publish.pull import pull_bundle
from slant.publish.release import Published, Release
from tiny_release import write_release

# huggingface_hub hands an open file to its HTTP client in a way that this deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "acme/narratives"
TARGET = f"hf://{REPO}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with hub_server() as server:
        # As HF_ENDPOINT and HF_HUB_DISABLE_XET do for a process that starts.
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        # Its chunk protocol has a server of its own; the Hub takes large files both ways.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return write_release(tmp_path / "bundle")


def publish(
    release: Release, target: str = TARGET, *, dry_run: bool = False, aliases: Sequence[str] = ()
) -> Published:
    return publish_to_hub(
        release, target, dry_run=dry_run, aliases=aliases, progress=SilentProgress()
    )


def content(release: Release) -> dict[str, bytes]:
    return {name: release.path(name).read_bytes() for name in release.files}


def published_files(hub: Hub, revision: str = "main") -> dict[str, bytes]:
    files = hub.repos[REPO].files(revision)
    return {name: held for name, held in files.items() if name != ".gitattributes"}


def test_a_release_becomes_one_commit_and_a_tag_in_a_private_repository(
    hub: Hub, release: Release
) -> None:
    published = publish(release)
    repo = hub.repos[REPO]
    assert repo.private
    assert published_files(hub) == content(release)
    assert repo.tags == {release.version: repo.branches["main"]}
    assert len(repo.commits) == 2  # the Hub's own, with .gitattributes, and the release
    assert published.url == f"{TARGET}@{release.version}"
    assert published.sent_bytes == release.num_bytes


def test_publishing_again_sends_nothing(hub: Hub, release: Release) -> None:
    publish(release)
    before = len(hub.requests)
    published = publish(release)
    assert (published.sent_bytes, published.kept_bytes) == (0, release.num_bytes)
    assert [name for name in hub.requests[before:] if not name.startswith("GET")] == []


def test_a_dry_run_writes_nothing_and_tells_what_would_be_sent(hub: Hub, release: Release) -> None:
    published = publish(release, dry_run=True)
    assert {file.name: file.sent_bytes for file in published.files} == {
        name: entry.num_bytes for name, entry in release.files.items()
    }
    assert hub.repos == {}
    assert set(hub.requests) == {"GET refs"}


def test_the_next_release_sends_what_changed_and_removes_what_is_no_longer_part_of_it(
    hub: Hub, release: Release, tmp_path: Path
) -> None:
    first = write_release(tmp_path / "first", seed=1, extra="int8.bin")
    publish(first)
    second = write_release(tmp_path / "second", seed=1)
    assert second.version != first.version
    published = publish(second)
    assert published_files(hub) == content(second)
    assert published_files(hub, first.version) == content(first)
    assert published.sent_bytes < 10_000  # the weights are the same
    assert hub.count("PUT blob") == 2


def test_files_of_others_beside_a_release_are_left_alone(
    hub: Hub, release: Release, tmp_path: Path
) -> None:
    publish(release)
    repo = hub.repos[REPO]
    files = repo.commits[repo.branches["main"]]
    repo.commit("main", {**files, "notes.txt": File(b"by hand", False)})
    publish(write_release(tmp_path / "second", seed=2))
    assert published_files(hub)["notes.txt"] == b"by hand"


def test_a_version_is_never_overwritten(hub: Hub, release: Release) -> None:
    publish(release)
    repo = hub.repos[REPO]
    files = {**repo.commits[repo.branches["main"]], "slant.json": File(b"{}", False)}
    repo.tags[release.version] = repo.commit("main", files)
    with pytest.raises(ArtifactError, match=r"slant\.json: is not what is to be published"):
        publish(release)
    assert published_files(hub)["slant.json"] == b"{}"


def test_a_repository_of_something_else_is_refused(hub: Hub, release: Release) -> None:
    hub.repos[REPO] = Repo(private=False)
    hub.repos[REPO].commit("main", {"pytorch_model.bin": File(b"theirs", False)})
    with pytest.raises(UsageError, match="holds files that slant did not publish"):
        publish(release)
    assert set(published_files(hub)) == {"pytorch_model.bin"}


def test_large_files_are_sent_in_parts_where_the_hub_says_so(hub: Hub, release: Release) -> None:
    hub.chunk_bytes = 100_000
    publish(release)
    assert published_files(hub) == content(release)
    assert hub.count("PUT part") == 6


def test_aliases_move_to_the_new_release(hub: Hub, release: Release, tmp_path: Path) -> None:
    publish(release, aliases=["production"])
    second = write_release(tmp_path / "second", seed=2)
    publish(second, aliases=["production", "candidate"])
    tags = hub.repos[REPO].tags
    assert tags["production"] == tags["candidate"] == tags[second.version] != tags[release.version]
    publish(release, aliases=["production"])  # back again
    assert tags["production"] == tags[release.version]


def test_publishing_an_older_release_again_brings_the_branch_back_to_it(
    hub: Hub, release: Release, tmp_path: Path
) -> None:
    publish(release)
    second = write_release(tmp_path / "second", seed=2, extra="int8.bin")
    publish(second)
    blobs, tags = hub.count("PUT blob"), dict(hub.repos[REPO].tags)
    published = publish(release)
    assert (published.sent_bytes, published.was_there) == (0, True)
    assert published_files(hub) == content(release)
    assert hub.count("PUT blob") == blobs
    assert hub.repos[REPO].tags == tags


@pytest.mark.parametrize("alias", ["main", "20261128T101500Z-0123456789ab", "a b"])
def test_an_alias_that_could_be_taken_for_something_else_is_refused(
    alias: str, hub: Hub, release: Release
) -> None:
    with pytest.raises(UsageError, match="alias"):
        publish(release, aliases=[alias])
    assert hub.repos == {}


def test_main_is_no_alias_even_where_it_is_not_there_yet(hub: Hub, release: Release) -> None:
    with pytest.raises(UsageError, match="--alias main"):
        publish(release, f"{TARGET}@trial", aliases=["main"])
    assert hub.repos == {}


@pytest.mark.parametrize(
    "target",
    [
        "hf://mia:hf_secret@org/name",
        "hf://hf_secret@org/name",
        "hf://org/hf_secret@a@b",
        "hf://org/name?token=hf_secret",
    ],
)
def test_a_token_in_an_address_is_refused_and_not_repeated(target: str) -> None:
    with pytest.raises(UsageError) as error:
        hub_address(target)
    assert "hf_secret" not in str(error.value)


def test_another_branch_is_made_and_main_stays(hub: Hub, release: Release, tmp_path: Path) -> None:
    publish(release)
    second = write_release(tmp_path / "second", seed=2)
    publish(second, f"{TARGET}@trial")
    assert published_files(hub) == content(release)
    assert published_files(hub, "trial") == content(second)


def test_no_tag_is_set_on_a_commit_that_lacks_a_file(hub: Hub, release: Release) -> None:
    hub.ignored = {"slant.json"}
    with pytest.raises(ArtifactError, match=r"slant\.json: is not what was sent; no tag was set"):
        publish(release)
    assert hub.repos[REPO].tags == {}
    hub.ignored = set()
    publish(release)
    assert published_files(hub, release.version) == content(release)


def test_without_a_token_nothing_is_tried(
    hub: Hub, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match="needs a token") as error:
        publish(release)
    assert "HF_TOKEN" in error.value.hint
    assert hub.requests == []


def test_a_token_that_may_not_write_is_told_at_once(
    hub: Hub, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(StorageError, match="access is refused") as error:
        publish(release)
    assert "hf_another" not in str(error.value)


def test_a_large_file_that_is_refused_is_told_at_once(hub: Hub, release: Release) -> None:
    hub.fails["PUT blob"] = 403
    with pytest.raises(StorageError, match="access is refused"):
        publish(release)
    assert hub.repos[REPO].tags == {}


def test_a_hub_that_is_away_for_a_moment_is_waited_for(hub: Hub, release: Release) -> None:
    hub.fails["POST tag"] = 503
    hub.times = 2
    publish(release)
    assert hub.repos[REPO].tags == {release.version: hub.repos[REPO].branches["main"]}


@pytest.mark.parametrize("lost", ["POST commit", "POST tag", "DELETE tag", "PUT blob"])
def test_what_was_done_but_not_answered_is_not_done_twice(
    lost: str, hub: Hub, release: Release, tmp_path: Path
) -> None:
    publish(release, aliases=["production"])
    second = write_release(tmp_path / "second", seed=2)
    hub.loses = lost
    publish(second, aliases=["production"])
    assert hub.loses == ""
    repo = hub.repos[REPO]
    assert len(repo.commits) == 3
    assert repo.tags[second.version] == repo.tags["production"] == repo.branches["main"]
    assert published_files(hub, "production") == content(second)


def test_a_commit_of_somebody_else_in_between_is_not_taken_for_ours(
    hub: Hub, release: Release, tmp_path: Path
) -> None:
    publish(release)
    theirs = hub.repos[REPO].commits[hub.repos[REPO].branches["main"]]
    hub.before["POST preupload"] = lambda: hub.repos[REPO].commit(
        "main", {**theirs, "a": File(b"", False)}
    )
    second = write_release(tmp_path / "second", seed=2)
    with pytest.raises(ArtifactError, match="somebody else published at the same time"):
        publish(second)
    assert set(hub.repos[REPO].tags) == {release.version}
    publish(second)
    assert hub.repos[REPO].tags[second.version] == hub.repos[REPO].branches["main"]


_PUBLISH = """
import sys
from slant.progress import SilentProgress
from slant.publish.hub import publish_to_hub
from slant.publish.release import Release

publish_to_hub(Release.of(sys.argv[1]), sys.argv[2], dry_run=False, aliases=["production"],
               progress=SilentProgress())
"""


def start_publishing(hub: Hub, release: Release, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _PUBLISH, str(release.folder), TARGET],
        env={**os.environ, "HF_ENDPOINT": hub.url, **environment},
    )


def kill_at(hub: Hub, request: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not hub.count(request):
        assert process.poll() is None, "it ended"
        assert time.monotonic() < until, "it does not get there"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    ("held", "sent_before"),
    [("POST create", 0), ("POST verify", 1), ("POST commit", 2), ("POST tag", 2)],
)
def test_an_upload_killed_at_any_moment_goes_on_and_sends_no_large_file_twice(
    held: str, sent_before: int, hub: Hub, release: Release
) -> None:
    hub.hold = held
    kill_at(hub, held, start_publishing(hub, release, HF_HUB_DISABLE_XET="1"))
    assert hub.count("PUT blob") == sent_before
    hub.hold = ""
    if REPO in hub.repos:
        seen = published_files(hub)
        assert seen in ({}, content(release))  # never a part of it
        assert hub.repos[REPO].tags == {}
    publish(release)
    assert published_files(hub, release.version) == content(release)
    assert hub.count("PUT blob") == 2


def test_large_files_go_up_in_chunks_where_hf_xet_is_installed(
    hub: Hub, release: Release, tmp_path: Path
) -> None:
    pytest.importorskip("hf_xet", reason="hf-xet is not installed")
    hub.hold = "POST commit"
    kill_at(hub, "POST commit", start_publishing(hub, release, HF_HOME=str(tmp_path / "home")))
    assert (hub.count("POST xorb"), hub.count("PUT blob")) == (2, 0)
    hub.hold = ""
    again = start_publishing(hub, release, HF_HOME=str(tmp_path / "home"))
    assert again.wait(timeout=120) == 0
    assert published_files(hub, release.version) == content(release)
    assert hub.count("POST xorb") == 2  # nothing twice


def test_a_revision_stays_what_it_was_when_the_branch_moves_on(
    hub: Hub, release: Release, tmp_path: Path
) -> None:
    publish(release, aliases=["production"])
    commit = hub.repos[REPO].branches["main"]
    urls = {hub_revision(TARGET, asked) for asked in (None, release.version, "production")}
    assert urls == {f"{TARGET}@{commit}"}
    publish(write_release(tmp_path / "second", seed=2))
    assert hub_revision(TARGET, "production") == f"{TARGET}@{commit}"
    assert hub_revision(f"{TARGET}@production", None) == f"{TARGET}@{commit}"
    assert hub_revision(TARGET, None) != f"{TARGET}@{commit}"


def test_a_version_that_is_not_there_is_told_with_those_that_are(
    hub: Hub, release: Release
) -> None:
    publish(release)
    with pytest.raises(UsageError, match="has no version 'v2'") as error:
        hub_revision(TARGET, "v2")
    assert release.version in error.value.hint


def test_what_was_published_is_pulled_file_by_file(
    hub: Hub, release: Release, tmp_path: Path
) -> None:
    publish(release, aliases=["champion"])
    publish(write_release(tmp_path / "second", seed=2))
    pulled = pull_bundle(TARGET, tmp_path / "pulled", version="champion", progress=SilentProgress())
    assert pulled.version == release.version
    assert content(Release.of(tmp_path / "pulled")) == content(release)


def test_a_file_that_was_changed_on_the_hub_is_not_pulled(
    hub: Hub, release: Release, tmp_path: Path
) -> None:
    publish(release)
    repo = hub.repos[REPO]
    files = repo.commits[repo.branches["main"]]
    repo.commit("main", {**files, "slant.json": File(b"{}" + b" " * 9, False)})
    with pytest.raises(ArtifactError, match=r"slant\.json: is damaged"):
        pull_bundle(TARGET, tmp_path / "pulled", progress=SilentProgress())
    assert not (tmp_path / "pulled" / "manifest.json").exists()


def test_a_signature_goes_out_with_the_release_and_is_checked_when_it_is_pulled(
    hub: Hub, release: Release, tmp_path: Path
) -> None:
    minisign = pytest.importorskip("minisign", reason="the extra sign is not installed")
    pair = minisign.KeyPair.generate()
    (tmp_path / "slant.key").write_bytes(bytes(pair.secret_key) + b"\n")
    (tmp_path / "slant.pub").write_bytes(bytes(pair.public_key) + b"\n")
    publish_bundle(release.folder, TARGET, sign_key=tmp_path / "slant.key")
    assert "manifest.json.minisig" in published_files(hub, release.version)

    def pull(key: str) -> None:
        pull_bundle(TARGET, tmp_path / "out", verify_key=tmp_path / key, progress=SilentProgress())

    pull("slant.pub")
    theirs = minisign.KeyPair.generate().public_key
    (tmp_path / "theirs.pub").write_bytes(bytes(theirs) + b"\n")
    with pytest.raises(ArtifactError, match="is no signature by"):
        pull("theirs.pub")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("hf://acme/narratives", ("acme/narratives", None)),
        ("hf://acme/narratives@main", ("acme/narratives", "main")),
        ("hf://acme/narratives@users/mia", ("acme/narratives", "users/mia")),
    ],
)
def test_an_address_names_a_repository_and_a_revision(
    target: str, expected: tuple[str, str | None]
) -> None:
    assert hub_address(target) == expected


@pytest.mark.parametrize("target", ["hf://narratives", "hf://datasets/acme/x", "hf://a/b/c", "a/b"])
def test_an_address_of_another_kind_is_refused(target: str) -> None:
    with pytest.raises(UsageError, match="is no repository of models"):
        hub_address(target)
