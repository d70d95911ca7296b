"""Batches read on another thread: in order, with its errors, and stopped when nobody wants more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from melisma.sql.ahead import read_ahead


def test_all_items_come_in_order() -> None:
    """As from the source itself."""
    assert list(read_ahead(iter(range(100)), lambda: None)) == list(range(100))


def test_an_error_comes_after_the_items_before_it() -> None:
    """On the thread that takes the items."""

    def source() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    items = read_ahead(source(), lambda: None)
    assert next(items) == 1
    with pytest.raises(KeyError):
        next(items)


def test_no_more_than_the_depth_is_read_before_it_is_asked_for() -> None:
    """So memory is bounded: what waits, what is being put, and what was taken."""
    read: list[int] = []

    def source() -> Iterator[int]:
        for n in range(100):
            read.append(n)
            yield n

    items = read_ahead(source(), lambda: None, depth=2)
    for taken, _ in enumerate(items, 1):
        assert len(read) <= taken + 3


def test_leaving_early_cancels_the_call_that_the_source_is_in() -> None:
    """The source's thread has ended when the reader lets go."""
    cancelled = threading.Event()
    ended = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield 1
            assert cancelled.wait(60)  # a long call into a driver
            raise RuntimeError("interrupted")
        finally:
            ended.set()

    items = read_ahead(source(), cancelled.set)
    assert next(items) == 1
    items.close()  # type: ignore[attr-defined]
    assert ended.is_set()
