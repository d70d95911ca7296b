"""JSON Schema to the type tree: what a stream's columns are.

The table is on one page in `docs/types.md`, which `melisma.arrow.type_table` writes from this mapping. It loses
nothing: a schema becomes a type that holds every value it allows, or JSON text, or an error. The two exceptions
are by definition: `number` is the nearest double, and a decimal wider than 38 digits is cut to what fits, where a
value that does not fit is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa

from melisma.arrow.column_types import named_type
from melisma.arrow.numeric import DECIMAL_FORMATS, decimal_digits, fit_decimal, integer_type
from melisma.arrow.refs import KEYWORDS, MAX_DEPTH, TYPES, Alternative, Document, same_value
from melisma.arrow.types import ColumnType, Field, Kind, StreamSchema
from melisma.errors import BadSchema, ConfigError, printable

__all__ = ["ITEMS", "VALUES", "stream_schema"]

ITEMS = "[]"
"""How a column path names the items of a list, here and in error messages: `tags[]`."""

VALUES = ".*"
"""How a column path names the values of a map: `labels.*`."""

_ANY = ("enum", "const")
_CONSTRAINTS = {
    "boolean": _ANY,
    "integer": (*_ANY, "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": (*_ANY, "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": (*_ANY, "minLength", "maxLength", "pattern", "format", "contentEncoding"),
    "object": (*_ANY, "required", "minProperties", "maxProperties"),
    "array": (*_ANY, "minItems", "maxItems", "uniqueItems"),
}
_FORMATS = {
    "date-time": (Kind.TIMESTAMP, pa.timestamp("us", "UTC")),
    "date": (Kind.DATE, pa.date32()),
    "time": (Kind.TIME, pa.time64("us")),
}
_NUMERIC = {Kind.INTEGER, Kind.NUMBER, Kind.DECIMAL}
_TEXTUAL = {Kind.STRING, Kind.TIMESTAMP, Kind.DATE, Kind.TIME, Kind.BINARY}
_JSON_TEXT = ColumnType(Kind.JSON, pa.string())


def stream_schema(
    stream: str,
    schema: dict[str, Any],
    key_properties: Sequence[str] | None = (),
    column_types: Mapping[str, str] | None = None,
) -> StreamSchema:
    """Map a SCHEMA message to columns.

    Args:
        stream: the stream's name.
        schema: the JSON Schema as the tap sent it.
        key_properties: the primary key's columns; None, as some taps write, is no key.
        column_types: types that override the mapping, by column path: `total`, `address.zip`, `tags[]` for the
            items of a list, `labels.*` for the values of a map. The values are `column_types.TYPE_NAMES`.

    Raises:
        BadSchema: the schema, a name or the key cannot be mapped.
        ConfigError: an override names no column or no type.
    """
    overrides = {}
    for path, name in (column_types or {}).items():
        overrides[path] = named_type(_setting(stream, path), name)
    root = _Mapping(stream, schema, overrides).root()
    if overrides:
        _check_overrides(stream, overrides, root)
    return StreamSchema(stream, root, _key(stream, key_properties, root), schema)


_LEAVES: dict[str, ColumnType] = {}
"""Columns by their nodes: nearly all columns of all streams are of a few kinds, and it is the reading that costs."""

_MOST_LEAVES, _LONGEST_LEAF = 1_000, 500
_LEAF_KEYWORDS = {"type", "nullable", "precision", "scale", *_CONSTRAINTS["number"], *_CONSTRAINTS["string"]} - {*_ANY}


def _leaf(node: object) -> str:
    """The keywords of a node that has nothing in it, as text; empty for any other one, or where they are long."""
    if not isinstance(node, dict):
        return ""
    said = {key: value for key, value in node.items() if key in KEYWORDS}
    kinds = said.get("type")
    if not isinstance(kinds, str | list) or "object" in kinds or "array" in kinds:
        return ""
    try:
        text = repr(said) if said.keys() <= _LEAF_KEYWORDS else ""
    except ValueError:  # an integer of thousands of digits
        return ""
    return text if len(text) <= _LONGEST_LEAF else ""


class _Mapping:
    """The mapping of one schema."""

    def __init__(self, stream: str, schema: object, overrides: Mapping[str, ColumnType]) -> None:
        self._stream = stream
        if not isinstance(schema, dict):
            raise BadSchema("the schema is not an object", stream=stream, fix='Send {"type": "object", ...}')
        self._schema = schema
        self._document = Document(stream, schema)
        self._overrides = overrides

    def root(self) -> ColumnType:
        """The record's struct."""
        records = [
            a
            for a in self._document.alternatives(self._schema, frozenset({""}))
            if "object" in a.keywords.get("type", ["object"])
        ]
        if not records:
            raise self._error("the schema's type is not object", None, "A record is an object with properties")
        properties = records[0].keywords.get("properties")
        if properties is None or records[0].opaque:
            raise self._error("the schema has no properties", None, "Name the stream's columns in properties")
        if any(r.keywords.get("properties") != properties for r in records):
            rule = "the schema offers more than one set of properties"
            raise self._error(rule, None, "Send one object with all columns, or one stream for each kind of record")
        return self._unite([self._struct(record, None, 0) for record in records])

    def _column(self, node: object, path: str, depth: int, active: frozenset[str]) -> ColumnType:
        override = self._overrides.get(path)
        if override is not None:
            return replace(override, nullable=self._allows_null(node, path, active))
        leaf = _leaf(node) if depth <= MAX_DEPTH else ""
        found = _LEAVES.get(leaf)
        if found is not None:
            self._document.count(path)
            return found
        found = self._any_column(node, path, depth, active)
        if leaf and len(_LEAVES) < _MOST_LEAVES:
            _LEAVES[leaf] = found
        return found

    def _any_column(self, node: object, path: str, depth: int, active: frozenset[str]) -> ColumnType:
        alternatives = self._document.alternatives(node, active, column=path)
        if depth > MAX_DEPTH or any(a.opaque for a in alternatives):
            return replace(_JSON_TEXT, nullable=not alternatives or any(a.allows_null for a in alternatives))
        members: list[ColumnType] = []
        for alternative in alternatives:
            keywords = alternative.keywords
            types = keywords["type"] if "type" in keywords else _implied_types(keywords)
            members += [_JSON_TEXT] if types is None else [self._typed(t, alternative, path, depth) for t in types]
        nullable = any(a.allows_null for a in alternatives)
        if not members and not nullable:
            fix = "Mend the schema, deselect the column, or set column_types for it"
            raise self._error("no value can match its schema", path, fix)
        united = self._unite(members or [_JSON_TEXT])
        return united if united.nullable is nullable else replace(united, nullable=nullable)

    def _allows_null(self, node: object, path: str, active: frozenset[str]) -> bool:
        try:
            alternatives = self._document.alternatives(node, active, column=path)
        except BadSchema:  # the override is the way out of a schema that cannot be mapped
            return True
        return not alternatives or any(a.allows_null for a in alternatives)

    def _typed(self, name: str, alternative: Alternative, path: str, depth: int) -> ColumnType:
        """The column for one JSON type of an alternative, null aside."""
        keywords = alternative.keywords
        if name == "object":
            return self._object(alternative, path, depth)
        if name == "array":
            return self._array(alternative, path, depth)
        schema = _constraints(name, keywords)
        if name == "boolean":
            return ColumnType(Kind.BOOLEAN, pa.bool_(), schema=schema)
        if name == "integer":
            arrow = integer_type(keywords)
            kind = Kind.DECIMAL if pa.types.is_decimal(arrow) else Kind.INTEGER
            return ColumnType(kind, arrow, schema=schema)
        if name == "number" or keywords.get("format") in DECIMAL_FORMATS:
            digits = decimal_digits(keywords)
            if digits is None:
                return ColumnType(Kind.NUMBER, pa.float64(), schema=schema)
            return ColumnType(Kind.DECIMAL, pa.decimal128(*digits), schema=schema)
        if keywords.get("contentEncoding", "").lower() == "base64":
            return ColumnType(Kind.BINARY, pa.binary(), schema=schema)
        kind, arrow = _FORMATS.get(keywords.get("format", ""), (Kind.STRING, pa.string()))
        return ColumnType(kind, arrow, schema=schema)

    def _object(self, alternative: Alternative, path: str, depth: int) -> ColumnType:
        keywords = alternative.keywords
        if keywords.get("properties"):
            return self._struct(alternative, path, depth)
        schema = _constraints("object", keywords)
        values = keywords.get("additionalProperties")
        typed = isinstance(values, dict) and values and "patternProperties" not in keywords
        item_path = path + VALUES
        if not typed and item_path not in self._overrides:
            return replace(_JSON_TEXT, schema=schema)
        item = self._column(values if typed else {}, item_path, depth + 1, alternative.active)
        return ColumnType(Kind.MAP, pa.map_(pa.string(), item.arrow), schema=schema, item=item)

    def _array(self, alternative: Alternative, path: str, depth: int) -> ColumnType:
        keywords = alternative.keywords
        schema = _constraints("array", keywords)
        items = keywords.get("items")
        typed = items is not None and not isinstance(items, bool | list) and items != {}
        typed = typed and "prefixItems" not in keywords
        item_path = path + ITEMS
        if not typed and item_path not in self._overrides:
            return replace(_JSON_TEXT, schema=schema)
        item = self._column(items if typed else {}, item_path, depth + 1, alternative.active)
        return ColumnType(Kind.LIST, pa.list_(item.arrow), schema=schema, item=item)

    def _struct(self, alternative: Alternative, path: str | None, depth: int) -> ColumnType:
        keywords = alternative.keywords
        properties: dict[str, Any] = keywords["properties"]
        self._check_names(properties, path)
        required = {name for name in keywords.get("required", ()) if isinstance(name, str)}
        fields = tuple(
            Field(
                name,
                self._column(node, _member_path(path, name), depth + 1, alternative.active),
                name in required,
            )
            for name, node in properties.items()
        )
        closed = keywords.get("additionalProperties") is False and "patternProperties" not in keywords
        schema = _constraints("object", keywords)
        return ColumnType(
            Kind.STRUCT, _struct_type(fields), nullable=path is not None, schema=schema, fields=fields, closed=closed
        )

    def _check_names(self, names: Iterable[str], path: str | None) -> None:
        seen: dict[str, str] = {}
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError:
                rule = "its name is not valid Unicode (it holds half a surrogate pair)"
                raise self._error(rule, _member_path(path, name), "Rename it in the source or the tap") from None
            first = seen.setdefault(name.lower(), name)
            if first != name:
                what = "columns" if path is None else "members"
                rule = (
                    f'{what} "{printable(first)}" and "{printable(name)}" differ only in letter case, which '
                    "readers such as DuckDB and Spark cannot tell apart"
                )
                fix = "Rename or remove one of them with stream_maps"
                if path is not None:
                    fix += ', or keep the whole column as text with column_types: "json"'
                raise self._error(rule, path, fix)

    def _unite(self, members: list[ColumnType]) -> ColumnType:
        """One type that holds the values of every member."""
        first = members[0]
        if len(members) == 1:
            return first
        nullable = any(m.nullable for m in members)
        if all(_shape(m) == _shape(first) for m in members):
            fields = tuple(
                Field(
                    f.name,
                    self._unite([m.fields[i].type for m in members]),
                    all(m.fields[i].required for m in members),
                )
                for i, f in enumerate(first.fields)
            )
            items = [m.item for m in members if m.item is not None]
            return replace(
                first,
                nullable=nullable,
                schema=_common_constraints(members),
                fields=fields,
                item=self._unite(items) if items else None,
                closed=all(m.closed for m in members),
            )
        kinds = {m.kind for m in members}
        texts = [
            m for m in members if m.kind in _TEXTUAL or (m.kind is Kind.DECIMAL and m.schema.get("type") == "string")
        ]
        kind, arrow = Kind.JSON, pa.string()
        if kinds <= _NUMERIC:
            if Kind.NUMBER in kinds and not texts:
                kind, arrow = Kind.NUMBER, pa.float64()
            else:
                kind, arrow = Kind.DECIMAL, pa.decimal128(*_common_digits(members))
        elif len(texts) == len(members):
            kind = Kind.STRING
        return ColumnType(kind, arrow, nullable, _common_constraints(members))

    def _error(self, rule: str, column: str | None, fix: str) -> BadSchema:
        return BadSchema(rule, stream=self._stream, column=column, fix=fix)


