from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from slant.config.ingest_settings import DocumentSource
from slant.errors import InputError, UsageError
from slant.ingest.sources import Source, SourceFile, find_sources, source_files

ROWS = b'{"text": "a"}\n'


@pytest.fixture
def bucket() -> Iterator[str]:
    """An empty folder at memory://, which fsspec keeps in this process."""
    fs = fsspec.filesystem("memory")
    fs.makedirs("/bucket", exist_ok=True)
    yield "memory://bucket"
    fs.rm("/bucket", recursive=True)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(ROWS)


def upload(*urls: str) -> None:
    for url in urls:
        with fsspec.open(url, "wb") as file:
            file.write(ROWS)


def find(path: str, start: Path, format: str = "auto") -> Source:  # noqa: A002
    settings = DocumentSource.model_validate({"path": path, "format": format})
    (source,) = find_sources("documents", [settings], start, {})
    return source


def names(source: Source) -> list[str]:
    return [file.name for file in source.files]


# --- local files


def test_a_glob_gives_its_files_sorted(tmp_path: Path) -> None:
    folder = tmp_path / "a [folder]"
    write(folder, "b.jsonl", "a.jsonl", "c.csv", "sub.jsonl/d.jsonl", "[x].jsonl")
    beside = ["[x].jsonl", "a.jsonl", "b.jsonl"]
    assert source_files("*.jsonl", folder) == [str(folder / name) for name in beside]
    assert str(folder / "sub.jsonl" / "d.jsonl") in source_files("**/*.jsonl", folder)
    assert source_files("c.csv", folder) == [str(folder / "c.csv")]
    assert source_files("[x].jsonl", folder) == [str(folder / "[x].jsonl")]
    assert source_files(str(tmp_path / "*" / "c.csv"), Path("/")) == [str(folder / "c.csv")]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("data/labeled.csv", "there is no such file; did you mean 'labelled.csv'?"),
        ("data/label?.csv", "no file matches; did you mean 'labelled.csv'?"),
        ("dato/labelled.csv", "dato; did you mean 'data'?"),
        ("dato", "there is no such file; did you mean 'data'?"),
        ("nowhere/deep/*.csv", "nowhere"),
        ("*/nothing.csv", "no file matches"),
        ("empty", "the folder has no file in a known format"),
        ("https2://host/a.csv", "'https2://' is no protocol"),
    ],
)
def test_a_path_without_files_says_what_is_there(tmp_path: Path, path: str, words: str) -> None:
    write(tmp_path, "data/labelled.csv", "empty/readme.txt", "empty/.hidden.csv")
    with pytest.raises(UsageError) as caught:
        source_files(path, tmp_path)
    assert words in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_folder_gives_the_files_of_known_formats_in_it_and_below(tmp_path: Path) -> None:
    write(tmp_path, "crawl/b.jsonl", "crawl/sub/a.csv.gz", "crawl/sub/deep/c.html", "crawl/d.txt")
    write(tmp_path, "crawl/.hidden.csv", "crawl/.git/x.json", "crawl/e.parquet", "crawl/f.gz")
    source = find("crawl", tmp_path)
    assert names(source) == [
        "crawl/b.jsonl", "crawl/e.parquet", "crawl/sub/a.csv.gz", "crawl/sub/deep/c.html"
    ]  # fmt: skip
    assert source.dataset == "crawl"


def test_of_a_folder_only_the_files_of_the_format_that_is_set_are_taken(tmp_path: Path) -> None:
    write(tmp_path, "data/a.jsonl", "data/b.json", "data/c.csv", "data/d.html")
    assert names(find("data", tmp_path, "csv")) == ["data/c.csv"]
    assert names(find("data/", tmp_path, "doccano")) == ["data/a.jsonl", "data/b.json"]
    with pytest.raises(UsageError, match="no file of format 'parquet'"):
        find("data", tmp_path, "parquet")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    write(tmp_path, "data/a.jsonl", "data/closed/b.jsonl")
    (tmp_path / "data" / "closed").chmod(0)
    with pytest.raises(InputError, match="closed: cannot be read"):
        find("data", tmp_path)


