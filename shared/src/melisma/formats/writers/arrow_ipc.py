"""Arrow IPC: files (Feather version 2) and streams. Compressed inside, each buffer by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from melisma.arrow.types import StreamSchema
from melisma.errors import ConfigError
from melisma.formats.parquet import file_metadata
from melisma.formats.writers.background import BackgroundWriter

__all__ = ["COMPRESSIONS", "ArrowFormat", "ArrowWriter"]

COMPRESSIONS: Mapping[str, tuple[int, int] | None] = {"none": None, "lz4": None, "zstd": (1, 22)}
"""The codecs that Arrow's format has, with their levels; None for a codec without levels."""


@dataclass(frozen=True, slots=True)
class ArrowFormat:
    """How Arrow IPC is written.

    Attributes:
        stream: write streams (`.arrows`), which are read from front to back, and not files (`.arrow`).
        compression: one of COMPRESSIONS.
        compression_level: None for the codec's own.
        max_file_bytes: a file is finished when it has reached this size, as written.
        row_group_rows: the most rows of a record batch.
        row_group_bytes: about the most Arrow bytes of a record batch.

    Raises:
        ConfigError: a value cannot work.
    """

    stream: bool = False
    compression: str = "zstd"
    compression_level: int | None = None
    max_file_bytes: int = 256 << 20
    row_group_rows: int = 262_144
    row_group_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            rule = "is not a codec of Arrow IPC, which is compressed inside"
            raise ConfigError("compression", rule, f"Valid values: {', '.join(COMPRESSIONS)}")
        levels = COMPRESSIONS[self.compression]
        if self.compression_level is not None:
            if levels is None:
                raise ConfigError("compression_level", f"{self.compression} has no levels here", "Remove the setting")
            if not levels[0] <= self.compression_level <= levels[1]:
                rule = f"is not a level of {self.compression}"
                raise ConfigError("compression_level", rule, f"Set a number from {levels[0]} to {levels[1]}")
        if self.max_file_bytes < 1:
            raise ConfigError("max_file_size_mb", "is not positive", "Set a number above 0")

    @property
    def extension(self) -> str:
        """The end of a file's name."""
        return "arrows" if self.stream else "arrow"

    def check(self, schema: pa.Schema, stream: StreamSchema) -> None:
        """Arrow holds every type that it has."""

    def for_stream(self) -> Self:
        """Nothing need be remembered."""
        return self

    def open_file(self, sink: Any, schema: pa.Schema, stream: StreamSchema) -> ArrowWriter:
        """Begin a file; its schema's metadata says whose it is."""
        return ArrowWriter(sink, schema.with_metadata(file_metadata(stream)), self)


class ArrowWriter(BackgroundWriter):
    """Writes one file, a record batch for each row group."""

    def __init__(self, sink: Any, schema: pa.Schema, options: ArrowFormat) -> None:
        super().__init__(sink, schema)
        self._options = options
        self._writer: Any = None

    def _encode(self, table: pa.Table) -> None:
        writer = self._begin()
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)

    def _finish(self) -> None:
        self._begin().close()

    def _drop(self) -> None:
        self._writer = None

    def _begin(self) -> Any:
        if self._writer is None:
            name, level = self._options.compression, self._options.compression_level
            codec: Any = None
            if name != "none":
                codec = pa.Codec("lz4" if name == "lz4" else name, level or (1 if name == "zstd" else None))
            options = pa.ipc.IpcWriteOptions(compression=codec)
            begin = pa.ipc.new_stream if self._options.stream else pa.ipc.new_file
            self._writer = begin(self._sink, self._schema, options=options)
        return self._writer
