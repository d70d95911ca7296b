"""A stream's rows on their way into files that nobody sees yet.

A STATE settles every row before it; the rows after the newest STATE are the *tail*, which a run that is cut off
must not commit. One rule makes the cut exact: **a file never holds rows from both sides of the newest STATE**,
so that dropping the tail is dropping files and buffers. `settle` counts epochs and touches nothing; a partition
learns of a new epoch when it is touched next, and what it holds from an earlier epoch is settled.

Memory is bounded by a `WriteBudget` that all writers of a run share.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa

from melisma.arrow.types import StreamSchema
from melisma.errors import ConfigError, MelismaError
from melisma.formats.writers.file_format import FileFormat, FileWriter
from melisma.lake.partition import Partitioner, PartitionField
from melisma.lake.spill import Spill, Spilled
from melisma.storage.store import StagedObject

__all__ = ["StagedFile", "Staging", "StreamWriter", "WriteBudget"]

_SMALL_ROWS = 1024
_SMALL_BATCHES = 64
# What a batch costs besides its bytes: buffers are padded and have headers, for each column.
_BATCH_OVERHEAD_PER_COLUMN = 256


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A whole file that waits to be published.

    Attributes:
        stream: the stream's name.
        path: where it will be, relative to the root.
        handle: what the store publishes or discards.
        rows: rows in it.
        bytes: its size as stored.
        kind: data, or dead letters.
    """

    stream: str
    path: str
    handle: StagedObject
    rows: int
    bytes: int
    kind: Literal["data", "dead_letter"] = "data"


class Staging(Protocol):
    """What a writer needs of a lake: `FileLake` is one."""

    @property
    def folds_case(self) -> bool:
        """Whether "a" and "A" are one file name there."""

    def stage(self, stream: str, partition: Sequence[str], extension: str) -> StagedObject:
        """Begin the next file of a stream's partition."""

    def discard(self, staged: StagedObject) -> None:
        """Drop it."""


class Buffer(Protocol):
    """Rows that wait, as a WriteBudget sees them.

    Attributes:
        bytes: Arrow bytes of all of them.
        in_memory: of those, what is not set aside.
    """

    bytes: int

    @property
    def in_memory(self) -> int: ...

    def set_aside(self) -> None:
        """Move what is in memory to the disk, if it takes it."""

    def flush(self, *, tail: bool) -> None:
        """Write the settled rows out, and the tail if that is asked for."""


class WriteBudget:
    """What all writers of a run may hold together.

    Args:
        max_open_files: the least recently written file is finished when there would be more.
        buffered_bytes: Arrow bytes in memory; when they are exceeded, the largest buffers are set aside (`spill`), or
            written out where there is no room for them.
        spilled_bytes: the most that is set aside on the disk.
        batch_rows: the most rows that wait for one file, whatever its format has for a row group; None for no limit.

    Attributes:
        batch_rows: that limit.
    """

    def __init__(
        self,
        max_open_files: int = 64,
        buffered_bytes: int = 32 << 20,
        *,
        spilled_bytes: int = 0,
        batch_rows: int | None = None,
    ) -> None:
        if max_open_files < 1:
            raise ConfigError("max_open_files", "is not positive", "Set a number above 0")
        self._max_open_files, self._limit, self.batch_rows = max_open_files, buffered_bytes, batch_rows
        self._open: OrderedDict[_Partition, None] = OrderedDict()
        self._buffers: dict[Buffer, None] = {}
        self._buffered = 0
        self.spill = Spill(spilled_bytes)

    @property
    def open_files(self) -> int:
        """Files that are being written."""
        return len(self._open)

    @property
    def buffered(self) -> int:
        """Arrow bytes that wait in memory, about."""
        return self._buffered

    def opening(self, partition: _Partition) -> None:
        """Make room for one more file, which `partition` is about to open."""
        while len(self._open) >= self._max_open_files:
            next(iter(self._open)).retire()
        self._open[partition] = None

    def used(self, partition: _Partition) -> None:
        """`partition` has written to its file."""
        self._open.move_to_end(partition)

    def closed(self, partition: _Partition) -> None:
        """`partition` has no open file any more."""
        self._open.pop(partition, None)

    def resized(self, buffer: Buffer, change: int) -> None:
        """A buffer has grown or shrunk by so many bytes of memory."""
        self._buffered += change
        if buffer.in_memory:
            self._buffers[buffer] = None
        else:
            self._buffers.pop(buffer, None)

    def relieve(self) -> None:
        """Set the largest buffers aside if there is too much, or write them out; down to half, so that this is rare.

        Settled rows are written out first: the tail's cannot stand in one file with them.
        """
        if self._buffered <= self._limit:
            return
        self.spill.begin()
        for buffer in sorted(self._buffers, key=lambda each: each.in_memory, reverse=True):
            if self._buffered <= self._limit // 2:
                return
            if self.spill.has_room and buffer.bytes <= self._limit // 2:
                buffer.set_aside()
        for tail in (False, True):
            for buffer in sorted(self._buffers, key=lambda each: each.bytes, reverse=True):
                if self._buffered <= self._limit // 2:
                    return
                buffer.flush(tail=tail)


