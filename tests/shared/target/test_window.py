"""The window: what was read comes out again, stream by stream, wherever it waited."""

from __future__ import annotations

import errno
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.lake.spill import SpillFile
from melisma.target import window as module
from melisma.target.window import State, Window, before
from melisma.wire.framing import Run

_KILOBYTE = 1024


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits a few thousandth as large, so that a few lines meet them."""
    monkeypatch.setattr(module, "_IN_MEMORY", 2 * _KILOBYTE)
    monkeypatch.setattr(module, "_ON_DISK", 64 * _KILOBYTE)
    monkeypatch.setattr(module, "_BLOCK", _KILOBYTE)
    monkeypatch.setattr(module, "BLOCK_BYTES", 128)
    monkeypatch.setattr(module, "_PER_COLUMN", 4 * _KILOBYTE)


@pytest.fixture
def file() -> Iterator[SpillFile]:
    """Where lines are set aside."""
    found = SpillFile()
    yield found
    found.close()


def _run(stream: str, lines: Sequence[int], *, scattered: bool = False) -> Run:
    data = b"".join(b'{"stream":"%s","record":{"n":%d}}\n' % (stream.encode(), line) for line in lines)
    numbers: Any = memoryview(b"".join(line.to_bytes(8, "little") for line in lines)).cast("Q") if scattered else lines
    return Run(stream, data, numbers, closed=True, versioned=False)


def _fill(window: Window) -> int:
    """Eight streams take turns until the window is full; how many lines it has, numbered from 1."""
    line = 0
    while not window.full:
        for stream in "abcdefgh":
            line += 1
            window.add(_run(stream, [line]), 1)
        window.relieve()
        assert window._held < 4 * _KILOBYTE
        assert line < 10_000
    return line


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 9), st.booleans()), max_size=60))
def test_every_line_comes_out_once_in_order_with_its_number(turns: list[tuple[str, int, bool]]) -> None:
    """However streams take turns, and whatever was set aside on the disk between, in two windows after one another."""
    file, line = SpillFile(), 1
    for _ in range(2):
        window, sent = Window(file, 1 << 30), defaultdict[str, list[Run]](list)
        for stream, count, scattered in turns:
            run = _run(stream, range(line, line + count), scattered=scattered)
            line += count
            window.add(run, 3)
            window.relieve()
            sent[stream].append(run)
        assert window.empty == (not turns)
        assert set(window.streams) == set(sent)
        for stream, runs in sent.items():
            found = list(window.runs(stream))
            assert b"".join(run.data for run in found) == b"".join(run.data for run in runs)
            assert [n for run in found for n in run.lines] == [n for run in runs for n in run.lines]
            assert all(run.stream == stream and run.closed and not run.versioned for run in found)
            assert [run.data for run in window.runs(stream)] == [run.data for run in found]  # as often as one likes
        window.drop()
    file.close()


def test_a_carriage_return_within_a_line_ends_no_line() -> None:
    """It is white space between two parts of JSON."""
    lines = [b'{"n":\r1}\n', b'{"n":2}\n', b'{"n":3}\r\n']
    found = before(Run("a", b"".join(lines), [1, 2, 3], closed=False), 3)
    assert found is not None
    assert found.data == b"".join(lines[:2])


@given(st.lists(st.integers(1, 50), min_size=1, unique=True).map(sorted), st.integers(0, 52))
def test_a_run_is_cut_before_a_line(lines: list[int], at: int) -> None:
    """Those lines of it that stand before a line of the input, with their numbers; None if there are none."""
    found = before(_run("a", lines), at)
    kept = [line for line in lines if line < at]
    assert (found and list(found.lines)) == (kept or None)
    assert (found.data if found else b"") == _run("a", kept).data


def test_lines_of_many_streams_wait_on_the_disk(file: SpillFile) -> None:
    """Until there are enough of each; memory holds no more of them than it may, and little of one stream at a time."""
    window = Window(file, 1 << 30)
    _fill(window)
    assert 28 * _KILOBYTE < file.size < 32 * _KILOBYTE  # eight shares of a column each
    assert all(len(run.data) < 4 * _KILOBYTE for run in window.runs("a"))
    window.drop()
    assert file.size == 0


def test_a_window_holds_only_so_many_lines(file: SpillFile) -> None:
    """However short, where each may be a bad record: what is said of those waits in memory."""
    window = Window(file, 1 << 30, 40)
    for line in range(1, 41):
        assert not window.full
        window.add(_run("abcdefgh"[line % 8], [line]), 1)
    assert window.full


def test_lines_stay_in_memory_where_the_disk_has_little_room(file: SpillFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows must have room beside them, and whoever else uses the disk."""
    monkeypatch.setattr(module, "_ROOM", 1 << 50)
    _fill(Window(file, 1 << 30))
    assert file.size == 0


@pytest.mark.parametrize("columns", [1, 1_000])
def test_a_single_stream_does_not_go_by_way_of_the_disk(
    file: SpillFile, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Its window is full before memory is, or at the same time."""
    monkeypatch.setattr(module, "_PER_COLUMN", 16)
    monkeypatch.setattr(module, "_VALUE_BYTES", 0)
    monkeypatch.setattr(module, "_PER_STREAM", 2 * _KILOBYTE)
    window, line = Window(file, 1 << 30), 1
    while not window.full:
        window.add(_run("a", [line]), columns)
        window.relieve()
        line += 1
    assert file.size == 0


@pytest.mark.parametrize("disk_bytes", [0, 1 << 30])
def test_without_room_on_the_disk_a_window_is_full_when_memory_is(
    file: SpillFile, monkeypatch: pytest.MonkeyPatch, disk_bytes: int
) -> None:
    """Because none is allowed, or because the disk takes nothing; what was read is there all the same."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    if disk_bytes:
        monkeypatch.setattr(tempfile, "TemporaryFile", full)
    window = Window(file, disk_bytes)
    last = _fill(window)
    assert Window(file, disk_bytes)._most == 2 * _KILOBYTE  # the next one does not try again
    assert sorted(n for stream in window.streams for run in window.runs(stream) for n in run.lines) == [
        *range(1, last + 1)
    ]


def test_records_that_leave_most_members_out_count_as_much_as_their_columns_take(file: SpillFile) -> None:
    """A short line of a wide stream is a long row: a window of them must not become many times as large decoded."""
    window, line = Window(file, 1 << 30), 1
    while not window.full:
        window.add(_run("a", [line]), 500)
        line += 1
    assert line * 500 * 8 < 3 * 500 * _KILOBYTE * 4


@pytest.mark.parametrize("disk_bytes", [0, 1 << 30])
def test_states_count(file: SpillFile, disk_bytes: int) -> None:
    """A tap that sends long STATEs does not fill memory with them, whatever the disk takes of its records."""
    window = Window(file, disk_bytes)
    for stream in "abcdefghij":
        window.add(_run(stream, [1]), 1)
    for number in range(5):
        assert not window.full
        window.add_state(State(b" " * 500, number))
    assert window.full