def test_names_hold_nothing_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, project = tmp_path / "outside", tmp_path / "project"
    write(outside, "a.jsonl", "sub/b.jsonl", "more/a.jsonl")
    write(project, "in/a.jsonl")
    monkeypatch.setenv("SLANT_TEST_DATA", str(outside))
    assert names(find("${SLANT_TEST_DATA}/*.jsonl", project)) == ["${SLANT_TEST_DATA}/a.jsonl"]
    assert names(find("${SLANT_TEST_DATA}", project)) == [
        "${SLANT_TEST_DATA}/a.jsonl",
        "${SLANT_TEST_DATA}/more/a.jsonl",
        "${SLANT_TEST_DATA}/sub/b.jsonl",
    ]
    assert names(find(f"{outside}/sub/b.jsonl", project)) == ["b.jsonl"]
    assert names(find(f"file://{outside}/sub/b.jsonl", project)) == ["b.jsonl"]
    assert names(find(str(outside), project))[1] == "outside/more/a.jsonl"
    assert names(find(f"{outside}/**/*.jsonl", project)) == ["a.jsonl", "a.jsonl#2", "b.jsonl"]
    assert names(find(f"{project}/in", project)) == ["in/a.jsonl"]


def test_a_file_of_two_sources_has_one_name_and_two_files_never_share_one(tmp_path: Path) -> None:
    write(tmp_path, "project/x", "one/a.jsonl", "two/a.jsonl")
    given: dict[str, str] = {}
    paths = [f"{tmp_path}/one/a.jsonl", f"{tmp_path}/two/a.jsonl", f"{tmp_path}/one/*.jsonl"]
    settings = [DocumentSource(path=path) for path in paths]
    found = find_sources("documents", settings, tmp_path / "project", given)
    assert [names(source) for source in found] == [["a.jsonl"], ["a.jsonl#2"], ["a.jsonl"]]
    assert len({source.where for source in found}) == 3


@pytest.mark.parametrize(
    ("path", "dataset"),
    [
        ("in/a.jsonl.gz", "a"),
        ("in/*.gz", "in"),
        ("in", "in"),
        ("in/", "in"),
        ("*/a.jsonl.gz", "a"),
        ("${SLANT_TEST_DATA}/**/*", "SLANT_TEST_DATA"),
    ],
)
def test_a_data_set_is_named_after_its_file_or_folder(
    tmp_path: Path, path: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLANT_TEST_DATA", str(tmp_path))
    write(tmp_path, "in/a.jsonl.gz")
    assert find(path, tmp_path).dataset == dataset


def test_a_fingerprint_tells_the_content_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "b.jsonl")
    one, two = (
        SourceFile(str(tmp_path / "a.jsonl"), "a"),
        SourceFile(str(tmp_path / "b.jsonl"), "b"),
    )
    assert one.fingerprint() == two.fingerprint()
    before = one.fingerprint()
    (tmp_path / "a.jsonl").write_bytes(ROWS.replace(b"a", b"b"))
    assert one.fingerprint() != before
    with pytest.raises(InputError, match="gone: cannot be read"):
        SourceFile(str(tmp_path / "c"), "gone").fingerprint()


# --- folders of Hugging Face datasets


