"""MySQL's and MariaDB's types: the JSON Schema of each, and the SQL that reads it in a form that is exact.

Rows come as text. Where the server's text of a type is not exact or not text (FLOAT has six digits, BIT comes as raw
bytes), an expression gives another; geometries come as they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

__all__ = ["Column", "Kind", "MyType", "map_column"]

Node = dict[str, Any]

_STRING: Node = {"type": "string"}
_INTEGER: Node = {"type": "integer"}
_LARGE: Node = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}
_BASE64: Node = {"type": "string", "contentEncoding": "base64"}
_WIDE: Node = {"type": "string", "format": "singer.decimal"}
_JSON: Node = {"type": "string", "contentMediaType": "application/json"}
_DATE_TIME: Node = {"type": "string", "format": "date-time"}

_MOST_DIGITS = 38  # of Arrow's decimal128


class Kind(Enum):
    """What a column's text is read as."""

    INTEGER = "int64"
    LARGE = "uint64"
    FLOAT = "float"
    DOUBLE = "double"
    DECIMAL = "decimal"
    BOOLEAN = "bool"
    DATE = "date"
    DATE_TIME = "timestamp"
    TEXT = "string"
    BINARY = "binary"
    SHAPE = "geometry"


@dataclass(frozen=True, slots=True)
class MyType:
    """A column's type, as information_schema has it.

    Attributes:
        name: `data_type`: bigint, varchar, ...
        sql: `column_type`: bigint(20) unsigned, enum('a','b'), ...
        precision: digits of a decimal, bits of a bit.
        charset: the character set of a text; None for others.
        is_json: whether the server takes nothing but JSON.
    """

    name: str
    sql: str
    precision: int = 0
    scale: int = 0
    charset: str | None = None
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is read.

    Attributes:
        sql: the expression.
        node: its JSON Schema; it may be null.
        kind: what the text is read as.
        text: the expression for the value as the server writes it as text.
        digits: precision and scale of a decimal.
        sorts_as: how a key's value is written in SQL (number, text, time, binary); None where it cannot be one exactly.
        type: what the server says of it.
    """

    sql: str
    node: Node
    kind: Kind
    text: str
    type: MyType
    digits: tuple[int, int] | None = None
    sorts_as: str | None = None

    def as_text(self) -> Column:
        """The same column as text."""
        if self.kind is Kind.SHAPE:
            return self
        return replace(self, sql=self.text, node=_nullable(_STRING), kind=Kind.TEXT, digits=None)


_INTEGERS = {"tinyint", "smallint", "mediumint", "int", "integer", "bigint"}
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext"}
_LABELS = {"enum", "set"}  # sorted by their number, compared as text
_OCTETS = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_NAMES = {"uuid", "inet4", "inet6"}
_SHAPES = {
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
    "geomcollection",
}


def map_column(name: str, kind: MyType, *, dates_as_string: bool = False, tinyint1_as_boolean: bool = False) -> Column:
    """How a column of a type is read; `name` is its quoted name."""
    text = f"CAST({name} AS CHAR)"
    boolean = kind.sql.startswith("tinyint(1)") and tinyint1_as_boolean
    if boolean or (kind.name == "bit" and kind.precision == 1):
        digit = name if boolean else f"({name} + 0)"
        return Column(digit, _nullable({"type": "boolean"}), Kind.BOOLEAN, f"CAST({digit} AS CHAR)", kind)
    if kind.name == "bit":
        return _integer(f"({name} + 0)", kind, large=kind.precision > 63)
    if kind.name in _INTEGERS:
        return _integer(name, kind, large=kind.name == "bigint" and "unsigned" in kind.sql)
    if kind.name == "year":
        return _integer(name, kind, large=False)
    if kind.name == "decimal":
        return _decimal(name, text, kind)
    if kind.name == "float":  # as text it has six digits, as a double all
        return Column(f"({name} + 0e0)", _nullable({"type": "number"}), Kind.FLOAT, text, kind)
    if kind.name == "double":
        return Column(name, _nullable({"type": "number"}), Kind.DOUBLE, text, kind)
    if kind.name in {"date", "datetime", "timestamp"}:
        if dates_as_string:
            return Column(text, _nullable(_STRING), Kind.TEXT, text, kind, sorts_as="time")
        node, read = (_nullable({"type": "string", "format": "date"}), Kind.DATE)
        if kind.name != "date":
            node, read = _nullable(_DATE_TIME), Kind.DATE_TIME
        return Column(name, node, read, text, kind, sorts_as="time")
    if kind.name == "time":  # goes from -838 to 838 hours, which is no time of day
        return Column(name, _nullable(_STRING), Kind.TEXT, text, kind, sorts_as="text")
    if kind.name == "json" or kind.is_json:
        return Column(name, _nullable(_JSON), Kind.TEXT, text, kind)
    if kind.name in _TEXTS | _LABELS | _NAMES:
        sorts_as = None if kind.name in _LABELS else "text"
        return Column(name, _nullable(_STRING), Kind.TEXT, text, kind, sorts_as=sorts_as)
    if kind.name in _OCTETS or kind.name == "vector":
        sorts_as = None if kind.name == "vector" else "binary"
        return Column(name, _nullable(_BASE64), Kind.BINARY, f"HEX({name})", kind, sorts_as=sorts_as)
    if kind.name in _SHAPES:
        return Column(name, _nullable(_STRING), Kind.SHAPE, name, kind)
    return Column(text, _nullable(_STRING), Kind.TEXT, text, kind)


def _integer(sql: str, kind: MyType, *, large: bool) -> Column:
    node, read = (_LARGE, Kind.LARGE) if large else (_INTEGER, Kind.INTEGER)
    return Column(sql, _nullable(node), read, f"CAST({sql} AS CHAR)", kind, sorts_as="number")


def _decimal(name: str, text: str, kind: MyType) -> Column:
    if kind.precision > _MOST_DIGITS:
        return Column(
            name, _nullable({"type": "string", "format": "singer.decimal"}), Kind.TEXT, text, kind, sorts_as="number"
        )
    digits = (kind.precision, kind.scale)
    node: Node = {"type": "number", "precision": kind.precision, "scale": kind.scale}
    return Column(name, _nullable(node), Kind.DECIMAL, text, kind, digits=digits, sorts_as="number")


def _nullable(node: Node) -> Node:
    return {**node, "type": [node["type"], "null"]}
