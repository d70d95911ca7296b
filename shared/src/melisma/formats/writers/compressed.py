"""Formats that are a stream of rows, compressed as a whole: JSON Lines, CSV, MsgPack."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyarrow as pa

from melisma.arrow.types import StreamSchema
from melisma.errors import ConfigError
from melisma.formats.writers.background import BackgroundWriter
from melisma.storage.codecs import check_level, ending, open_encoded

__all__ = ["CompressedFormat", "CompressedWriter"]

_CHUNK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class CompressedFormat(abc.ABC):
    """How files of such a format are written. Write `head` and `body`.

    Attributes:
        compression: of the whole file, one of `melisma.storage.codecs.WRITABLE`.
        compression_level: None for the codec's own.
        max_file_bytes: a file is finished when it has reached this size, as written.
        distribution: what a missing extra is to be installed with.
        row_group_rows: rows that are written together.
        row_group_bytes: about the most Arrow bytes of them.

    Raises:
        ConfigError: a value cannot work.
        MissingExtra: the codec's library is not installed.
    """

    name: ClassVar[str]

    compression: str = "none"
    compression_level: int | None = None
    max_file_bytes: int = 256 << 20
    distribution: str = "melisma"
    row_group_rows: int = 262_144
    row_group_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        check_level(self.compression, self.compression_level)
        if self.max_file_bytes < 1:
            raise ConfigError("max_file_size_mb", "is not positive", "Set a number above 0")
        self.open_encoded(None).abandon()

    @property
    def extension(self) -> str:
        """The end of a file's name: the format's, and the codec's."""
        return self.name + ending(self.compression)

    def check(self, schema: pa.Schema, stream: StreamSchema) -> None:  # noqa: B027 - most hold everything
        """Refuse what the format cannot hold."""

    def for_stream(self) -> Self:
        """Nothing need be remembered."""
        return self

    def open_file(self, sink: Any, schema: pa.Schema, stream: StreamSchema) -> CompressedWriter:
        """Begin a file."""
        return CompressedWriter(sink, schema, self, stream.stream)

    def open_encoded(self, sink: Any) -> Any:
        """What compresses a file."""
        return open_encoded(sink, self.compression, self.compression_level, distribution=self.distribution)

    def head(self, schema: pa.Schema) -> bytes:  # noqa: ARG002
        """What a file begins with."""
        return b""

    @abc.abstractmethod
    def body(self, batch: pa.RecordBatch, stream: str) -> Any:
        """Rows, as bytes or a buffer."""


class CompressedWriter(BackgroundWriter):
    """Writes one file of a format."""

    def __init__(self, sink: Any, schema: pa.Schema, file_format: CompressedFormat, stream: str) -> None:
        super().__init__(sink, schema)
        self._format, self._stream = file_format, stream
        self._output = file_format.open_encoded(sink)
        self._begun = False

    def _encode(self, table: pa.Table) -> None:
        self._begin()
        for batch in table.combine_chunks().to_batches(_CHUNK_ROWS):
            self._output.write(self._format.body(batch, self._stream))

    def _finish(self) -> None:
        self._begin()
        self._output.close()

    def _drop(self) -> None:
        self._output.abandon()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._output.write(self._format.head(self._schema))
