"""The sink of file targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from melisma.errors import BadSchema
from melisma.lake.changes import UpsertWriter
from melisma.lake.dead_letters import DeadLetterWriter
from melisma.target.generations import VersionedWriter
from melisma.target.sink import ArrowSink, Writer

if TYPE_CHECKING:
    from melisma.formats.parquet import ParquetOptions
    from melisma.lake.writer import StreamWriter
    from melisma.target.files import FileTarget

__all__ = ["FileSink"]


class FileSink(ArrowSink):
    """Writes a stream's batches to files of the target's format.

    It opens a writer once, so that a stream that cannot be written is refused at its SCHEMA message; not in `setup`,
    around which singer-sdk logs a line of its own for every error.
    """

    def __init__(
        self, target: FileTarget, stream_name: str, schema: dict[str, Any], key_properties: Sequence[str] | None
    ) -> None:
        super().__init__(target, stream_name, schema, key_properties)
        self._refuse_what_cannot_be_merged()
        self._unused: StreamWriter | None = self._files.open_writer(self)

    def open_writer(self) -> Writer:
        """The target's writer for this stream, with what its load method and the rows' version add to it."""
        writer: Writer = self._open_files()
        if self.method == "upsert":
            writer = UpsertWriter(
                self.columns,
                self._files.budget,
                self._open_files,
                hard_delete=bool(self.config.get("hard_delete", False)),
            )
        version = self.generation.row_version
        return writer if version is None else VersionedWriter(writer, version)

    def _open_files(self) -> StreamWriter:
        writer, self._unused = self._unused, None
        return writer or self._files.open_writer(self)

    @property
    def mark_options(self) -> ParquetOptions | None:
        """How files are written anew to mark rows in them; None where that cannot be done."""
        return cast("ParquetOptions", self._files.file_format) if self._files.can_upsert else None

    @property
    def _files(self) -> FileTarget:
        return cast("FileTarget", self.target)

    def _refuse_what_cannot_be_merged(self) -> None:
        if self.method == "upsert" and not self.columns.key_properties:
            raise BadSchema(
                "has no key, and load method upsert needs one",
                stream=self.stream_name,
                fix="Name its key in the catalog (table-key-properties), give it one with stream_maps "
                "(__key_properties__), or set load_method to append-only or overwrite",
            )

    def open_letters(self) -> DeadLetterWriter:
        """Dead letters lie in the lake, beside its journal."""
        return DeadLetterWriter(self._files.lake, self.stream_name, self._files.letter_budget)
