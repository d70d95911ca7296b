"""Parquet: files written one row group at a time, and read in batches.

Encodings are chosen per column from a stream's first row group. Measured on half a million rows, level 1 zstd: a
dictionary makes ids, prices and random text up to ten times slower to write, and not smaller; columns with few
values become up to half as big. DELTA_BINARY_PACKED makes integers and times without a dictionary both faster
and smaller than plain ones. zstd level 3 cost a third more time than level 1 and saved nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import melisma
from melisma.arrow.types import StreamSchema
from melisma.errors import BadFile, BadSchema, ConfigError
from melisma.formats.writers.background import BackgroundWriter

__all__ = ["COMPRESSIONS", "Encodings", "ParquetFileWriter", "ParquetOptions", "file_metadata", "read_batches"]

COMPRESSIONS: Mapping[str, tuple[int, int] | None] = {
    "zstd": (1, 22),
    "snappy": None,
    "gzip": (1, 9),
    "lz4": None,
    "brotli": (0, 11),
    "none": None,
}
"""The codecs and their levels; None for a codec without levels."""

_SAMPLE_ROWS = 8_192
_SOME_ROWS = 1_024
_FEW_ROWS = 128  # say too little
_ENOUGH_ROWS = 1_024  # what so many rows say of a stream holds for its other files, too
_DICTIONARY_SHARE = 0.2  # of distinct values in the sample
_MANY = 0.9  # of distinct values in some of the sample: with few in all of it, more of them would repeat
_LONG_BYTES = 256  # values longer than this on average get no dictionary: hashing them costs more than it can save


class Encodings:
    """Which columns of a stream get a dictionary, and which another encoding: chosen by the first rows, for all files.

    Files that begin together, as partitions may, each go by their own rows.
    """

    def __init__(self) -> None:
        self._chosen: tuple[list[str], dict[str, str]] | None = None

    def of(self, first: pa.Table) -> tuple[list[str], dict[str, str]]:
        """The leaves with a dictionary and the encodings of others, for a file that begins with these rows."""
        if self._chosen is not None:
            return self._chosen
        chosen = choose_encodings(first)
        if first.num_rows >= _ENOUGH_ROWS:
            self._chosen = chosen
        return chosen


@dataclass(frozen=True, slots=True)
class ParquetOptions:
    """How files are written.

    Attributes:
        compression: one of COMPRESSIONS.
        compression_level: None is the codec's own default (1 for zstd).
        row_group_rows: the most rows of a row group.
        row_group_bytes: about the most Arrow bytes of a row group, before encoding.
        max_file_bytes: a file is finished when it has reached this size, as written.
        encodings: of the columns of one stream; each file's own where it is not of one stream.

    Raises:
        ConfigError: a value cannot work.
    """

    compression: str = "zstd"
    compression_level: int | None = None
    row_group_rows: int = 1_000_000
    row_group_bytes: int = 32 << 20
    max_file_bytes: int = 256 << 20
    encodings: Encodings | None = None

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise ConfigError("compression", "is not a codec of Parquet", f"Valid values: {', '.join(COMPRESSIONS)}")
        levels = COMPRESSIONS[self.compression]
        if self.compression_level is not None and levels is None:
            raise ConfigError("compression_level", f"{self.compression} has no levels", "Remove the setting")
        if self.compression_level is not None and levels is not None:
            low, high = levels
            if not low <= self.compression_level <= high:
                rule = f"is not a level of {self.compression}"
                raise ConfigError("compression_level", rule, f"Set a number from {low} to {high}")
        for setting, value in (
            ("row_group_size_rows", self.row_group_rows),
            ("row_group_size_mb", self.row_group_bytes),
            ("max_file_size_mb", self.max_file_bytes),
        ):
            if value < 1:
                raise ConfigError(setting, "is not positive", "Set a number above 0")

    @property
    def extension(self) -> str:
        """The end of a file's name."""
        return "parquet"

    def check(self, schema: pa.Schema, stream: StreamSchema) -> None:
        """Refuse what Parquet cannot hold.

        Raises:
            BadSchema: Parquet has no such type.
        """
        _refuse_empty_structs(schema, stream.stream)

    def for_stream(self) -> ParquetOptions:
        """Encodings are chosen once for all files of a stream."""
        return replace(self, encodings=Encodings())

    def open_file(self, sink: Any, schema: pa.Schema, stream: StreamSchema) -> ParquetFileWriter:
        """Begin a file; its key-value metadata says whose it is."""
        return ParquetFileWriter(sink, schema, self, file_metadata(stream))


