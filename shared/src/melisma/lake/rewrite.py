"""A data file of the lake, read for its keys and written anew without some of its rows.

What stays of a file keeps the file's columns, its metadata, its partition and its order; so files of older schemas
need not be joined with newer ones.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from melisma.errors import StorageError
from melisma.formats.parquet import ParquetFileWriter, ParquetOptions
from melisma.lake.keys import KeyColumn
from melisma.lake.layout import HIVE_NULL
from melisma.lake.records import FileEntry
from melisma.lake.writer import StagedFile, Staging

__all__ = ["DELETED_AT", "DataFile", "RewriteLake"]

DELETED_AT = "_sdc_deleted_at"

_BATCH_ROWS = 65_536
_PROBE_ROWS = 524_288  # keys are narrow, and looking them up has a cost per call
_BUFFER = 1 << 20
_MOMENT = pa.timestamp("us", "UTC")


class RewriteLake(Staging, Protocol):
    """What rewriting needs of a lake: `FileLake` is one."""

    def open_data(self, path: str) -> BinaryIO:
        """Open a data file for reading; it is seekable."""


class DataFile:
    """One file of the lake.

    Args:
        lake: where it is.
        entry: what the journal says of it.
    """

    def __init__(self, lake: RewriteLake, entry: FileEntry) -> None:
        self._lake, self.entry = lake, entry
        folders = entry.path.split("/")[1:-1]
        self._partition = dict(folder.partition("=")[::2] for folder in folders)

    def ranges(self, names: Sequence[str], types: Sequence[pa.DataType]) -> Mapping[str, pa.Array]:
        """Lowest and highest value of key columns, from the file's statistics; without those that are not known.

        Args:
            names: the key columns.
            types: their types, for columns that are in the path only.
        """
        found: dict[str, pa.Array] = {}
        with self._open() as file, _reading(self.entry.path):
            reader = _reader(file)
            leaves = {reader.metadata.schema.column(i).path: i for i in range(reader.metadata.num_columns)}
            for name, kind in zip(names, types, strict=True):
                if name in reader.schema_arrow.names and name in leaves:
                    ends = _ends(reader.metadata, leaves[name], reader.schema_arrow.field(name).type)
                else:
                    ends = self._from_path(name, kind, 2)
                if ends is not None and not ends.null_count:
                    found[name] = ends
        return found

    def keys(self, names: Sequence[str], types: Sequence[pa.DataType]) -> Iterator[list[KeyColumn]]:
        """The key columns, batch by batch; a column that the file does not have is null.

        Args:
            names: the key columns.
            types: see `ranges`.
        """
        with self._open() as file, _reading(self.entry.path):
            reader = _reader(file)
            here = [name for name in names if name in reader.schema_arrow.names]
            # A name with a dot would be taken for a path into a struct.
            columns = here if not any("." in name for name in here) else None
            for batch in reader.iter_batches(
                batch_size=_PROBE_ROWS if columns is not None else _BATCH_ROWS, columns=columns
            ):
                rows = batch.num_rows
                yield [
                    batch.column(name) if name in here else self._from_path(name, kind, rows)
                    for name, kind in zip(names, types, strict=True)
                ]

    def all_deleted(self) -> bool:
        """Whether its statistics say that each row is marked as deleted."""
        with self._open() as file, _reading(self.entry.path):
            metadata = _reader(file).metadata
        leaves = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
        if DELETED_AT not in leaves:
            return False
        groups = [metadata.row_group(i).column(leaves[DELETED_AT]).statistics for i in range(metadata.num_row_groups)]
        return all(each is not None and each.has_null_count and each.null_count == 0 for each in groups)

    def rewrite(
        self, drop: pa.BooleanArray | None, deleted_at: dt.datetime | None, options: ParquetOptions
    ) -> StagedFile | None:
        """Stage what is left of it; None if nothing is.

        Args:
            drop: for each row, whether it goes.
            deleted_at: what to write as `_sdc_deleted_at` into rows that have none; None to leave them as they are.
            options: how the new file is written.

        Raises:
            StorageError: the store fails, or the file has gone.
        """
        if drop is not None and pc.all(drop).as_py():
            return None
        with self._open() as file, _reading(self.entry.path):
            reader = _reader(file)
            schema = reader.schema_arrow.remove_metadata()
            if deleted_at is not None and DELETED_AT not in schema.names:
                schema = schema.append(pa.field(DELETED_AT, _MOMENT))
            extra = reader.metadata.metadata or {}
            metadata = {key.decode(): value.decode() for key, value in extra.items() if key != b"ARROW:schema"}
            extension = self.entry.path.rpartition(".")[2]
            sink = self._lake.stage(self.entry.stream, self.entry.path.split("/")[1:-1], extension)
            try:
                writer = ParquetFileWriter(sink, schema, options, metadata)
                for group in _groups(_remaining(reader, drop, deleted_at), options):
                    writer.write_row_group(group)
                writer.close()
                sink.close()
            except BaseException:
                self._lake.discard(sink)
                raise
        return StagedFile(self.entry.stream, sink.final_path, sink, writer.rows, sink.bytes_written)

    def _open(self) -> BinaryIO:
        return self._lake.open_data(self.entry.path)

    def _from_path(self, name: str, kind: pa.DataType, rows: int) -> pa.Array:
        """A partition column, which stands in the path only."""
        segment = self._partition.get(name, HIVE_NULL)
        value = None if segment == HIVE_NULL else unquote(segment, errors="surrogatepass")
        try:
            return pa.repeat(pa.scalar(value, pa.string()).cast(kind), rows)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return pa.nulls(rows, kind)  # no value of that type is written so


def _reader(file: BinaryIO) -> Any:
    # Buffered: else each column of a row group is read as a whole before its first value.
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)


def _ends(metadata: Any, column: int, kind: pa.DataType) -> pa.Array | None:
    ends: list[Any] = []
    for number in range(metadata.num_row_groups):
        statistics = metadata.row_group(number).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        ends += [statistics.min, statistics.max]
    if not ends:
        return None
    return pa.array([min(ends), max(ends)], kind)


def _remaining(reader: Any, drop: pa.BooleanArray | None, deleted_at: dt.datetime | None) -> Iterator[pa.RecordBatch]:
    row = 0
    for batch in reader.iter_batches(batch_size=_BATCH_ROWS):
        rows = batch.num_rows
        if drop is not None:
            batch = batch.filter(pc.invert(drop.slice(row, rows)))
        row += rows
        if batch.num_rows:
            yield batch if deleted_at is None else _marked(batch, pa.scalar(deleted_at, _MOMENT))


def _marked(batch: pa.RecordBatch, moment: pa.Scalar) -> pa.RecordBatch:
    if DELETED_AT not in batch.schema.names:
        columns = [*batch.columns, pa.repeat(moment, batch.num_rows)]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema.append(pa.field(DELETED_AT, _MOMENT)))
    index = batch.schema.get_field_index(DELETED_AT)
    return batch.set_column(index, batch.schema.field(index), pc.coalesce(batch.column(index), moment))


def _groups(batches: Iterator[pa.RecordBatch], options: ParquetOptions) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if group and (rows + batch.num_rows > options.row_group_rows or size >= options.row_group_bytes):
            yield group
            group, rows, size = [], 0, 0
        group.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
    if group:
        yield group


class _reading:  # noqa: N801 - a context manager, called like a function
    """Says which file was being read when Arrow fails on it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError | OSError):
            fix = "Run it again; if it fails again, look at the file with: melisma lake verify"
            raise StorageError("read", self._path, "it is not the file that was written there", fix) from error
