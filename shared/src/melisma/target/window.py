"""The window: RECORD lines that were read but not decoded yet, with the STATEs between them.

Lines are decoded by the window, not by the message, so that streams that take turns and taps that send a STATE after
every few records cost no more than one long run. The window keeps what is needed to cut exactly at any STATE in it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from melisma.wire.blocks import BLOCK_BYTES
from melisma.wire.framing import Run

__all__ = ["Part", "State", "Window"]

_MOST = 32 * 1024 * 1024
_MOST_BLOCK = 4 * 1024 * 1024
_MOST_PER_STREAM = 16 * 1024 * 1024
_PER_COLUMN = 16 * 1024


@dataclass(frozen=True, slots=True)
class State:
    """A STATE message: its value as the tap wrote it, and its line."""

    text: bytes
    line: int


@dataclass(slots=True)
class Part:
    """One stream's lines in the window."""

    runs: list[Run] = field(default_factory=list)

    def run(self) -> Run:
        """All of them as one run."""
        if len(self.runs) == 1:
            return self.runs[0]
        closed = all(run.closed for run in self.runs)
        versioned = any(run.versioned for run in self.runs)
        data = b"".join(run.data for run in self.runs)
        return Run(self.runs[0].stream, data, _joined([run.lines for run in self.runs]), closed, versioned)

    def before(self, line: int) -> Run | None:
        """Those that stand before a line of the input, or None if there are none."""
        run = self.run()
        count = bisect_left(run.lines, line)
        if not count:
            return None
        data = b"".join(run.data.splitlines(keepends=True)[:count]) if count < len(run.lines) else run.data
        return Run(run.stream, data, run.lines[:count], run.closed, run.versioned)


def _joined(numbers: Sequence[Sequence[int]]) -> Sequence[int]:
    first, last = numbers[0], numbers[-1]
    if isinstance(first, range) and all(isinstance(each, range) for each in numbers):
        whole = range(first[0], last[-1] + 1)
        if len(whole) == sum(map(len, numbers)):
            return whole
    return array("Q", [number for each in numbers for number in each])


class Window:
    """Lines not decoded yet, by stream, and the STATEs among them, in order."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.states: list[State] = []
        self._size = self._wanted = 0

    def add(self, run: Run, columns: int) -> None:
        """Take a run of a stream with so many columns."""
        part = self.parts.get(run.stream)
        if part is None:
            part = self.parts[run.stream] = Part()
            self._wanted += min(_MOST_PER_STREAM, columns * _PER_COLUMN)
        part.runs.append(run)
        self._size += len(run.data)

    @property
    def full(self) -> bool:
        """Whether it is time to decode: enough for each stream's share to be worth a call, and never too much."""
        return self._size >= self.wanted

    @property
    def block_bytes(self) -> int:
        """How large the blocks of its lines are best, so that few make it full and little is held twice."""
        return min(self.wanted, _MOST_BLOCK)

    @property
    def wanted(self) -> int:
        """How many bytes make it full."""
        return max(BLOCK_BYTES, min(_MOST, self._wanted))

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self.parts and not self.states
