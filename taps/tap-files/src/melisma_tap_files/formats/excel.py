"""Excel workbooks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import pyarrow as pa

from melisma.arrow.types import Kind
from melisma.formats.blocks import Place
from melisma.formats.excel import ExcelReader, as_text
from melisma_tap_files.formats.protocol import Rows, Sampler, Wanted
from melisma_tap_files.formats.values import ShapeSampler, first_records, read_records
from melisma_tap_files.settings import StreamSettings

__all__ = ["FORMAT", "Excel"]

Convert = Callable[[Any], Any]


class Excel:
    """Excel workbooks. A place counts the sheet's rows after the header."""

    has_lines = False
    has_types = False

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """See FileFormat."""
        return _ExcelSampler(lambda file, where, rows: first_records(_open(file, where, settings), rows), zone)

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """See FileFormat."""
        return read_records(_Typed(_open(file, where, settings), wanted), where, wanted, start)


class _ExcelSampler(ShapeSampler):
    """A column of values of several kinds is text, as one sees it in the sheet."""

    def schema(self) -> pa.Schema:
        found = super().schema()
        kinds = [pa.string() if isinstance(kind, pa.JsonType) else kind for kind in found.types]
        return pa.schema(list(zip(found.names, kinds, strict=True)))


class _Typed:
    """A sheet's records with numbers and dates as text in columns of text, and local times as moments."""

    def __init__(self, reader: ExcelReader, wanted: Wanted) -> None:
        self._reader = reader
        self._convert: dict[str, Convert] = {}
        for each in wanted.fields:
            if each.type.kind is Kind.STRING:
                self._convert[each.name] = as_text
            elif each.type.kind is Kind.TIMESTAMP and wanted.zone is not None:
                self._convert[each.name] = _in(wanted.zone)

    def records(self, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        convert = self._convert
        for number, record in self._reader.records(start):
            for name in convert:
                if record.get(name) is not None:
                    record[name] = convert[name](record[name])
            yield number, record

    def row(self, number: int) -> int:
        return self._reader.row(number)


def _in(zone: ZoneInfo) -> Convert:
    def moment(value: Any) -> Any:
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            value = dt.datetime(value.year, value.month, value.day)
        return value.replace(tzinfo=zone).astimezone(dt.UTC) if isinstance(value, dt.datetime) else value

    return moment


def _open(file: BinaryIO, where: str, settings: StreamSettings) -> ExcelReader:
    options = settings.options
    return ExcelReader(
        file,
        sheet=options.get("sheet", 1),
        header=options.get("header", True),
        skip_rows=options.get("skip_rows", 0),
        where=where,
        stream=settings.name,
        setting=settings.setting,
    )


FORMAT = Excel()
