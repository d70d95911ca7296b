"""One JSON value into one column value, exactly or not at all.

`reader` builds a function for a node of the type tree. It takes a decoded JSON value that is not None (what msgspec
gives with `float_hook=Decimal`; stream maps may add Python's own dates and floats) and returns what `pa.array` takes
for that type, or raises `Misfit`.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from melisma.arrow.types import ColumnType, Field, Kind

__all__ = ["FIRST_US", "LAST_US", "Misfit", "Reader", "Unknown", "hold_null", "reader", "timestamp_us"]

Reader = Callable[[Any], Any]

_AS_TEXT = 'Set column_types to "string" for this column, or mend the source'
_AS_JSON = 'Set column_types to "json" for this column, or mend the source'
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_DAY_US = 86_400_000_000
FIRST_US = (1 - _EPOCH_DAY) * _DAY_US
LAST_US = (dt.date.max.toordinal() + 1 - _EPOCH_DAY) * _DAY_US - 1

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)? ?([Zz]|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:[Zz]|\+00:00)?", re.ASCII)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ]00:00:00(?:\.0+)?(?:[Zz]|[+-]00:00)?)?", re.ASCII)
_NUMERAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_json = msgspec.json.Encoder(decimal_format="number")


class Misfit(Exception):
    """A value that its column cannot hold. `path` leads to it from the column; `rule` says why, never the value."""

    def __init__(self, rule: str, fix: str = "", path: str = "") -> None:
        super().__init__(rule)
        self.rule, self.fix, self.path = rule, fix, path


class Unknown:
    """What happens to members that no schema names: counted by dotted name, or a misfit.

    Args:
        forbid: every such member is a misfit (`on_unknown_field: fail`).
        hold_closed: one in an object with `additionalProperties: false` is a misfit (`validate_records`).
    """

    def __init__(self, *, forbid: bool, hold_closed: bool) -> None:
        self.forbid, self.hold_closed = forbid, hold_closed
        self.counts: Counter[str] = Counter()

    def meet(self, path: str, name: str, value: Any, *, closed: bool) -> None:
        """One unknown member; null ones hold nothing and are not counted."""
        if closed and self.hold_closed:
            raise Misfit("is not in the schema, which allows no other members (additionalProperties: false)")
        if self.forbid:
            raise Misfit("is not in the schema", "Set on_unknown_field to warn or drop, or add it to the schema")
        if value is not None:
            self.counts[f"{path}{name}"] += 1


def hold_null(field: Field, *, missing: bool) -> None:
    """Hold a member without a value to its schema: missing unless required, null where null is allowed."""
    if missing and field.required:
        raise Misfit("is required and missing")
    if not missing and not field.type.nullable:
        raise Misfit("is null, and the schema does not allow null")


def reader(column: ColumnType, unknown: Unknown, *, hold: bool, path: str = "") -> Reader:
    """A function from a JSON value that is not None to what `pa.array` takes for this node's Arrow type.

    Args:
        column: the node.
        unknown: what becomes of members that the schema does not name.
        hold: hold nulls and missing members to the schema.
        path: the node's dotted name and a dot, for counting; empty for a column.
    """
    kind = column.kind
    if kind is Kind.STRUCT:
        return _struct(column, unknown, hold, path)
    if kind is Kind.LIST:
        return _list(column, unknown, hold, path)
    if kind is Kind.MAP:
        return _map(column, unknown, hold, path)
    if kind is Kind.INTEGER:
        return _integer(column.arrow)
    if kind is Kind.DECIMAL:
        return _decimal(column.arrow)
    return _SIMPLE[kind]


def timestamp_us(text: str) -> int:
    """Microseconds since 1970 UTC of an RFC 3339 date-time; without an offset it is taken as UTC.

    A space for the T, a missing time, seconds or minutes, and offsets without a colon are accepted.

    Raises:
        Misfit: not a date-time, not a moment that exists, or finer than a microsecond.
    """
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        raise Misfit("is not a date-time as RFC 3339 writes it", _AS_TEXT)
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        days = dt.date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        raise Misfit("is not a date that exists in the years 1 to 9999", _AS_TEXT) from None
    clock = _clock_us(hour, minute, second, fraction)
    moment = days * _DAY_US + clock - _offset_us(zone)
    if not FIRST_US <= moment <= LAST_US:
        raise Misfit("is outside the years 1 to 9999 in UTC", _AS_TEXT)
    return moment


def _clock_us(hour: str | None, minute: str | None, second: str | None, fraction: str | None) -> int:
    h, m, s = int(hour or 0), int(minute or 0), int(second or 0)
    if h > 23 or m > 59 or s > 59:
        raise Misfit("is not a time of day from 00:00:00 to 23:59:59.999999", _AS_TEXT)
    digits = (fraction or "").rstrip("0")
    if len(digits) > 6:
        raise Misfit("has more than six fraction digits, and microseconds are kept", _AS_TEXT)
    return ((h * 60 + m) * 60 + s) * 1_000_000 + int(digits.ljust(6, "0"))


def _offset_us(zone: str | None) -> int:
    if zone is None or zone in "Zz":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    if hours > 23 or minutes > 59:
        raise Misfit("has an offset that is not within 23:59", _AS_TEXT)
    offset = (hours * 60 + minutes) * 60_000_000
    return -offset if zone[0] == "-" else offset


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise Misfit(f"is {_called(value)}, not a boolean")


def _integer(arrow: pa.DataType) -> Reader:
    low, high = (0, 2**64 - 1) if pa.types.is_uint64(arrow) else (-(2**63), 2**63 - 1)

    def read(value: Any) -> int:
        if type(value) is not int:
            value = _whole(value)
        if not low <= value <= high:
            wide = "decimal(38,0)" if abs(value) < 10**38 else "json"
            raise Misfit(f"does not fit {arrow}", f'Set column_types to "{wide}" for this column')
        return int(value)

    return read


def _whole(value: Any) -> int:
    if isinstance(value, (Decimal, float)):
        finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
        if not finite or value != (whole := _truncated(value)):
            raise Misfit("is a number with a fraction, not an integer", 'Set column_types to "number" for this column')
        return whole
    raise Misfit(f"is {_called(value)}, not an integer")


def _truncated(value: Decimal | float) -> int:
    if isinstance(value, Decimal) and value.adjusted() > 40:  # 1e999999999 would fill memory
        raise Misfit("does not fit an integer column", 'Set column_types to "json" for this column')
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, (int, Decimal, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise Misfit("is beyond float64", _AS_JSON)
    raise Misfit(f"is {_called(value)}, not a number")


def _decimal(arrow: pa.DataType) -> Reader:
    scale, whole_digits = arrow.scale, arrow.precision - arrow.scale
    fix = f"Set column_types for this column to a wider decimal than decimal({arrow.precision},{scale}), or to "

    def read(value: Any) -> Decimal:
        other = "string" if isinstance(value, str) else "json"
        if isinstance(value, str):
            if not _NUMERAL.fullmatch(value):
                raise Misfit("is text that is not a number", _AS_TEXT)
        elif isinstance(value, bool) or not isinstance(value, (int, Decimal, float)):
            raise Misfit(f"is {_called(value)}, not a number")
        number = value if isinstance(value, Decimal) else Decimal(repr(value) if isinstance(value, float) else value)
        _, digits, exponent = number.as_tuple()
        if not isinstance(exponent, int):
            raise Misfit("is not a finite number", _AS_JSON)
        count = len(digits)
        while count and digits[count - 1] == 0:
            count -= 1
            exponent += 1
        leading = next((i for i in range(count) if digits[i]), count)
        if count == leading:
            return Decimal(0)
        if -exponent > scale:
            raise Misfit(f"needs more than the {scale} fraction digits of {_named(arrow)}", fix + other)
        if count - leading + exponent > whole_digits:
            raise Misfit(f"needs more than the {whole_digits} whole digits of {_named(arrow)}", fix + other)
        return number

    return read


def _named(arrow: pa.DataType) -> str:
    return f"decimal({arrow.precision},{arrow.scale})"


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    raise Misfit(f"is {_called(value)}, not text", 'Set column_types to "json" for this column, or mend the tap')


def _timestamp(value: Any) -> int:
    if isinstance(value, str):
        return timestamp_us(value)
    if isinstance(value, (dt.datetime, dt.date)):
        return timestamp_us(value.isoformat())
    raise Misfit(f"is {_called(value)}, not a date-time", "Mend the tap, or override the column's type")


def _date(value: Any) -> int:
    if isinstance(value, (dt.datetime, dt.date)):
        value = value.isoformat()
    if not isinstance(value, str):
        raise Misfit(f"is {_called(value)}, not a date", "Mend the tap, or override the column's type")
    match = _DATE.fullmatch(value)
    if not match:
        raise Misfit("is not a date as RFC 3339 writes it", _AS_TEXT)
    try:
        return dt.date(*map(int, match.groups())).toordinal() - _EPOCH_DAY
    except ValueError:
        raise Misfit("is not a date that exists in the years 1 to 9999", _AS_TEXT) from None


def _time(value: Any) -> int:
    if isinstance(value, dt.time):
        value = value.isoformat()
    if not isinstance(value, str):
        raise Misfit(f"is {_called(value)}, not a time", "Mend the tap, or override the column's type")
    match = _TIME.fullmatch(value)
    if not match:
        raise Misfit("is not a time of day without an offset", _AS_TEXT)
    return _clock_us(*match.groups())


def _binary(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise Misfit(f"is {_called(value)}, not base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Misfit("is not base64", _AS_TEXT) from None


def _json_text(value: Any) -> str:
    return _json.encode(value).decode()


_SIMPLE: dict[Kind, Reader] = {
    Kind.BOOLEAN: _boolean,
    Kind.NUMBER: _number,
    Kind.STRING: _string,
    Kind.TIMESTAMP: _timestamp,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.BINARY: _binary,
    Kind.JSON: _json_text,
}


def _struct(column: ColumnType, unknown: Unknown, hold: bool, path: str) -> Reader:
    names = {each.name for each in column.fields}
    members = [(each, reader(each.type, unknown, hold=hold, path=f"{path}{each.name}.")) for each in column.fields]

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Misfit(f"is {_called(value)}, not an object")
        name = ""
        try:
            if not value.keys() <= names:
                for name in value:
                    if name not in names:
                        unknown.meet(path, name, value[name], closed=column.closed)
            found = {}
            for each, read_member in members:
                name = each.name
                member = value.get(name)
                if member is not None:
                    found[name] = read_member(member)
                elif hold:
                    hold_null(each, missing=name not in value)
            return found
        except Misfit as misfit:
            raise Misfit(misfit.rule, misfit.fix, f".{name}{misfit.path}") from None

    return read


def _list(column: ColumnType, unknown: Unknown, hold: bool, path: str) -> Reader:
    read_item = reader(column.items, unknown, hold=hold, path=path)

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Misfit(f"is {_called(value)}, not an array")
        try:
            return [None if item is None else read_item(item) for item in value]
        except Misfit as misfit:
            raise Misfit(misfit.rule, misfit.fix, f"[]{misfit.path}") from None

    return read


def _map(column: ColumnType, unknown: Unknown, hold: bool, path: str) -> Reader:
    read_item = reader(column.items, unknown, hold=hold, path=path)

    def read(value: Any) -> list[tuple[str, Any]]:
        if not isinstance(value, dict):
            raise Misfit(f"is {_called(value)}, not an object")
        try:
            return [(key, None if item is None else read_item(item)) for key, item in value.items()]
        except Misfit as misfit:
            raise Misfit(misfit.rule, misfit.fix, f".*{misfit.path}") from None

    return read


def _called(value: Any) -> str:
    """What JSON calls the value, for messages."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float, Decimal)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return f"of type {type(value).__name__}"
