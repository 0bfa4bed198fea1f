"""Releases on the Hugging Face Hub: one commit each, and a tag named after the version.

The bundle lies at the root of the repository, so that README.md is its model card there. A commit
shows all of its files at once. Large files are stored by their content before that, and a second
attempt does not send what is stored: huggingface_hub's own protocol sees to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

from slant.artifacts import parse_manifest
from slant.errors import ArtifactError, UsageError
from slant.progress import Progress
from slant.publish.object_store import check_alias
from slant.publish.release import MANIFEST, SIGNATURE, Published, Release, Sent
from slant.storage import check_url, patiently, read_url

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.hf_api import RepoFile

    Operation = CommitOperationAdd | CommitOperationDelete

__all__ = ["hub_address", "hub_revision", "is_on_hub", "publish_to_hub"]

_TOKEN_VARIABLE = "HF_TOKEN"
_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?/?")
_MAIN = "main"
_NO_OWNERS = {"buckets", "datasets", "kernels", "models", "spaces"}
"""Words that stand before an owner's name in other addresses of the Hub."""
_OF_THE_HUB = {".gitattributes", ".gitignore", "LICENSE", "README.md"}
"""What a new repository may hold."""
_REFUSED, _CONFLICTS, _PASSING = (401, 403), (409, 412), (408, 429)

_Result = TypeVar("_Result")


def publish_to_hub(
    release: Release, target: str, *, dry_run: bool, aliases: Sequence[str], progress: Progress
) -> Published:
    """Put a release into a repository of the Hub; a new one is private.

    The token is taken from the environment (HF_TOKEN). Files of the release before it that are no
    longer part of it are removed in the same commit. The tag is set once the Hub lists every file
    with the right checksum, then the aliases, which are tags that move. Where the version is there
    already but the branch has moved on, the branch gets its files again; the tag stays.

    Args:
        release: what to publish.
        target: ``hf://org/name``, or ``hf://org/name@branch``.
        dry_run: only find out what would be sent.
        aliases: tags that shall point at this release.
        progress: told of the bytes.

    Returns:
        What was sent. A large file counts as sent, too, where the Hub had its content already.

    Raises:
        UsageError: the target or an alias cannot be used, there is no token, or the repository
            holds something else.
        ArtifactError: the version is there with other content.
        StorageError: the Hub does not answer or refuses.
    """
    repo, branch = hub_address(target)
    branch = branch or _MAIN
    hub = _Repository(repo)
    refs = hub.refs()
    for alias in aliases:
        check_alias(alias, taken=sorted({*refs.branches, branch, _MAIN}))
    tagged = refs.tags.get(release.version)
    if tagged is not None:
        _check_version(hub, tagged, release)
    head = refs.branches.get(branch) or refs.branches.get(_MAIN)
    there = hub.files(head) if head else {}
    same = {name for name in release.files if _is_same(release, name, there.get(name))}
    stale = _stale(hub, head, there, release)
    files = [
        Sent(name, entry.num_bytes, 0 if tagged or name in same else entry.num_bytes)
        for name, entry in release.files.items()
    ]
    url = f"hf://{repo}@{release.version}"
    if not dry_run:
        commit = _commit(hub, branch, release, kept=same, stale=stale, progress=progress)
        if tagged is None:
            hub.tag(release.version, commit)
        for alias in aliases:
            hub.move_tag(alias, tagged or commit, refs.tags.get(alias))
    return Published(release.version, url, files, was_there=tagged is not None)


def hub_address(target: str) -> tuple[str, str | None]:
    """``org/name`` and the revision, if one is named, of ``hf://org/name@revision``.

    Raises:
        UsageError: it is not of this form.
    """
    check_url(target)
    match = _ADDRESS.fullmatch(target)
    if match is None or match["repo"].partition("/")[0] in _NO_OWNERS:
        # What stands before an @ may be a token.
        shown = target if "@" not in target else "hf://…@…"
        raise UsageError(
            f"{shown}: is no repository of models on the Hub",
            hint="Write hf://org/name, or hf://org/name@branch; a token belongs into the "
            f"environment, as {_TOKEN_VARIABLE}.",
        )
    return match["repo"], match["revision"]


