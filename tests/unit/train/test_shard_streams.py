"""Where the shard stage puts its streams, and how it goes on after it was stopped."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from slant.artifacts import Artifact, digest_file, load
from slant.errors import ArtifactError, ShardError, UsageError
from slant.model.base import BaseModel
from slant.progress import Progress, SilentProgress
from slant.train import shard as stage
from slant.train.shard import run_shard, shard_recipe, verify_shards
from slant.train.streams import open_shards, stream_names
from slant.train.tune import run_tune
from tiny_stages import save_base, tiny_settings, write_ingest

MEMORY = fsspec.filesystem("memory")
LANGS = ("en", "es", "ru", "tl", "und", "zh")
STREAMS = sorted(
    [f"adapt/{part}/{lang}" for part in ("train", "heldout") for lang in LANGS]
    + ["tune/train", "tune/validation"]
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, BaseModel]:
    root = tmp_path_factory.mktemp("inputs")
    return write_ingest(root / "ingest"), save_base(root / "base")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLANT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that streams of a few samples have several chunks."""
    monkeypatch.setattr(stage, "_TUNE_CHUNK", 5)
    monkeypatch.setattr(stage, "_ADAPT_CHUNK", 3)


def shard(
    inputs: tuple[Artifact, BaseModel],
    out: Path,
    progress: Progress | None = None,
    start: Path | None = None,
    seed: int = 5,
    **section: Any,
) -> Artifact:
    settings = tiny_settings(shard={"size_limit_bytes": 2000, **section})
    return run_shard(
        settings.model_copy(update={"seed": seed}),
        ingest=inputs[0],
        base=inputs[1],
        out=out,
        progress=progress or SilentProgress(),
        start=start,
    )


def samples(artifact: Artifact) -> dict[str, list[str]]:
    return {name: [str(s) for s in open_shards(artifact, name)] for name in stream_names(artifact)}


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def a_url() -> str:
    return f"memory://{uuid.uuid4().hex}/shards"


@pytest.mark.parametrize("kind", ["url", "relative", "absolute"])
def test_streams_can_lie_elsewhere_and_are_the_same(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path, kind: str
) -> None:
    to = {"url": a_url(), "relative": "../elsewhere", "absolute": str(tmp_path / "abs")}[kind]
    here = shard(inputs, tmp_path / "here")
    there = shard(inputs, tmp_path / "work" / "shard", start=tmp_path / "work", to=to)
    assert sorted(there.manifest["files"]) == ["shards.json", "slant.json"]
    assert stream_names(there) == stream_names(here) == STREAMS
    assert samples(there) == samples(here)
    assert there.facts == here.facts
    location = json.loads(there.file("shards.json").read_text())["location"]
    assert location.endswith(there.key[:16])
    if kind == "relative":
        assert (tmp_path / "elsewhere" / there.key[:16] / "tune" / "train").is_dir()
        (tmp_path / "project").mkdir()
        for name in ("work", "elsewhere"):  # a project may be moved
            shutil.move(tmp_path / name, tmp_path / "project" / name)
        moved = load(tmp_path / "project" / "work" / "shard", "shard")
        assert samples(moved) == samples(here)


