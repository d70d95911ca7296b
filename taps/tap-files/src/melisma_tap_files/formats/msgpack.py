"""MessagePack files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO
from zoneinfo import ZoneInfo

from melisma.formats.blocks import Place
from melisma.formats.msgpack import MsgpackReader
from melisma_tap_files.formats.protocol import Rows, Sampler, Wanted
from melisma_tap_files.formats.values import ShapeSampler, first_records, read_records
from melisma_tap_files.settings import StreamSettings

__all__ = ["FORMAT", "Msgpack"]


class Msgpack:
    """MessagePack files. A place counts records."""

    has_lines = False
    has_types = False

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """See FileFormat."""
        return ShapeSampler(
            lambda file, where, rows: first_records(MsgpackReader(file, where=where, stream=settings.name), rows), zone
        )

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """See FileFormat."""
        return read_records(MsgpackReader(file, where=where, stream=settings.name), where, wanted, start)


FORMAT = Msgpack()
