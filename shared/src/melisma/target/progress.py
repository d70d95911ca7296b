"""One line on a terminal that says how far a run is."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]


class Progress:
    """Rewrites one line of stderr about once a second; does nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._started = self._latest = time.monotonic()

    def show(self, records: int, read: int) -> None:
        """Say how many records and bytes were read."""
        now = time.monotonic()
        if self._shown and now - self._latest >= 1:
            self._latest = now
            rate = records / (now - self._started)
            sys.stderr.write(f"\r{records:,} records, {read / 1e6:,.0f} MB read, {rate:,.0f} records/s \x1b[K")
            sys.stderr.flush()

    def clear(self) -> None:
        """Leave the line empty for what comes after."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
