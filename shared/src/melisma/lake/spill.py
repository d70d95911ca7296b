"""Rows that wait for a file, set aside on the local disk.

Streams and partitions that take turns gather their rows slowly, all of them together. Writing out what there is when
memory runs short makes many small files; set aside, the rows come back when there is a row group of them. What is set
aside lies in files without a name, which vanish with the process, however it ends.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import IO

import pyarrow as pa

from melisma.storage.store import refused

__all__ = ["Spill", "SpillFile", "Spilled"]


_FILE_BYTES = 64 << 20  # at least, if more than one file is needed: each is a descriptor
_WRITE_BYTES = 1 << 20  # small pieces are joined for a write


class Spilled:
    """A batch on the disk. It is read once: `read` or `drop` gives its room back.

    Attributes:
        num_rows: rows in it.
    """

    __slots__ = ("_at", "_file", "_schema", "_size", "num_rows")

    def __init__(self, file: _File, schema: pa.Schema, rows: int, at: int, size: int) -> None:
        self.num_rows = rows
        self._file, self._schema, self._at, self._size = file, schema, at, size

    def read(self) -> pa.RecordBatch:
        """The batch.

        Raises:
            StorageError: the disk fails.
        """
        try:
            data = self._file.read(self._at, self._size)
            return pa.ipc.read_record_batch(pa.py_buffer(data), self._schema)
        finally:
            self.drop()

    def drop(self) -> None:
        """It is not needed any more."""
        self._file.give_back(self._size)


class Spill:
    """Where batches are set aside, in the system's folder for temporary files (`TMPDIR`).

    Args:
        most_bytes: of disk space.

    Attributes:
        bytes: in use. A file's room is given back when all of it was read.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._file: _File | None = None
        self.bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether it takes more. The disk may be full, too; then it takes none any more."""
        return self.bytes < self._most

    def begin(self) -> None:
        """What comes now may go into a file of its own: it is gone from the disk when all of it was read."""
        if self._file is not None and self._file.size >= _FILE_BYTES:
            self._file = None

    def put(self, batch: pa.RecordBatch) -> Spilled | None:
        """Set a batch aside; None if the disk does not take it."""
        data = batch.serialize()
        try:
            if self._file is None:
                self._file = _File(self)
            at = self._file.size
            self._file.append([data])
        except OSError:
            self._most = 0
            if self._file is not None and not self._file.size:
                self._file.close()
                self._file = None
            return None
        self.bytes += len(data)
        return Spilled(self._file, batch.schema, batch.num_rows, at, len(data))

    def close(self) -> None:
        """Nothing more is set aside or read."""
        self._most = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def emptied(self, file: _File, size: int) -> None:
        """All of a file was read, and it is gone."""
        self.bytes -= size
        if file is self._file:
            self._file = None


class SpillFile:
    """A file without a name, which grows at its end and is read anywhere. It is made by the first bytes for it.

    Attributes:
        size: bytes in it.
        refused: the disk did not take some.
    """

    def __init__(self) -> None:
        self.size = 0
        self.refused = False
        self._file: IO[bytes] | None = None

    def append(self, pieces: Iterable[bytes | pa.Buffer]) -> None:
        """Add bytes at the end: all of them, or none.

        Raises:
            OSError: the disk does not take them.
        """
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="melisma-", buffering=0)  # noqa: SIM115
            self._file.seek(self.size)
            self.size += _write(self._file, pieces)
        except OSError:
            self.refused = True
            if self._file is not None:
                os.ftruncate(self._file.fileno(), self.size)  # what it took of them is in others' way
            raise

    def read(self, at: int, size: int) -> bytes:
        """So many bytes from a place on.

        Raises:
            StorageError: the disk fails.
        """
        try:
            if self._file is None:
                raise OSError(errno.EBADF, "closed")
            data = os.pread(self._file.fileno(), size, at)
            while len(data) < size:  # the system gives two gigabytes at a time
                more = os.pread(self._file.fileno(), size - len(data), at + len(data))
                if not more:
                    raise OSError(errno.EIO, "shorter than what was written")
                data += more
            return data
        except OSError as error:
            raise refused("read", tempfile.gettempdir(), error) from error

    def clear(self) -> None:
        """Forget what is in it, and give the room back."""
        if self._file is not None and self.size:
            os.ftruncate(self._file.fileno(), 0)
        self.size = 0

    def close(self) -> None:
        """Give everything back."""
        self.size = 0
        if self._file is not None:
            self._file.close()
            self._file = None


def _write(file: IO[bytes], pieces: Iterable[bytes | pa.Buffer]) -> int:
    """Write bytes, small pieces together; how many."""
    written = held = 0
    waiting: list[bytes | pa.Buffer] = []
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held >= _WRITE_BYTES:
            written += _write_all(file, waiting)
            waiting, held = [], 0
    return written + _write_all(file, waiting)


def _write_all(file: IO[bytes], pieces: Sequence[bytes | pa.Buffer]) -> int:
    data = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
    rest = data
    while rest:
        rest = rest[file.write(rest) :]
    return len(data)


class _File(SpillFile):
    """One that is gone when the last batch in it is."""

    def __init__(self, spill: Spill) -> None:
        super().__init__()
        self._spill, self._held = spill, 0

    def append(self, pieces: Iterable[bytes | pa.Buffer]) -> None:
        before = self.size
        super().append(pieces)
        self._held += self.size - before

    def give_back(self, size: int) -> None:
        self._held -= size
        if not self._held:
            self._spill.emptied(self, self.size)
            self.close()
