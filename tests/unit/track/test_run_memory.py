from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slant.track.memory import RunMemory


def memory(folder: Path, *, target: str = "t", key: str | None = "k") -> RunMemory:
    return RunMemory(folder, "mlflow", target=target, key=key)


def test_a_run_goes_on_under_its_id(tmp_path: Path) -> None:
    memory(tmp_path).opened("abc")
    assert memory(tmp_path).id == "abc"
    assert memory(tmp_path, key=None).id == "abc"


@pytest.mark.parametrize("other", [{"target": "elsewhere"}, {"key": "other settings"}])
def test_another_place_or_other_settings_are_another_run(
    tmp_path: Path, other: dict[str, str]
) -> None:
    first = memory(tmp_path)
    first.opened("abc")
    first.sent([(3, 0.0, {"loss": 1.0})])
    second = memory(tmp_path, **other)
    assert second.id is None
    assert second.last_step == 0


def test_a_run_that_the_tracker_lost_is_sent_everything(tmp_path: Path) -> None:
    first = memory(tmp_path)
    first.opened("abc")
    first.sent([(3, 0.0, {"loss": 1.0})])
    second = memory(tmp_path)
    second.opened("def")
    assert second.fresh([(1, 0.0, {"loss": 1.0})]) == [(1, 0.0, {"loss": 1.0})]


def test_a_value_that_was_not_sent_is_sent_though_its_step_was(tmp_path: Path) -> None:
    first = memory(tmp_path)
    first.opened("abc")
    first.sent([(3, 0.0, {"loss": 1.0})])
    again = (3, 0.0, {"loss": 1.0, "validation/macro_f1": 0.5})
    assert memory(tmp_path).fresh([again]) == [(3, 0.0, {"validation/macro_f1": 0.5})]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"schema": "slant.track/1"}',
        '{"schema": "slant.track/9", "target": "t", "key": "k", "id": "a", "sent": {}}',
        '{"schema": "slant.track/1", "target": "t", "key": "k", "id": 7, "sent": {}}',
        '{"schema": "slant.track/1", "target": "t", "key": "k", "id": "a", "sent": {"x": "1"}}',
    ],
)
def test_a_file_that_cannot_be_used_is_a_new_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "track-mlflow.json").write_text(content, "utf-8")
    assert memory(tmp_path).id is None


def test_the_file_holds_ids_and_steps_only(tmp_path: Path) -> None:
    kept = memory(tmp_path)
    kept.opened("abc")
    kept.sent([(3, 0.0, {"loss": 0.125})])
    assert json.loads((tmp_path / "track-mlflow.json").read_text("utf-8")) == {
        "schema": "slant.track/1",
        "target": "t",
        "key": "k",
        "id": "abc",
        "sent": {"loss": 3},
    }


@settings(deadline=None, max_examples=25)  # each life writes to the disk
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(1, 12), st.integers(2, 9)), min_size=1, max_size=4
    )
)
def test_whenever_a_run_is_killed_each_value_is_sent_once(
    lives: list[tuple[float, int, int]],
) -> None:
    """A life begins at a step that was reached before (its checkpoint), does some steps, and sends
    them in batches; validation comes with every third step, as a point of its own."""
    sent: list[tuple[int, str]] = []
    reached = 0
    with TemporaryDirectory() as folder:
        for share, num_steps, size in lives:
            kept = memory(Path(folder))
            kept.opened("abc")
            begin = int(share * reached)
            points = []
            for step in range(begin + 1, begin + num_steps + 1):
                points.append((step, 0.0, {"loss": 1.0}))
                if step % 3 == 0:
                    points.append((step, 0.0, {"validation/macro_f1": 0.5}))
            for first in range(0, len(points), size):
                fresh = kept.fresh(points[first : first + size])
                sent += [(step, name) for step, _, values in fresh for name in values]
                kept.sent(fresh)
            reached = max(reached, begin + num_steps)
    losses = [(step, "loss") for step in range(1, reached + 1)]
    scores = [(step, "validation/macro_f1") for step in range(3, reached + 1, 3)]
    assert sorted(sent) == sorted(losses + scores)
