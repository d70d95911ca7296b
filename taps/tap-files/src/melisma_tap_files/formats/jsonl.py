"""JSON Lines files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO
from zoneinfo import ZoneInfo

from melisma.formats.blocks import Place
from melisma.formats.jsonl import JsonlReader
from melisma_tap_files.formats.protocol import Rows, Sampler, Wanted
from melisma_tap_files.formats.values import ShapeSampler
from melisma_tap_files.settings import StreamSettings

__all__ = ["FORMAT", "Jsonl"]


class Jsonl:
    """JSON Lines files."""

    has_lines = True
    has_types = False

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """See FileFormat."""
        return ShapeSampler(lambda file, where, rows: self._open(file, where, settings).sample(rows), zone)

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """See FileFormat."""
        reader = self._open(file, where, settings)
        for batch, block in reader.read(wanted.schema, wanted.zone, start):
            yield Rows(batch, block.end, lambda b=block, n=batch.num_rows: reader.row_lines(b, n))  # type: ignore[misc]
        wanted.unknown.update(reader.unknown)

    def _open(self, file: BinaryIO, where: str, settings: StreamSettings) -> JsonlReader:
        return JsonlReader(file, where=where, stream=settings.name)


FORMAT = Jsonl()
