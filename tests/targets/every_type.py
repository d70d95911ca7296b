"""A stream with a column of every type, a value at both ends of each, and what any reader makes of them."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

__all__ = ["COLUMNS", "ROWS", "Row", "messages", "same"]

Row = dict[str, Any]

COLUMNS: dict[str, Any] = {
    "id": {"type": "integer"},
    "big": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**64 - 1},
    "total": {"type": ["number", "null"], "multipleOf": 0.01},
    "ratio": {"type": ["number", "null"]},
    "flag": {"type": ["boolean", "null"]},
    "text": {"type": ["string", "null"]},
    "data": {"type": ["string", "null"], "contentEncoding": "base64"},
    "at": {"type": ["string", "null"], "format": "date-time"},
    "day": {"type": ["string", "null"], "format": "date"},
    "clock": {"type": ["string", "null"], "format": "time"},
    "tags": {"type": ["array", "null"], "items": {"type": ["string", "null"]}},
    "counts": {"type": ["object", "null"], "additionalProperties": {"type": ["integer", "null"]}},
    "place": {
        "type": ["object", "null"],
        "properties": {"zip": {"type": ["string", "null"]}, "xy": {"type": "array", "items": {"type": "number"}}},
    },
    "free": {},
    "country": {"type": "string"},
}
BYTES = bytes(range(256))
UTC = dt.UTC

ROWS: list[Row] = [
    {
        "id": 2**63 - 1,
        "big": 2**64 - 1,
        "total": Decimal("999999999999999999999999999999999999.99"),
        "ratio": 0.1,
        "flag": True,
        "text": "é😀\n",
        "data": BYTES,
        "at": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        "day": dt.date(9999, 12, 31),
        "clock": dt.time(23, 59, 59, 999999),
        "tags": ["", None, "b"],
        "counts": {"k": 1, "n": None},
        "place": {"zip": "0123", "xy": [1.5, 5e-324]},
        "free": '{"a":1}',
    },
    {
        "id": -(2**63),
        "big": 0,
        "total": Decimal("-0.01"),
        "ratio": -1.7976931348623157e308,
        "flag": False,
        "text": "",
        "data": b"",
        "at": dt.datetime(1600, 1, 1, 0, 0, 0, 1, UTC),
        "day": dt.date(1600, 1, 1),
        "clock": dt.time(0),
        "tags": [],
        "counts": {},
        "place": {"zip": None, "xy": []},
        "free": None,
    },
    {"id": 0, **dict.fromkeys([name for name in COLUMNS if name not in {"id", "country"}])},
]
ROWS.sort(key=lambda row: row["id"])
"""By their ids, without the column `country`, which lakes may be partitioned by."""


def messages() -> list[dict[str, Any]]:
    """What a tap sends: the stream `s`, and a STATE."""
    node = {"type": "object", "properties": COLUMNS}
    lines: list[dict[str, Any]] = [{"type": "SCHEMA", "stream": "s", "schema": node, "key_properties": ["id"]}]
    lines += [{"type": "RECORD", "stream": "s", "record": _sent(row)} for row in ROWS]
    return [*lines, {"type": "STATE", "value": {}}]


def _sent(row: Row) -> Row:
    found = {name: _as_json(value) for name, value in row.items()}
    if row["free"] is not None:
        found["free"] = json.loads(row["free"])
    return {**found, "country": "at"}


def _as_json(value: Any) -> Any:
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case dt.date() | dt.time():
            return value.isoformat()
        case Decimal():
            return str(value)
    return value


def same(found: Iterable[Row]) -> None:
    """The rows that a reader found are ROWS: the same values, of the same Python types.

    A reader of a format that has not all the types gives text for some, which must be exact.
    """
    rows = [{name: value_of(name, value) for name, value in row.items() if name != "country"} for row in found]
    rows.sort(key=lambda row: row["id"])
    assert rows == ROWS, f"{rows}\nis not\n{ROWS}"
    kinds = [{name: type(value) for name, value in row.items()} for row in rows]
    assert kinds == [{name: type(value) for name, value in row.items()} for row in ROWS]


def value_of(name: str, value: Any) -> Any:
    """A column's value as Python has it, from what readers of all kinds give for it."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return None
    match name:
        case "id" | "big":
            assert not isinstance(value, float)
            return int(value)
        case "total":
            assert not isinstance(value, float)
            return Decimal(str(value))
        case "ratio":
            return float(value)
        case "flag":
            return {"true": True, "false": False}[value] if isinstance(value, str) else value
        case "data":
            return base64.b64decode(value) if isinstance(value, str) else bytes(value)
        case "at":
            return _moment(value)
        case "day":
            return dt.date.fromisoformat(value) if isinstance(value, str) else value
        case "clock":
            return dt.time.fromisoformat(value) if isinstance(value, str) else value
        case "tags":
            return list(_parsed(value))
        case "counts":
            found = _parsed(value)
            pairs = (tuple(each.values()) if isinstance(each, dict) else each for each in found)
            return found if isinstance(found, dict) else dict(pairs)
        case "place":
            found = _parsed(value)
            return {"zip": found["zip"], "xy": [float(each) for each in found["xy"]]}
    return value


def _moment(value: Any) -> dt.datetime:
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
        value = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    elif hasattr(value, "to_pydatetime"):
        value = value.to_pydatetime()
    moment: dt.datetime = value.astimezone(dt.UTC)
    return moment


def _parsed(value: Any) -> Any:
    """What stands as text in a format without nested types, and is JSON there."""
    return json.loads(value) if isinstance(value, str) else value
