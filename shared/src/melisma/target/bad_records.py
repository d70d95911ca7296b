"""What becomes of bad records: the run fails, or they are left out, or they are kept aside as dead letters."""

from __future__ import annotations

import datetime as dt
import logging
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from melisma.errors import BadRecord, InputError, printable
from melisma.lake.dead_letters import LETTERS
from melisma.target.contract import NotInContract

if TYPE_CHECKING:
    from melisma.arrow.decode import Decoded
    from melisma.wire.framing import Run

__all__ = ["BadRecords", "TooManyBadRecords"]

_MOST_LINES = 128 * 1024
_MOST_NAMES = 1_000
"""Column names come with the data: from so many on they are counted together."""


class TooManyBadRecords(InputError):
    """A run has met more bad records than `max_bad_records` allows."""


class BadRecords:
    """Counts a run's bad records and says what becomes of each.

    Args:
        policy: the setting `on_bad_record`: `fail`, `skip` or `dead_letter`.
        most: the setting `max_bad_records`; None for any number.
        logger: each kind of fault is said once.

    Attributes:
        counts: (stream, column, rule) -> records.
        dead: how many of them are dead letters.
    """

    def __init__(self, policy: str, most: int | None, logger: logging.Logger) -> None:
        self._policy, self._most, self._log = policy, most, logger
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.dead = 0
        self._met = 0

    @property
    def met(self) -> int:
        """How many there were."""
        return self._met

    def fault(self, found: Sequence[Decoded]) -> InputError | None:
        """What ends the run, if something in these decoded runs does: the first of it in the input."""
        bad = [error for decoded in found for _, error in decoded.bad]
        if not bad:
            return None
        faults: list[InputError] = []
        if self._policy == "fail":
            faults += [error for error in bad if not isinstance(error, NotInContract)]
        if self._most is not None and self._met + len(bad) > self._most:
            bad.sort(key=_line)
            first = bad[self._most - self._met]
            rule = f"the run has met more than {self._most} bad records (max_bad_records); the last one {first.rule}"
            fix = "Mend the source or the tap, or set column_types or max_bad_records"
            faults.append(TooManyBadRecords(rule, stream=first.stream, column=first.column, line=first.line, fix=fix))
        return min(faults, key=_line, default=None)

    @property
    def most_lines(self) -> int | None:
        """How many lines may be decoded together, each of which may be bad; None for any number."""
        return None if self._policy == "fail" else _MOST_LINES

    def shorten(self, decoded: Decoded) -> BadRecord | None:
        """Leave out the bad records after the first one that ends the run, there may be very many; gives that one."""
        if self._policy != "fail":
            return None
        for at, (_, error) in enumerate(decoded.bad):
            if not isinstance(error, NotInContract):
                del decoded.bad[at + 1 :]
                return error
        return None

    def letters(self, decoded: Decoded, run: Run, at: dt.datetime) -> pa.RecordBatch | None:
        """The dead letters of a decoded run, as rows; None where there are none, or bad records are skipped.

        Args:
            decoded: what the run became.
            run: the lines that it came from.
            at: when they were read.
        """
        if self._policy != "dead_letter" or not decoded.bad:
            return None
        errors = [error for _, error in decoded.bad]
        places = [bisect_left(run.lines, error.line or 0) for error in errors]
        return pa.RecordBatch.from_pydict(
            {
                "stream": [error.stream or run.stream for error in errors],
                "line": [error.line or 0 for error in errors],
                "column": [error.column for error in errors],
                "reason": [error.rule for error in errors],
                "at": pa.repeat(at.isoformat(timespec="seconds"), len(errors)),
                "record": _texts(run.data, places),
                "run": pa.nulls(len(errors), pa.string()),
            },
            schema=LETTERS,
        )

    def note(self, decoded: Decoded) -> None:
        """Count a run's bad records, and say what is new about them."""
        for _, error in decoded.bad:
            self._met += 1
            stream, column, rule = error.stream or "", error.column or "", error.rule
            first = (stream, column, rule) not in self.counts
            if first and len(self.counts) >= _MOST_NAMES:
                column, first = "(other columns)", (stream, "(other columns)", rule) not in self.counts
            self.counts[stream, column, rule] += 1
            if self._policy == "dead_letter":
                self.dead += 1
            if first:
                kept = self._policy == "dead_letter"
                self._log.warning("%s (%s)", error, "kept as a dead letter" if kept else f"skipped{self._why}")

    @property
    def _why(self) -> str:
        return "" if self._policy == "fail" else f"; on_bad_record: {self._policy}"

    def summary(self) -> Iterable[str]:
        """A line for each kind of fault, for the log."""
        fate = "kept as dead letters" if self._policy == "dead_letter" else "skipped"
        for (stream, column, rule), count in self.counts.items():
            where = f'stream "{printable(stream)}": {count} records {fate}: column "{printable(column)}"'
            yield f"{where} {rule}{self._why}"


def _texts(data: bytes, places: Sequence[int]) -> pa.Array:
    """Lines of these, as text; what is not UTF-8, which only a member that nobody reads can hold, is replaced."""
    buffers = [None, pa.py_buffer(array("q", [0, len(data)])), pa.py_buffer(data)]
    lines = pc.split_pattern(pa.Array.from_buffers(pa.large_binary(), 1, buffers), b"\n").values
    found = lines.take(pa.array(places, pa.int64()))
    try:
        return found.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([line.decode("utf-8", "replace") for line in found.to_pylist()], pa.string())


def _line(error: BadRecord | InputError) -> int:
    return error.line or 0
