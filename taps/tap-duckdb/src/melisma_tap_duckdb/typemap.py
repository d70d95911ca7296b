"""DuckDB's types: the JSON Schema of each, and the cast that brings it into one that is exact in Arrow and JSON.

HUGEINT has values of 39 digits, and Arrow's widest common decimal 38: it is cast to DECIMAL(38,0), which refuses
those. UHUGEINT and TIMETZ come out of DuckDB's own Arrow export wrong (wrapped around; without the offset).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from melisma.errors import BadSchema
from melisma.sql.dialect import DUCKDB

__all__ = ["Mapped", "map_type"]

Node = dict[str, Any]

_JSON = "application/json"
_TEXT = "VARCHAR"
_INTEGER: Node = {"type": "integer"}
_STRING: Node = {"type": "string"}
_DATE_TIME: Node = {"type": "string", "format": "date-time"}
_TIME: Node = {"type": "string", "format": "time"}
_WIDEST = 10**38 - 1
_HUGE: Node = {"type": "integer", "minimum": -_WIDEST, "maximum": _WIDEST}

_SCALARS: dict[str, tuple[str | None, Node]] = {
    "boolean": (None, {"type": "boolean"}),
    "tinyint": (None, _INTEGER),
    "smallint": (None, _INTEGER),
    "integer": (None, _INTEGER),
    "bigint": (None, _INTEGER),
    "utinyint": (None, _INTEGER),
    "usmallint": (None, _INTEGER),
    "uinteger": (None, _INTEGER),
    "ubigint": (None, {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}),
    "hugeint": ("DECIMAL(38,0)", _HUGE),
    "uhugeint": ("DECIMAL(38,0)", {**_HUGE, "minimum": 0}),
    "bignum": (_TEXT, _STRING),
    "float": (None, {"type": "number"}),
    "double": (None, {"type": "number"}),
    "varchar": (None, _STRING),
    "uuid": (None, _STRING),
    "enum": (_TEXT, _STRING),
    "bit": (_TEXT, _STRING),
    "blob": (None, {"type": "string", "contentEncoding": "base64"}),
    "date": (None, {"type": "string", "format": "date"}),
    "time": (None, _TIME),
    "time_ns": (None, _TIME),
    "time with time zone": (_TEXT, _STRING),
    "timestamp": (None, _DATE_TIME),
    "timestamp_s": (None, _DATE_TIME),
    "timestamp_ms": (None, _DATE_TIME),
    "timestamp_ns": (None, _DATE_TIME),
    "timestamp with time zone": (None, _DATE_TIME),
    "timestamptz_ns": (None, _DATE_TIME),
    "interval": (_TEXT, _STRING),
    "variant": ("JSON", {**_STRING, "contentMediaType": _JSON}),
    "geometry": (_TEXT, _STRING),
    "null": (None, _STRING),
    "sqlnull": (None, _STRING),
    "type": (_TEXT, _STRING),
}
"""By DuckDB's id: the type to cast to (None: it is exact as it is), and the JSON Schema."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """How a column is read.

    Attributes:
        cast: makes SQL that reads it from SQL that names it.
        node: its JSON Schema; everything in it may be null.
    """

    cast: Callable[[str], str]
    node: Node


def map_type(kind: Any, column: str) -> Mapped:
    """The mapping of a column's type (a DuckDBPyType).

    Raises:
        BadSchema: there is none.
    """
    if kind.id == "union":
        return _union(kind, column)
    target, node = _walk(kind, column)
    return Mapped(lambda name: name if target == str(kind) else f"CAST({name} AS {target})", node)


def _walk(kind: Any, path: str) -> tuple[str, Node]:
    """The SQL type to read the type as, and its JSON Schema."""
    name = str(kind.id)
    if name == "decimal":
        digits = dict(kind.children)
        return str(kind), _nullable({"type": "number", "precision": digits["precision"], "scale": digits["scale"]})
    if str(kind) == "JSON":
        return "JSON", _nullable({**_STRING, "contentMediaType": _JSON})
    if name in {"list", "array"}:
        children = dict(kind.children)
        item, node = _walk(children["child"], f"{path}[]")
        size = children.get("size", "")
        same = item == str(children["child"])
        return str(kind) if same else f"{item}[{size}]", _nullable({"type": "array", "items": node})
    if name in {"struct", "tuple"}:
        return _struct(kind, path)
    if name == "map":
        children = dict(kind.children)
        item, node = _walk(children["value"], f"{path}.*")
        same = item == str(children["value"]) and str(children["key"]) == _TEXT
        target = str(kind) if same else f"MAP({_TEXT}, {item})"
        return target, _nullable({"type": "object", "additionalProperties": node})
    if name not in _SCALARS:
        rule = f"DuckDB's type {kind} inside another type has no form in JSON"
        if name != "union":
            rule = f"DuckDB's type {kind} is not known to this version of the tap"
        raise BadSchema(rule, column=path, fix="Read it with a query that casts the column to VARCHAR or JSON")
    cast, scalar = _SCALARS[name]
    return cast or str(kind), _nullable(dict(scalar))


def _struct(kind: Any, path: str) -> tuple[str, Node]:
    members: list[str] = []
    properties: dict[str, Node] = {}
    same = True
    for number, (given, member) in enumerate(kind.children, 1):
        name = given or f"element{number}"
        target, properties[name] = _walk(member, f"{path}.{name}")
        same = same and target == str(member) and bool(given)
        members.append(f"{DUCKDB.quote(name)} {target}")
    node: Node = _nullable({"type": "object", "properties": properties})
    return str(kind) if same else f"STRUCT({', '.join(members)})", node


def _union(kind: Any, column: str) -> Mapped:
    """A union as an object: which member it holds, and all members, of which only that one has a value."""
    members = {name: _walk(member, f"{column}.{name}") for name, member in kind.children if name}
    if "tag" in members:
        rule = 'a member of the UNION is named "tag", as what tells the members apart is'
        raise BadSchema(rule, column=column, fix="Read it with a query that casts the column to JSON")

    def read(name: str) -> str:
        parts = [f"'tag': CAST(union_tag({name}) AS {_TEXT})"]
        for member, (target, _) in members.items():
            label = member.replace("'", "''")
            parts.append(f"'{label}': CAST(union_extract({name}, '{label}') AS {target})")
        return f"CASE WHEN {name} IS NOT NULL THEN {{{', '.join(parts)}}} END"

    properties = {"tag": _nullable(dict(_STRING)), **{name: node for name, (_, node) in members.items()}}
    return Mapped(read, _nullable({"type": "object", "properties": properties}))


def _nullable(node: Node) -> Node:
    return {**node, "type": [node["type"], "null"]}
