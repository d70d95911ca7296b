"""The sink of file targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from melisma.target.sink import ArrowSink, Writer

if TYPE_CHECKING:
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
        self.open_writer()

    def open_writer(self) -> Writer:
        """The target's writer for this stream."""
        return cast("FileTarget", self.target).open_writer(self)
