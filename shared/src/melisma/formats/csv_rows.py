"""CSV row by row: what a record is, what its values mean, and which line and column is at fault.

A field that begins with the quote ends at the next single quote; what follows up to the delimiter belongs to it as
it stands. A quote elsewhere is a character like any other. A blank line is no record.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from melisma.arrow.types import Field, Kind
from melisma.arrow.values import Misfit, Unknown, reader
from melisma.errors import BadFile

if TYPE_CHECKING:
    from melisma.formats.csv import CsvDialect

__all__ = ["FALSE", "TRUE", "RowPattern", "RowReader", "UnclosedQuote", "with_zone"]

TRUE = ("true", "True", "TRUE")
FALSE = ("false", "False", "FALSE")

_BLANKS = " \t"
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)", re.ASCII)
_SPECIAL = frozenset({"nan", "inf", "infinity"})
_ZONED = re.compile(r"(?:[Zz]|[+-]\d\d(?::?\d\d)?)\Z", re.ASCII)
_POSSESSIVE = sys.version_info >= (3, 11, 7)  # the oldest on which the tests have shown it to be right
_AS_TEXT = 'Set column_types to "string" for this column and discover again, or mend the file'

Fields = list[tuple[str, bool]]


class UnclosedQuote(Exception):
    """A field begins with a quote that nothing closes. `line` is where it begins, counted from 1."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class RowPattern:
    """The regular expressions of a dialect: over bytes to find records, over text to take them apart.

    Attributes:
        record: one record with its line end, over bytes.
        records: as many whole records as there are, over bytes.
    """

    def __init__(self, dialect: CsvDialect) -> None:
        self._delimiter, self._quote, self._escape = dialect.delimiter, dialect.quote, dialect.escape
        delimiter, quote = re.escape(dialect.delimiter), re.escape(dialect.quote)
        escape = re.escape(dialect.escape) if dialect.escape else ""
        bare = f"[^{delimiter}\\r\\n]*+"
        inner = _all(f"[^{quote}]++|{quote}{quote}")
        if escape:
            bare = _all(f"[^{delimiter}\\r\\n{escape}]++|{escape}.")
            inner = _all(f"[^{quote}{escape}]++|{quote}{quote}|{escape}.")
        if quote:
            field = f"(?:{quote}{inner}{quote}{bare}|(?!{quote}){bare})"
            parts = f"(?:{quote}({inner}){quote}({bare})|({bare}))"
        else:
            field, parts = bare, f"(?:(\\Z.)(\\Z.)|({bare}))"
        record = _all(f"{field}{delimiter}") + field
        # A carriage return at the very end may be the half of a line end.
        end = "\\r\\n|\\n|\\r(?!\\Z)"
        encoding = dialect.block_encoding or "utf-8"
        self.record = re.compile(f"{record}(?:{end}|\\Z)".encode(encoding), re.DOTALL)
        self.records = re.compile(_all(f"{record}(?:{end})").encode(encoding), re.DOTALL)
        self._field = re.compile(f"{parts}({delimiter}|\\r\\n|\\n|\\r|\\Z)", re.DOTALL)
        self._escaped = re.compile(f"{escape}(.)|({quote}){quote}" if quote else f"{escape}(.)", re.DOTALL)

    def rows(self, text: str, line: int) -> Iterator[tuple[int, Fields]]:
        """Each record's line, counted from 1, and its fields, each with whether it was quoted.

        Args:
            text: whole records.
            line: lines before it.

        Raises:
            UnclosedQuote: the last record ends within quotes.
        """
        newline = "\n" if "\n" in text else "\r"
        position, line = 0, line + 1
        while position < len(text):
            fields: Fields = []
            first, end = line, self._delimiter
            while end == self._delimiter:
                match = self._field.match(text, position)
                if match is None:  # an escape at the very end
                    raise UnclosedQuote(line)
                quoted, rest, bare, end = match.groups()
                if quoted is not None:
                    fields.append((self._plain(quoted, doubled=True) + self._plain(rest), True))
                elif self._quote and bare.startswith(self._quote):
                    raise UnclosedQuote(line)
                else:
                    fields.append((self._plain(bare), False))
                line += text.count(newline, position, match.end())
                position = match.end()
            if len(fields) > 1 or fields[0] != ("", False):
                yield first, fields

    def _plain(self, text: str, *, doubled: bool = False) -> str:
        if self._escape and self._escape in text:
            pattern = self._escaped if doubled else re.compile(re.escape(self._escape) + "(.)", re.DOTALL)
            return pattern.sub(lambda match: match[1] or self._quote, text)
        return text.replace(self._quote * 2, self._quote) if doubled else text


def _all(pattern: str) -> str:
    """As many as there are, once and for all: no going back.

    `*+` says so, but before Python 3.11.5 (Debian 12 has 3.11.2) it may end in the middle of a repetition that fails.
    The other form needs twice the time, and memory for each repetition.
    """
    return f"(?:{pattern})*+" if _POSSESSIVE else f"(?>(?:{pattern})*)"


