"""The window: RECORD lines that were read but not decoded yet, with the STATEs between them.

Lines are decoded by the window, not by the message, so that streams that take turns and taps that send a STATE after
every few records cost no more than one long run. The window keeps what is needed to cut exactly at any STATE in it.
Where many streams take turns, lines that memory has no room for wait on the disk until there are enough of each.
"""

from __future__ import annotations

import shutil
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from melisma.lake.spill import SpillFile
from melisma.wire.blocks import BLOCK_BYTES
from melisma.wire.framing import Run, split_lines

__all__ = ["State", "Window", "before"]

_IN_MEMORY = 16 * 1024 * 1024
_ON_DISK = 512 * 1024 * 1024
_ROOM = 4  # times as much must be free on the disk: rows wait there, too, and others need it
_BLOCK = 4 * 1024 * 1024
_LEAST_BLOCK = 64 * 1024
_PER_STREAM = 16 * 1024 * 1024
_PER_COLUMN = 64 * 1024
_VALUE_BYTES = 8
"""What a value takes as Arrow, even one that its record leaves out."""


@dataclass(frozen=True, slots=True)
class State:
    """A STATE message: its value as the tap wrote it, and its line."""

    text: bytes
    line: int


@dataclass(frozen=True, slots=True)
class _Aside:
    """A run whose lines are on the disk."""

    at: int
    size: int
    run: Run
    """Without its data."""


class Window:
    """Lines not decoded yet, by stream, and the STATEs among them, in order.

    Args:
        file: where lines may be set aside; `drop` clears it.
        disk_bytes: how many bytes of them.
        most_lines: it is full with so many; None for any number.

    Attributes:
        states: the STATEs.
    """

    def __init__(self, file: SpillFile, disk_bytes: int, most_lines: int | None = None) -> None:
        self.states: list[State] = []
        self._most = _IN_MEMORY if file.refused else max(_IN_MEMORY, min(_ON_DISK, disk_bytes))
        self._waiting: dict[str, list[Run]] = {}  # by stream, in memory
        self._aside: dict[str, list[_Aside]] = {}  # by stream, those that came before
        self._file = file
        self._read = 0  # bytes of lines
        self._held = 0  # of those, in memory
        self._lines, self._most_lines = 0, most_lines
        self._state_bytes = 0
        self._size = 0  # what they count for
        self._wanted = 0  # the streams' shares

    def add(self, run: Run, columns: int) -> None:
        """Take a run of a stream with so many columns."""
        waiting = self._waiting.get(run.stream)
        if waiting is None:
            waiting = self._waiting[run.stream] = []
            if run.stream not in self._aside:
                self._wanted += min(_PER_STREAM, columns * _PER_COLUMN)
        waiting.append(run)
        size = len(run.data)
        self._held += size
        self._read += size
        self._lines += len(run.lines)
        self._size += max(size, len(run.lines) * columns * _VALUE_BYTES)

    def add_state(self, state: State) -> None:
        """Take a STATE that came after all of its lines."""
        self.states.append(state)
        self._state_bytes += len(state.text)

    def relieve(self) -> None:
        """Set its lines aside on the disk if there are many in memory. If the disk does not take them it is full."""
        if self._held < _IN_MEMORY or self.full:
            return
        at = self._file.size
        try:
            if shutil.disk_usage(tempfile.gettempdir()).free < _ROOM * self._most:
                self._most = _IN_MEMORY
                return
            self._file.append(run.data for runs in self._waiting.values() for run in runs)
        except OSError:
            self._most = _IN_MEMORY
            return
        for stream, runs in self._waiting.items():
            size = sum(len(run.data) for run in runs)
            self._aside.setdefault(stream, []).append(_Aside(at, size, _joined(runs, data=b"")))
            at += size
        self._waiting.clear()
        self._held = 0

    @property
    def full(self) -> bool:
        """Whether it is time to decode: enough for each stream's share to be worth a call, and never too much."""
        if self._most_lines is not None and self._lines >= self._most_lines:
            return True
        return self._size >= self._enough or self._state_bytes >= _IN_MEMORY

    @property
    def block_bytes(self) -> int:
        """How large the blocks of its lines are best, so that few make it full and little is held twice."""
        best = min(self._enough, _BLOCK)
        return max(_LEAST_BLOCK, best * self._read // self._size) if self._size > self._read else best

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self._waiting and not self._aside and not self.states

    @property
    def streams(self) -> list[str]:
        """The streams that have lines in it."""
        return [*self._aside, *(stream for stream in self._waiting if stream not in self._aside)]

    def runs(self, stream: str) -> Iterator[Run]:
        """A stream's lines in order, in as few runs as memory is good for.

        Raises:
            StorageError: the disk fails.
        """
        pieces: list[Run] = []
        size = 0
        for aside in self._aside.get(stream, ()):
            run = aside.run
            data = self._file.read(aside.at, aside.size)
            pieces.append(Run(stream, data, run.lines, run.closed, run.versioned))
            size += aside.size
            if size >= _BLOCK:
                yield _joined(pieces)
                pieces, size = [], 0
        pieces += self._waiting.get(stream, ())
        if pieces:
            yield _joined(pieces)

    def drop(self) -> None:
        """Its lines are not needed any more."""
        self._file.clear()

    @property
    def _enough(self) -> int:
        """How many bytes make it full."""
        return max(BLOCK_BYTES, min(self._most, self._wanted))


def before(run: Run, line: int) -> Run | None:
    """Its lines that stand before a line of the input, or None if there are none."""
    count = bisect_left(run.lines, line)
    if not count:
        return None
    data = b"".join(split_lines(run.data)[:count]) if count < len(run.lines) else run.data
    return Run(run.stream, data, run.lines[:count], run.closed, run.versioned)


def _joined(runs: Sequence[Run], data: bytes | None = None) -> Run:
    """One run of several, with their data or other."""
    if len(runs) == 1 and data is None:
        return runs[0]
    closed = all(run.closed for run in runs)
    versioned = any(run.versioned for run in runs)
    if data is None:
        data = b"".join(run.data for run in runs)
    return Run(runs[0].stream, data, _lines([run.lines for run in runs]), closed, versioned)


def _lines(numbers: Sequence[Sequence[int]]) -> Sequence[int]:
    if all(isinstance(each, range) for each in numbers):
        whole = range(numbers[0][0], numbers[-1][-1] + 1)
        if len(whole) == sum(map(len, numbers)):
            return whole
    joined = array("Q")
    for each in numbers:
        if isinstance(each, memoryview):
            joined.frombytes(each.cast("B"))
        else:
            joined.extend(each)
    return joined
