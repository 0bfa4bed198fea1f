"""Several requests at once: in order, and ended with whoever waits for them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from slant.errors import InputError
from slant.patience import at_most, patiently
from slant.publish.stores import WORKERS, ahead


def test_results_come_in_order() -> None:
    assert list(ahead(lambda item: item * item, range(100))) == [n * n for n in range(100)]
    assert list(ahead(str, [])) == []


def test_several_are_under_way_at_once() -> None:
    all_there = threading.Barrier(WORKERS)
    assert len(list(ahead(lambda _: all_there.wait(timeout=60), range(WORKERS)))) == WORKERS


def test_an_error_is_raised_where_its_result_would_be() -> None:
    results = ahead(lambda item: 1 // item, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_requests_that_nobody_waits_for_are_not_sent_again() -> None:
    ended: list[BaseException] = []
    failed, over = threading.Event(), threading.Event()

    def ask() -> int:
        failed.set()
        raise ConnectionError("away")

    def work(item: int) -> int:
        if item == 0:
            return item
        try:
            return patiently(ask, "s3://bucket/x")
        except InputError as error:
            ended.append(error)
            over.set()
            raise

    results = ahead(work, range(2))
    assert next(results) == 0
    assert failed.wait(timeout=60)
    results.close()  # type: ignore[attr-defined]
    assert over.wait(timeout=60)  # and not after two minutes of patience
    assert "given up" in str(ended[0])


def test_less_patience_holds_for_the_requests_under_way() -> None:
    def ask(_: int) -> int:
        raise ConnectionError("away")

    with at_most(0.1), pytest.raises(InputError, match=r"no answer for 0\.1 s"):
        list(ahead(lambda item: patiently(lambda: ask(item), "s3://bucket/x"), range(2)))


_HANG = """
import threading
from slant.publish.stores import ahead

def hang(item):
    print("begun", flush=True)
    threading.Event().wait()

list(ahead(hang, range(3)))
"""


def test_ctrl_c_ends_the_process_although_requests_hang() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _HANG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "threading" not in err.partition("KeyboardInterrupt")[2]
