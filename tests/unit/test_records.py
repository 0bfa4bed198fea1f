from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from slant.errors import ArtifactError
from slant.records import (
    Document,
    Example,
    Narrative,
    Prediction,
    Rejected,
    read_jsonl,
    read_parquet,
    write_jsonl,
    write_parquet,
)

TEXT = 'Línea\u2028\u0085 одна\r\nдве 三\t"«»\\ 😀 \0 end'
NOON = datetime(2024, 5, 6, 12, 0, 0, 123456, UTC)
RECORDS = {
    Document: [
        Document("1", TEXT, "es", "news", NOON, "https://example.org/?a=1", "00ff"),
        Document("2", ""),
    ],
    Narrative: [Narrative("n1", TEXT), Narrative("n2", "x")],
    Example: [
        Example("1", "n1", "negative", "train", "set", "a.csv", 1),
        Example("2", None, "positive", "test", "set", "b.csv", 2**40),
    ],
    Rejected: [Rejected("a.csv", 7, "no text", "ab"), Rejected("a.csv", 8, TEXT, "cd")],
}


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_parquet_and_jsonl_give_back_what_was_written_in_order(tmp_path, kind):
    tmp_path = tmp_path / "lang=es"  # no partition of a Hive table
    tmp_path.mkdir()
    assert write_parquet(tmp_path / "r.parquet", kind, RECORDS[kind]) == 2
    assert read_parquet(tmp_path / "r.parquet", kind) == RECORDS[kind]
    assert write_jsonl(tmp_path / "r.jsonl", RECORDS[kind]) == 2
    assert read_jsonl(tmp_path / "r.jsonl", kind) == RECORDS[kind]


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_no_records_make_a_file_without_records(tmp_path, kind):
    assert write_parquet(tmp_path / "r.parquet", kind, []) == 0
    assert read_parquet(tmp_path / "r.parquet", kind) == []
    assert write_jsonl(tmp_path / "r.jsonl", []) == 0
    assert read_jsonl(tmp_path / "r.jsonl", kind) == []


def test_more_records_than_fit_in_a_chunk_stay_in_order(tmp_path):
    records = (Narrative(str(i), f"text {i}") for i in range(25_001))
    assert write_parquet(tmp_path / "r.parquet", Narrative, records) == 25_001
    read = read_parquet(tmp_path / "r.parquet", Narrative)
    assert [record.id for record in read] == [str(i) for i in range(25_001)]


def test_times_are_stored_in_utc(tmp_path):
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    write_parquet(tmp_path / "r.parquet", Document, [Document("1", "x", published_at=tokyo)])
    (read,) = read_parquet(tmp_path / "r.parquet", Document)
    assert read.published_at == NOON
    assert read.published_at.utcoffset() == timedelta(0)


def test_a_parquet_file_is_plain_parquet_with_the_fields_as_columns(tmp_path):
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "r.parquet", Example, RECORDS[Example])
    schema = pq.read_schema(tmp_path / "r.parquet")
    names = ["document_id", "narrative_id", "label", "split", "dataset", "file", "row"]
    names += ["num_judgements", "shares"]
    assert schema.names == names
    assert str(schema.field("row").type) == "int64"


def test_files_of_another_kind_are_refused_by_name(tmp_path):
    write_parquet(tmp_path / "r.parquet", Narrative, RECORDS[Narrative])
    with pytest.raises(ArtifactError, match=r"r\.parquet: holds columns .* not Documents"):
        read_parquet(tmp_path / "r.parquet", Document)
    write_jsonl(tmp_path / "r.jsonl", RECORDS[Rejected])
    with pytest.raises(ArtifactError, match=r"r\.jsonl"):
        read_jsonl(tmp_path / "r.jsonl", Narrative)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{\n", b"[1, 2]\n", b"\xff\n"])
def test_files_that_cannot_be_read_are_refused_by_name(tmp_path, content):
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(ArtifactError, match="/r: "):
        read_parquet(tmp_path / "r", Narrative)
    if content:
        (tmp_path / "r").write_bytes(content)
        with pytest.raises(ArtifactError, match="/r: "):
            read_jsonl(tmp_path / "r", Narrative)
    with pytest.raises(ArtifactError, match="/nowhere: "):
        read_parquet(tmp_path / "nowhere", Narrative)
    with pytest.raises(ArtifactError, match="/nowhere: "):
        read_jsonl(tmp_path / "nowhere", Narrative)


def test_a_bad_time_in_a_jsonl_file_is_refused_by_name(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"id": "1", "text": "x", "published_at": "yesterday"}\n')
    with pytest.raises(ArtifactError, match=r"r\.jsonl"):
        read_jsonl(tmp_path / "r.jsonl", Document)


def test_a_flipped_bit_in_a_parquet_file_never_changes_a_record_silently(tmp_path):
    path = tmp_path / "r.parquet"
    records = [Narrative(str(i), f"narrative number {i}") for i in range(20)]
    write_parquet(path, Narrative, records)
    content = path.read_bytes()
    changed = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            changed += read_parquet(path, Narrative) != records
        except ArtifactError as error:
            changed += str(path) not in error.message
    assert changed == 0


def test_the_confidence_of_a_prediction_is_its_highest_probability():
    assert Prediction("1", "b", (0.1, 0.7, 0.2), "f").confidence == 0.7