class StreamWriter:
    """Writes the rows of one stream, of one schema.

    Args:
        lake: where files are staged.
        schema: of every batch.
        file_format: how files are written.
        budget: shared by all writers of the run.
        partition_by: see `melisma.lake.partition`.

    Attributes:
        rows_in: rows given to `write` since the last `close`; for reconciliation with what `close` returns.
        group_rows: the most rows of a row group.

    Raises:
        ConfigError: `partition_by` does not fit the schema.
        BadSchema: the format has no such type.
    """

    def __init__(
        self,
        lake: Staging,
        schema: StreamSchema,
        file_format: FileFormat,
        budget: WriteBudget,
        partition_by: Sequence[PartitionField] = (),
    ) -> None:
        self.lake, self.budget, self.schema, self.stream = lake, budget, schema, schema.stream
        self.format = file_format.for_stream()
        self.group_rows = min(file_format.row_group_rows, budget.batch_rows or file_format.row_group_rows)
        self._partitioner = Partitioner(schema, partition_by, fold=lake.folds_case)
        self.file_schema = self._partitioner.file_schema
        file_format.check(self.file_schema, schema)
        self.epoch = 0
        self._partitions: dict[tuple[str, ...], _Partition] = {}
        self._staged: list[tuple[int, StagedFile]] = []
        self.rows_in = 0
        self._settled_rows = 0

    @property
    def settled_rows(self) -> int:
        """How many of `rows_in` came before the newest STATE."""
        return self._settled_rows

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows to the tail.

        Raises:
            StorageError: the store fails; the writer can only be abandoned then.
            BadRecord: a partition value cannot be a directory's name.
        """
        for key, part in self._partitioner.split(batch):
            partition = self._partitions.get(key)
            if partition is None:
                partition = self._partitions[key] = _Partition(self, key)
            partition.add(part)
        self.rows_in += batch.num_rows
        self.budget.relieve()

    def settle(self) -> None:
        """A STATE was read: every row written so far comes before it."""
        if self._settled_rows != self.rows_in:
            self._settled_rows = self.rows_in
            self.epoch += 1

    def close(self, *, tail: bool) -> list[StagedFile]:
        """Finish the files and begin anew. Within a partition, the files' numbers give the order of the rows.

        Args:
            tail: True for all rows; False for the settled ones, and the tail is dropped.

        Raises:
            StorageError: the store fails; the writer can only be abandoned then.
        """
        if tail:
            self.settle()
        for partition in self._partitions.values():
            partition.finish()
        kept = [file for epoch, file in self._staged if epoch < self.epoch]
        dropped = [file for epoch, file in self._staged if epoch >= self.epoch]
        self._check_rows(kept)
        self._staged = []
        for file in dropped:
            self.lake.discard(file.handle)
        self._reset()
        return kept

    def flush_settled(self) -> None:
        """Begin to write the settled rows out: other streams can do so while these are being encoded.

        Raises:
            StorageError: the store fails; the writer can only be abandoned then.
        """
        for partition in self._partitions.values():
            partition.flush_settled()

    def take_settled(self) -> list[StagedFile]:
        """Finish the files of the settled rows, in order of writing; the tail stays, and the writer goes on.

        Raises:
            StorageError: the store fails; the writer can only be abandoned then.
        """
        for partition in self._partitions.values():
            partition.finish_settled()
        taken = [file for epoch, file in self._staged if epoch < self.epoch]
        self._check_rows(taken)
        self._staged = [(epoch, file) for epoch, file in self._staged if epoch >= self.epoch]
        self._partitions = {key: each for key, each in self._partitions.items() if each.holds_rows}
        self.rows_in -= self._settled_rows
        self._settled_rows = 0
        return taken

    def abandon(self) -> None:
        """Drop everything. Does not fail."""
        for partition in self._partitions.values():
            partition.drop()
        for _, file in self._staged:
            self.lake.discard(file.handle)
        self._staged = []
        self._reset()

    def staged(self, epoch: int, file: StagedFile) -> None:
        """A partition has finished a file whose last row is of `epoch`."""
        self._staged.append((epoch, file))

    def _check_rows(self, files: list[StagedFile]) -> None:
        if sum(file.rows for file in files) != self._settled_rows:
            raise MelismaError(
                f'stream "{self.stream}": the files do not hold as many rows as were read before the last STATE. '
                "Nothing of them is committed. This is a defect of melisma: please report it"
            )

    def _reset(self) -> None:
        self._partitions.clear()
        self.rows_in = self._settled_rows = 0


class _Partition:
    """One directory's buffer and open file. Rows stay in order of arrival: first the file's, then the buffer's."""

    def __init__(self, writer: StreamWriter, key: tuple[str, ...]) -> None:
        self._writer, self._key = writer, key
        self._overhead = _BATCH_OVERHEAD_PER_COLUMN * len(writer.file_schema)
        self._batches: list[tuple[pa.RecordBatch | Spilled, int]] = []  # with the bytes that each counts for
        self._small = 0  # how many of the last batches are small and not yet joined
        self.rows = 0
        self.bytes = 0
        self._in_memory = 0  # of the bytes; the others are set aside
        self._settled = 0  # how many of the buffer's first rows are of an epoch before `_epoch`
        self._epoch = writer.epoch
        self._file: FileWriter | None = None
        self._sink: StagedObject | None = None
        self._file_epoch = -1  # of the last row in the newest file

    def add(self, batch: pa.RecordBatch) -> None:
        """Buffer rows of the current epoch; write out full row groups."""
        self._catch_up()
        size = batch.nbytes + self._overhead
        self._batches.append((batch, size))
        self.rows += batch.num_rows
        self._grow(size)
        self._small = self._small + 1 if batch.num_rows < _SMALL_ROWS else 0
        if self._small >= _SMALL_BATCHES:
            self._join()
        file_format = self._writer.format
        while self.rows >= self._writer.group_rows or self.bytes >= file_format.row_group_bytes:
            self._write_group()

    def flush(self, *, tail: bool) -> None:
        """Write the buffer's settled rows out; then the tail, too, in a file of its own, if that is asked for."""
        self._catch_up()
        while self._settled or (tail and self.rows):
            self._write_group()

    @property
    def in_memory(self) -> int:
        """Arrow bytes that are not set aside."""
        return self._in_memory

    def set_aside(self) -> None:
        """Move what is in memory to the disk."""
        first = 1 + max(
            (place for place, (each, _) in enumerate(self._batches) if isinstance(each, Spilled)), default=-1
        )
        waiting = [each for each, _ in self._batches[first:] if isinstance(each, pa.RecordBatch)]
        if not waiting:
            return
        spilled = self._writer.budget.spill.put(waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting))
        if spilled is not None:
            size = sum(held for _, held in self._batches[first:])
            self._batches[first:] = [(spilled, size)]
            self._small = 0
            self._hold(-size)

    def retire(self) -> None:
        """Finish the open file, with the buffered rows that may stand in it."""
        self._catch_up()
        if self._settled or self._file_epoch == self._writer.epoch:
            self._write_group()
        self._close_file()

    def finish(self) -> None:
        """Finish the file with all settled rows; drop the buffered tail."""
        self.finish_settled()
        self.drop()

    def flush_settled(self) -> None:
        """Begin to finish the file with all settled rows. `finish_settled` comes next, or `drop`."""
        self.flush(tail=False)
        if self._file is not None and self._file_epoch != self._writer.epoch:
            self._file.finish()

    def finish_settled(self) -> None:
        """Finish the file with all settled rows; the tail stays."""
        self.flush(tail=False)
        if self._file_epoch != self._writer.epoch:  # else all of the file is tail, and so is the buffer
            self._close_file()

    @property
    def holds_rows(self) -> bool:
        """Whether there is a buffer or an open file."""
        return bool(self.rows) or self._file is not None

    def drop(self) -> None:
        """Drop the buffer and the open file."""
        self._empty()
        if self._file is not None:
            self._file.abandon()
        if self._sink is not None:  # a file may have failed to begin
            self._writer.lake.discard(self._sink)
        self._file = self._sink = None
        self._writer.budget.closed(self)

    def _catch_up(self) -> None:
        if self._epoch != self._writer.epoch:
            self._epoch, self._settled = self._writer.epoch, self.rows

    def _write_group(self) -> None:
        """Write one row group from the front of the buffer: settled rows if there are any, else the tail's."""
        self._catch_up()
        file_format = self._writer.format
        available = self._settled or self.rows
        fit = max(1, self.rows * file_format.row_group_bytes // max(1, self.bytes))
        count = min(available, self._writer.group_rows, fit)
        epoch = self._writer.epoch - 1 if self._settled else self._writer.epoch
        if self._file is not None and epoch == self._writer.epoch and self._file_epoch != epoch:
            self._close_file()  # it holds settled rows, and these are the tail's
        file = self._file or self._open_file()
        file.write_row_group(self._take(count))
        self._file_epoch = epoch
        if self._sink is not None and self._sink.bytes_written >= file_format.max_file_bytes:
            self._close_file()
        else:
            self._writer.budget.used(self)

    def _open_file(self) -> FileWriter:
        writer = self._writer
        writer.budget.opening(self)
        self._sink = writer.lake.stage(writer.stream, self._key, writer.format.extension)
        self._file = writer.format.open_file(self._sink, writer.file_schema, writer.schema)
        return self._file

    def _close_file(self) -> None:
        if self._file is None or self._sink is None:
            return
        file, sink = self._file, self._sink
        file.close()
        sink.close()
        staged = StagedFile(self._writer.stream, sink.final_path, sink, file.rows, sink.bytes_written)
        self._file = self._sink = None
        self._writer.budget.closed(self)
        self._writer.staged(self._file_epoch, staged)

    def _take(self, count: int) -> list[pa.RecordBatch]:
        """Remove the first `count` rows from the buffer."""
        taken: list[pa.RecordBatch] = []
        size, need, used = 0, count, 0
        for waiting, held in self._batches:
            if not need:
                break
            batch = waiting
            if isinstance(batch, Spilled):
                batch = batch.read()
                self._hold(held)
            if batch.num_rows > need:
                taken.append(batch.slice(0, need))
                part = min(taken[-1].nbytes, held)  # slices count in whole bytes: an estimate
                self._batches[used] = batch.slice(need), held - part
                size += part
                need = 0
            else:
                taken.append(batch)
                size += held
                need -= batch.num_rows
                used += 1
        del self._batches[:used]
        self._small = min(self._small, len(self._batches))
        self.rows -= count
        self._settled = max(0, self._settled - count)
        self._grow(-size)
        return taken

    def _join(self) -> None:
        """Make one batch of many small ones: a source that changes streams with each record sends such."""
        last = self._batches[-self._small :]
        joined = pa.concat_batches([batch for batch, _ in last if isinstance(batch, pa.RecordBatch)])
        size = joined.nbytes + self._overhead
        self._batches[-self._small :] = [(joined, size)]
        self._small = 0
        self._grow(size - sum(held for _, held in last))

    def _empty(self) -> None:
        for batch, _ in self._batches:
            if isinstance(batch, Spilled):
                batch.drop()
        self._batches, self.rows, self._settled, self._small, self.bytes = [], 0, 0, 0, 0
        self._hold(-self._in_memory)

    def _grow(self, change: int) -> None:
        self.bytes += change
        self._hold(change)

    def _hold(self, change: int) -> None:
        self._in_memory += change
        self._writer.budget.resized(self, change)
