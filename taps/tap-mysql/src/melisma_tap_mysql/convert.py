"""What the server writes, brought into Arrow's types; what JSON cannot say is an error, or counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from melisma.errors import BadRecord
from melisma_tap_mysql.shapes import well_known_text
from melisma_tap_mysql.typemap import Column, Kind

__all__ = ["Converter"]

_FIRST_DAY = -719_162  # 0001-01-01
_DAY_US = 86_400_000_000
_ZERO = "^[0-9]{4}-(00|[0-9]{2}-00)"  # a month or a day of 00: 0000-00-00, 2024-02-00
_WAY_OUT = "Set dates_as_string to true, or the column's type to string in the catalog"
_TYPES: dict[Kind, pa.DataType] = {
    Kind.INTEGER: pa.int64(),
    Kind.LARGE: pa.uint64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.DATE: pa.date32(),
    Kind.DATE_TIME: pa.timestamp("us"),
}


class Converter:
    """Converts the blocks of one stream.

    Attributes:
        columns: how each is read.
        zero_dates: column -> how many dates with a month or day of zero became null.
    """

    def __init__(self, stream: str, columns: Mapping[str, Column], required: Collection[str] = ()) -> None:
        """Args: the stream's name, its columns, and those of them that cannot be null."""
        self._stream, self.columns, self._required = stream, columns, required
        self.zero_dates: Counter[str] = Counter()

    def convert(self, arrays: Sequence[pa.Array]) -> pa.RecordBatch:
        """The columns, as the server writes them, with exact types.

        Raises:
            BadRecord: a value that no record can hold.
        """
        if not self.columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(arrays[0]), pa.struct([])))
        return pa.record_batch(
            [self._column(name, array, self.columns[name]) for name, array in zip(self.columns, arrays, strict=True)],
            names=list(self.columns),
        )

    def _column(self, name: str, array: pa.Array, column: Column) -> pa.Array:
        if column.kind is Kind.BINARY:
            return array
        if column.kind is Kind.SHAPE:
            return self._shapes(name, array)
        try:
            text = array.cast(pa.string())
        except pa.ArrowInvalid:
            raise self._misfit(name, "a text is not UTF-8", "Deselect the column, or cast it in a view") from None
        if column.kind is Kind.TEXT:
            return text
        if column.kind in {Kind.DATE, Kind.DATE_TIME}:
            return self._dates(name, text, _TYPES[column.kind])
        try:
            if column.kind is Kind.FLOAT:
                return text.cast(pa.float64()).cast(pa.float32())
            if column.kind is Kind.DECIMAL and column.digits is not None:
                return text.cast(pa.decimal128(*column.digits))
            return text.cast(_TYPES[column.kind])
        except pa.ArrowInvalid:
            if column.kind is Kind.BOOLEAN:
                rule, fix = "a value is neither 0 nor 1, as a boolean must be", "Set tinyint1_as_boolean to false"
            else:
                rule = "a value is not of the type that the column has in the catalog"
                fix = "Discover again, or make the column's type string in the catalog"
            raise self._misfit(name, rule, fix) from None

    def _shapes(self, name: str, array: pa.Array) -> pa.Array:
        try:
            texts = [None if stored is None else well_known_text(stored) for stored in array.to_pylist()]
        except ValueError:
            raise self._misfit(name, "a geometry is none that is known", "Deselect the column") from None
        return pa.array(texts, pa.string())

    def _dates(self, name: str, text: pa.Array, kind: pa.DataType) -> pa.Array:
        try:
            dates = text.cast(kind)
        except pa.ArrowInvalid:
            dates = self._dates_beside_zeros(name, text, kind)
        low = pc.min(dates.view(pa.int32() if kind == pa.date32() else pa.int64())).as_py()
        if low is not None and low < (_FIRST_DAY if kind == pa.date32() else _FIRST_DAY * _DAY_US):
            raise self._misfit(name, "a date lies before the year 1, which JSON's date formats cannot say", _WAY_OUT)
        return dates

    def _dates_beside_zeros(self, name: str, text: pa.Array, kind: pa.DataType) -> pa.Array:
        zero = pc.match_substring_regex(text, _ZERO)
        count = pc.sum(zero).as_py() or 0
        if count and name in self._required:
            rule = "a date of a key has a month or day of zero, which JSON's date formats cannot say"
            raise self._misfit(name, rule, _WAY_OUT)
        self.zero_dates[name] += count
        try:
            return pc.if_else(zero, pa.scalar(None, pa.string()), text).cast(kind)
        except pa.ArrowInvalid:
            raise self._misfit(name, "a date is none that the calendar has", _WAY_OUT) from None

    def _misfit(self, name: str, rule: str, fix: str) -> BadRecord:
        return BadRecord(rule, stream=self._stream, column=name, fix=fix)