def hub_revision(target: str, version: str | None) -> str:
    """The URL of the files of one commit, ``hf://org/name@commit``: later ones do not change it.

    Args:
        target: ``hf://org/name``, or ``hf://org/name@revision``.
        version: a version or an alias; None: the revision that the target names, or ``main``.

    Raises:
        UsageError: the target is not of this form, or there is no such version.
        InputError: the Hub does not answer or refuses.
    """
    repo, revision = hub_address(target)
    asked = version or revision or _MAIN
    refs = _Repository(repo, writes=False).refs()
    found = {**refs.branches, **refs.tags}.get(asked)
    if found is None and not re.fullmatch(r"[0-9a-f]{40}", asked):
        known = ", ".join(sorted(refs.tags)[-5:])
        raise UsageError(
            f"hf://{repo}: has no version {asked!r}",
            hint=f"The last ones are: {known}." if known else "It has no versions at all.",
        )
    return f"hf://{repo}@{found or asked}"


def is_on_hub(target: str, version: str) -> bool:
    """Whether a version is there; raises as ``hub_revision``."""
    repo, _ = hub_address(target)
    return version in _Repository(repo, writes=False).refs().tags


@dataclass(frozen=True)
class _Refs:
    """Names → commits; none if there is no repository."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]


@final
class _Repository:
    """One repository; requests are sent again while the Hub is away."""

    def __init__(self, repo: str, *, writes: bool = True) -> None:
        from huggingface_hub import HfApi

        token = os.environ.get(_TOKEN_VARIABLE)
        if writes and not token:
            raise UsageError(
                f"hf://{repo}: publishing needs a token of the Hub",
                hint=f"Put one that may write into the environment as {_TOKEN_VARIABLE}, e.g. "
                f'export {_TOKEN_VARIABLE}="$(hf auth token)".',
            )
        self.repo = repo
        self._writes = writes
        self.api = HfApi(token=token or False)

    def ask(self, request: Callable[[], _Result]) -> _Result:
        """The answer to a request that may be sent more than once."""
        with _quiet_library():
            return patiently(
                partial(_translated, request), f"hf://{self.repo}", writes=self._writes
            )

    def refs(self) -> _Refs:
        """Branches and tags."""
        from huggingface_hub.errors import RepositoryNotFoundError

        def request() -> _Refs:
            try:
                found = self.api.list_repo_refs(self.repo)
            except RepositoryNotFoundError as error:
                if error.response.status_code != 404:
                    raise
                return _Refs({}, {})
            return _Refs(
                {ref.name: ref.target_commit for ref in found.branches},
                {ref.name: ref.target_commit for ref in found.tags},
            )

        return self.ask(request)

    def files(self, commit: str) -> dict[str, RepoFile]:
        """The files of a commit by name."""
        from huggingface_hub.hf_api import RepoFile

        listed = self.ask(
            lambda: list(self.api.list_repo_tree(self.repo, revision=commit, recursive=True))
        )
        return {item.path: item for item in listed if isinstance(item, RepoFile)}

    def commit(self, branch: str, head: str, operations: Sequence[Operation], message: str) -> str:
        """Add a commit after ``head``; returns its id.

        Where the branch has moved on from ``head`` it is the id of what it holds now: that is the
        same commit if the answer to a first attempt was lost. The caller looks.
        """

        def request() -> str:
            if (now := self.refs().branches[branch]) != head:
                return now
            info = self.api.create_commit(
                self.repo,
                operations,
                commit_message=message,
                revision=branch,
                parent_commit=head,
            )
            return str(info.oid)

        return self.ask(request)

    def tag(self, name: str, commit: str) -> None:
        """Set a tag; one that is there is left as it is, an attempt may have set it before."""
        self.ask(lambda: self.api.create_tag(self.repo, tag=name, revision=commit, exist_ok=True))

    def move_tag(self, name: str, commit: str, before: str | None) -> None:
        """Let a tag point at ``commit``; the Hub has no way to do so in one step."""
        from huggingface_hub.errors import RevisionNotFoundError

        if before == commit:
            return

        def delete() -> None:
            with suppress(RevisionNotFoundError):
                self.api.delete_tag(self.repo, tag=name)

        if before is not None:
            self.ask(delete)
        self.tag(name, commit)


def _translated(request: Callable[[], _Result]) -> _Result:
    """Refusals of the Hub, in the exceptions that ``patiently`` knows as lasting."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return request()
    except (HfHubHTTPError, RuntimeError) as error:
        # The library hides the refusal of a large file in a RuntimeError.
        refusal = error if isinstance(error, HfHubHTTPError) else error.__cause__
        if not isinstance(refusal, HfHubHTTPError):
            raise
        status = refusal.response.status_code
        if status in _REFUSED:
            raise PermissionError(f"HTTP {status}") from error
        if status in _CONFLICTS:
            raise ValueError(
                "somebody else changed it at the same time; run the same command again"
            ) from error
        if status >= 500 or status in _PASSING:
            raise ConnectionError(f"HTTP {status}") from error
        raise ValueError(f"HTTP {status}: {refusal.server_message or 'no reason'}") from error