def saved_split(folder: Path, *files: str) -> None:
    write(folder, *files, "cache-0123.arrow", "dataset_info.json")
    state = {"_data_files": [{"filename": name} for name in files]}
    (folder / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("format", ["auto", "datasets"])
def test_a_saved_data_set_gives_the_arrow_files_that_its_state_names(
    tmp_path: Path,
    format: str,  # noqa: A002
) -> None:
    saved_split(tmp_path / "d", "data-1-of-2.arrow", "data-0-of-2.arrow")
    write(tmp_path, "d/notes.json")
    assert names(find("d", tmp_path, format)) == ["d/data-0-of-2.arrow", "d/data-1-of-2.arrow"]


def test_a_saved_dictionary_of_splits_gives_the_files_of_each(tmp_path: Path) -> None:
    for split in ("train", "test", "old"):
        saved_split(tmp_path / "d" / split, "data-0-of-1.arrow")
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source = find("d", tmp_path)
    assert names(source) == ["d/test/data-0-of-1.arrow", "d/train/data-0-of-1.arrow"]
    assert source.dataset == "d"


def test_a_folder_above_saved_data_sets_takes_neither_their_notes_nor_their_caches(
    tmp_path: Path,
) -> None:
    saved_split(tmp_path / "d" / "one", "data-0-of-1.arrow")
    write(tmp_path, "d/a.jsonl")
    assert names(find("d", tmp_path)) == ["d/a.jsonl", "d/one/data-0-of-1.arrow"]


def test_a_file_that_the_state_names_and_that_is_gone_is_an_error(tmp_path: Path) -> None:
    saved_split(tmp_path / "d", "data-0-of-2.arrow", "data-1-of-2.arrow")
    (tmp_path / "d" / "data-1-of-2.arrow").unlink()
    with pytest.raises(InputError, match=r"data-1-of-2\.arrow: is missing"):
        find("d", tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"_data_files": 3}', '{"_data_files": [7]}'])
def test_a_state_that_says_nothing_is_done_without(tmp_path: Path, content: str) -> None:
    saved_split(tmp_path / "d", "data-0-of-1.arrow")
    (tmp_path / "d" / "state.json").write_text(content)
    assert names(find("d", tmp_path)) == ["d/data-0-of-1.arrow"]


# --- URLs


def test_urls_of_files_globs_and_folders_are_found_and_named_as_written(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(*(f"{bucket}/{name}" for name in ("d/a.jsonl", "d/b.csv", "d/sub/c.jsonl", "d/.x.csv")))
    upload(f"{bucket}/d/readme.txt")
    monkeypatch.setenv("SLANT_TEST_DATA", f"{bucket}/d")
    assert names(find(f"{bucket}/d/a.jsonl", tmp_path)) == [f"{bucket}/d/a.jsonl"]
    assert names(find(f"{bucket}/d/*.csv", tmp_path)) == [f"{bucket}/d/b.csv"]
    assert names(find("${SLANT_TEST_DATA}/*.csv", tmp_path)) == ["${SLANT_TEST_DATA}/b.csv"]
    assert names(find(f"{bucket}/**/*.jsonl", tmp_path)) == [
        f"{bucket}/d/a.jsonl", f"{bucket}/d/sub/c.jsonl"
    ]  # fmt: skip
    source = find(f"{bucket}/d/", tmp_path)
    assert [file.location for file in source.files] == [
        f"{bucket}/d/a.jsonl", f"{bucket}/d/b.csv", f"{bucket}/d/sub/c.jsonl"
    ]  # fmt: skip
    assert names(source) == [file.location for file in source.files]
    assert source.dataset == "d"


def test_a_url_without_files_suggests_a_neighbour(bucket: str, tmp_path: Path) -> None:
    upload(f"{bucket}/d/labelled.csv")
    with pytest.raises(UsageError, match=r"labeled\.csv: no file .*did you mean 'labelled\.csv'"):
        find(f"{bucket}/d/labeled.csv", tmp_path)


def test_a_fingerprint_of_a_url_changes_with_the_file(bucket: str) -> None:
    upload(f"{bucket}/a.jsonl")
    file = SourceFile(f"{bucket}/a.jsonl", "a")
    before = file.fingerprint()
    assert file.fingerprint() == before
    upload(f"{bucket}/a.jsonl")
    assert file.fingerprint() != before


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:topsecret@bucket/a.csv",
        "s3://key:top/secret@bucket/a.csv",
        "s3://[topsecret/a.csv",
        "abfs://container@account/a.csv?sv=1&sig=topsecret",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLANT_TEST_DATA", url)  # written in slant.yaml it is refused earlier
    with pytest.raises(UsageError) as caught:
        find("${SLANT_TEST_DATA}", tmp_path)
    assert "secret" not in str(caught.value)
