"""What a lake needs of a file format: everything else (partitions, rolling, staging, commits) is the lake's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa

from melisma.arrow.types import StreamSchema

__all__ = ["FileFormat", "FileWriter"]


class FileWriter(Protocol):
    """Writes one file, from front to back.

    Attributes:
        rows: rows written so far.
    """

    @property
    def rows(self) -> int:
        """Rows written so far."""

    def write_row_group(self, batches: Sequence[pa.RecordBatch], /) -> None:
        """Write rows, in order, as one row group where the format has such a thing.

        They may be written on another thread; what fails there is raised by the next call.
        """

    def finish(self) -> None:
        """Begin to write what ends the file; nothing more is written to it, and `close` comes next."""

    def close(self) -> None:
        """Write what ends the file. The sink stays open."""

    def abandon(self) -> None:
        """Give the file up. Does not fail."""


class FileFormat(Protocol):
    """How files are written, with all settings. It never changes, so that all writers of a run share it."""

    @property
    def extension(self) -> str:
        """The end of a file's name, without its first dot, in lower case: `parquet`, `jsonl.zst`."""

    @property
    def row_group_rows(self) -> int:
        """The most rows that are given to `FileWriter.write_row_group` at a time."""

    @property
    def row_group_bytes(self) -> int:
        """About the most Arrow bytes of them. So much waits in memory for each file."""

    @property
    def max_file_bytes(self) -> int:
        """A file is finished when it has reached this size, as written."""

    def check(self, schema: pa.Schema, stream: StreamSchema, /) -> None:
        """Refuse what the format cannot hold.

        Args:
            schema: the columns that files hold.
            stream: whose they are; its columns may be more.

        Raises:
            BadSchema: there is no way to write a column.
        """

    def for_stream(self) -> FileFormat:
        """The same for the files of one stream: it may remember what the first of them told about the rows."""

    def open_file(self, sink: Any, schema: pa.Schema, stream: StreamSchema, /) -> FileWriter:
        """Begin a file.

        Args:
            sink: a writable binary file; not closed.
            schema: of every batch.
            stream: whose rows they are; files say so where the format has a place for it.
        """