class RowReader:
    """Reads records one value at a time.

    Args:
        dialect: how the file is written.
        names: the file's columns.
        wanted: the columns to read, each of them in `names`.
        zone: where times without an offset were meant; None for UTC.
        where: the file's name, for messages.
        stream: the stream, for messages.
    """

    def __init__(
        self,
        dialect: CsvDialect,
        names: Sequence[str],
        wanted: Sequence[Field],
        zone: ZoneInfo | None,
        *,
        where: str,
        stream: str,
    ) -> None:
        self._pattern = RowPattern(dialect)
        self._nulls = frozenset(dialect.null_values)
        self._width = len(names)
        self._where, self._stream = where, stream
        self._columns = [(each, list(names).index(each.name), _value_reader(each, zone)) for each in wanted]

    def read(self, text: str, line: int) -> pa.RecordBatch:
        """The records of `text`, which starts after `line` lines.

        Raises:
            BadFile: a record has too few or too many fields, or a value does not fit its column.
        """
        values: list[list[Any]] = [[] for _ in self._columns]
        rows = 0
        try:
            for at, fields in self._pattern.rows(text, line):
                self._take(fields, at, values)
                rows += 1
        except UnclosedQuote as error:
            fix = "Close it, or check csv.quote and csv.escape"
            raise self._bad("a quote is opened and never closed", error.line, None, fix) from None
        arrays = [pa.array(v, c.type.arrow) for v, (c, _, _) in zip(values, self._columns, strict=True)]
        if not arrays:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
        return pa.RecordBatch.from_arrays(arrays, names=[column.name for column, _, _ in self._columns])

    def _take(self, fields: Fields, line: int, values: list[list[Any]]) -> None:
        if len(fields) != self._width:
            rule = f"the row has {len(fields)} fields where the header has {self._width}"
            raise self._bad(rule, line, None, "Mend the row, or check csv.delimiter, csv.quote and csv.skip_rows")
        for into, (column, index, read) in zip(values, self._columns, strict=True):
            value, quoted = fields[index]
            if value in self._nulls and not (quoted and column.type.kind in {Kind.STRING, Kind.JSON}):
                into.append(None)
                continue
            try:
                into.append(read(value))
            except Misfit as misfit:
                rule = f"the value {misfit.rule}, and does not fit type {_called(column)}"
                raise self._bad(rule, line, column.name, _AS_TEXT) from None

    def _bad(self, rule: str, line: int, column: str | None, fix: str) -> BadFile:
        return BadFile(rule, stream=self._stream, file=self._where, line=line, column=column, fix=fix)


def with_zone(text: str, zone: ZoneInfo) -> str:
    """A date-time without an offset as one with it, as the clocks in `zone` stood; others as they are.

    A time that came twice is the earlier one.
    """
    if _ZONED.search(text, 10):
        return text
    try:
        return datetime.fromisoformat(text.strip()).replace(tzinfo=zone).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return text


def _value_reader(column: Field, zone: ZoneInfo | None) -> Callable[[str], Any]:
    kind = column.type.kind
    if kind in {Kind.STRING, Kind.JSON}:
        return str
    read = reader(column.type, Unknown(forbid=False, hold_closed=False), hold=False)
    if kind is Kind.BOOLEAN:
        return _boolean
    if kind is Kind.INTEGER:
        return lambda text: read(_integer(text.strip(_BLANKS)))
    if kind is Kind.NUMBER:
        return lambda text: _float(text.strip(_BLANKS), read)
    if kind is Kind.DECIMAL:
        return lambda text: read(_numeral(text.strip(_BLANKS)))
    if kind is Kind.TIMESTAMP:
        return lambda text: read(with_zone(text, zone) if zone else text)
    return lambda text: read(text.strip(_BLANKS))


def _called(column: Field) -> str:
    arrow = column.type.arrow
    return f"decimal({arrow.precision},{arrow.scale})" if column.type.kind is Kind.DECIMAL else column.type.kind.value


def _boolean(text: str) -> bool:
    if text in TRUE or text in FALSE:
        return text in TRUE
    raise Misfit("is not true or false")


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise Misfit("is not an integer (a number with leading zeros is text)")
    return int(text) if len(text) < 1000 else 10**1000


def _numeral(text: str) -> str:
    if not _NUMBER.fullmatch(text):
        raise Misfit("is not a number (a number with leading zeros is text)")
    return text


def _float(text: str, read: Callable[[Any], Any]) -> float:
    if text.lstrip("+-").lower() in _SPECIAL:
        return float(text)
    number = float(_numeral(text))
    return float(read(number)) if math.isfinite(number) else _beyond()


def _beyond() -> float:
    raise Misfit("is beyond float64")
