from __future__ import annotations

import io
import json
import math

import pytest

from slant.progress import (
    BarProgress,
    JsonProgress,
    LineProgress,
    SilentProgress,
    format_bytes,
)


def work(progress) -> None:
    progress.say("starting [/nothing] 100 %")
    with progress.task("encode", 4, "documents", done=1) as task:
        task.advance()
        task.advance(2, loss=0.123456, file="a[/b].txt")


def test_lines_show_counts_rate_facts_and_the_time_it_took():
    stream = io.StringIO()
    work(LineProgress(stream, interval_s=0))
    said, first, second, last = stream.getvalue().splitlines()
    assert said == "starting [/nothing] 100 %"
    assert first.startswith("encode: 2/4 documents  ")
    assert "documents/s" in first
    assert "ETA 0:00" in first
    assert second.startswith("encode: 4/4 documents  ")
    assert second.endswith("loss 0.1235  file a[/b].txt")
    assert "took 0:00" in last
    assert "ETA" not in last


def test_between_two_lines_of_a_task_there_is_an_interval():
    stream = io.StringIO()
    with LineProgress(stream, interval_s=1000).task("encode", None, "rows") as task:
        for _ in range(50):
            task.advance()
        assert stream.getvalue() == ""
    assert stream.getvalue().startswith("encode: 50 rows  ")
    assert stream.getvalue().count("\n") == 1


def test_work_done_before_counts_as_done_and_not_as_speed():
    stream = io.StringIO()
    with LineProgress(stream).task("encode", 1000, "rows", done=1000):
        pass
    assert stream.getvalue().startswith("encode: 1000/1000 rows  0 rows/s")


def test_bytes_are_shown_in_units_that_can_be_read():
    stream = io.StringIO()
    with LineProgress(stream, interval_s=0).task("publish", 1_500_000_000, "bytes") as task:
        task.advance(999_000)
    assert stream.getvalue().startswith("publish: 999 kB of 1.5 GB  ")
    assert "B/s" in stream.getvalue()
    sizes = (0, 999, 1000, 999_499, 999_600, 1_234_567, 5_000_000_000_000)
    assert [format_bytes(size) for size in sizes] == [
        "0 bytes", "999 bytes", "1 kB", "999 kB", "1 MB", "1.23 MB", "5 TB",
    ]  # fmt: skip


def test_every_json_line_is_an_object_of_standard_json():
    stream = io.StringIO()
    progress = JsonProgress(stream, interval_s=0)
    work(progress)
    with progress.task("tune", None, "steps") as task:
        task.advance(loss=math.nan, bound=math.inf)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    lines = [json.loads(x, parse_constant=refuse) for x in stream.getvalue().splitlines()]
    assert lines[0] == {"message": "starting [/nothing] 100 %"}
    head = {"task": "encode", "total": 4, "unit": "documents"}
    assert lines[1] == {**head, "done": 2}
    assert lines[2] == lines[3] == {**head, "done": 4, "loss": 0.123456, "file": "a[/b].txt"}
    assert lines[4]["loss"] == "nan"
    assert lines[4]["total"] is None


def test_json_lines_keep_other_scripts_readable():
    stream = io.StringIO()
    JsonProgress(stream).say("данные\nготовы")
    assert stream.getvalue() == '{"message": "данные\\nготовы"}\n'


@pytest.mark.parametrize("make", [LineProgress, JsonProgress, BarProgress, SilentProgress])
def test_progress_goes_to_stderr_and_never_to_stdout(make, capsys):
    work(make())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert bool(captured.err) == (make is not SilentProgress)


def test_a_bar_shows_names_and_facts_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    progress = BarProgress()
    progress.say("see [docs] 你好")
    with progress.task("read [/x]", 4, "documents", done=1) as task:
        task.advance(3, file="a[/b].txt", loss=0.5)
    err = capsys.readouterr().err
    assert "see [docs] 你好" in err
    assert "read [/x]" in err
    assert "4/4" in err
    assert "loss 0.5" in err
    assert "a[/b].txt" in err


def test_a_bar_within_a_bar_does_not_fail(capsys):
    progress = BarProgress()
    with progress.task("outer", 1, "steps") as outer, progress.task("inner", None, "rows") as inner:
        inner.advance()
        outer.advance()
    assert "inner" in capsys.readouterr().err


@pytest.mark.parametrize("make", [LineProgress, JsonProgress, BarProgress, SilentProgress])
def test_an_error_in_the_work_passes_through(make):
    with pytest.raises(ZeroDivisionError), make().task("encode", 1, "rows"):
        raise ZeroDivisionError
