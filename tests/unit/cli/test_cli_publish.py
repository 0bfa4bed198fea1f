"""``slant publish`` and ``slant pull``, and a project that publishes its bundle itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Cli

from s3_server import s3_server
from slant.artifacts import load
from slant.publish.release import Release
from tiny_release import write_release


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return write_release(tmp_path / "made", weights_bytes=200_000)


def test_a_bundle_goes_out_and_comes_back(cli: Cli, release: Release, tmp_path: Path) -> None:
    done = cli("publish", "made", "to", "--alias", "champion")
    assert done.code == 0, done.err
    assert done.out == f"publish   sent 402 kB    to/versions/{release.version}\n"
    assert "publish: 402 kB of 402 kB" in done.err
    again = cli("publish", "made", "to")
    assert again.out == f"publish   is there       to/versions/{release.version}\n"
    pulled = cli("pull", "to", "--version", "champion")
    assert pulled.code == 0, pulled.err
    assert pulled.out == f"pull      fetched 400 kB bundle, version {release.version}\n"
    assert Release.of(tmp_path / "bundle").version == release.version
    assert cli("pull", "to").out == f"pull      was there      bundle, version {release.version}\n"


def test_a_dry_run_shows_every_file_and_writes_nothing(
    cli: Cli, release: Release, tmp_path: Path
) -> None:
    done = cli("publish", "made", "to", "--dry-run")
    assert done.code == 0, done.err
    assert not (tmp_path / "to").exists()
    assert f"version {release.version}" in done.out
    assert all(name in done.out for name in release.files)
    assert "would send 402 kB" in done.out
    cli("publish", "made", "to")
    assert "is there  " in cli("publish", "made", "to", "--dry-run").out


def test_results_are_json_where_that_is_asked_for(cli: Cli, release: Release) -> None:
    planned = json.loads(cli("publish", "made", "to", "--dry-run", "--json").out)
    sent = json.loads(cli("publish", "made", "to", "--json").out)
    assert planned == sent | {"dry_run": True}
    assert sent["version"] == release.version
    assert sent["sent_bytes"] == release.num_bytes
    assert not sent["was_there"]
    assert [file["name"] for file in sent["files"]] == list(release.files)
    pulled = json.loads(cli("pull", "to", "elsewhere", "--json").out)
    assert pulled["folder"] == "elsewhere"
    assert pulled["version"] == release.version


def test_a_bundle_that_does_not_prove_itself_ends_with_exit_code_3(
    cli: Cli, release: Release, tmp_path: Path
) -> None:
    manifest = json.loads(release.path("manifest.json").read_text())
    del manifest["files"]["parity.json"]
    release.path("manifest.json").write_text(json.dumps(manifest))
    done = cli("publish", "made", "to")
    assert done.code == 3
    assert "made/parity.json: the proof is missing; nothing was published" in done.err
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["publish", "nowhere", "to"], 1, "nowhere: the export artifact is not there"),
        (["publish", "made", "s3://key:word@bucket"], 2, "holds credentials"),
        (["publish", "made", "s3:/bucket/x"], 2, "s3:/bucket/x: cannot be published to"),
        (["pull", "S4://bucket/x"], 2, "S4://bucket/x: cannot be published to"),
        (["publish", "made", "to", "--alias", "Latest"], 2, "cannot be the name of an alias"),
        (["pull", "nowhere"], 1, "nowhere/latest.json: is not there"),
        (["pull", "made", "--version", "x.y"], 2, "is neither a version nor an alias"),
    ],
)
def test_what_goes_wrong_is_told_in_a_line(
    arguments: list[str], code: int, words: str, cli: Cli, release: Release
) -> None:
    done = cli(*arguments)
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
    assert "defect" not in done.err


def test_a_project_publishes_its_bundle_once_and_again_if_it_is_gone(
    cli: Cli, project: Path
) -> None:
    to = f"file://{project}/to"
    options = ["export", "slant.yaml", "--set", f"export.to={to}"]
    first = cli(*options)
    assert first.code == 0, first.err
    version = Release.of(project / "work" / "bundle").version
    assert "up to date" in first.out.splitlines()[0]  # where it goes does not change what it is
    assert first.out.splitlines()[-1].startswith("publish   sent ")
    assert first.out.splitlines()[-1].endswith(f"{project}/to/versions/{version}")
    load(project / "to" / "versions" / version, "export").verify()

    # Somebody goes back to another version: an idle run leaves that as it is. It reads no weights.
    weights = project / "work" / "bundle" / "causal-lm" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (project / "to" / "latest.json").write_text("{}")
    second = cli(*options)
    assert second.code == 0, second.err
    assert "publish" not in second.out
    assert (project / "to" / "latest.json").read_text() == "{}"

    weights.write_bytes(content)
    shutil.rmtree(project / "to")
    third = cli(*options)
    assert third.code == 0, third.err
    assert "up to date" in third.out
    assert f"{project}/to/versions/{version}" in third.out
    assert json.loads((project / "to" / "latest.json").read_text())["version"] == version


def test_the_address_may_come_from_the_environment_and_is_not_written_down(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS", f"file://{project}/to")
    done = cli("export", "slant.yaml", "--set", "export.to=${MODELS}")
    assert done.code == 0, done.err
    version = Release.of(project / "work" / "bundle").version
    assert done.out.splitlines()[-1].endswith(f"{project}/to/versions/{version}")
    assert "file:" not in (project / "work" / "published.json").read_text()
    assert not any("file:" in path.name for path in (project / "work").iterdir())


def test_a_run_with_nothing_to_do_ends_well_although_the_store_is_away(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slant.pipeline._IDLE_PATIENCE_S", 0.1)
    options = ["export", "slant.yaml", "--set", "export.to=s3://models/x"]
    with s3_server() as server:
        server.put("models", b"")
        assert "publish" in cli(*options).out
        server.kill()
        done = cli(*options)
        assert done.code == 0, done.err
        assert "publish" not in done.out
        assert "whether the bundle is still where it was published is not known" in done.err
        assert "no answer for 0.1 s" in done.err


def test_an_address_that_cannot_be_used_is_found_out_before_the_work(
    cli: Cli, project: Path
) -> None:
    shutil.rmtree(project / "work" / "bundle")
    done = cli("run", "slant.yaml", "--set", "export.to=s4://bucket/x", "--set", "seed=9")
    assert done.code == 2
    assert "s4://bucket/x: cannot be published to" in done.err
    assert "ingest" not in done.out


def test_scoring_with_a_damaged_bundle_is_refused_and_can_be_forced(
    cli: Cli, project: Path
) -> None:
    score = ["score", "work/bundle", "--text", "A fine bridge.", "--dtype", "float32"]
    config = project / "work" / "bundle" / "causal-lm" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content))
    done = cli(*score)
    assert done.code == 1
    assert "causal-lm/config.json: is damaged" in done.err
    assert cli(*score, "--no-verify").code == 0
    (project / "work" / "bundle" / "manifest.json").unlink()
    done = cli(*score)
    assert done.code == 1
    assert "has no manifest.json" in done.err
