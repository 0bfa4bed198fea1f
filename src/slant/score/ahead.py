"""Making the next item while the last one is worked on."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from typing import TypeVar

__all__ = ["made_ahead"]

_Item = TypeVar("_Item")
_LOOK_S = 0.1  # how soon the thread sees that nobody wants more


def made_ahead(items: Iterable[_Item]) -> Generator[_Item]:
    """The items in order, each made in a thread of its own while the one before is used.

    At most two are there beside the one in use: one made and one in the making. An error while
    making one is raised in its place. Where the reader stops, so does the thread, once the item in
    the making is made; it holds up neither the reader nor the end of the program.
    """
    made: Queue[tuple[_Item | None, BaseException | None, bool]] = Queue(maxsize=1)
    is_wanted = threading.Event()
    is_wanted.set()

    def hand_over(item: _Item | None, error: BaseException | None, is_last: bool) -> bool:
        while is_wanted.is_set():
            try:
                made.put((item, error, is_last), timeout=_LOOK_S)
            except Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not hand_over(item, None, False):
                    return
        except BaseException as error:
            hand_over(None, error, True)
        else:
            hand_over(None, None, True)

    threading.Thread(target=make, name="slant-ahead", daemon=True).start()
    try:
        while True:
            try:
                # Not without an end: a thread that waits for a lock sees no Ctrl-C on some systems.
                item, error, is_last = made.get(timeout=1)
            except Empty:
                continue
            if error is not None:
                raise error
            if is_last:
                return
            yield item  # type: ignore[misc]
    finally:
        is_wanted.clear()
