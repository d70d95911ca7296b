"""Arrow IPC as files (Feather) and as streams, read batch by batch."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from melisma.errors import BadFile

__all__ = ["ArrowIpcReader"]

_FILE_MAGIC = b"ARROW1"
_OLD_FEATHER = b"FEA1"
_FAULTS = (pa.ArrowException, OSError, EOFError)


class ArrowIpcReader:
    """Reads one Arrow IPC file or stream, whichever it is.

    Args:
        file: its decompressed bytes, at the start; a file that cannot be sought in is read as a stream.
        where: its name, for messages.
        stream: the stream, for messages.

    Attributes:
        schema: its columns.

    Raises:
        BadFile: it is neither.
    """

    def __init__(self, file: BinaryIO, *, where: str, stream: str) -> None:
        self._file, self._where, self._stream = file, where, stream
        lead = file.read(8)
        if lead.startswith(_OLD_FEATHER):
            raise self._bad("it is a Feather file of version 1, which is no longer written", "Write it again")
        self._is_file = lead.startswith(_FILE_MAGIC)
        if self._is_file and not file.seekable():
            rule = "an Arrow IPC file cannot be read through another compression"
            raise self._bad(rule, "Unpack it, or write it as an Arrow IPC stream")
        self._source: Any = _Rest(lead, file) if not self._is_file else file
        self._options = pa.ipc.IpcReadOptions()
        try:
            self._opened = self._open(self._options)
            self.schema: pa.Schema = self._opened.schema
        except _FAULTS:
            end = f", byte {file.seek(0, io.SEEK_END)}," if self._is_file else ""
            rule = f"it is not an Arrow IPC file or stream, or its beginning or end{end} is damaged"
            raise self._bad(rule, "Fetch or write the file again") from None

    def batches(self, columns: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
        """The rows from row `start` on, with the columns of these names, each of which the file has once.

        Raises:
            BadFile: a batch is damaged or missing; it says which.
        """
        opened, number, row = self._opened, 0, 0
        if self._is_file and len(columns) < len(self.schema):
            opened = self._open(pa.ipc.IpcReadOptions(included_fields=[self.schema.names.index(n) for n in columns]))
        while True:
            try:
                batch = self._next(opened, number)
            except _FAULTS:
                rule = f"its record batch {number + 1}, from row {row + 1} on, is damaged or cut off"
                raise self._bad(rule, "Fetch or write the file again") from None
            if batch is None:
                return
            number, row = number + 1, row + batch.num_rows
            kept = batch.slice(max(start - (row - batch.num_rows), 0))
            if kept.num_rows:
                yield kept.select(list(columns))

    def _open(self, options: Any) -> Any:
        if self._is_file:
            self._file.seek(0)
            return pa.ipc.open_file(self._source, options=options)
        return pa.ipc.open_stream(self._source, options=options)

    def _next(self, opened: Any, number: int) -> Any:
        if self._is_file:
            return opened.get_batch(number) if number < opened.num_record_batches else None
        try:
            return opened.read_next_batch()
        except StopIteration:
            if not self._source.ended_whole():
                raise EOFError from None
            return None

    def _bad(self, rule: str, fix: str) -> BadFile:
        return BadFile(rule, stream=self._stream, file=self._where, fix=fix)


class _Rest:
    """A stream whose first bytes were read already; remembers its last ones.

    A stream ends with an end-of-stream mark. Arrow also takes the end of the bytes for it, and so would not see that
    a file was cut off between two batches.
    """

    closed = False

    def __init__(self, lead: bytes, file: BinaryIO) -> None:
        self._lead, self._file, self._last = lead, file, b""

    def read(self, size: int = -1) -> bytes:
        data = self._lead[:size] if size >= 0 else self._lead
        self._lead = self._lead[len(data) :]
        if len(data) < size or size < 0:
            data += self._file.read(size - len(data) if size >= 0 else -1)
        self._last = (self._last + data)[-8:]
        return data

    def ended_whole(self) -> bool:
        """Whether the last bytes were the end-of-stream mark (in either of the two forms that there are)."""
        return self._last.endswith(b"\0\0\0\0")

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The file is closed by whoever opened it."""
