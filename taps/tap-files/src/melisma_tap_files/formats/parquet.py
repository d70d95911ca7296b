"""Parquet files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from melisma.errors import BadFile
from melisma_tap_files.formats.typed import Typed
from melisma_tap_files.settings import StreamSettings

__all__ = ["FORMAT"]

_BATCH_ROWS = 32_768


class _ParquetReader:
    """See TypedReader."""

    def __init__(self, file: BinaryIO, where: str, settings: StreamSettings) -> None:
        self._where, self._stream = where, settings.name
        self._opened = _open_parquet(file, where, settings.name)
        self.schema: pa.Schema = self._opened.schema_arrow

    def batches(self, columns: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
        position, metadata = 0, self._opened.metadata
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if position + rows <= start:
                position += rows
                continue
            for batch in self._group(group, position, rows, columns):
                kept = batch.slice(max(start - position, 0))
                position += batch.num_rows
                if kept.num_rows:
                    yield kept

    def _group(self, group: int, first: int, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if not columns:
            yield from _without_columns(rows)
            return
        # A name with a dot would be taken for a path into a struct.
        asked = None if any("." in name for name in columns) else list(columns)
        where = f"its row group {group + 1}, at byte {self._offset(group)}, from row {first + 1} on,"
        found = 0
        try:
            for batch in self._opened.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=asked):
                found += batch.num_rows
                yield batch.select(list(columns))
        except (pa.ArrowException, OSError):
            raise self._bad(f"{where} is damaged, or uses a part of Parquet that cannot be read") from None
        if found != rows:  # a page whose header is damaged may end it early, without an error of the library's
            raise self._bad(f"{where} is damaged: it gives {found} of its {rows} rows")

    def _offset(self, group: int) -> int:
        chunk = self._opened.metadata.row_group(group).column(0)
        return int(chunk.dictionary_page_offset or chunk.data_page_offset)

    def _bad(self, rule: str) -> BadFile:
        return BadFile(rule, stream=self._stream, file=self._where, fix="Fetch or write the file again")


def _open_parquet(file: BinaryIO, where: str, stream: str) -> Any:
    if not file.seekable():
        rule = "a Parquet file cannot be read through another compression"
        raise BadFile(rule, stream=stream, file=where, fix="Unpack it; Parquet is compressed in itself")
    try:
        return pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        size = file.seek(0, io.SEEK_END)
        rule = f"it is not a Parquet file, or it is damaged or cut off at its end, byte {size}"
        raise BadFile(rule, stream=stream, file=where, fix="Fetch or write the file again") from None


def _without_columns(rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, _BATCH_ROWS):
        count = min(_BATCH_ROWS, rows - start)
        yield pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))


FORMAT = Typed(_ParquetReader)
