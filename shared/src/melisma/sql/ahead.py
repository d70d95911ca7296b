"""Batches read on another thread, so that the database works while records are written, and a signal is heard.

A call into a database driver can last as long as a query does, and Python handles a signal only once it returns. The
thread that waits for batches waits in Python.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

__all__ = ["read_ahead"]

T = TypeVar("T")

_DONE = object()


def read_ahead(source: Iterator[T], cancel: Callable[[], None], depth: int = 2) -> Iterator[T]:
    """The items of `source`, of which up to `depth` are read before they are asked for.

    Args:
        source: is used on another thread only.
        cancel: makes a call that `source` is in return soon; called from this thread if the items are not all taken.
        depth: how many items may wait.
    """
    waiting: Queue[object] = Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.2)
            except Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in source:
                if not put(item):
                    return
        except BaseException as error:  # raised again where the items are taken
            failure.append(error)
        finally:
            put(_DONE)

    reader = threading.Thread(target=read, name="read-ahead", daemon=True)
    reader.start()
    ended = False
    try:
        while True:
            item = waiting.get()
            if item is _DONE:
                ended = True
                break
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        if not ended:
            while reader.is_alive():
                cancel()
                try:
                    waiting.get_nowait()
                except Empty:
                    reader.join(0.05)
        reader.join()
    if failure:
        raise failure[0]
