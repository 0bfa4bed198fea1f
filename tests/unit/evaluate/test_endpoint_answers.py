"""The file of answers."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from slant.errors import ArtifactError, StorageError
from slant.evaluate.endpoint.answers import AnswerCache, Kept
from slant.evaluate.endpoint.ledger import Ledger, Tokens
from slant.evaluate.endpoint.replies import Reply, TokenChoice

REPLY = Reply("да\nnegative", False, "stop", (TokenChoice("neg", (("neg", -0.25),)),), 70, 3)
KEPT = Kept(REPLY, Tokens(70, 3), True, Tokens(5, 6), 12.5)
SILENT = Kept(Reply(refused=True), Tokens(900, 16), False, Tokens(), None)
MANY_WRITERS = """
import sys
from pathlib import Path
from slant.evaluate.endpoint.answers import AnswerCache, Kept
from slant.evaluate.endpoint.ledger import Tokens
from slant.evaluate.endpoint.replies import Reply
with AnswerCache(Path(sys.argv[1])) as cache:
    for i in range(300):
        cache.sending(f"{sys.argv[2]}-{i}", Tokens(9, 9))
        cache.keep(f"{sys.argv[2]}-{i}", Kept(Reply("x"), Tokens(1, 1), False, Tokens(), 1.0))
        cache.keep(f"both-{i}", Kept(Reply("x"), Tokens(1, 1), True, Tokens(), 1.0))
"""


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.sqlite"
    with AnswerCache(path) as cache:
        cache.keep("a", KEPT)
        cache.keep("b", SILENT)
    with AnswerCache(path) as cache:
        assert cache.answers(["a", "b", "c"]) == {"a": KEPT, "b": SILENT}


def test_answers_to_many_requests_are_found(tmp_path: Path) -> None:
    keys = [str(i) for i in range(2345)]
    with AnswerCache(tmp_path / "a") as cache:
        assert cache.answers(keys) == {}
        cache.keep("2344", KEPT)
        assert cache.answers(keys) == {"2344": KEPT}
        assert cache.answers([]) == {}


def test_a_request_is_noted_until_it_has_an_answer_or_was_not_billed(tmp_path: Path) -> None:
    worst = Tokens(100, 16)
    with AnswerCache(tmp_path / "a") as cache:
        for key in ("a", "a", "b", "c"):
            cache.sending(key, worst)
        cache.not_billed("b")
        cache.keep("c", KEPT)
        assert cache.sends(["a", "b", "c"]) == {"a": (2, worst)}
        cache.not_billed("a")
        assert cache.sends(["a"]) == {"a": (1, worst)}


def test_a_second_answer_to_a_request_counts_as_lost(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "a") as cache:
        cache.keep("a", KEPT)
        cache.keep("a", Kept(Reply("other"), Tokens(1, 1), True, Tokens(), 1.0))
        kept = cache.answers(["a"])["a"]
    assert kept.reply == REPLY
    assert kept.lost == Tokens(6, 7)


def test_several_processes_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    command = [sys.executable, "-c", MANY_WRITERS, str(path)]
    processes = [subprocess.Popen([*command, str(i)]) for i in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    with AnswerCache(path) as cache:
        own = [f"{i}-{j}" for i in range(3) for j in range(300)]
        both = [f"both-{j}" for j in range(300)]
        assert len(cache.answers(own)) == 900
        assert cache.sends(own) == {}
        assert {kept.lost for kept in cache.answers(both).values()} == {Tokens(2, 2)}


def test_a_file_of_another_kind_is_named_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database " * 100)
    with pytest.raises(ArtifactError, match="text: the answers in it cannot be read"):
        AnswerCache(text)
    assert text.read_text() == "no database " * 100
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE answers (x)")
    database.close()
    content = other.read_bytes()
    with pytest.raises(ArtifactError, match="is an SQLite file, but not one of answers"):
        AnswerCache(other)
    assert other.read_bytes() == content


def test_a_file_of_a_newer_slant_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    AnswerCache(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(ArtifactError, match="newer slant"):
        AnswerCache(path)


def test_a_damaged_file_is_an_error_of_slant_or_gives_answers(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with AnswerCache(path) as cache:
        for i in range(200):
            cache.keep(str(i), KEPT)
    content = path.read_bytes()
    errors = []
    rng = random.Random(3)
    for _ in range(60):
        damaged = bytearray(content)
        start = rng.randrange(len(damaged))
        damaged[start : start + 300] = rng.randbytes(300)
        path.write_bytes(bytes(damaged[: len(content)]))
        try:
            with AnswerCache(path) as cache:
                found = cache.answers([str(i) for i in range(200)])
                cache.sends(["1"])
                cache.keep("new", KEPT)
            assert all(kept == KEPT for kept in found.values())
        except ArtifactError as error:
            errors.append(error)
    assert len(errors) > 20
    assert all(str(path) in error.message for error in errors)
    assert all("Move" in error.hint or "Update" in error.hint for error in errors)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        AnswerCache(tmp_path / "file" / "a")
    with pytest.raises(StorageError, match="cannot write"):
        AnswerCache(tmp_path)


def test_the_budget_holds_what_may_be_billed() -> None:
    ledger = Ledger(2.0, 8.0, 0.001)
    assert ledger.usd(Tokens(1000, 100)) == pytest.approx(0.0028)
    worst = Tokens(100, 10)  # $0.00028
    for _ in range(3):
        assert ledger.fits(worst)
        ledger.take(worst)
    assert not ledger.fits(worst)
    ledger.give_back(worst)
    ledger.take(Tokens(20, 1))  # what it cost after all
    assert ledger.fits(worst)
    assert Ledger(2.0, 8.0, None).fits(Tokens(10**12, 0))
    assert not Ledger(2.0, 8.0, 0.0).fits(Tokens(1, 0))
    assert Ledger(0.0, 8.0, 0.0).fits(Tokens(1, 0))
