"""Files, folders and many narratives through a tiny bundle."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slant.artifacts import Recipe, build
from slant.errors import InputError, UsageError
from slant.model.base import load_tokenizer
from slant.records import Narrative
from slant.score import pairs
from slant.score.files import FileOutcome, score_files
from slant.score.inputs import Columns
from slant.score.narratives import read_narratives, unique_narratives
from slant.score.scorer import Scorer
from tiny import save_tiny_model
from tiny_task import tiny_spec

TEXTS = ["The bridge is a ruin.", "新桥令人高兴，非常漂亮。", "Новый мост — позор 🌉", "الجسر جميل"]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = tmp_path_factory.mktemp("bundles") / "a"
    with build(folder, Recipe("export", {}, {}, 0)):
        save_tiny_model(folder / "causal-lm")
        spec = tiny_spec(load_tokenizer(folder / "causal-lm"), token_limit=120)
        spec.with_weights("w").with_temperature(0.05).save(folder)
    return Scorer.load(folder, dtype="float32", device="cpu")


class Telling:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.tasks: list[tuple[int | None, str]] = []
        self.done = 0

    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Telling:
        self.tasks.append((total, unit))
        return self

    def __enter__(self) -> Telling:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def advance(self, count: int = 1, **facts: float | str) -> None:
        self.done += count

    def say(self, message: str) -> None:
        self.said.append(message)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def rejected(path: Path) -> list[dict[str, Any]]:
    return read(path.with_name(path.name + ".rejected.jsonl"))


# --- decisions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thresholds", "lang", "num"),
    [({"en": 0.0}, None, 2), ({"en": 0.0}, "ru", 0), ({"*": 0.0}, None, 0), ({}, None, 0)],
)
def test_it_is_told_why_documents_without_a_language_are_all_for_review(
    scorer: Scorer, tmp_path: Path, thresholds: dict[str, float], lang: str | None, num: int
) -> None:
    bundle = tmp_path / "bundle"
    save_tiny_model(bundle / "causal-lm")
    spec = tiny_spec(load_tokenizer(bundle / "causal-lm"), token_limit=120)
    spec.with_thresholds(thresholds).save(bundle)
    decided = Scorer.load(bundle, dtype="float32", device="cpu", verify=False)
    rows = [{"text": "a"}, {"text": "b", "lang": "en"}, {"text": "c"}]
    progress = Telling()
    score_files(
        decided,
        jsonl(tmp_path / "in.jsonl", rows),
        tmp_path / "out.jsonl",
        columns=Columns(default_lang=lang),
        progress=progress,
    )
    told = [said for said in progress.said if "tell no language" in said]
    assert [said.split()[0] for said in told] == ([str(num)] if num else [])


# --- narratives ----------------------------------------------------------------------------------


def test_every_document_is_asked_about_every_narrative_in_the_order_given(scorer, tmp_path):
    source = jsonl(tmp_path / "in.jsonl", [{"id": str(n), "text": t} for n, t in enumerate(TEXTS)])
    out = tmp_path / "out.jsonl"
    asked = ["новый мост", "the bridge", "新桥"]
    assert score_files(scorer, source, out, narratives=asked) == FileOutcome(
        12, 0, tmp_path / "out.jsonl.rejected.jsonl"
    )
    rows = read(out)
    assert [(row["id"], row["narrative"]) for row in rows] == [
        (str(n), narrative) for n in range(4) for narrative in asked
    ]
    assert list(rows[0]) == ["id", "narrative", "label", "confidence"] + [
        f"p_{label}" for label in scorer.labels
    ]
    for row in rows:
        (single,) = scorer.predict(TEXTS[int(row["id"])], row["narrative"])
        found = [row[f"p_{label}"] for label in scorer.labels]
        assert found == pytest.approx(list(single.probabilities), abs=1e-4)
        assert row["confidence"] == max(found)


def test_a_row_that_names_its_own_narrative_keeps_that_one_only(scorer, tmp_path):
    source = jsonl(tmp_path / "in.jsonl", [{"text": "a"}, {"text": "b", "narrative": "own"}])
    narratives = [Narrative("n1", "x"), Narrative("n2", "y")]
    score_files(scorer, source, tmp_path / "out.jsonl", narratives=narratives)
    found = [
        (row["id"], row["narrative_id"], row["narrative"]) for row in read(tmp_path / "out.jsonl")
    ]
    assert found == [("1", "n1", "x"), ("1", "n2", "y"), ("2", None, "own")]


def test_the_pairs_of_a_document_follow_one_another_and_share_its_text(
    scorer, tmp_path, monkeypatch
):
    seen = []
    stream = Scorer.stream

    def watched(self, given):
        yield from stream(self, (seen.append(pair) or pair for pair in given))

    monkeypatch.setattr(Scorer, "stream", watched)
    source = jsonl(tmp_path / "in.jsonl", [{"text": "a"}, {"text": "b"}])
    score_files(scorer, source, tmp_path / "out.jsonl", narratives=["x", "y"])
    assert [(pair.text, pair.narrative) for pair in seen] == [
        ("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")
    ]  # fmt: skip
    assert seen[0].text is seen[1].text


def test_a_pair_that_cannot_be_scored_is_listed_with_its_narrative(scorer, tmp_path):
    source = jsonl(tmp_path / "in.jsonl", [{"id": "d", "text": "a"}, {"id": "e", "text": ""}])
    endless = "a narrative that never ends " * 10
    outcome = score_files(scorer, source, tmp_path / "out.csv", narratives=[endless, "short"])
    assert (outcome.scored, outcome.rejected) == (1, 2)
    found = [(row["id"], row["narrative"]) for row in rejected(tmp_path / "out.csv")]
    assert found == [("d", endless), ("e", None)]


def test_a_narrative_that_is_given_twice_is_asked_once_with_a_word(scorer, tmp_path):
    source, progress = jsonl(tmp_path / "in.jsonl", [{"text": "a"}]), Telling()
    score_files(
        scorer, source, tmp_path / "out.jsonl", narratives=["x", "y", "x "], progress=progress
    )
    assert [row["narrative"] for row in read(tmp_path / "out.jsonl")] == ["x", "y"]
    assert progress.said == ["narrative given twice, asked once: x "]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "\ufeff# ours\nthe bridge\n\n  新桥 \n#no\n", [("", "the bridge"), ("", "新桥")]),
        ("a.jsonl", '{"id": 1, "text": "x"}\n{"text": "y"}\n', [("1", "x"), ("", "y")]),
        ("a.csv", "\ufeffid,text\nn,мост\n", [("n", "мост")]),
        ("a.tsv", "text\nx\n", [("", "x")]),
    ],
)
def test_narratives_come_from_lines_or_from_a_table(name, content, expected, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = read_narratives(tmp_path / name)
    assert [(narrative.id, narrative.text) for narrative in found] == expected


def test_narratives_of_parquet_need_no_ids(tmp_path):
    for rows, expected in (([{"text": "x"}], ""), ([{"text": "x", "id": "n"}], "n")):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        assert [each.id for each in read_narratives(tmp_path / "a.parquet")] == [expected]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"a\.txt: is empty"),
        ("a.txt", b"# nothing\n\n", r"a\.txt: has no narrative"),
        ("a.txt", b"good\ncaf\xe9\n", r"a\.txt: line 2: not UTF-8"),
        ("a.csv", b"id,text\nn,\n", r"a\.csv: row 1: text is empty"),
        ("a.csv", b"id,txet\nn,x\n", r"no column 'text' in its header; did you mean 'txet'"),
    ],
)
def test_a_file_of_narratives_that_is_of_no_use_is_an_error(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((InputError, UsageError), match=message):
        read_narratives(tmp_path / name)


def test_one_id_for_two_narratives_is_an_error():
    with pytest.raises(InputError, match="id 'n' stands for two narratives: 'x' and 'y'"):
        unique_narratives([Narrative("n", "x"), Narrative("n", "y")])


# --- inputs --------------------------------------------------------------------------------------


def test_a_name_that_is_no_utf_8_is_written_with_its_bytes(scorer, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in {b"caf\xe9.txt": "The bridge.", b"\xff.txt": " "}.items():
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text(text)
    outcome = score_files(scorer, folder, tmp_path / "out.jsonl")
    assert (outcome.scored, outcome.rejected) == (1, 1)
    assert read(tmp_path / "out.jsonl")[0]["id"] == r"caf\xe9.txt"
    assert rejected(tmp_path / "out.jsonl")[0]["file"].endswith(r"\xff.txt")


def test_files_of_one_name_in_two_folders_keep_ids_of_their_own(scorer, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.txt").write_text(f"text {folder}")
    score_files(scorer, [tmp_path / "a", tmp_path / "b"], tmp_path / "out.jsonl")
    ids = [row["id"] for row in read(tmp_path / "out.jsonl")]
    assert ids == ["same.txt", str(tmp_path / "b" / "same.txt")]


def test_a_folder_is_read_in_order_of_its_names_with_texts_as_documents(scorer, tmp_path):
    folder = tmp_path / "docs"
    jsonl(folder / "b.jsonl", [{"text": TEXTS[0]}, {"id": "own", "text": TEXTS[1]}])
    (folder / "a" / "deep").mkdir(parents=True)
    (folder / "a" / "deep" / "ru.txt").write_text(TEXTS[2], encoding="utf-8")
    page = "<html><body><article><p>" + "The bridge is loved by all. " * 20
    (folder / "c.html").write_text(page + "</p></article></body></html>", encoding="utf-8")
    (folder / "d.csv.gz").write_bytes(gzip.compress("text\nالجسر جميل\n".encode()))
    (folder / "e.pdf").write_bytes(b"%PDF")
    (folder / ".hidden.jsonl").write_text("not read")
    progress = Telling()
    outcome = score_files(scorer, folder, tmp_path / "out.csv", progress=progress)
    assert (outcome.scored, outcome.rejected) == (5, 0)
    lines = (tmp_path / "out.csv").read_text("utf-8").splitlines()[1:]
    assert [line.partition(",")[0] for line in lines] == [
        "a/deep/ru.txt",
        "b.jsonl:1",
        "own",
        "c.html",
        "d.csv.gz:1",
    ]
    assert progress.said == ["left out, of unknown type: e.pdf"]


def test_a_folder_without_a_known_file_says_what_it_has(scorer, tmp_path):
    (tmp_path / "docs").mkdir()
    with pytest.raises(UsageError, match="docs: the folder has no file of a known type"):
        score_files(scorer, tmp_path / "docs", tmp_path / "out.jsonl")
    (tmp_path / "docs" / "a.pdf").touch()
    with pytest.raises(UsageError) as raised:
        score_files(scorer, tmp_path / "docs", tmp_path / "out.jsonl")
    assert "It has a.pdf." in raised.value.hint


def test_several_files_are_read_in_the_order_given_and_none_twice(scorer, tmp_path):
    b = jsonl(tmp_path / "b.jsonl", [{"text": "b"}])
    a = jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    score_files(scorer, [b, a, tmp_path / "." / "b.jsonl"], tmp_path / "out.tsv")
    lines = (tmp_path / "out.tsv").read_text("utf-8").splitlines()[1:]
    assert [line.partition("\t")[0] for line in lines] == [f"{b}:1", f"{a}:1"]


def test_a_damaged_file_in_a_folder_costs_only_what_is_behind_the_damage(scorer, tmp_path):
    folder = tmp_path / "docs"
    jsonl(folder / "a.jsonl", [{"text": "a"}])
    whole = b'[{"text": "one"}, {"text": "two"}, {"te'
    (folder / "b.json").write_bytes(whole)
    (folder / "c.parquet").write_bytes(b"PAR1 and no more")
    (folder / "d.csv").write_text("body\nx\n")
    (folder / "e.jsonl").touch()
    jsonl(folder / "f.jsonl", [{"text": "f"}])
    outcome = score_files(scorer, folder, tmp_path / "out.jsonl")
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == [
        "a.jsonl:1", "b.json:1", "b.json:2", "f.jsonl:1"
    ]  # fmt: skip
    listed = rejected(tmp_path / "out.jsonl")
    assert [(Path(row["file"]).name, row["row"]) for row in listed] == [
        ("b.json", None), ("c.parquet", None), ("d.csv", None), ("e.jsonl", None)
    ]  # fmt: skip
    for row, reason in zip(
        listed,
        ["ends inside its array (after row 2)", "not a Parquet file", "no column 'text'", "empty"],
        strict=True,
    ):
        assert reason in row["reason"]
    assert outcome.rejected == 4
    assert "ends inside its array" in outcome.first_reason


def test_a_folder_of_which_nothing_can_be_scored_is_an_error_that_leaves_nothing(scorer, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.csv").write_text("body\nx\n")
    (tmp_path / "docs" / "b.txt").write_text("  ")
    with pytest.raises(UsageError, match="no column 'text' in its header"):
        score_files(scorer, tmp_path / "docs", tmp_path / "out.jsonl")
    (tmp_path / "docs" / "a.csv").unlink()
    with pytest.raises(InputError, match="docs: none of its 1 rows can be scored; the first one"):
        score_files(scorer, tmp_path / "docs", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_columns_may_have_other_names(suffix, scorer, tmp_path):
    row = {"body": "The bridge.", "key": "k", "entity": "мост", "language": "en", "text": "not me"}
    source = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), source)
    elif suffix == "csv":
        source.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n", encoding="utf-8")
    else:
        jsonl(source, [row])
    columns = Columns("body", "key", "entity", "language")
    score_files(scorer, source, tmp_path / "out.jsonl", columns=columns)
    (found,) = read(tmp_path / "out.jsonl")
    (wanted,) = scorer.predict("The bridge.", "мост")
    assert found["id"] == "k"
    assert found["confidence"] == pytest.approx(wanted.confidence, abs=1e-4)


@pytest.mark.parametrize(
    "columns", [Columns("txt"), Columns(id="txt"), Columns(narrative="txt"), Columns(lang="txt")]
)
def test_a_column_that_is_named_has_to_be_there(columns, scorer, tmp_path):
    # So many that they would be scored before the end of the file tells.
    source = jsonl(tmp_path / "in.jsonl", [{"text": "a"}] * 1100)
    with pytest.raises(UsageError, match=r"no column 'txt' in .*; did you mean 'text'\?"):
        score_files(scorer, source, tmp_path / "out.jsonl", columns=columns)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_result_never_replaces_an_input(scorer, tmp_path):
    folder = tmp_path / "docs"
    jsonl(folder / "a.jsonl", [{"text": "a"}])
    jsonl(folder / "b.jsonl.rejected.jsonl", [{"text": "a"}])
    for name in ("a.jsonl", "b.jsonl"):
        with pytest.raises(UsageError, match="is the input file"):
            score_files(scorer, folder, folder / name)
    assert read(folder / "a.jsonl") == [{"text": "a"}]


def test_many_refused_rows_are_written_before_they_fill_the_memory(scorer, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "_MOST_REFUSED", 3)
    rows = [{"text": text} for text in ("a", *[""] * 10, "b", *[""] * 4, "c", "")]
    source = jsonl(tmp_path / "in.jsonl", rows)
    held = []
    refuse = pairs.Run._refuse

    def watched(self, refused):
        refuse(self, refused)
        held.append(len(self._waiting))

    monkeypatch.setattr(pairs.Run, "_refuse", watched)
    outcome = score_files(scorer, source, tmp_path / "out.jsonl")
    assert (outcome.scored, outcome.rejected) == (3, 15)
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == ["1", "12", "17"]
    numbers = [row["row"] for row in rejected(tmp_path / "out.jsonl")]
    assert numbers == [*range(2, 12), *range(13, 17), 18]
    assert max(held) <= 5


# --- result --------------------------------------------------------------------------------------


def test_parquet_carries_the_fingerprint_in_its_metadata(scorer, tmp_path):
    source = jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    score_files(scorer, source, tmp_path / "out.parquet")
    metadata = pq.read_schema(tmp_path / "out.parquet").metadata
    assert metadata[b"slant.fingerprint"].decode() == scorer.fingerprint


def test_progress_has_a_total_where_one_is_known(scorer, tmp_path):
    text = "мост " * 100
    source = jsonl(tmp_path / "in.jsonl", [{"text": text}] * 8)
    pq.write_table(pa.table({"text": ["a", "b", ""]}), tmp_path / "in.parquet")
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(source.read_bytes()))
    for name, task, done in (
        ("in.jsonl", (round(source.stat().st_size / 1000), "kB"), 7),
        ("in.parquet", (3, "documents"), 3),
        ("in.jsonl.gz", (None, "documents"), 8),
    ):
        progress = Telling()
        score_files(scorer, tmp_path / name, tmp_path / "out.jsonl", progress=progress)
        assert progress.tasks == [task]
        assert progress.done == done
