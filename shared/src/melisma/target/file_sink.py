"""The sink of file targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from melisma.target.sink import ArrowSink, Writer

if TYPE_CHECKING:
    from melisma.target.files import FileTarget

__all__ = ["FileSink"]


class FileSink(ArrowSink):
    """Writes a stream's batches to files of the target's format."""

    def setup(self) -> None:
        """Open the writer once, so that a stream that cannot be written is refused at its SCHEMA message."""
        super().setup()
        self.open_writer()

    def open_writer(self) -> Writer:
        """The target's writer for this stream."""
        return cast("FileTarget", self.target).open_writer(self)
