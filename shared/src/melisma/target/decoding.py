"""From a window's lines to rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from melisma.errors import InputError
from melisma.lake.spill import Spill
from melisma.target.window import State, Window, before

if TYPE_CHECKING:
    from melisma.arrow.decode import Decoded
    from melisma.arrow.metadata import BatchMetadata
    from melisma.target.bad_records import BadRecords
    from melisma.target.route import Route
    from melisma.target.sink import PendingRows

__all__ = ["DecodedWindow", "WindowDecoder"]

_IN_MEMORY = 32 * 1024 * 1024
"""Arrow bytes of rows that wait in memory until all of their window is decoded; more of them wait on the disk."""

_ON_DISK = 1024 * 1024 * 1024


@dataclass(slots=True)
class DecodedWindow:
    """What a window became.

    Attributes:
        rows: in order, for each stream.
        noted: what is to be said of them, by output stream.
        faults: lines that are no RECORDs of their stream.
    """

    rows: list[PendingRows] = field(default_factory=list)
    noted: list[tuple[str, Decoded]] = field(default_factory=list)
    faults: list[InputError] = field(default_factory=list)

    def drop(self) -> None:
        """Its rows are not wanted."""
        for each in self.rows:
            each.drop()
        self.rows.clear()


class WindowDecoder:
    """Decodes windows: all of a window, before any of its rows goes to a writer.

    Args:
        routes: by input stream.
        bad: makes dead letters.
        disk_bytes: how much disk rows may take that wait for the rest of their window.
    """

    def __init__(self, routes: Mapping[str, Route], bad: BadRecords, disk_bytes: int) -> None:
        self._routes, self._bad = routes, bad
        self._spill = Spill(min(disk_bytes, _ON_DISK))

    def decode(
        self, window: Window, state: State | None, metadata: BatchMetadata, upto: int | None = None
    ) -> DecodedWindow:
        """Decode a window, or what comes before one of its lines.

        Args:
            window: the window; it keeps its lines.
            state: the newest STATE that counts.
            metadata: what the `_sdc_*` columns say.
            upto: only lines before this one.

        Raises:
            ConfigError: a stream map cannot be applied.
            StorageError: the disk fails that lines wait on.
        """
        found = DecodedWindow()
        settled = state.line if state else 0
        first, in_memory = 0, 0  # of the rows in memory
        for stream in window.streams:
            for run in window.runs(stream):
                part = run if upto is None else before(run, upto)
                if part is None:
                    break
                try:
                    results = self._routes[stream].decode(part)
                except InputError as error:
                    found.faults.append(error)
                    upto = _earlier(upto, error)  # what comes after it does not matter any more
                    break
                for sink, decoded, lines in results:
                    letters = self._bad.letters(decoded, part, metadata.received_at)
                    fault = self._bad.shorten(decoded)
                    if fault is not None:
                        upto = _earlier(upto, fault)
                    found.noted.append((sink.stream_name, decoded))
                    found.rows.append(sink.take(decoded, lines, settled, metadata, letters))
                    in_memory += found.rows[-1].bytes
                if in_memory >= _IN_MEMORY and self._spill.has_room:
                    for each in found.rows[first:]:
                        each.set_aside(self._spill)
                    first, in_memory = len(found.rows), 0
        return found

    def close(self) -> None:
        """Nothing more is decoded: give the disk's room back."""
        self._spill.close()


def _earlier(upto: int | None, error: InputError) -> int | None:
    if error.line is None:
        return upto
    return error.line if upto is None else min(upto, error.line)
