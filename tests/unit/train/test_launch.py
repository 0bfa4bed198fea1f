"""What is shown of the log of processes that died."""

from __future__ import annotations

from slant.train.launch import _telling_lines

TORCHRUN = """\
W1127 12:00:00.1 71 torch/distributed/run.py:870] Setting OMP_NUM_THREADS
E1127 12:00:09.1 71 torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: -6)
Traceback (most recent call last):
  File "torch/distributed/run.py", line 985, in <module>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
slant.train.worker FAILED
[0]: exitcode : -9 (pid: 3045)
============================================================
"""


def test_the_last_words_of_a_process_come_before_those_of_torchrun() -> None:
    words = [f"line {number}" for number in range(20)]
    lines = _telling_lines("\n".join(words) + "\n" + TORCHRUN)
    assert lines[:8] == words[-8:]
    assert "[0]: exitcode : -9 (pid: 3045)" in lines


def test_where_a_process_said_nothing_torchruns_table_is_left() -> None:
    assert "[0]: exitcode : -9 (pid: 3045)" in _telling_lines(TORCHRUN)
    assert _telling_lines("") == []