def test_names_in_braces_come_from_the_environment(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = a_url()
    monkeypatch.setenv("SHARDS", url)
    artifact = shard(inputs, tmp_path / "shard", to="${SHARDS}/x")
    assert MEMORY.exists(f"{url}/x/{artifact.key[:16]}/tune/train/index.json")
    monkeypatch.delenv("SHARDS")
    with pytest.raises(UsageError, match="SHARDS is not set"):
        shard(inputs, tmp_path / "shard", to="${SHARDS}/x")


def test_credentials_in_the_value_of_a_variable_are_refused(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDS", "s3://key:secret@bucket")
    with pytest.raises(UsageError, match="credentials") as caught:
        shard(inputs, tmp_path / "shard", to="${SHARDS}/x")
    assert "secret" not in str(caught.value)


def test_another_recipe_goes_to_another_folder_and_leaves_the_old_one(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path
) -> None:
    url = a_url()
    first = shard(inputs, tmp_path / "shard", to=url)
    before = samples(first)
    second = shard(inputs, tmp_path / "again", to=url, seed=6)
    assert first.digest != second.digest
    assert samples(first) == before != samples(second)


def test_the_size_of_the_cache_changes_no_shards_but_their_place_does(
    inputs: tuple[Artifact, BaseModel],
) -> None:
    def key(**section: Any) -> str:
        return shard_recipe(tiny_settings(shard=section), *inputs).key

    assert key() == key(cache_bytes=1 << 21)
    assert key() != key(to="s3://bucket/shards")


def test_complete_streams_at_a_url_are_not_written_again_by_another_machine(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path
) -> None:
    url = a_url()
    first = shard(inputs, tmp_path / "one", to=url)
    times = {name: MEMORY.modified(name) for name in MEMORY.find(url)}
    second = shard(inputs, tmp_path / "two", to=url)
    assert {name: MEMORY.modified(name) for name in MEMORY.find(url)} == times
    assert (second.digest, second.facts) == (first.digest, first.facts)


def test_other_shards_in_the_place_of_an_artifacts_own_are_refused(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path
) -> None:
    artifact = shard(inputs, tmp_path / "shard", to=str(tmp_path / "to"))
    folder = tmp_path / "to" / artifact.key[:16] / "tune"
    shutil.copytree(folder / "validation", folder / "train", dirs_exist_ok=True)
    with pytest.raises(ShardError, match="not the shards"):
        open_shards(artifact, "tune/train")


def test_a_damaged_note_of_the_place_is_an_error_that_names_it(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path
) -> None:
    artifact = shard(inputs, tmp_path / "shard", to=a_url())
    artifact.file("shards.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"shards\.json"):
        open_shards(artifact, "tune/train")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_verifying_names_every_damaged_file_of_every_stream(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path, elsewhere: bool
) -> None:
    artifact = shard(
        inputs, tmp_path / "shard", **({"to": str(tmp_path / "to")} if elsewhere else {})
    )
    verify_shards(artifact, SilentProgress())
    root = tmp_path / "to" / artifact.key[:16] if elsewhere else artifact.path
    damaged = root / "adapt" / "train" / "ru" / "shard.00000.mds.zstd"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    missing = root / "tune" / "train" / "shard.00001.mds.zstd"
    missing.unlink()
    (root / "adapt" / "heldout" / "zh" / "index.json").unlink()
    with pytest.raises(ShardError) as raised:
        verify_shards(artifact, SilentProgress())
    lines = raised.value.message.splitlines()
    assert len(lines) == 3
    for part, line in zip(
        ("heldout/zh", str(damaged), f"{missing}: is missing"), lines, strict=True
    ):
        assert part in line


class Stopping:
    """Stops the stage when it reports for the given time."""

    def __init__(self, reports: int) -> None:
        self.left = reports

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Any]:
        yield self

    def advance(self, count: int = 1, **facts: float | str) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def say(self, message: str) -> None:
        pass


@pytest.mark.parametrize("kind", ["artifact", "folder"])
@pytest.mark.parametrize("reports", [2, 12, 25])
def test_a_stage_that_was_stopped_goes_on_after_the_last_complete_shard(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path, kind: str, reports: int
) -> None:
    section = {} if kind == "artifact" else {"to": str(tmp_path / "to")}
    whole = shard(inputs, tmp_path / "whole", **({} if not section else {"to": "../whole-to"}),
                  start=tmp_path / "whole")  # fmt: skip
    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        shard(inputs, out, Stopping(reports), **section)
    root = out if kind == "artifact" else tmp_path / "to"
    written = {path: path.stat().st_ino for path in root.rglob("shard.*")}
    assert written or reports < 3
    resumed = shard(inputs, out, **section)
    assert {path: path.stat().st_ino for path in written} == written
    assert samples(resumed) == samples(whole)
    assert resumed.facts == whole.facts
    if kind == "artifact":
        assert resumed.digest == whole.digest
        assert files(out) == files(tmp_path / "whole")


def test_tuning_reads_shards_from_a_url_as_from_the_artifact(
    inputs: tuple[Artifact, BaseModel], tmp_path: Path, cache: Path
) -> None:
    adapters = set()
    for name, section in (("here", {}), ("there", {"to": a_url()})):
        shards = shard(inputs, tmp_path / name, **section)
        tuned = run_tune(
            tiny_settings(tune={"epochs": 1}),
            shards=shards,
            base=inputs[1],
            out=tmp_path / f"tune-{name}",
            progress=SilentProgress(),
        )
        adapters.add(digest_file(tuned.file("adapter/adapter_model.safetensors")))
    assert len(adapters) == 1
    assert list((cache / "shards").rglob("shard.*"))
