"""Avro object container files: a header with the schema, then blocks of records.

The encoding is columnar (`avro_values`): measured, it takes a fraction of what a writer of Python dicts takes
(docs/formats.md has the figures).
"""

from __future__ import annotations

import bz2
import json
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from melisma.arrow.types import StreamSchema
from melisma.errors import ConfigError, MissingExtra
from melisma.formats.parquet import file_metadata
from melisma.formats.writers.avro_schema import avro_schema
from melisma.formats.writers.background import BackgroundWriter

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["COMPRESSIONS", "AvroFileWriter", "AvroFormat"]

COMPRESSIONS: Mapping[str, tuple[int, int, int] | None] = {
    "snappy": None,
    "deflate": (1, 9, 6),
    "zstandard": (1, 22, 1),
    "bzip2": (1, 9, 9),
    "xz": (0, 9, 6),
    "null": None,
}
"""The codecs of blocks, as Avro names them, with the lowest and highest level and the one that is taken if none is
given; None for a codec without levels."""

_MAGIC = b"Obj\x01"
_CHUNK_ROWS = 65_536
_NEEDS = "avro"


@dataclass(frozen=True, slots=True)
class AvroFormat:
    """How Avro files are written.

    Attributes:
        compression: one of COMPRESSIONS.
        compression_level: None for the codec's own, see COMPRESSIONS.
        sync_interval: a block ends when its records have so many bytes, before compression.
        max_file_bytes: a file is finished when it has reached this size, as written.
        uuids: see `avro_schema`.
        row_group_rows: rows that are encoded together.
        row_group_bytes: about the most Arrow bytes of them.

    Raises:
        ConfigError: a value cannot work.
        MissingExtra: a library is not installed.
    """

    compression: str = "snappy"
    compression_level: int | None = None
    sync_interval: int = 256 << 10
    max_file_bytes: int = 256 << 20
    uuids: bool = True
    row_group_rows: int = 262_144
    row_group_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise ConfigError("compression", "is not a codec of Avro", f"Valid values: {', '.join(COMPRESSIONS)}")
        levels = COMPRESSIONS[self.compression]
        if self.compression_level is not None and levels is None:
            raise ConfigError("compression_level", f"{self.compression} has no levels", "Remove the setting")
        if self.compression_level is not None and levels is not None:
            low, high, _ = levels
            if not low <= self.compression_level <= high:
                rule = f"is not a level of {self.compression}"
                raise ConfigError("compression_level", rule, f"Set a number from {low} to {high}")
        for setting, value in (("sync_interval", self.sync_interval), ("max_file_size_mb", self.max_file_bytes)):
            if value < 1:
                raise ConfigError(setting, "is not positive", "Set a number above 0")
        try:
            import numpy  # noqa: F401, ICN001 - the encoder needs it
        except ImportError:
            raise MissingExtra("writing Avro files", "melisma", _NEEDS) from None

    @property
    def extension(self) -> str:
        """The end of a file's name."""
        return "avro"

    def check(self, schema: pa.Schema, stream: StreamSchema) -> None:
        """Refuse what Avro cannot hold.

        Raises:
            BadSchema: Avro has no such type.
        """
        avro_schema(schema, stream, uuids=self.uuids)

    def for_stream(self) -> Self:
        """Nothing need be remembered."""
        return self

    def open_file(self, sink: Any, schema: pa.Schema, stream: StreamSchema) -> AvroFileWriter:
        """Begin a file; its header says whose it is."""
        return AvroFileWriter(sink, schema, self, avro_schema(schema, stream, uuids=self.uuids), file_metadata(stream))


class AvroFileWriter(BackgroundWriter):
    """Writes one file.

    Args:
        sink: a writable binary file; not closed.
        schema: of every batch.
        options: see AvroFormat.
        avro: the schema as Avro has it; see `avro_schema`.
        metadata: what the header says besides.
    """

    def __init__(
        self, sink: Any, schema: pa.Schema, options: AvroFormat, avro: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        super().__init__(sink, schema)
        self._options, self._avro, self._metadata = options, avro, metadata
        self._compress = _compressor(options)
        self._sync = os.urandom(16)  # what marks the end of a block must not occur in the data
        self._begun = False

    def _encode(self, table: pa.Table) -> None:
        from melisma.formats.writers.avro_values import encode_rows

        self._begin()
        for batch in table.combine_chunks().to_batches(_CHUNK_ROWS):
            data, offsets = encode_rows(batch)
            start, rows = 0, batch.num_rows
            while start < rows:
                end = int(offsets.searchsorted(offsets[start] + self._options.sync_interval))
                end = min(max(end, start + 1), rows)
                self._write_block(end - start, data[int(offsets[start]) : int(offsets[end])])
                start = end

    def _finish(self) -> None:
        self._begin()

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        header = {"avro.schema": json.dumps(self._avro), "avro.codec": self._options.compression, **self._metadata}
        parts = [_MAGIC, _long(len(header))]
        for name, text in header.items():
            for each in (name.encode(), text.encode()):
                parts += [_long(len(each)), each]
        self._sink.write(b"".join([*parts, _long(0), self._sync]))

    def _write_block(self, rows: int, data: memoryview) -> None:
        packed = self._compress(data)
        self._sink.write(b"".join([_long(rows), _long(len(packed)), packed, self._sync]))


def _compressor(options: AvroFormat) -> Callable[[memoryview], Any]:
    levels = COMPRESSIONS[options.compression]
    level = options.compression_level
    if level is None:
        level = levels[2] if levels is not None else 0
    match options.compression:
        case "snappy":
            return _snappy
        case "deflate":
            return lambda data: zlib.compress(data, level, wbits=-15)
        case "zstandard":
            return _zstandard(level)
        case "bzip2":
            return lambda data: bz2.compress(data, level)
        case "xz":
            return lambda data: lzma.compress(data, preset=level)
        case _:
            return lambda data: data


def _zstandard(level: int) -> Callable[[memoryview], bytes]:
    """Frames with a checksum, which Arrow's own codec does not write: without it a changed bit is another value."""
    key = zstd.CompressionParameter
    made = zstd.ZstdCompressor(options={int(key.compression_level): level, int(key.checksum_flag): 1})
    return lambda data: made.compress(data, made.FLUSH_FRAME)


def _snappy(data: memoryview) -> bytes:
    """Avro's own frame: the data, and the CRC of what it was."""
    packed: bytes = pa.Codec("snappy").compress(pa.py_buffer(data), asbytes=True)
    return packed + zlib.crc32(data).to_bytes(4, "big")


def _long(value: int) -> bytes:
    """A number that is not negative, as Avro writes it."""
    code, parts = value << 1, bytearray()
    while code > 0x7F:
        parts.append(code & 0x7F | 0x80)
        code >>= 7
    parts.append(code)
    return bytes(parts)
