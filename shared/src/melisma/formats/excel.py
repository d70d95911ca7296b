"""Excel workbooks (and OpenDocument ones): one sheet as records.

A workbook is read whole, as its formats ask for. Cells have the values that they were saved with, not formulas.
"""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import python_calamine as calamine

from melisma.errors import BadFile, ConfigError

__all__ = ["ExcelReader", "as_text"]

_WHOLE = 2**53
_MOST_BYTES = 1 << 30  # of a workbook, unpacked: it is held in memory whole
_FIX = "Fetch or write the file again"


class ExcelReader:
    """Reads one sheet of one workbook: xlsx, xlsm, xlsb, xls or ods.

    Whole numbers are `int` (Excel has doubles only), times of dates without an offset are naive.

    Args:
        file: its bytes, at the start.
        sheet: the sheet's name, or its number counted from 1.
        header: whether the first row holds the names.
        skip_rows: rows before the header, or before the first record.
        where: the file's name, for messages.
        stream: the stream, for messages.
        setting: the stream's setting, for messages.

    Attributes:
        names: the columns' names.

    Raises:
        BadFile: it is no workbook, or its header does not do.
        ConfigError: it has no such sheet.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        sheet: str | int,
        header: bool,
        skip_rows: int,
        where: str,
        stream: str,
        setting: str,
    ) -> None:
        self._where, self._stream = where, stream
        data = io.BytesIO(file.read())
        self._check_size(data)
        try:
            workbook = calamine.CalamineWorkbook.from_filelike(data)
        except calamine.PasswordError:
            raise self._bad("the workbook is encrypted", "Save it without a password") from None
        except (calamine.CalamineError, OSError, ValueError):
            raise self._bad("it is not an Excel workbook, or it is damaged", _FIX) from None
        names = workbook.sheet_names
        try:
            found = names[sheet - 1] if isinstance(sheet, int) and sheet >= 1 else sheet
            if found not in names:
                raise IndexError
        except IndexError:
            rule = f"names no sheet of {where}"
            raise ConfigError(f"{setting}.excel.sheet", rule, f"Its sheets are: {', '.join(names)}") from None
        try:
            self._rows = workbook.get_sheet_by_name(str(found)).to_python(skip_empty_area=False)
        except (calamine.CalamineError, OSError, ValueError):
            raise self._bad(f'its sheet "{found}" is damaged', _FIX) from None
        self._first = skip_rows + header
        self.names = self._header(skip_rows) if header else self._numbered()

    def _check_size(self, data: io.BytesIO) -> None:
        """Refuse a workbook that was made to fill the memory; what is no archive (xls) is as large as it is."""
        try:
            with zipfile.ZipFile(data) as archive:
                size = sum(each.file_size for each in archive.infolist())
        except (zipfile.BadZipFile, NotImplementedError, ValueError):
            size = 0  # calamine says what is wrong with it
        if size > _MOST_BYTES:
            rule = f"the workbook unpacks to {size} bytes, more than the {_MOST_BYTES} that are read"
            raise self._bad(rule, "If that is right, save the sheet as CSV")
        data.seek(0)

    def records(self, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records from number `start` on, with their numbers from 0; a row without any value is no record."""
        for number, row in enumerate(self._rows[self._first + start :], start):
            found = dict(zip(self.names, map(_value, row), strict=False))
            if any(value is not None for value in found.values()):
                yield number, found

    def row(self, number: int) -> int:
        """The sheet's row, counted from 1, of the record of this number."""
        return self._first + number + 1

    def _header(self, skip_rows: int) -> list[str]:
        if len(self._rows) <= skip_rows:
            raise self._bad("the sheet is empty: it has no header", "Check excel.sheet and excel.skip_rows")
        names = [_text(cell) or f"column_{number}" for number, cell in enumerate(self._rows[skip_rows], 1)]
        for name in names:
            if names.count(name) > 1:
                raise BadFile(
                    "the header names this column twice",
                    stream=self._stream,
                    file=self._where,
                    column=name,
                    fix="Rename one of them, or set excel.header to false and excel.skip_rows",
                )
        return names

    def _numbered(self) -> list[str]:
        return [f"column_{number}" for number in range(1, max(map(len, self._rows), default=0) + 1)]

    def _bad(self, rule: str, fix: str) -> BadFile:
        return BadFile(rule, stream=self._stream, file=self._where, fix=fix)


def as_text(value: Any) -> str:
    """A cell's value as text, for a column that holds text as well."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else str(value)


def _text(cell: Any) -> str:
    value = _value(cell)
    return "" if value is None else as_text(value)


def _value(cell: Any) -> Any:
    if cell == "" and isinstance(cell, str):
        return None
    if isinstance(cell, float) and cell.is_integer() and abs(cell) <= _WHOLE:
        return int(cell)
    if isinstance(cell, dt.timedelta):
        return _duration(cell)
    return cell


def _duration(span: dt.timedelta) -> str:
    """As ISO 8601 has it."""
    micros = span // dt.timedelta(microseconds=1)
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    seconds, fraction = divmod(micros, 1_000_000)
    tail = f".{fraction:06}".rstrip("0") if fraction else ""
    return f"{sign}PT{seconds // 3600}H{seconds // 60 % 60}M{seconds % 60}{tail}S"
