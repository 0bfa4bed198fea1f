"""kill -9 while an endpoint is asked: nothing that was answered is asked, or paid for, again."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chat_server import ChatServer

pytest.importorskip("httpx", reason="the extra endpoint is not installed")

NUM = 2000
FAILING = {"429": 0.03, "500": 0.08, "html": 0.03, "drop": 0.03, "drop_billed": 0.03}
ASK = """
import json, sys
from pathlib import Path
from slant.evaluate.endpoint.ask import Endpoint, Pauses, Question, ask
from slant.progress import SilentProgress

options = json.loads(sys.argv[2])
num = options.pop("num")
labels = ("negative", "neutral", "positive")
answers = ask(
    Endpoint(model="m", concurrency=8, **options),
    [Question(f"Text {i} [[{labels[i % 3]}]]", "n", "en") for i in range(num)],
    labels,
    cache=Path(sys.argv[1]),
    progress=SilentProgress(),
    seed=1,
    pauses=Pauses(first_s=0.01, longest_s=0.05),
)
right = sum(int(row.argmax()) == i % 3 for i, row in enumerate(answers.probabilities_NL))
facts = ("answered", "unreadable", "refused", "failed", "usd", "unfinished")
print(json.dumps({"right": right, **{fact: getattr(answers, fact) for fact in facts}}))
"""


def start(cache: Path, server: ChatServer, **options: Any) -> subprocess.Popen[bytes]:
    options = {"url": server.url, "num": NUM, "attempts": 12, **options}
    command = [sys.executable, "-c", ASK, str(cache), json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(output)
    return found


def kill_after(process: subprocess.Popen[bytes], cache: Path, more: int) -> None:
    """kill -9 as soon as ``more`` answers than now are in the cache."""
    goal = len(kept(cache)) + more
    until = time.monotonic() + 60
    while len(kept(cache)) < goal and time.monotonic() < until:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def kept(cache: Path) -> set[str]:
    """Keys of the answers in a cache, as another program sees them."""
    if not cache.exists():
        return set()
    database = sqlite3.connect(f"file:{cache}?mode=ro", uri=True, timeout=30)
    try:
        return {key for (key,) in database.execute("SELECT key FROM answers")}
    except sqlite3.OperationalError:  # its tables are being made
        return set()
    finally:
        database.close()


def test_2000_questions_are_each_billed_once_through_five_kills(tmp_path: Path) -> None:
    cache = tmp_path / "answers.sqlite"
    rng = random.Random(4)
    with ChatServer(seed=2, rates=FAILING) as server:
        for _ in range(5):
            before = kept(cache)
            num_requests = len(server.stats()["requests"])
            kill_after(start(cache, server), cache, rng.randrange(1, 350))
            asked = {key for _, key, _ in server.stats()["requests"][num_requests:]}
            assert asked
            assert not asked & before, "what was answered was asked again"
        before = kept(cache)
        assert 5 <= len(before) < NUM
        num_requests = len(server.stats()["requests"])
        found = finish(start(cache, server))
        stats = server.stats()
        assert not {key for _, key, _ in stats["requests"][num_requests:]} & before
        again = finish(start(cache, server))
        assert len(server.stats()["requests"]) == len(stats["requests"])

    assert found == again
    assert (found["answered"], found["right"], found["unfinished"]) == (NUM, NUM, None)
    assert len(stats["billed"]) == NUM
    assert set(stats["billed"].values()) == {1}
    # More than one answer to a request came only where the process was killed before it kept one.
    assert sum(times - 1 for times in stats["delivered"].values()) <= 5 * 8


def test_the_budget_holds_through_kills_even_where_every_request_is_billed(tmp_path: Path) -> None:
    cache = tmp_path / "answers.sqlite"
    budget = {"usd_per_million_input": 1.0, "usd_per_million_output": 10.0, "budget_usd": 0.04}
    with ChatServer(honours=False, delay_s=0.002) as server:
        for _ in range(4):
            kill_after(start(cache, server, **budget), cache, 20)
        found = finish(start(cache, server, **budget))
        tokens = server.stats()["tokens"]
    billed_usd = (tokens[0] + 10 * tokens[1]) / 1e6
    assert found["usd"] <= billed_usd <= 0.04
    assert billed_usd > 0.03
    assert found["unfinished"].startswith("the budget of $0.04 is reached")