def _commit(
    hub: _Repository,
    branch: str,
    release: Release,
    *,
    kept: set[str],
    stale: Sequence[str],
    progress: Progress,
) -> str:
    """Make the branch hold the release and nothing else of ours; returns the commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api, repo = hub.api, hub.repo
    if not hub.refs().branches:
        hub.ask(partial(api.create_repo, repo, private=True, exist_ok=True))
    if branch != _MAIN:
        hub.ask(partial(api.create_branch, repo, branch=branch, exist_ok=True))
    head = hub.refs().branches[branch]
    additions = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=release.path(name))
        for name in release.files
        if name not in kept
    ]
    if not additions and not stale:
        return head
    done = sum(release.files[name].num_bytes for name in kept)
    with progress.task("publish", release.num_bytes, "bytes", done) as task:
        for addition in additions:
            hub.ask(
                partial(
                    api.preupload_lfs_files, repo, [addition], revision=branch, free_memory=False
                )
            )
            task.advance(release.files[addition.path_in_repo].num_bytes)
        deletions = [CommitOperationDelete(path_in_repo=name) for name in stale]
        commit = hub.commit(branch, head, [*additions, *deletions], f"slant {release.version}")
    if (name := _first_other(hub, commit, release)) is not None:
        raise ArtifactError(
            f"hf://{repo}@{commit}/{name}: is not what was sent; no tag was set",
            hint="A .gitignore there may keep files out, or somebody else published at the "
            "same time. Look at it, then publish again.",
        )
    return commit


def _first_other(hub: _Repository, commit: str, release: Release) -> str | None:
    """A file of the release that is missing at a commit or has other content there, if any."""
    there = hub.files(commit)
    return next((n for n in release.files if not _is_same(release, n, there.get(n))), None)


def _is_same(release: Release, name: str, found: RepoFile | None) -> bool:
    """Whether the Hub's file has the content of the release's."""
    from huggingface_hub.utils.sha import git_hash

    entry = release.files[name]
    if found is None or found.size != entry.num_bytes:
        return False
    if found.lfs is not None:
        return str(found.lfs.sha256) == entry.sha256
    return str(found.blob_id) == git_hash(release.path(name).read_bytes())


def _check_version(hub: _Repository, commit: str, release: Release) -> None:
    """Refuse a tag of the release's version that stands at other content."""
    if (name := _first_other(hub, commit, release)) is not None:
        raise ArtifactError(
            f"hf://{hub.repo}@{release.version}/{name}: is not what is to be published",
            hint="A version is never overwritten: publish to another repository. A signature "
            "has to go out with the version (--sign-key).",
        )


def _stale(
    hub: _Repository, head: str | None, there: Mapping[str, RepoFile], release: Release
) -> list[str]:
    """Files of an earlier release that are not part of this one.

    Raises:
        UsageError: the repository holds files that are not of a release.
    """
    if head is None or there.keys() <= _OF_THE_HUB:
        return []
    place = f"hf://{hub.repo}@{head}"
    try:
        if MANIFEST not in there:
            raise ArtifactError(f"{place}: has no {MANIFEST}")
        content = read_url(f"{place}/{MANIFEST}")
        listed = {*parse_manifest(content, f"{place}/{MANIFEST}", "export")["files"], SIGNATURE}
    except ArtifactError as error:
        names = ", ".join(sorted(there.keys() - _OF_THE_HUB)[:3])
        raise UsageError(
            f"hf://{hub.repo}: holds files that slant did not publish ({names}, …)",
            hint="Name a repository of its own for the model; slant makes it.",
        ) from error
    return sorted((listed & there.keys()) - release.files.keys())


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Without the library's own progress bars and notices, which would run through ours."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    had_bars, verbosity = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(40)  # logging.ERROR
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            enable_progress_bars()
