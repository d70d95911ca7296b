"""File writers that encode on another thread: the native code lets the reading thread go on meanwhile."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pyarrow as pa

__all__ = ["BackgroundWriter"]


class _Encoder:
    """One row group of all files is under way at a time, so that memory stays bounded whatever the number of files."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "melisma-encoder")
        self._latest: Future[None] | None = None

    def submit(self, encode: Callable[[pa.Table], None], table: pa.Table) -> Future[None]:
        if self._latest is not None:
            wait([self._latest])
        self._latest = self._pool.submit(encode, table)
        return self._latest


_ENCODER = _Encoder()


class BackgroundWriter(abc.ABC):
    """Writes one file, a row group per call. Write `_encode` and `_finish`.

    A call returns while its row group is being encoded on another thread, and waits for the one before it; so at
    most one is under way. What fails there is raised by the next call.

    Args:
        sink: a writable binary file; not closed.
        schema: of every batch.

    Attributes:
        rows: rows written so far.
    """

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._sink, self._schema = sink, schema
        self._under_way: Future[None] | None = None
        self.rows = 0

    def write_row_group(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Write the batches, in order, as one row group."""
        table = pa.Table.from_batches(batches, self._schema)
        self._wait()
        self._under_way = _ENCODER.submit(self._encode, table)
        self.rows += table.num_rows

    def close(self) -> None:
        """Write what ends the file. The sink stays open."""
        self._wait()
        self._finish()

    def abandon(self) -> None:
        """Give the writer up, with no end to the file."""
        with contextlib.suppress(Exception):
            self._wait()
        self._drop()

    @abc.abstractmethod
    def _encode(self, table: pa.Table) -> None:
        """Write a row group; on the other thread."""

    @abc.abstractmethod
    def _finish(self) -> None:
        """Write what ends the file, and what begins it if there were no rows."""

    def _drop(self) -> None:  # noqa: B027 - most have nothing to do
        """Make sure that nothing more is written."""

    def _wait(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()
