"""Record batches as files, and the BATCH messages that name them."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq
from singer_sdk.helpers._batch import StorageTarget
from singer_sdk.helpers._util import utc_now

from melisma.arrow.encode import json_lines
from melisma.storage.codecs import ending, open_encoded
from melisma.storage.store import refused
from melisma.storage.url import display
from melisma.tap.batch_config import BatchSettings
from melisma.wire.batch import batch_line
from melisma.wire.exchange import Exchange
from melisma.wire.output import output_descriptor, protocol_output

__all__ = ["BatchOutput"]

_FILE_BYTES = 16 << 20
_LINES_AT_ONCE = 8_192
_STATE_SECONDS = 30.0
_STATE_SHARE = 10  # at least so many bytes of records for each byte of STATE
_ENDINGS = {"jsonl": ".jsonl", "parquet": ".parquet", "arrow": ".arrow"}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


class BatchOutput:
    """Gathers one stream's rows and writes them as files, each with its message.

    Args:
        tap: the tap's name, for the files' names.
        stream: the stream's name as the target knows it.
        settings: the setting `batch_config`.
        version: of the rows.

    Attributes:
        files: how many were written.
        not_finite: column -> how many NaNs and infinities were written as null so far.
    """

    def __init__(self, tap: str, stream: str, settings: BatchSettings, version: int | None) -> None:
        self._stream, self._settings, self._version = stream, settings, version
        self._place: _Private | _Root = _Root(tap, stream, settings) if settings.root else _Private(settings)
        self._rows: list[pa.RecordBatch] = []
        self._count = self._bytes = 0
        self._since_state, self._state_at = 0, time.monotonic()
        self.files = 0
        self.not_finite: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *rest: object) -> None:
        self._place.close(failed)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows, and write those that fill a file.

        Raises:
            StorageError: a file cannot be written.
        """
        if self._rows and batch.schema != self._rows[0].schema:
            self.flush()
        most = self._settings.batch_size
        while most is not None and self._count + batch.num_rows >= most:
            fitting = most - self._count
            self._hold(batch.slice(0, fitting))
            self.flush()
            batch = batch.slice(fitting)
        self._hold(batch)
        if most is None and self._bytes >= 2 * _FILE_BYTES:  # a position to end it at may be far
            self.flush()

    def wants_state(self, state_size: int) -> bool:
        """Whether, at this position, what was gathered should be written and a STATE be sent.

        Args:
            state_size: of the last STATE, in bytes.
        """
        size = self._since_state + self._bytes
        if not size or size < _STATE_SHARE * state_size:
            return False
        full = self._since_state > 0 or self._bytes >= _FILE_BYTES
        return full or time.monotonic() - self._state_at >= _STATE_SECONDS

    def state_sent(self) -> None:
        """A STATE was sent for all rows taken."""
        self._since_state, self._state_at = 0, time.monotonic()

    def flush(self) -> None:
        """Write what was gathered.

        Raises:
            StorageError: a file cannot be written.
        """
        if not self._count:
            return
        rows, self._rows = self._rows, []
        url = self._place.write(lambda file: self._write(rows, file), self._bytes)
        kind, compression = self._settings.format, self._settings.compression
        line = batch_line(self._stream, kind, compression, [url], time_extracted=utc_now(), version=self._version)
        output = protocol_output()
        output.write(line)
        output.flush()
        self._since_state += self._bytes
        self._count = self._bytes = 0
        self.files += 1

    def _hold(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._rows.append(batch)
            self._count += batch.num_rows
            self._bytes += batch.nbytes

    def _write(self, rows: list[pa.RecordBatch], file: Any) -> None:
        compression = self._settings.compression
        if self._settings.format == "jsonl":
            packed = open_encoded(file, compression)
            for batch in rows:
                for start in range(0, batch.num_rows, _LINES_AT_ONCE):
                    part = batch.slice(start, _LINES_AT_ONCE)
                    packed.write(json_lines(part, stream=self._stream, not_finite=self.not_finite))
            packed.close()
            return
        rows = [self._stored(batch) for batch in rows]
        codec = None if compression == "none" else compression
        if self._settings.format == "parquet":
            pq.write_table(pa.Table.from_batches(rows), file, compression=codec or "NONE")
            return
        options = pyarrow.ipc.IpcWriteOptions(compression=codec, use_threads=False)
        with pyarrow.ipc.new_file(file, rows[0].schema, options=options) as writer:
            for batch in rows:
                writer.write_batch(batch)

    def _stored(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows as RECORD messages would have them: numbers that JSON does not have are null."""
        columns = [
            self._finite(name, _plain(array)) for name, array in zip(batch.schema.names, batch.columns, strict=True)
        ]
        if all(new is old for new, old in zip(columns, batch.columns, strict=True)):
            return batch
        return pa.record_batch(columns, names=batch.schema.names)

    def _finite(self, name: str, array: pa.Array) -> pa.Array:
        kind = array.type
        if pa.types.is_floating(kind):
            finite = pc.is_finite(array)
            lost = len(array) - array.null_count - (pc.sum(finite).as_py() or 0)
            if not lost:
                return array
            self.not_finite[name] += lost
            return pc.if_else(finite, array, pa.scalar(None, kind))
        if not _holds_floats(kind):
            return array
        mask = array.is_null() if array.null_count else None
        if pa.types.is_struct(kind):
            children = [self._finite(name, child) for child in array.flatten()]
            return pa.StructArray.from_arrays(children, fields=list(kind), mask=mask)
        # Lists: rebuilt from their lengths, whatever their offsets are.
        ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64()))
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
        return pa.LargeListArray.from_arrays(offsets, self._finite(name, array.flatten()), mask=mask)


class _Private:
    """Files go through the private folder of an exchange."""

    def __init__(self, settings: BatchSettings) -> None:
        self._exchange = Exchange(settings.most_unread, output_descriptor())
        self._ending = _ENDINGS[settings.format]
        self._number = 0

    def write(self, write: Any, size: int) -> str:
        self._exchange.wait_for_room(size)
        self._number += 1
        path = self._exchange.folder / f"{self._number:06}{self._ending}"
        try:
            with pa.OSFile(str(path), "wb") as file:  # its folder is this user's alone
                write(file)
            self._exchange.added(path, path.stat().st_size)
        except OSError as error:
            raise refused("write", str(path.parent), error) from error
        return path.as_uri()

    def close(self, failed: type[BaseException] | None) -> None:
        self._exchange.__exit__(failed)


class _Root:
    """Files go where the configuration says, and stay there."""

    def __init__(self, tap: str, stream: str, settings: BatchSettings) -> None:
        name = f"{tap}--{_NOT_IN_NAMES.sub('_', stream)}-{uuid.uuid4()}"
        self._name = f"{settings.prefix}{name}"
        self._ending = _ENDINGS[settings.format] + (ending(settings.compression) if settings.format == "jsonl" else "")
        self._storage = StorageTarget(settings.root or "", None, dict(settings.params))
        self._number = 0

    def write(self, write: Any, size: int) -> str:
        del size
        self._number += 1
        name = f"{self._name}-{self._number}{self._ending}"
        try:
            with self._storage.open(name, "wb") as file:
                write(file)
        except OSError as error:
            raise refused("write", display(self._storage.root), error) from error
        return self._storage.get_url(name)

    def close(self, failed: type[BaseException] | None) -> None:
        """Nothing is to be done."""


def _plain(array: pa.Array) -> pa.Array:
    """Without dictionaries: an IPC file can have only one for all its batches."""
    decoded = _decoded(array.type)
    return array if decoded == array.type else array.cast(decoded)


def _decoded(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_dictionary(kind):
        return _decoded(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([pa.field(each.name, _decoded(each.type), each.nullable) for each in kind])
    if types.is_map(kind):
        return pa.map_(_decoded(kind.key_type), _decoded(kind.item_type))
    if types.is_list(kind):
        return pa.list_(_decoded(kind.value_type))
    return kind


def _holds_floats(kind: pa.DataType) -> bool:
    """Whether there are floats in it that JSON would be written for as they are; maps go by way of JSON as a whole."""
    types = pa.types
    if types.is_struct(kind):
        return any(types.is_floating(each.type) or _holds_floats(each.type) for each in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return bool(types.is_floating(kind.value_type)) or _holds_floats(kind.value_type)
    return False
