"""Room for what is under way on other threads, so that memory is bounded however much there is to do."""

from __future__ import annotations

from threading import Condition

__all__ = ["Room"]


class Room:
    """Bytes that may be under way together.

    Args:
        most: how many. What is larger by itself takes all of it.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._changed = Condition()

    def take(self, size: int) -> int:
        """Wait until there is room; how much is to be given back."""
        size = min(size, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        return size

    def give_back(self, size: int) -> None:
        """It is done, whatever came of it."""
        with self._changed:
            self._left += size
            self._changed.notify_all()