_JSON = msgspec.json.Encoder(decimal_format="number")  # numbers of a schema are read as Decimal, to keep them exact


def file_metadata(schema: StreamSchema) -> dict[str, str]:
    """What a file says about its stream, as key-value metadata."""
    return {
        "melisma.version": melisma.__version__,
        "melisma.stream": _text(schema.stream),
        "melisma.key_properties": json.dumps(list(schema.key_properties)),
        "melisma.json_schema": _JSON.encode(schema.json_schema).decode(),
    }


class ParquetFileWriter(BackgroundWriter):
    """Writes one file, a row group per call.

    Args:
        sink: a writable binary file; not closed.
        schema: of every batch.
        options: see ParquetOptions.
        metadata: key-value metadata of the file.

    Raises:
        BadSchema: Parquet has no such type.
    """

    def __init__(
        self, sink: Any, schema: pa.Schema, options: ParquetOptions, metadata: Mapping[str, str] | None = None
    ) -> None:
        _refuse_empty_structs(schema, (metadata or {}).get("melisma.stream"))
        super().__init__(sink, schema)
        self._options = options
        self._metadata, self._encodings = dict(metadata or {}), options.encodings or Encodings()
        self._writer: Any = None

    def _encode(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = self._open(table)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def _finish(self) -> None:
        if self._writer is None:
            self._writer = self._open(self._schema.empty_table())
        self._writer.close()

    def _drop(self) -> None:
        # A writer that is not closed writes its footer when it is collected: into nothing.
        if self._writer is not None:
            self._writer.is_open = False

    def _open(self, first: pa.Table) -> Any:
        dictionaries, encodings = self._encodings.of(first)
        codec = "NONE" if self._options.compression == "none" else self._options.compression
        return pq.ParquetWriter(
            self._sink,
            self._schema.with_metadata(self._metadata or None),
            version="2.6",
            # Version 1 pages: every reader has them, and they hold the same encodings.
            data_page_version="1.0",
            compression=codec,
            compression_level=self._options.compression_level,
            use_dictionary=dictionaries or False,
            column_encoding=encodings or None,
            write_statistics=True,
            write_page_checksum=True,  # so that a bit that flips on a disk is found (`melisma lake verify --deep`)
        )


def read_batches(
    file: Any, columns: Sequence[str] | None = None, batch_rows: int = 65_536, *, name: str = "parquet file"
) -> Iterator[pa.RecordBatch]:
    """Read a seekable binary file in batches of at most `batch_rows` rows, a row group at a time.

    Args:
        file: open for reading; not closed.
        columns: top-level columns to read, in the file's order; None for all.
        batch_rows: rows.
        name: the file, for messages.

    Raises:
        BadFile: it is not Parquet, or it is damaged.
    """
    try:
        # Not memory-mapped and not pre-buffered: memory is then bounded by the row group's columns' pages.
        reader = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
        if columns is not None:
            # Asked for by index: a name with a dot would be taken for a path into a struct.
            wanted = set(columns)
            columns = [column for column in reader.schema_arrow.names if column in wanted]
        found = 0
        for batch in _batches(reader, columns, batch_rows):
            found += batch.num_rows
            yield batch
        if found != reader.metadata.num_rows and (columns is None or columns):
            rule = f"it is damaged: it gives {found} of its {reader.metadata.num_rows} rows"
            raise BadFile(rule, file=name, fix="Fetch or write the file again")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        rule = "it is not a Parquet file, or it is damaged"
        if isinstance(error, pa.ArrowNotImplementedError):
            rule = "it uses a part of Parquet that cannot be read"
        raise BadFile(rule, file=name, fix="Fetch or write the file again") from error


def _batches(reader: Any, columns: list[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
    if columns is None or not any("." in column for column in columns):
        yield from reader.iter_batches(batch_size=batch_rows, columns=columns)
        return
    for batch in reader.iter_batches(batch_size=batch_rows):
        yield batch.select(columns)


def choose_encodings(table: pa.Table) -> tuple[list[str], dict[str, str]]:
    """The leaves of a table that get a dictionary, and the encoding of others, by their paths in the file."""
    sample = table.slice(0, _SAMPLE_ROWS)
    leaves: dict[str, pa.Array | None] = {}
    for field in table.schema:
        for path, values in _leaves(field.name, sample.column(field.name).combine_chunks()):
            # "a.b" may be a column and a member of the column "a"; pyarrow cannot tell them apart.
            leaves[path] = None if path in leaves else values
    dictionaries: list[str] = []
    encodings: dict[str, str] = {}
    for path, leaf in leaves.items():
        if leaf is None:
            continue
        if _few_values(leaf):
            dictionaries.append(path)
        elif _delta(leaf.type):
            encodings[path] = "DELTA_BINARY_PACKED"
    return dictionaries, encodings


def _leaves(path: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    kind = values.type
    if pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _leaves(f"{path}.{kind.field(index).name}", values.field(index))
    elif pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", values.keys)
        yield from _leaves(f"{path}.key_value.value", values.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(f"{path}.list.element", values.flatten())
    else:
        yield path, values


def _few_values(values: pa.Array) -> bool:
    if pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
        return False
    present = len(values) - values.null_count
    if present and values.nbytes > present * _LONG_BYTES:
        return False
    if not present:  # nothing to go by: a dictionary that grows too big is given up by the encoder
        return True
    # What some rows say is mostly enough: counting them all costs as much as encoding them.
    some = _some(values)
    found = len(some) - some.null_count
    if found >= _FEW_ROWS:
        share = pc.count_distinct(some).as_py() / found
        if share >= _MANY or share <= _DICTIONARY_SHARE / 2:
            return bool(share < _MANY)
    return bool(pc.count_distinct(values).as_py() <= present * _DICTIONARY_SHARE)


def _some(values: pa.Array) -> pa.ChunkedArray:
    """A part of the values, from four places."""
    size = min(_SOME_ROWS, len(values) // 4) // 4
    return pa.chunked_array([values.slice(len(values) * place // 4, size) for place in range(4)], type=values.type)


def _delta(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_int64(kind)
        or types.is_uint64(kind)
        or types.is_int32(kind)
        or types.is_timestamp(kind)
        or types.is_date32(kind)
        or types.is_time64(kind)
    )


def _refuse_empty_structs(schema: pa.Schema, stream: str | None) -> None:
    pending = [(field.name, field.type) for field in schema]
    while pending:
        path, kind = pending.pop()
        if pa.types.is_struct(kind) and not kind.num_fields:
            rule = "Parquet has no type for an object without members"
            raise BadSchema(rule, stream=stream, column=path, fix='Set "column_types" of it to json')
        if pa.types.is_struct(kind):
            pending += [(f"{path}.{kind.field(i).name}", kind.field(i).type) for i in range(kind.num_fields)]
        elif pa.types.is_map(kind):  # its value, and a list's element, have no names of their own
            pending.append((path, kind.item_type))
        else:
            pending += [(path, kind.field(i).type) for i in range(kind.num_fields)]


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()  # JSON lets lone surrogates through, UTF-8 does not
