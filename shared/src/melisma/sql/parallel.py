"""Several parts of a table read at once, each on a connection of its own; their rows in the order of the parts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import Full, Queue
from typing import Generic, Protocol, TypeVar

__all__ = ["Reader", "read_in_order"]

P = TypeVar("P")
T = TypeVar("T")
P_contra = TypeVar("P_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)

_WAIT = 0.2  # seconds, after which a thread looks whether it should stop
_ENDED = object()


class Reader(Protocol[P_contra, T_co]):
    """Reads one part after another, on one connection and one thread."""

    def read(self, part: P_contra) -> Iterator[T_co]:
        """The items of a part, always the same ones in the same order."""

    def cancel(self) -> None:
        """Make a call that `read` is in return soon; called from another thread."""


def read_in_order(parts: Sequence[P], readers: Sequence[Reader[P, T]], depth: int = 2) -> Iterator[tuple[P, T | None]]:
    """Each part's items with their part, then the part with None.

    What waits is bounded: two parts for each reader are begun at most, and of each `depth` items are read ahead. A
    reader whose part is large waits until the parts before it are taken.

    Args:
        parts: in the order of the result.
        readers: each is used on a thread of its own.
        depth: how many items of a part may wait.
    """
    return _Reading(parts, readers, depth).items()


class _Reading(Generic[P, T]):
    def __init__(self, parts: Sequence[P], readers: Sequence[Reader[P, T]], depth: int) -> None:
        self._parts, self._readers = parts, readers
        self._next, self._lock = 0, threading.Lock()
        self._begun = threading.Semaphore(2 * len(readers))
        self._stopped = threading.Event()
        self._waiting: dict[int, Queue[object]] = {}
        self._depth = depth

    def items(self) -> Iterator[tuple[P, T | None]]:
        threads = [
            threading.Thread(target=self._work, args=[reader], name="part-reader", daemon=True)
            for reader in self._readers
        ]
        for thread in threads:
            thread.start()
        try:
            for number, part in enumerate(self._parts):
                queue = self._queue(number)
                while (item := queue.get()) is not _ENDED:
                    if isinstance(item, _Failure):
                        raise item.error
                    yield part, item  # type: ignore[misc]
                del self._waiting[number]
                self._begun.release()
                yield part, None
        finally:
            self._stopped.set()
            for reader, thread in zip(self._readers, threads, strict=True):
                while thread.is_alive():
                    reader.cancel()
                    thread.join(_WAIT)

    def _queue(self, number: int) -> Queue[object]:
        with self._lock:
            return self._waiting.setdefault(number, Queue(self._depth))

    def _work(self, reader: Reader[P, T]) -> None:
        while (number := self._take()) is not None:
            queue = self._queue(number)
            try:
                for item in reader.read(self._parts[number]):
                    if not self._put(queue, item):
                        return
            except BaseException as error:  # raised again where the items are taken
                self._put(queue, _Failure(error))
                return
            self._put(queue, _ENDED)

    def _take(self) -> int | None:
        """The number of the next part; None when there is no more to do."""
        while not self._begun.acquire(timeout=_WAIT):
            if self._stopped.is_set():
                return None
        with self._lock:
            number, self._next = self._next, self._next + 1
        return None if number >= len(self._parts) or self._stopped.is_set() else number

    def _put(self, queue: Queue[object], item: object) -> bool:
        while not self._stopped.is_set():
            try:
                queue.put(item, timeout=_WAIT)
            except Full:
                continue
            return True
        return False


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
