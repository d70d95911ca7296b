"""Parts that are read at once come in order, what waits is bounded, and faults and early ends leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from melisma.sql.parallel import read_in_order

PARTS = range(40)


class Counting:
    """A reader that gives each part's number so often, and knows what it did."""

    def __init__(self, items: int = 5, fails_at: int | None = None) -> None:
        self.items, self.fails_at = items, fails_at
        self.given: dict[int, int] = {}
        self.threads: set[str] = set()
        self.let_go = threading.Event()
        self.blocked = False

    def read(self, part: int) -> Iterator[int]:
        self.threads.add(str(threading.get_ident()))
        self.given[part] = 0
        for _ in range(self.items):
            if part == self.fails_at:
                raise ValueError(part)
            self.given[part] += 1
            yield part
        if self.blocked:
            self.let_go.wait()

    def cancel(self) -> None:
        self.let_go.set()


@pytest.mark.parametrize("readers", [1, 2, 7])
def test_all_parts_come_whole_and_in_order(readers: int) -> None:
    """Each followed by its end, whichever reader had it; each reader on one thread of its own."""
    counting = [Counting() for _ in range(readers)]
    found = list(read_in_order(PARTS, counting))
    assert found == [(part, item) for part in PARTS for item in [*[part] * 5, None]]
    assert sum(len(each.given) for each in counting) == len(PARTS)
    assert all(len(each.threads) <= 1 for each in counting)


def test_no_parts_are_no_items() -> None:
    """And the readers are left alone."""
    reader = Counting()
    assert list(read_in_order([], [reader])) == []
    assert not reader.given


def test_what_waits_is_bounded() -> None:
    """Two parts for each reader are begun at most beyond those that were taken, each with `depth` items waiting."""
    counting = [Counting(items=100) for _ in range(2)]
    for number, (part, _) in enumerate(read_in_order(PARTS, counting, depth=3)):
        begun = {key: count for each in counting for key, count in list(each.given.items())}
        assert max(begun) < part + 2 * len(counting) + 1
        # Three wait, and one is in the reader's hands.
        assert all(count <= 4 for key, count in begun.items() if key > part)
        if number > 2_000:
            break


def test_a_fault_comes_after_what_came_before_it() -> None:
    """The parts before it are whole; the other readers end."""
    counting = [Counting(fails_at=9) for _ in range(3)]
    found: list[tuple[int, int | None]] = []
    with pytest.raises(ValueError, match="9"):
        for item in read_in_order(PARTS, counting):
            found.append(item)  # noqa: PERF402  what came before the fault is what is asked
    assert found == [(part, item) for part in range(9) for item in [*[part] * 5, None]]
    assert not [thread for thread in threading.enumerate() if thread.name == "part-reader"]


def test_an_early_end_cancels_what_still_reads() -> None:
    """A reader in the middle of a call is told to return."""
    counting = [Counting(), Counting()]
    for each in counting:
        each.blocked = True
    items = read_in_order(PARTS, counting)
    assert next(items) == (0, 0)
    items.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "part-reader"]
