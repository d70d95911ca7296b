"""PostgreSQL's types: the JSON Schema of each, and the SQL that reads it in a form that is exact in Arrow and JSON.

The driver makes Arrow from binary COPY. Where it has no exact Arrow type (intervals with time zones aside, that is
most of PostgreSQL's own kinds), the column is cast to text on the server, which is the form that PostgreSQL promises
to read back. Two of its conversions lose something: it lays the rows of a nested array end to end, and takes an oid
beyond 2^31 for a negative number. Numerics are cast too: the driver makes the same text, in four times the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Column", "PgType", "map_column"]

Node = dict[str, Any]

_STRING: Node = {"type": "string"}
_INTEGER: Node = {"type": "integer"}
_DECIMAL: Node = {"type": "string", "format": "singer.decimal"}
_JSON: Node = {"type": "string", "contentMediaType": "application/json"}
_DATE_TIME: Node = {"type": "string", "format": "date-time"}
_SYSTEM = "pg_catalog"

_SCALARS: dict[str, tuple[str | None, Node]] = {
    "bool": (None, {"type": "boolean"}),
    "int2": (None, _INTEGER),
    "int4": (None, _INTEGER),
    "int8": (None, _INTEGER),
    "oid": ("bigint", _INTEGER),
    "float4": (None, {"type": "number"}),
    "float8": (None, {"type": "number"}),
    "numeric": ("text", _DECIMAL),
    "money": ("numeric::text", _DECIMAL),
    "text": (None, _STRING),
    "varchar": (None, _STRING),
    "bpchar": (None, _STRING),
    "name": (None, _STRING),
    "bytea": (None, {"type": "string", "contentEncoding": "base64"}),
    "date": (None, {"type": "string", "format": "date"}),
    "time": (None, {"type": "string", "format": "time"}),
    "timestamp": (None, _DATE_TIME),
    "timestamptz": (None, _DATE_TIME),
    "json": ("text", _JSON),
    "jsonb": ("text", _JSON),
}
"""Of pg_catalog, by name: the type to cast to (None: the driver is exact), and the JSON Schema. Others become text."""

_NOT_SORTED = {"contentMediaType", "contentEncoding"}
_DATES = {"date", "timestamp", "timestamptz"}
_AS_WRITTEN = {"oid", "json", "jsonb", "uuid", "interval", "timetz", "bit", "varbit"} | _DATES
"""Types that are cast, to a text that is what their output function writes, or to a number with the same digits."""


@dataclass(frozen=True, slots=True)
class PgType:
    """A type, as the catalog has it.

    Attributes:
        kind: pg_type.typtype: b(ase), c(omposite), d(omain), e(num), r(ange), m(ultirange), p(seudo).
        sql: how SQL names it, with its modifier.
        modifier: pg_attribute.atttypmod; -1 for none.
        item: the type of an array's items.
        base: the type under a domain.
    """

    schema: str
    name: str
    kind: str
    sql: str
    modifier: int = -1
    item: PgType | None = None
    base: PgType | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is read.

    Attributes:
        sql: the expression.
        node: its JSON Schema; it may be null.
        digits: precision and scale where the driver's text becomes a decimal.
        flat: SQL that is false for an array of more than one dimension; None where that cannot be.
        sorts_as: the type in which a key's value is written in SQL; None where it cannot be one exactly.
        type: the column's type, as SQL names it.
        as_logged: whether `sql` gives what the type's output function writes, or what can be read from that.
    """

    sql: str
    node: Node
    digits: tuple[int, int] | None = None
    flat: str | None = None
    sorts_as: str | None = None
    type: str = ""
    as_logged: bool = False


def map_column(name: str, kind: PgType, *, dates_as_string: bool = False) -> Column:
    """How a column of a type is read; `name` is its quoted name."""
    return replace(_column(name, kind, dates_as_string=dates_as_string), type=kind.sql)


def _column(name: str, kind: PgType, *, dates_as_string: bool) -> Column:
    under = kind
    while under.base is not None:
        under = under.base
    value = name if under is kind else f"{name}::{under.sql}"
    if under.item is not None:
        return _array(name, value, under.item, dates_as_string=dates_as_string)
    if under.kind == "c":
        return Column(f"to_json({name})::text", _nullable(_JSON))
    if under.name == "hstore" and under.schema != _SYSTEM:
        return Column(f"{value}::json::text", _nullable(_JSON))
    cast, node = _scalar(under, dates_as_string=dates_as_string)
    digits = _digits(under)
    if digits is not None:
        node = {"type": "number", "precision": digits[0], "scale": digits[1]}
    exact = digits is not None or (node["type"] in {"integer", "string"} and not {*node} & _NOT_SORTED)
    return Column(
        value if cast is None else f"{name}::{cast}",
        _nullable(node),
        digits=digits,
        sorts_as=under.sql if exact else None,
        as_logged=under.kind == "e" or (under.schema == _SYSTEM and (cast is None or under.name in _AS_WRITTEN)),
    )


def _scalar(kind: PgType, *, dates_as_string: bool) -> tuple[str | None, Node]:
    if kind.schema != _SYSTEM or kind.kind != "b" or (dates_as_string and kind.name in _DATES):
        return "text", _STRING
    return _SCALARS.get(kind.name, ("text", _STRING))


def _array(name: str, value: str, item: PgType, *, dates_as_string: bool) -> Column:
    under = item
    while under.base is not None:
        under = under.base
    if under.kind == "c" or under.item is not None or (under.name == "hstore" and under.schema != _SYSTEM):
        return Column(f"to_json({name})::text", _nullable(_JSON))
    cast, node = _scalar(under, dates_as_string=dates_as_string)
    if under.name == "money":
        cast = "numeric[]::text"
    if cast is not None:
        value = f"{name}::{cast}[]"
    elif under is not item:
        value = f"{name}::{under.sql}[]"
    flat = f"coalesce(array_ndims({name}), 1) = 1"
    # A slice counts its items from one, as the driver wants them; a nested array is not handed to it.
    sql = f"CASE WHEN {flat} THEN ({value})[:] END"
    return Column(sql, _nullable({"type": "array", "items": _nullable(node)}), flat=flat)


def _digits(kind: PgType) -> tuple[int, int] | None:
    """Precision and scale of a numeric(p,s) that a decimal of 38 digits holds."""
    if kind.name != "numeric" or kind.schema != _SYSTEM or kind.modifier < 4:
        return None
    precision = ((kind.modifier - 4) >> 16) & 0xFFFF
    scale = (kind.modifier - 4) & 0x7FF
    scale = scale - 0x800 if scale >= 0x400 else scale
    return (precision, scale) if 0 <= scale <= precision <= 38 else None


def _nullable(node: Node) -> Node:
    return {**node, "type": [node["type"], "null"]}