def _shape(column: ColumnType) -> tuple[object, ...]:
    item = _shape(column.item) if column.item is not None else None
    return column.kind, column.arrow, tuple(_shape(f.type) for f in column.fields), item


def _common_digits(members: Iterable[ColumnType]) -> tuple[int, int]:
    """Precision and scale that hold every member; a double's digits count as those of an unbounded decimal."""
    whole, scale = 1, 0
    for member in members:
        if pa.types.is_decimal(member.arrow):
            member_whole, member_scale = member.arrow.precision - member.arrow.scale, member.arrow.scale
        elif member.kind is Kind.NUMBER:
            member_whole, member_scale = 20, 18
        else:
            member_whole, member_scale = (20 if member.arrow == pa.uint64() else 19), 0
        whole, scale = max(whole, member_whole), max(scale, member_scale)
    return fit_decimal(whole + scale, scale)


def _constraints(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that hold values of one JSON type to something."""
    return {"type": name} | {key: keywords[key] for key in _CONSTRAINTS[name] if key in keywords}


def _common_constraints(members: Sequence[ColumnType]) -> dict[str, Any]:
    """What every member demands: a value that breaks it matches none of them."""
    schemas = [m.schema for m in members]
    if not all(schemas):
        return {}
    first, *others = schemas
    common = {
        key: value
        for key, value in first.items()
        if all(key in other and same_value(value, other[key]) for other in others)
    }
    types = [t for t in TYPES if any(t in _as_list(s["type"]) for s in schemas)]
    if "number" in types and "integer" in types:
        types.remove("integer")
    common["type"] = types[0] if len(types) == 1 else types
    if "enum" not in common and "const" not in common:
        choices = [_choices(s) for s in schemas]
        if all(choice is not None for choice in choices):
            values = [value for choice in choices for value in choice or ()]
            common["enum"] = _distinct(values)
    return common


def _choices(schema: Mapping[str, Any]) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _distinct(values: Iterable[Any]) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if not any(same_value(value, other) for other in kept):
            kept.append(value)
    return kept


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _implied_types(keywords: Mapping[str, Any]) -> list[str] | None:
    """The types that a node without `type` means; None if it means nothing in particular."""
    choices = _choices(keywords)
    if choices is not None:
        return [t for t in TYPES if any(_type_of(value) == t for value in choices)]
    if isinstance(keywords.get("additionalProperties"), dict) or _has(
        keywords, "object", "properties", "patternProperties"
    ):
        return ["object"]
    if _has(keywords, "array", "items", "prefixItems"):
        return ["array"]
    if keywords.get("format") in ("int32", "int64"):
        return ["integer"]
    if _has(keywords, "number") or keywords.get("format") in ("float", "double"):
        return ["number"]
    return ["string"] if _has(keywords, "string") else None


def _has(keywords: Mapping[str, Any], name: str, *more: str) -> bool:
    return any(key in keywords for key in (*_CONSTRAINTS[name], *more))


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    for name, kind in (("integer", int), ("number", float | Decimal), ("string", str), ("array", list)):
        if isinstance(value, kind):
            return name
    return "object"


def _struct_type(fields: Iterable[Field]) -> pa.DataType:
    return pa.struct([pa.field(f.name, f.type.arrow) for f in fields])


def _key(stream: str, key_properties: object, root: ColumnType) -> tuple[str, ...]:
    names = [] if key_properties is None else key_properties
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise BadSchema("key_properties is not a list of names", stream=stream, fix="Send a list of column names")
    columns = {f.name for f in root.fields}
    for position, name in enumerate(names):
        if name not in columns:
            fix = "Select the column, or correct key_properties in the catalog's metadata (table-key-properties)"
            raise BadSchema("key_properties names it, but it is not in properties", stream=stream, column=name, fix=fix)
        if name in names[:position]:
            raise BadSchema("key_properties names it twice", stream=stream, column=name, fix="Name it once")
    return tuple(names)


def _member_path(path: str | None, name: str) -> str:
    return name if path is None else f"{path}.{name}"


def _paths(column: ColumnType, path: str | None = None) -> Iterator[str]:
    """The paths of every column and of what they hold."""
    if path is not None:
        yield path
    for member in column.fields:
        yield from _paths(member.type, _member_path(path, member.name))
    if column.item is not None:
        ending = ITEMS if column.kind is Kind.LIST else VALUES
        yield from _paths(column.item, f"{path}{ending}")


def _check_overrides(stream: str, overrides: Iterable[str], root: ColumnType) -> None:
    paths = set(_paths(root))
    for path in overrides:
        if path in paths:
            continue
        close = [p for p in paths if p.lower() == path.lower()] or difflib.get_close_matches(path, paths, n=3)
        names = " or ".join(f'"{printable(name)}"' for name in close)
        fix = f"Did you mean {names}?" if names else "Members are written address.zip, items tags[], values labels.*"
        raise ConfigError(_setting(stream, path), "the stream has no such column", fix)


def _setting(stream: str, path: str) -> str:
    return printable(f"column_types.{stream}.{path}")
