"""The type names that users write in `column_types`."""

from __future__ import annotations

import re

import pyarrow as pa

from melisma.arrow.types import ColumnType, Kind
from melisma.errors import ConfigError

__all__ = ["MAX_PRECISION", "TYPE_NAMES", "named_type"]

MAX_PRECISION = 38
"""Digits that a decimal128 holds."""

_SIMPLE = {
    "string": ColumnType(Kind.STRING, pa.string()),
    "integer": ColumnType(Kind.INTEGER, pa.int64()),
    "uint64": ColumnType(Kind.INTEGER, pa.uint64()),
    "number": ColumnType(Kind.NUMBER, pa.float64()),
    "boolean": ColumnType(Kind.BOOLEAN, pa.bool_()),
    "timestamp": ColumnType(Kind.TIMESTAMP, pa.timestamp("us", "UTC")),
    "date": ColumnType(Kind.DATE, pa.date32()),
    "time": ColumnType(Kind.TIME, pa.time64("us")),
    "binary": ColumnType(Kind.BINARY, pa.binary()),
    "json": ColumnType(Kind.JSON, pa.string()),
}

TYPE_NAMES = (*_SIMPLE, "decimal(p,s)")
"""What may be written."""

_DECIMAL = re.compile(r"decimal\(([0-9]{1,3}),([0-9]{1,3})\)")


def named_type(setting: str, name: object) -> ColumnType:
    """The nullable, unconstrained type that a name stands for; letter case and blanks do not matter.

    Args:
        setting: the setting's full name, for errors.
        name: one of `TYPE_NAMES`.

    Raises:
        ConfigError: the name is not one of them, or a decimal's digits are out of range.
    """
    text = "".join(name.split()).lower() if isinstance(name, str) else ""
    if text in _SIMPLE:
        return _SIMPLE[text]
    if match := _DECIMAL.fullmatch(text):
        precision, scale = int(match[1]), int(match[2])
        if 1 <= precision <= MAX_PRECISION and scale <= precision:
            return ColumnType(Kind.DECIMAL, pa.decimal128(precision, scale))
        fix = f"In decimal(p,s), p is 1 to {MAX_PRECISION} digits in all and s is 0 to p digits after the point"
        raise ConfigError(setting, "a decimal cannot have these digits", fix)
    raise ConfigError(setting, "unknown type name", f"Valid names are {', '.join(TYPE_NAMES)}")
