"""The window: RECORD lines that were read but not decoded yet, with the STATEs between them.

Lines are decoded by the window, not by the message, so that streams that take turns and taps that send a STATE after
every few records cost no more than one long run. The window keeps what is needed to cut exactly at any STATE in it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from melisma.wire.blocks import BLOCK_BYTES
from melisma.wire.framing import Run

__all__ = ["Part", "State", "Window"]

_MOST = 16 * 1024 * 1024
_PER_STREAM = 256 * 1024


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
        lines = [line for run in self.runs for line in run.lines]
        closed = all(run.closed for run in self.runs)
        versioned = any(run.versioned for run in self.runs)
        return Run(self.runs[0].stream, b"".join(run.data for run in self.runs), lines, closed, versioned)

    def before(self, line: int) -> Run | None:
        """Those that stand before a line of the input, or None if there are none."""
        run = self.run()
        count = bisect_left(run.lines, line)
        if not count:
            return None
        data = b"".join(run.data.splitlines(keepends=True)[:count]) if count < len(run.lines) else run.data
        return Run(run.stream, data, run.lines[:count], run.closed, run.versioned)


class Window:
    """Lines not decoded yet, by stream, and the STATEs among them, in order."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.states: list[State] = []
        self._size = 0

    def add(self, run: Run) -> None:
        """Take a run."""
        self.parts.setdefault(run.stream, Part()).runs.append(run)
        self._size += len(run.data)

    @property
    def full(self) -> bool:
        """Whether it is time to decode: enough for each stream's share to be worth a call, and never too much."""
        return self._size >= self.wanted

    @property
    def wanted(self) -> int:
        """How many bytes make it full."""
        return max(BLOCK_BYTES, min(_MOST, _PER_STREAM * len(self.parts)))

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self.parts and not self.states
