"""CSV files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO
from zoneinfo import ZoneInfo

import pyarrow as pa

from melisma.arrow.types import Kind
from melisma.errors import CatalogError
from melisma.formats.blocks import Place
from melisma.formats.csv import CsvReader
from melisma.formats.inference import TextColumn
from melisma_tap_files.formats.protocol import Rows, Sampler, Wanted
from melisma_tap_files.settings import StreamSettings

__all__ = ["FORMAT", "Csv"]


class Csv:
    """CSV files."""

    has_lines = True
    has_types = False

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """See FileFormat."""
        del zone
        return _CsvSampler(settings)

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """See FileFormat."""
        for each in wanted.fields:
            if each.type.kind in {Kind.STRUCT, Kind.LIST, Kind.MAP}:
                rule = f'column "{each.name}" is an object or array, which a CSV file does not have'
                raise CatalogError(settings.name, rule, "Discover again")
        reader = CsvReader(file, settings.dialect(), where=where, stream=settings.name)
        known = {each.name for each in wanted.schema.fields}
        unknown = [name for name in reader.names if name not in known]
        for batch, block in reader.read(wanted.fields, wanted.zone, max(start, reader.start)):
            wanted.unknown.update(dict.fromkeys(unknown, batch.num_rows))
            yield Rows(batch, block.end, lambda b=block, n=batch.num_rows: reader.row_lines(b, n))  # type: ignore[misc]


class _CsvSampler:
    def __init__(self, settings: StreamSettings) -> None:
        self._settings, self._dialect = settings, settings.dialect()
        self._columns: dict[str, TextColumn] = {}

    def add(self, file: BinaryIO, where: str, rows: int) -> None:
        reader = CsvReader(file, self._dialect, where=where, stream=self._settings.name)
        for name in reader.names:
            self._columns.setdefault(name, TextColumn(self._dialect.null_values))
        for batch in reader.sample(rows):
            for name, texts in zip(batch.schema.names, batch.columns, strict=True):
                if name not in self._settings.column_types:
                    self._columns[name].add(texts)

    def schema(self) -> pa.Schema:
        return pa.schema([(name, column.type()) for name, column in self._columns.items()])


FORMAT = Csv()
