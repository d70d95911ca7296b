"""The run of a tap with a log: every stream's own sync first, then the log, once, for all streams that it feeds.

Changes are gathered in columns per stream, over as many transactions as there are, and written as record batches. So
memory does not grow with a transaction: its records may go out before its end. A STATE may not: it is written only
at a transaction's end, after everything that was gathered, and gives all streams of the log one position. What was
written of a transaction that the run did not see the end of is not covered by any STATE, and is sent again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Self

from melisma.tap.log import POSITION, Boundary, Change, ChangeLog, LogStream, NewSchema, Truncation
from melisma.tap.stream import StateClock
from melisma.tap.tap import ArrowTap
from melisma.tap.writer import BatchWriter, batch_writer

__all__ = ["LogTap"]

_ROWS_OF_ONE = 8_192
_BYTES_OF_ALL = 16 << 20


class LogTap(ArrowTap):
    """A tap with streams that a log can feed. Write `change_log`, and give `LogStream`s."""

    def change_log(self) -> ChangeLog:
        """The log that feeds all log-based streams of this tap."""
        raise NotImplementedError

    def setup_mapper(self) -> None:
        """As singer-sdk does; stream maps see the columns that the log adds, which no catalog has."""
        super().setup_mapper()
        for stream in self.streams.values():
            if isinstance(stream, LogStream) and stream.log_based:
                stream.announce()

    # final in singer-sdk for type checkers, but it knows only streams that are synced one after the other.
    def sync_all(self) -> None:  # type: ignore[misc]
        """Sync all streams; those with a log are read whole there if they have not been, and then by the log."""
        chosen = [s for s in self.streams.values() if isinstance(s, LogStream) and s.selected and s.log_based]
        if not chosen:
            super().sync_all()
            return
        for stream in chosen:
            stream.check()
        with contextlib.closing(self.change_log()) as log:
            snapshot = log.open(chosen)
            for stream in chosen:
                stream.begin(snapshot)
            super().sync_all()
            log.snapshot_taken()
            _Follower(self, log, chosen).run()


class _Follower:
    """Reads the log to its end, and writes what it says."""

    def __init__(self, tap: LogTap, log: ChangeLog, streams: Sequence[LogStream]) -> None:
        self._tap, self._log = tap, log
        self._streams = {stream.name: _Followed(stream) for stream in streams}
        self._clock = StateClock(max(stream.STATE_MSG_FREQUENCY for stream in streams))
        self._held = 0

    def run(self) -> None:
        last: Boundary | None = None
        with contextlib.ExitStack() as open_streams:
            for followed in self._streams.values():
                open_streams.enter_context(followed)
            for entry in self._log.entries():
                if isinstance(entry, Change):
                    self._take(entry)
                elif isinstance(entry, Boundary):
                    last = entry
                    if self._state_is_due():
                        self._write_state(last)
                else:
                    self._streams[entry.stream.name].turn(entry)
            if last is not None:
                self._reach(last)
            for followed in self._streams.values():
                followed.flush()
        self._tap.state_writer.repeat_state(self._state)

    @property
    def _state(self) -> Any:
        return next(iter(self._streams.values())).stream.tap_state

    def _take(self, change: Change) -> None:
        followed = self._streams[change.stream.name]
        followed.changes.append(change)
        followed.size += change.size
        self._held += change.size
        self._clock.count(1, change.size)
        if len(followed.changes) >= _ROWS_OF_ONE or followed.size >= _BYTES_OF_ALL:
            self._held -= followed.size
            followed.write()
        elif self._held >= _BYTES_OF_ALL:
            for each in self._streams.values():
                each.write()
            self._held = 0

    def _state_is_due(self) -> bool:
        size = self._tap.state_writer.last_size
        wanted = any(followed.writer.wants_state(size) for followed in self._streams.values())
        return wanted and self._clock.strikes(size)

    def _write_state(self, boundary: Boundary) -> None:
        for followed in self._streams.values():
            followed.flush()
        self._held = 0
        self._reach(boundary)
        self._tap.state_writer.write_state(self._state)

    def _reach(self, boundary: Boundary) -> None:
        """Bring all bookmarks to a position, but none backwards: a snapshot may have been taken after it."""
        for followed in self._streams.values():
            stream = followed.stream
            if not self._log.is_before(boundary.position, stream.log_position):
                stream.stream_state[POSITION] = boundary.position


class _Followed:
    """A stream, with its changes that are not written yet."""

    writer: BatchWriter

    def __init__(self, stream: LogStream) -> None:
        self.stream = stream
        self.changes: list[Change] = []
        self.size = 0
        self._opened = contextlib.ExitStack()
        self._counter = stream.get_record_counter()

    def __enter__(self) -> Self:
        self.writer = self._opened.enter_context(batch_writer(self.stream))
        return self

    def __exit__(self, *failed: object) -> None:
        self._opened.__exit__(*failed)  # type: ignore[arg-type]
        self._counter.exit()

    def write(self) -> None:
        """Give the writer what was gathered."""
        if not self.changes:
            return
        changes, self.changes, self.size = self.changes, [], 0
        self.writer.write(self.stream.batch_of(changes))
        self._counter.increment(len(changes))

    def flush(self) -> None:
        """Have everything written."""
        self.write()
        self.writer.flush()

    def turn(self, entry: NewSchema | Truncation) -> None:
        """Write what came before; what comes now has another schema or version."""
        self.flush()
        self._opened.close()
        if isinstance(entry, NewSchema):
            self.stream.redefine(entry.schema)
        elif not self.stream.truncate():
            self.stream.logger.warning(
                'stream "%s": its table was truncated, and nothing in the records says so: the rows stay in the '
                "target. With emit_activate_version_messages they go",
                self.stream.name,
            )
        self.writer = self._opened.enter_context(batch_writer(self.stream))
