"""Which type a column of text has: the narrowest that every sampled value fits without loss.

A number with leading zeros is text. A number that float64 does not hold with all its digits makes the column a
decimal; a column of both dates and date-times holds date-times; a column without values is text.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from melisma.arrow.column_types import MAX_PRECISION
from melisma.arrow.values import Misfit, timestamp_us
from melisma.formats.csv_rows import FALSE, TRUE

__all__ = ["DATE", "DATE_TIME", "TextColumn", "exceeds_double"]

DATE = r"^\d{4}-\d\d-\d\d$"
DATE_TIME = r"^\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d(:?\d\d)?)?)?$"
_INTEGER = r"^[ \t]*[+-]?(0|[1-9][0-9]*)[ \t]*$"
_NUMBER = r"^[ \t]*[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*$"
_EXACT_DIGITS = 15  # any number of so many digits comes back from a double


class TextColumn:
    """Narrows down the type of one column, batch by batch.

    Args:
        null_values: texts that mean null in a column that is not text.
    """

    def __init__(self, null_values: tuple[str, ...]) -> None:
        self._nulls = pa.array(null_values, pa.string())
        self._open = ["boolean", "integer", "number", "date", "timestamp"]
        self._seen = False
        self._whole = self._fraction = 0
        self._big = self._lossy = False

    def add(self, texts: pa.Array) -> None:
        """Look at some of the column's values."""
        if not self._open:
            return
        values = pc.unique(texts.drop_null())
        values = values.filter(pc.invert(pc.is_in(values, value_set=self._nulls)))
        if not len(values):
            return
        self._seen = True
        self._open = [name for name in self._open if getattr(self, f"_is_{name}")(values)]

    def type(self) -> pa.DataType:
        """The column's type by what was seen so far."""
        first = self._open[0] if self._seen and self._open else "string"
        if (first == "integer" and self._big) or (first == "number" and self._lossy):
            return self._decimal()
        return {
            "boolean": pa.bool_(),
            "integer": pa.int64(),
            "number": pa.float64(),
            "date": pa.date32(),
            "timestamp": pa.timestamp("us", "UTC"),
            "string": pa.string(),
        }[first]

    def _decimal(self) -> pa.DataType:
        if self._whole + self._fraction > MAX_PRECISION:
            return pa.string()
        return pa.decimal128(MAX_PRECISION, self._fraction)

    def _is_boolean(self, values: pa.Array) -> bool:
        return _all(pc.is_in(values, value_set=pa.array([*TRUE, *FALSE])))

    def _is_integer(self, values: pa.Array) -> bool:
        return _all(pc.match_substring_regex(values, _INTEGER))

    def _is_number(self, values: pa.Array) -> bool:
        if not _all(pc.match_substring_regex(values, _NUMBER)):
            return False
        texts = pc.utf8_trim(values, " \t")
        self._measure(texts)
        for text in texts.filter(pc.greater(pc.binary_length(texts), _EXACT_DIGITS)).to_pylist():
            self._lossy = self._lossy or exceeds_double(text)
            self._big = self._big or not -(2**63) <= Decimal(text) < 2**63
        return True

    def _measure(self, texts: pa.Array) -> None:
        """Note how many digits stand before and after the point."""
        if _any(pc.match_substring_regex(texts, "[eE]")):
            self._fraction = MAX_PRECISION + 1
            return
        parts = pc.extract_regex(texts, r"^[+-]?(?P<whole>\d*)\.?(?P<fraction>\d*)$")
        whole, fraction = parts.flatten()
        self._whole = max(self._whole, pc.max(pc.binary_length(whole)).as_py() or 0)
        self._fraction = max(self._fraction, pc.max(pc.binary_length(fraction)).as_py() or 0)

    def _is_date(self, values: pa.Array) -> bool:
        return _all(pc.match_substring_regex(values, DATE)) and _castable(values, pa.date32())

    def _is_timestamp(self, values: pa.Array) -> bool:
        if not _all(pc.match_substring_regex(values, DATE_TIME)):
            return False
        try:
            for text in values.to_pylist():
                timestamp_us(text)
        except Misfit:
            return False
        return True


def exceeds_double(text: str) -> bool:
    """Whether float64 does not give back all the digits of a number."""
    try:
        exact = Decimal(text)
    except InvalidOperation:
        return False
    digits = len(exact.as_tuple().digits)
    if digits <= _EXACT_DIGITS:
        return False
    try:
        return Decimal(format(float(text), f".{digits}g")) != exact
    except OverflowError:
        return True


def _castable(values: pa.Array, kind: pa.DataType) -> bool:
    try:
        days = values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return bool(pc.min(days.cast(pa.int32())).as_py() >= -719_162)  # 0001-01-01


def _all(found: Any) -> bool:
    return bool(pc.all(found).as_py())


def _any(found: Any) -> bool:
    return bool(pc.any(found).as_py())
