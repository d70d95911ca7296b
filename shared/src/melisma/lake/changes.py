"""Rows that wait to be merged: on disk, so that memory does not grow with the time between two commits.

They stand as Arrow IPC in temporary files without a name: a process that dies leaves nothing of them. They need
about as much room in the system's temporary directory (TMPDIR) as they have Arrow bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, cast

import pyarrow as pa

from melisma.arrow.types import StreamSchema
from melisma.errors import StorageError
from melisma.lake.writer import StreamWriter, WriteBudget
from melisma.storage.store import refused

__all__ = ["Changes", "UpsertWriter"]

_BLOCK_BYTES = 4 << 20
_BLOCK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Changes:
    """Settled rows of a stream, in order of arrival; what `UpsertWriter.take_settled` hands to the commit.

    Attributes:
        schema: of the rows.
        rows: how many.
        open_writer: makes a writer for those that are to be stored.
        hard_delete: rows with `_sdc_deleted_at` remove the row of their key and are not stored.
    """

    schema: StreamSchema
    rows: int
    open_writer: Callable[[], StreamWriter]
    hard_delete: bool
    _segments: tuple[_Segment, ...] = field(repr=False)

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.schema.stream

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each batch with the number of its first row.

        Args:
            columns: those to read, in this order; None for all.
        """
        row = 0
        for segment in self._segments:
            for batch in segment.batches(columns):
                if row + batch.num_rows >= self.rows:
                    if row < self.rows:
                        yield row, batch.slice(0, self.rows - row)
                    return
                yield row, batch
                row += batch.num_rows

    def close(self) -> None:
        """Give the room on disk back."""
        for segment in self._segments:
            segment.close()


class UpsertWriter:
    """Takes rows for a stream that is merged by key; the commit merges them (`melisma.lake.merge`).

    Args:
        schema: of the rows.
        budget: shared by all writers of the run.
        open_writer: see Changes.
        hard_delete: see Changes.
    """

    def __init__(
        self, schema: StreamSchema, budget: WriteBudget, open_writer: Callable[[], StreamWriter], *, hard_delete: bool
    ) -> None:
        self._schema, self._open_writer, self._hard_delete = schema, open_writer, hard_delete
        self._budget = budget
        self._segment = _Segment(schema.arrow)
        self._batches: list[pa.RecordBatch] = []
        self.rows = 0  # in memory
        self.bytes = 0
        self._written = 0  # all of them, since the last `take_settled`
        self._settled = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows. Until `settle` they are tail rows.

        Raises:
            StorageError: the temporary directory cannot be written.
        """
        self._batches.append(batch)
        self._grow(batch.num_rows, batch.nbytes)
        self._written += batch.num_rows
        if self.bytes >= _BLOCK_BYTES or self.rows >= _BLOCK_ROWS:
            self.flush()
        self._budget.relieve()

    def settle(self) -> None:
        """A STATE was read: every row taken so far may be committed under it."""
        self._settled = self._written

    def flush_settled(self) -> None:
        """Nothing to begin: the commit merges them."""

    def take_settled(self) -> list[Changes]:
        """The settled rows; the tail stays."""
        if not self._settled:
            return []
        self.flush()
        segment, self._segment = self._segment, _Segment(self._schema.arrow)
        taken = Changes(self._schema, self._settled, self._open_writer, self._hard_delete, (segment,))
        row, settled = 0, self._settled
        self._written = self._settled = 0
        for batch in segment.batches(None) if segment.rows > settled else ():
            row += batch.num_rows
            if row > settled:
                self.write(batch.slice(max(0, batch.num_rows - (row - settled))))
        return [taken]

    def abandon(self) -> None:
        """Drop everything."""
        self._segment.close()
        self._batches = []
        self._grow(-self.rows, -self.bytes)
        self._segment, self._written, self._settled = _Segment(self._schema.arrow), 0, 0

    @property
    def in_memory(self) -> int:
        """Arrow bytes that are not on the disk: all that count."""
        return self.bytes

    def set_aside(self) -> None:
        """As `flush`."""
        self.flush()

    def flush(self, *, tail: bool = True) -> None:
        """Write what is in memory to disk, be it settled or not: a segment knows how many of its rows are."""
        del tail
        if self._batches:
            self._segment.write(self._batches)
            self._batches = []
            self._grow(-self.rows, -self.bytes)

    def _grow(self, rows: int, size: int) -> None:
        self.rows += rows
        self.bytes += size
        self._budget.resized(self, size)


class _Segment:
    """One temporary file: written from front to back, then read as often as needed."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._file: IO[bytes] | None = None
        self._writer: Any = None
        self.rows = 0

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        joined = pa.concat_batches(batches)
        try:
            if self._file is None:
                self._file = cast("IO[bytes]", tempfile.TemporaryFile(prefix="melisma-"))  # noqa: SIM115 - `close`
                self._writer = pa.ipc.new_file(self._file, self._schema)
            self._writer.write_batch(joined)
        except OSError as error:
            raise _failed(error) from error
        self.rows += joined.num_rows

    def batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        if self._file is None:
            return
        if self._writer is not None:
            try:
                self._writer.close()
                self._file.flush()
            except OSError as error:
                raise _failed(error) from error
            self._writer = None
        options = pa.ipc.IpcReadOptions()
        if columns is not None:
            options.included_fields = [self._schema.get_field_index(name) for name in columns]
        # Not mapped: what is read is counted as this process's memory, and with a map that would be all of it.
        reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"), options=options)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield batch if columns is None else batch.select(list(columns))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._writer = None


def _failed(error: OSError) -> StorageError:
    return refused("write", tempfile.gettempdir(), error)
