"""File writers that encode on another thread: the native code lets the reading thread go on meanwhile."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from melisma.storage.room import Room

__all__ = ["BackgroundWriter"]


_AT_ONCE = 32 << 20
"""Arrow bytes of row groups of all files that are under way together; one that is larger goes alone."""

_MOST = 8


class _Encoder:
    """Encodes row groups on other threads, a bounded number of bytes together, whatever the number of files.

    So large ones go one at a time, and small ones, as many streams or partitions have them, as many as there are
    processors.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "melisma-encoder")
        self._room = Room(_AT_ONCE)
        self._least = _AT_ONCE // (threads + 1)  # one is at hand when another is done

    def submit(self, encode: Callable[[pa.Table], None], table: pa.Table) -> Future[None]:
        taken = self._room.take(max(table.nbytes, self._least))
        future = self._pool.submit(encode, table)
        future.add_done_callback(lambda _: self._room.give_back(taken))
        return future


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_ENCODER = _Encoder(min(_MOST, _processors()))


class BackgroundWriter(abc.ABC):
    """Writes one file, a row group per call. Write `_encode` and `_finish`.

    A call returns while its row group is being encoded on another thread, and waits for the file's one before it; so
    at most one is under way. What fails there is raised by the next call.

    Args:
        sink: a writable binary file; not closed.
        schema: of every batch.

    Attributes:
        rows: rows written so far.
    """

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._sink, self._schema = sink, schema
        self._under_way: Future[None] | None = None
        self._finishing = False
        self.rows = 0

    def write_row_group(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Write the batches, in order, as one row group."""
        table = pa.Table.from_batches(batches, self._schema)
        self._wait()
        self._under_way = _ENCODER.submit(self._encode, table)
        self.rows += table.num_rows

    def finish(self) -> None:
        """Let the thread that encodes the last row group write what ends the file, too; `close` comes next."""
        encoded, ended = self._under_way, Future[None]()
        if encoded is None or encoded.done() or self._finishing:
            return  # what is left for `close` is little

        def end(encoded: Future[None]) -> None:
            try:
                encoded.result()
                self._finish()
            except BaseException as error:
                ended.set_exception(error)
            else:
                ended.set_result(None)

        self._under_way, self._finishing = ended, True
        encoded.add_done_callback(end)

    def close(self) -> None:
        """Write what ends the file. The sink stays open."""
        self._wait()
        if not self._finishing:
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
