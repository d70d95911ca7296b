"""What JSON values look like: the narrowest Arrow type that holds every sampled value, without loss.

Values of different kinds in one place, objects without members and arrays without items become JSON text, marked by
Arrow's JSON extension type.
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Any

import pyarrow as pa

from melisma.arrow.column_types import MAX_PRECISION
from melisma.arrow.values import Misfit, timestamp_us
from melisma.formats.inference import DATE, DATE_TIME, exceeds_double

__all__ = ["Shape"]

_MOST_MEMBERS = 2_000
_PLAIN = {float: "double", bytes: "binary", dt.date: "day", dt.datetime: "moment", dt.time: "clock"}
_PLAIN_TYPES = {
    "binary": pa.binary(),
    "day": pa.date32(),
    "moment": pa.timestamp("us", "UTC"),
    "clock": pa.time64("us"),
}
_DATE = re.compile(DATE, re.ASCII)
_DATE_TIME = re.compile(DATE_TIME, re.ASCII)
_OFFSET = re.compile(r"(?:[Zz]|T.*[+-]\d\d(?::?\d\d)?)$", re.ASCII)


class Shape:
    """Gathers the values of one place in the records: a column, a member, the items of an array."""

    def __init__(self) -> None:
        self.members: dict[str, Shape] = {}
        self._kinds: set[str] = set()
        self._item: Shape | None = None
        self._low = self._high = 0
        self._whole = self._fraction = 0
        self._exact = False
        self._text = "date"  # date, date-time, string: the narrowest so far
        self._naive = False

    def add(self, value: Any) -> None:
        """Look at one value.

        From JSON it is decoded with Decimals for numbers with a fraction; formats that have doubles, bytes, dates and
        times give Python's own.
        """
        if value is None:
            return
        if isinstance(value, bool):
            self._kinds.add("boolean")
        elif isinstance(value, int):
            self._kinds.add("integer")
            self._low, self._high = min(self._low, value), max(self._high, value)
            self._measure(Decimal(value))
        elif isinstance(value, Decimal):
            self._kinds.add("number")
            self._measure(value)
        elif isinstance(value, str):
            self._kinds.add("string")
            self._add_text(value)
        elif type(value) in _PLAIN:
            self._kinds.add(_PLAIN[type(value)])
        elif isinstance(value, dict):
            self._kinds.add("object")
            for name, member in value.items():
                if name not in self.members:
                    self.members[name] = Shape()
                self.members[name].add(member)
        else:
            self._kinds.add("array")
            self._item = self._item or Shape()
            for item in value:
                self._item.add(item)

    def type(self, *, utc: bool, nested: bool = True) -> pa.DataType:
        """The narrowest type.

        Args:
            utc: whether times without an offset are in UTC; otherwise nested ones stay text.
            nested: whether the value stands within another one.
        """
        kinds = self._kinds
        if not kinds:
            return pa.string()
        if kinds == {"boolean"}:
            return pa.bool_()
        if kinds == {"integer"}:
            return self._integer()
        if kinds <= {"integer", "number", "double"}:
            return self._number()
        if len(kinds) == 1 and kinds <= _PLAIN_TYPES.keys():
            return _PLAIN_TYPES[next(iter(kinds))]
        if kinds == {"day", "moment"}:
            return _PLAIN_TYPES["moment"]
        if kinds == {"string"}:
            return self._string(keep_naive=nested and not utc)
        if kinds == {"object"} and 0 < len(self.members) <= _MOST_MEMBERS:
            return pa.struct([pa.field(name, member.type(utc=utc)) for name, member in self.members.items()])
        if kinds == {"array"} and self._item is not None and self._item._kinds:
            return pa.list_(self._item.type(utc=utc))
        return pa.json_()

    def _measure(self, number: Decimal) -> None:
        sign, digits, exponent = number.as_tuple()
        del sign
        if isinstance(exponent, int):
            self._fraction = max(self._fraction, -exponent)
            self._whole = max(self._whole, len(digits) + exponent)
        if len(digits) > 15 and exceeds_double(str(number)):
            self._exact = True

    def _integer(self) -> pa.DataType:
        if self._low >= -(2**63) and self._high < 2**63:
            return pa.int64()
        if self._low >= 0 and self._high < 2**64:
            return pa.uint64()
        return pa.decimal128(MAX_PRECISION, 0) if self._whole <= MAX_PRECISION else pa.json_()

    def _number(self) -> pa.DataType:
        if not self._exact:
            return pa.float64()
        if self._whole + self._fraction <= MAX_PRECISION:
            return pa.decimal128(MAX_PRECISION, self._fraction)
        return pa.json_()

    def _add_text(self, text: str) -> None:
        if self._text == "date" and not _is_date(text):
            self._text = "date-time"
        if self._text == "date-time" and not _is_date_time(text):
            self._text = "string"
        if self._text == "date-time" and not _OFFSET.search(text):
            self._naive = True

    def _string(self, *, keep_naive: bool) -> pa.DataType:
        if self._text == "date":
            return pa.date32()
        if self._text == "date-time" and not (keep_naive and self._naive):
            return pa.timestamp("us", "UTC")
        return pa.string()


def _is_date(text: str) -> bool:
    return bool(_DATE.match(text)) and _is_date_time(text)


def _is_date_time(text: str) -> bool:
    if not _DATE_TIME.match(text):
        return False
    try:
        timestamp_us(text)
    except Misfit:
        return False
    return True
